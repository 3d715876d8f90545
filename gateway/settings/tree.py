"""The settings tree: every option with its type, its one default and its meaning.

Owns what a single value may be. What values mean together is checked in `checks`; files, flags and variables are
read in `load`. Nothing here touches the disk.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    SecretStr,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

NOT_IN_FILE = frozenset({("path",), ("flags",), ("admin", "key")})
"""Fields that the program fills in itself; a file that sets them has an unknown key."""

_SIZE_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def _read_size(value: object) -> object:
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", value)
    if not found or found[2] not in _SIZE_UNITS:
        raise ValueError(f"should be a number of bytes or a size like 64MiB, got {value!r}")
    return int(float(found[1]) * _SIZE_UNITS[found[2]])


def _read_variable(value: object) -> object:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if is_number else value


def _read_sticky_key(value: str) -> str:
    key = value.lower()
    known = ("user", "api_key", "client_ip", "conversation")
    if key not in known and not re.fullmatch(r"header:[a-z0-9!#$%&'*+.^_`|~-]+", key):
        raise ValueError(f"should be user, api_key, client_ip, conversation or header:NAME, got {value!r}")
    if key in ("header:x-request-id", "header:content-length", "header:traceparent", "header:tracestate"):
        raise ValueError(
            f"{value!r} differs from request to request: name a header that stays with a client or its chat"
        )
    return key


def _match(pattern: str, meaning: str) -> AfterValidator:
    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(f"should be {meaning}, got {value!r}")
        return value

    return AfterValidator(check)


def _check_hash(value: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", value):  # the value is not shown: it may be the key itself
        raise ValueError("should be 64 hexadecimal digits, as `printf %s KEY | sha256sum` prints")
    return value.lower()


def _require_some(value: tuple[Any, ...]) -> tuple[Any, ...]:
    if not value:
        raise ValueError("needs at least one")
    return value


ModelName = Annotated[
    str, _match(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}", "letters, digits and . _ - / beginning with a letter or digit")
]
PartName = Annotated[
    str, _match(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}", "letters, digits and . _ - beginning with a letter or digit")
]
METRIC_NAME = r"[a-z][a-z0-9_]{0,63}"
MetricName = Annotated[str, _match(METRIC_NAME, "small letters, digits and _ beginning with a letter, at most 64")]
VariableName = Annotated[str, _match(r"[A-Za-z_][A-Za-z0-9_]*", "letters, digits and _ not beginning with a digit")]
StickyKey = Annotated[str, BeforeValidator(lambda value: _read_sticky_key(value) if isinstance(value, str) else value)]
Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0)]
Size = Annotated[int, BeforeValidator(_read_size), Field(ge=1)]
Text = Annotated[str, StringConstraints(min_length=1)]


class Section(BaseModel):
    """Base of every part of the tree: frozen, no unknown keys, and a key without a value counts as absent."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _drop_empty(cls, data: Any) -> Any:
        return {key: value for key, value in data.items() if value is not None} if isinstance(data, dict) else data

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_truth_for_number(cls, value: object, info: ValidationInfo) -> object:
        field = cls.model_fields[info.field_name or ""]
        if isinstance(value, bool) and {field.annotation, *get_args(field.annotation)} & {int, float}:
            raise ValueError(f"should be a number, got {str(value).lower()}")
        return value


class ServerSettings(Section):
    """The public port and the limits every request there lives under."""

    host: Text = Field(default="0.0.0.0", description="Address the public port listens on.")  # noqa: S104, public is its purpose
    port: Port = Field(default=8000, description="Public port; 0 takes any free one.")
    relays: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Processes that answer the public port, each on one core at most. "
        "With more than one, the admin port has a process of its own too.",
    )
    max_body_bytes: Size = Field(
        default=64 * 2**20, description="Largest request body, a number of bytes or a size (`64MiB`)."
    )
    drain_grace_s: float = Field(default=30.0, ge=0, description="How long running answers may go on after SIGTERM.")
    first_byte_timeout_s: Seconds = Field(
        default=600.0, description="An engine must begin its answer within this time."
    )
    idle_timeout_s: Seconds = Field(default=120.0, description="Longest silence inside an answer that has begun.")
    access_log: bool = Field(default=True, description="Write one line per request.")
    access_log_path: Path | None = Field(
        default=None, description="File that gets the lines of `access_log`; without it they go to stderr."
    )


