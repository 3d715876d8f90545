"""Says in one sentence why an engine ended, from its last output lines and its exit code. Reads nothing else."""

import re
import signal
from collections.abc import Sequence

_SENTENCE_CHARS = 300

# (EngineCore pid=123) ERROR 11-21 08:35:14 [core.py:1510] RuntimeError: ...
_LOG_PREFIX = re.compile(r"^(?:\(\w+ pid=\d+\) )?(?:(?:DEBUG|INFO|WARNING|ERROR|CRITICAL) [\d: -]+\[[\w.]+:\d+\] ?)?")
_CORE_PREFIX = re.compile(r"^\((?:EngineCore|Worker)\w* pid=\d+\) ERROR ")
_EXCEPTION = re.compile(
    r"^(?:[A-Za-z_][\w.]*\.)?(?P<kind>[A-Z]\w*(?:Error|Exception|OutOfMemory\w*))(?:: (?P<text>.+))?$"
)
_CONSEQUENCE = re.compile(
    r"Engine core initialization failed|EngineDeadError|WorkerProc initialization failed|ValidationError"
)
_CORE_DEATH = re.compile(r"EngineDeadError|engine core exited unexpectedly")
_VALIDATION = re.compile(r"^  (?:Value error, )?(?P<text>\S.*)$")
_VALIDATION_DETAIL = re.compile(r" \[type=\w+, input_(?:value=(?P<value>.{0,80}?), input_)?type=.*")

_OUT_OF_MEMORY = "out of memory: give the engine a smaller KV cache, a shorter max-model-len or more memory"

_KNOWN: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), sentence)
    for pattern, sentence in (
        (r"error: unrecognized arguments: (.+)", "vLLM does not know the engine argument {0}"),
        (r"error: argument (--[\w-]+).*?: (.+)", "the engine argument {0} is wrong: {1}"),
        (r"error: (.+ required.*|ambiguous option.*)", "the engine arguments are wrong: {0}"),
        (r"Repo id must be in the form .*?: '([^']+)'", "the checkpoint folder {0} does not exist"),
        (
            r"Invalid repository ID or local directory specified: '([^']+)'",
            "{0} is not a checkpoint: no config.json in it",
        ),
        (r"config file at '([^']+)' is not a valid JSON", "{0} is not valid JSON"),
        (r"model type `([^`]+)` but Transformers does not recognize", "vLLM does not know the model type '{0}'"),
        (r"Model architectures \['?([^'\]]*)'?.*?\] are not supported", "vLLM does not support the architecture {0}"),
        (r"Model architectures \['?([^'\]]*)'?.*?\] failed to be inspected", "vLLM could not load its code for {0}"),
        (
            r"The repository (\S+) contains custom code",
            "the checkpoint {0} brings its own Python code; if you trust it, set trust-remote-code in engine_args",
        ),
        (r"Can't load image processor for '([^']+)'", "{0} has no readable preprocessor_config.json"),
        (r"Can't load tokenizer for '([^']+)'", "{0} has no readable tokenizer"),
        (r"Cannot find any model weights with `([^`]+)`", "there are no weights in {0}"),
        (r"SafetensorError: (.+)", "a weights file is damaged: {0}"),
        (r"ValueError: (\S+) doesn't contain tensors", "there are no weights in the adapter {0}"),
        (
            r"max seq len \((\d+)\).*estimated maximum model length is (\d+)",
            "the KV cache is too small for max-model-len {0}: set it to {1} or less, or give the KV cache more memory",
        ),
        (
            r"No available memory for the cache blocks",
            "no memory is left for the KV cache: raise kv-cache-memory-bytes (CPU) or gpu-memory-utilization",
        ),
        (
            r"Available memory .*?\(([\d.]+)/.*less than requested memory for kv \(([^)]+)\)",
            "a KV cache of {1} does not fit into the {0} GiB that are free: lower kv-cache-memory-bytes",
        ),
        (
            r"(?:Free|Available) memory on .*?\(([\d.]+)/.*less than desired",
            "only {0} GiB of memory are free: lower gpu-memory-utilization or free some",
        ),
        (
            r"User-specified max_model_len \((\d+)\) is greater than .*?=(\d+)",
            "max-model-len {0} is more than the {1} tokens the model was made for",
        ),
        (
            r"OutOfMemoryError|CUDA out of memory|can't allocate memory|Cannot allocate memory|^MemoryError",
            _OUT_OF_MEMORY,
        ),
        (r"Address already in use", "the address of the engine's socket is in use"),
        (r"AF_UNIX path too long", "the path of the engine's socket is too long: set a shorter engines.runtime_dir"),
        (r"No module named '(vllm|torch)'", "{0} is not installed here: install nim-gateway[cpu] or nim-gateway[gpu]"),
    )
)


def explain_exit(lines: Sequence[str], code: int) -> str:
    """One sentence for people, without a full stop. `lines`: the more the better, oldest first."""
    if code < 0:
        return _explain_signal(-code)
    told = [_LOG_PREFIX.sub("", line) for line in lines]
    reason = _find_known(told) or _find_exception(lines, told)
    if code == 0 and any(_CORE_DEATH.search(line) for line in told):
        return "its core process died" + (f": {reason}" if reason else "")
    if reason is None:
        reason = f"it ended by itself (exit code {code})"
        if told:
            reason += f"; its last words: {told[-1].strip()}"
    return _shorten(reason)


def _explain_signal(number: int) -> str:
    if number == signal.SIGKILL:
        return "killed by signal 9: the system had no memory left, or somebody killed it"
    try:
        return f"ended by signal {number} ({signal.Signals(number).name})"
    except ValueError:
        return f"ended by signal {number}"


def _find_known(told: Sequence[str]) -> str | None:
    for pattern, sentence in _KNOWN:
        # Backwards: the message itself comes after the source line that raised it.
        for line in reversed(told):
            if found := pattern.search(line):
                return sentence.format(*found.groups())
    return None


def _find_exception(lines: Sequence[str], told: Sequence[str]) -> str | None:
    """The exception that started it: the core's own if it named one, else the last that is no mere consequence."""
    found = [(at, match) for at, line in enumerate(told) if (match := _EXCEPTION.match(line))]
    causes = [(at, match) for at, match in found if not _CONSEQUENCE.search(told[at])]
    from_core = [(at, match) for at, match in causes if _CORE_PREFIX.match(lines[at])]
    if causes:
        at, match = from_core[-1] if from_core else causes[-1]
        return f"{match['kind']}: {match['text'] or _statement_before(told, at)}"
    validations = [at for at, _ in found if "ValidationError" in told[at]]
    return _describe_validation(told, validations[-1]) if validations else None


def _statement_before(told: Sequence[str], at: int) -> str:
    """The source line a traceback shows above an exception that says nothing itself."""
    above = (line.strip() for line in reversed(told[:at]))
    return next((line for line in above if line.strip("^~ ")), "no message")


def _describe_validation(told: Sequence[str], at: int) -> str | None:
    name = ""
    for line in told[at + 1 : at + 3]:
        if found := _VALIDATION.match(line):
            text = _VALIDATION_DETAIL.sub("", found["text"])
            given = _VALIDATION_DETAIL.search(found["text"])
            return f"{name} is {given['value']}: {text}" if name and given and given["value"] else text
        name = line.strip()
    return name or None


def _shorten(sentence: str) -> str:
    sentence = " ".join(sentence.split())
    return sentence if len(sentence) <= _SENTENCE_CHARS else sentence[: _SENTENCE_CHARS - 1] + "…"