class AdminSettings(Section):
    """The admin port."""

    host: Text = Field(
        default="127.0.0.1", description="Address the admin port listens on; anything but loopback needs an admin key."
    )
    port: Port = Field(default=9000, description="Admin port; 0 takes any free one.")
    key_env: VariableName = Field(
        default="GATEWAY_ADMIN_KEY", description="Environment variable that holds the admin key."
    )
    key: SecretStr | None = Field(default=None, description="The admin key, read from the variable named by `key_env`.")

    @property
    def secret(self) -> str | None:
        """The admin key itself."""
        return None if self.key is None else self.key.get_secret_value()


class StateSettings(Section):
    """Where what is changed at run time and what is measured is kept."""

    url: Text = Field(
        default="sqlite:///var/lib/gateway/state.db",
        description="`sqlite:///FILE`, an absolute path, for gateways of one machine; `redis://HOST:PORT/DB` for those "
        "of several; `sqlite://` is memory, and so is the default where it cannot be written.",
    )


class KeySettings(Section):
    """A key that clients may show. The file knows its hash only."""

    name: PartName = Field(description="Name of the key, for logs and counts.")
    sha256: Annotated[str, AfterValidator(_check_hash)] = Field(
        description="SHA-256 of the key alone, without a line end, as `sha256sum` prints it.", examples=["HEX"]
    )
    may_pin: bool = Field(
        default=True, description="Whether requests with it may choose the version that answers, by name or header."
    )


class AuthSettings(Section):
    """Who may call the public port."""

    required: bool = Field(default=False, description="Ask every call for a known key.")
    keys: tuple[KeySettings, ...] = Field(
        default=(), description="The keys that are known, beside those that were made at run time (`gateway keys`)."
    )


class EngineSettings(Section):
    """How engines of this host are started."""

    runtime_dir: Path | None = Field(
        default=None, description="Folder for engine sockets and logs; without it a private temporary folder is made."
    )
    fork: Literal["auto", "always", "never"] = Field(
        default="auto",
        description="Fork engines from one process that has loaded vLLM once; `auto` does so on CPU only.",
    )
    start_timeout_s: Seconds = Field(default=900.0, description="An engine must be ready within this time.")
    memory: Size | None = Field(
        default=None,
        description="What engines may take together on a machine without GPUs, a number of bytes or a size (`20GiB`); "
        "without it nine tenths of its memory. What does not fit is refused, or waits until others sleep.",
    )


class CacheSettings(Section):
    """Where checkpoints of `hf://`, `s3://` and `gs://` are kept that were fetched."""

    dir: Path = Field(
        default=Path("~/.cache/gateway"),
        description="Folder for them, which several gateways may share; it grows with each revision fetched.",
    )

    @property
    def folder(self) -> Path:
        """The folder itself."""
        try:
            return self.dir.expanduser()
        except RuntimeError:  # nobody knows where this home is: whoever writes there says it
            return self.dir


class ShadowSettings(Section):
    """A copy of some requests for another version, whose answers no client sees."""

    version: PartName = Field(description="Version that gets the copies.")
    percent: float = Field(ge=0, le=100, description="Share of the requests that is copied, 0 to 100.")
    concurrency: int = Field(
        default=4, ge=1, le=1000,
        description="A copy is sent only to an engine with fewer requests under way than this, of each relay.",
    )  # fmt: skip
    cross_score: bool = Field(
        default=False,
        description="Have the engines of both versions score both answers: each reads the question twice more.",
    )
    keep_texts: bool = Field(default=False, description="Keep the latest questions and answers, not just numbers.")


class SmokeSettings(Section):
    """A question that a version must answer rightly before it gets any traffic; asked greedily, with its defaults."""

    prompt: Text = Field(description="The question.")
    expect: Text = Field(description="Text that must stand in the answer.")
    image: Text | None = Field(default=None, description="A picture to show with it: a file, found like `checkpoint`.")
    adapter: PartName | None = Field(default=None, description="One of the version's adapters, which is asked instead.")


class PictureSettings(Section):
    """How large pictures are to Qwen's models: they are scaled, in their proportions, to pixels between these."""

    min_pixels: int | None = Field(default=None, ge=1, description="Least pixels; without it the checkpoint's own.")
    max_pixels: int | None = Field(
        default=None,
        ge=1,
        description="Most pixels; without it the checkpoint's own. "
        "Where it is given, requests may ask for less, by `mm_processor_kwargs: {max_pixels: N}`.",
    )


class ReasoningSettings(Section):
    """How the thinking of a model that thinks before it answers is told from its answer."""

    parser: Text = Field(
        description="The engine's parser for the family, such as `qwen3` or `deepseek_r1`. Answers then have the "
        "thinking in `reasoning`, the rest in `content`."
    )


class PriceSettings(Section):
    """What tokens cost, in any currency, by the million; for comparing versions and for usage."""

    input: float = Field(default=0.0, ge=0, description="Of a million prompt tokens.")
    output: float = Field(default=0.0, ge=0, description="Of a million generated tokens.")


class SpeculativeSettings(Section):
    """Speculative decoding. Any other key of the engine's `--speculative-config` passes through unchanged."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, JsonValue] = {}

    method: Text = Field(
        description="What guesses ahead: `ngram` and `suffix` repeat what was said before, `draft_model` is a smaller "
        "model, `eagle`, `eagle3` and `mtp` go by what the model itself thinks; "
        "or another method that the engine knows."
    )
    model: Text | None = Field(
        default=None,
        description="The draft: found like `checkpoint` if it begins with `/`, `./`, `../`, `~`, `hf://`, `s3://` or "
        "`gs://`, else a name that the engine looks up.",
    )
    num_speculative_tokens: int | None = Field(
        default=None, ge=1, le=64, description="How many tokens are guessed at a time; some drafts say it themselves."
    )
    min_acceptance: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="When less than this fraction of the last 5,000 guessed tokens was right, the engine is replaced "
        "by one without speculation.",
    )
    parity: bool = Field(
        default=False,
        description="Before the version is served, try in float32 whether speculation changes an answer; "
        "if it does, it is not served.",
    )

    @property
    def engine_config(self) -> dict[str, Any]:
        """The section as the engine takes it."""
        return self.model_dump(exclude={"min_acceptance", "parity"}, exclude_none=True)


class VersionSettings(Section):
    """One set of weights and settings behind a model."""

    name: PartName = Field(description="Name of the version: letters, digits, `.`, `_`, `-`.")
    checkpoint: Text | None = Field(
        default=None,
        description="Checkpoint folder; relative to the file, `~` is the home folder. Of a training run's folder "
        "`RUN@best` or `RUN@newest`. Or `hf://ORG/NAME[@REVISION][/FOLDER]`, `s3://BUCKET/FOLDER`, "
        "`gs://BUCKET/FOLDER`. Not with `endpoints`.",
    )
    adapters: dict[PartName, Text] = Field(
        default={},
        description="LoRA adapters by name: folders or addresses, found like `checkpoint`.",
        examples=[{"colours": "DIR"}],
    )
    engine: Literal["vllm", "simulated"] = Field(
        default="vllm", description="What runs the version; `simulated` answers made-up text and needs no checkpoint."
    )
    engine_args: dict[str, JsonValue] = Field(
        default={}, description="Any flag of the engine, passed through unchanged."
    )
    speculative: SpeculativeSettings | None = Field(
        default=None, description="Speculative decoding: some tokens are guessed, and checked in one step."
    )
    smoke: tuple[SmokeSettings, ...] = Field(
        default=(), description="Questions that each of its engines must answer rightly before it is ready."
    )
    pictures: PictureSettings | None = Field(default=None, description="Bounds for the size of pictures.")
    reasoning: ReasoningSettings | None = Field(default=None, description="Thinking is told from answers.")
    replicas: int = Field(default=1, ge=1, description="Engines that serve this version.")
    sleep_after_s: Seconds | None = Field(
        default=None,
        description="End its engines after this long without a request. The next request starts them again, and waits.",
    )
    routing: Literal["least_loaded", "prefix_affinity", "session_affinity", "round_robin"] = Field(
        default="least_loaded",
        description="How one of several engines is chosen: `least_loaded` of two drawn by lot, `prefix_affinity` (a "
        "conversation goes where its beginning is cached), `session_affinity` (a client keeps to one), `round_robin`.",
    )
    defaults: dict[str, JsonValue] = Field(
        default={}, description="Request fields filled in where the client is silent, and `system_prompt`."
    )
    price: PriceSettings | None = Field(default=None, description="What its tokens cost.")
    endpoints: tuple[Text, ...] = Field(default=(), description="Addresses of engines that somebody else runs.")
    env: dict[VariableName, Annotated[str, BeforeValidator(_read_variable)]] = Field(
        default={}, description="Environment variables for this version's engines."
    )


class MetricSettings(Section):
    """A number that clients send as feedback on a request, and its scale."""

    low: float = Field(default=0.0, description="Least value.")
    high: float = Field(default=1.0, description="Greatest value.")
    better: Literal["higher", "lower"] = Field(default="higher", description="Which of two values is the better one.")


class ModelSettings(Section):
    """A public name that clients ask for, and the versions behind it."""

    name: ModelName = Field(description="Public name: letters, digits, `.`, `_`, `-`, `/`.")
    sticky_by: Annotated[tuple[StickyKey, ...], AfterValidator(_require_some)] = Field(
        default=("header:x-session-id", "user", "api_key", "client_ip"),
        description="What keeps a client on one version, the first that a request has: "
        "`header:NAME`, `user`, `api_key`, `client_ip`, `conversation` (how it begins), which is also the last resort.",
    )
    versions: Annotated[tuple[VersionSettings, ...], AfterValidator(_require_some)] = Field(
        description="The versions, at least one."
    )
    split: dict[PartName, float] = Field(
        default={},
        validate_default=True,
        description="Weights of the versions, normalised to fractions; a version left out gets none. "
        "Without it all versions get the same.",
    )
    shadow: ShadowSettings | None = Field(default=None, description="Copy some requests to another version.")
    metrics: dict[MetricName, MetricSettings] = Field(
        default={},
        description="What clients send as feedback, by name. Any other goes from 0 to 1, and higher is better.",
        examples=[{"score": {"low": 1, "high": 5}}],
    )

    @field_validator("split")
    @classmethod
    def _normalise_split(cls, split: dict[str, float], info: ValidationInfo) -> dict[str, float]:
        versions: tuple[VersionSettings, ...] = info.data.get("versions", ())
        return normalise_split(split, [version.name for version in versions]) if versions else split


class Settings(Section):
    """Everything the program can be told. Built by `load` only, which also checks what values mean together."""

    server: ServerSettings = Field(default=ServerSettings(), description="The public port.")
    admin: AdminSettings = Field(default=AdminSettings(), description="The admin port.")
    state: StateSettings = Field(default=StateSettings(), description="Where run-time changes are kept.")
    auth: AuthSettings = Field(default=AuthSettings(), description="Who may call.")
    engines: EngineSettings = Field(default=EngineSettings(), description="How engines are started.")
    cache: CacheSettings = Field(default=CacheSettings(), description="Where fetched checkpoints are kept.")
    models: tuple[ModelSettings, ...] = Field(default=(), description="The models served.")
    path: Path | None = Field(default=None, description="The file these settings were read from.")
    flags: dict[str, JsonValue] = Field(default={}, description="The flags that they were read under, by dotted key.")


_part_name = TypeAdapter[str](PartName)


def find_name_fault(name: str) -> str | None:
    """What keeps a name from being that of a version, an adapter or a key, as `should be …`."""
    try:
        _part_name.validate_python(name)
    except ValidationError as error:
        return str(error.errors()[0]["ctx"]["error"])
    return None


def normalise_split(split: dict[str, float], names: list[str]) -> dict[str, float]:
    """Turn weights into fractions over all `names`; an empty split is an equal one.

    Raises ValueError, in words for the user, for unknown names, negative weights and all-zero splits.
    """
    unknown = [name for name in split if name not in names]
    if unknown:
        raise ValueError(f"no version is called {', '.join(unknown)}; there are {', '.join(names)}")
    weights = split or dict.fromkeys(names, 1.0)
    if not all(0 <= weight < float("inf") for weight in weights.values()):
        raise ValueError("weights must be numbers from 0 up")
    total = sum(weights.values())
    if not 0 < total < float("inf"):
        raise ValueError("at least one version needs a weight above 0")
    return {name: weights.get(name, 0.0) / total for name in names}
