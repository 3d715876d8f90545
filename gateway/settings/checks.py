"""What settings mean together, and what this release cannot do yet.

Works on the plain data before it becomes a tree, and steps over anything of the wrong type, so that one reading
finds every problem at once. Looks at folders, changes nothing.
"""

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gateway.settings.addresses import is_address, parse_address
from gateway.settings.methods import find_faults
from gateway.settings.problems import Location
from gateway.settings.tree import AdminSettings, normalise_split

Finding = tuple[Location, str]

NOT_YET: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    (
        "models.*.versions.*.endpoints.*",
        lambda url: _has_scheme(url, "https", "dns+http", "dns+https"),
        "only http://HOST:PORT is possible yet",
    ),
)
"""What the contract names and this release lacks. Delete the row with the change that brings it."""

_FOR_OWN_ENGINES = (
    "adapters", "engine_args", "speculative", "smoke", "replicas", "sleep_after_s", "env", "pictures", "reasoning",
)  # fmt: skip

MEASURED = (
    "error_rate", "ttft_s", "itl_s", "total_s", "tokens_in", "tokens_out", "cost", "length_stops", "refusals",
)  # fmt: skip
"""Metrics of the gateway's own, which no feedback is called."""

_HALF_CHARACTER = re.compile(r"[\ud800-\udfff]")

_TRUST_FLAGS = ("trust-request-mm-kwargs", "trust_request_mm_kwargs")


def find_problems(data: Mapping[str, Any]) -> Iterator[Finding]:
    """Everything wrong between values of `data`, whose folders are absolute already and sections complete."""
    yield from _check_texts(data)
    yield from _check_not_yet(data)
    yield from _check_admin(data)
    yield from _check_state(data)
    yield from _check_auth(data)
    models = list(_find(data, "models.*"))
    yield from _check_unique(models)
    for location, model in models:
        yield from _check_model(location, model)


def _check_texts(data: Mapping[str, Any]) -> Iterator[Finding]:
    """JSON can say half of a character, `"\\ud83d"`, which no file, engine or store can be told."""
    below: list[tuple[Location, Any]] = [((), data)]
    seen: set[int] = set()  # aliases of YAML may make a circle
    while below:  # not by recursion: what is nested too deep is found by others
        place, value = below.pop()
        if isinstance(value, dict | list | tuple):
            if id(value) in seen:
                continue
            seen.add(id(value))
        if isinstance(value, dict):
            below.extend(((*place, key), part) for key, part in value.items())
            below.extend((place, key) for key in value)
        elif isinstance(value, list | tuple):
            below.extend(((*place, number), part) for number, part in enumerate(value))
        elif isinstance(value, str) and _HALF_CHARACTER.search(value):
            yield place, "has half of a character in it: write whole ones"


def _check_not_yet(data: Mapping[str, Any]) -> Iterator[Finding]:
    for pattern, is_refused, message in NOT_YET:
        for location, value in _find(data, pattern):
            if is_refused(value):
                yield location, message


def _check_admin(data: Mapping[str, Any]) -> Iterator[Finding]:
    admin = data.get("admin")
    if not isinstance(admin, dict) or admin.get("key"):
        return
    host = admin.get("host", AdminSettings().host)
    if isinstance(host, str) and not _is_loopback(host):
        variable = admin.get("key_env", AdminSettings().key_env)
        message = f"{host} can be reached from elsewhere, so a key is needed: set {variable}, or use 127.0.0.1"
        yield ("admin", "host"), message


def _check_state(data: Mapping[str, Any]) -> Iterator[Finding]:
    for location, url in _find(data, "state.url"):
        if isinstance(url, str) and not re.match(r"sqlite://(/.|$)|rediss?://.", url):
            yield location, "should be sqlite:///FILE, redis://HOST:PORT/DB, or sqlite:// for memory"
        elif _has_scheme(url, "redis", "rediss") and find_spec("redis") is None:
            yield location, "needs the package for Redis: pip install 'nim-gateway[redis]'"


def _check_auth(data: Mapping[str, Any]) -> Iterator[Finding]:
    auth = data.get("auth")
    if not isinstance(auth, dict):
        return
    keys = list(_find(auth, "keys.*"))
    yield from ((("auth", *place), message) for place, message in _check_unique(keys))


def _check_model(location: Location, model: Any) -> Iterator[Finding]:
    versions = list(_find(model, "versions.*"))
    yield from ((location + place, message) for place, message in _check_unique(versions))
    names = [version["name"] for _, version in versions if _has_name(version)]
    if split := _find_numbers(model, "split"):
        try:
            normalise_split(split, names)
        except ValueError as error:
            yield (*location, "split"), str(error)
    for place, shadow in _find(model, "shadow"):
        version = shadow.get("version") if isinstance(shadow, dict) else None
        if isinstance(version, str) and version not in names:
            yield (*location, *place, "version"), f"no version is called {version!r}; there are {', '.join(names)}"
    for place, metric in _find(model, "metrics.*"):
        scale = {name: value for name, value in metric.items() if _is_number(value)} if isinstance(metric, dict) else {}
        if scale.get("low", 0.0) >= scale.get("high", 1.0):
            yield location + place, "low should be below high"
        if place[-1] in MEASURED:
            yield location + place, "is measured by the gateway itself: call the feedback something else"
    for place, version in versions:
        if isinstance(version, dict):
            yield from ((location + place + inner, message) for inner, message in _check_version(version))


def _check_version(version: dict[str, Any]) -> Iterator[Finding]:
    checkpoint, endpoints = version.get("checkpoint"), version.get("endpoints")
    if checkpoint and endpoints:
        yield ("endpoints",), "give a checkpoint or endpoints, not both"
    for place, url in _find(version, "endpoints.*"):
        if isinstance(url, str) and not _is_endpoint(url):
            yield place, "should be http://HOST:PORT"  # not shown: people put passwords into addresses
    for key in _FOR_OWN_ENGINES if endpoints else ():
        if version.get(key) not in (None, {}, [], (), 1):
            yield (key,), "is for engines that the gateway starts; those behind endpoints are set up where they run"
    if not checkpoint and not endpoints and version.get("engine") != "simulated":
        yield (), "needs a checkpoint folder"
    for pattern in ("checkpoint", "adapters.*", "speculative.model"):
        for place, folder in _find(version, pattern):
            if isinstance(folder, str) and is_address(folder):
                yield from ((place, message) for message in _check_address(folder))
                continue
            if pattern == "speculative.model" and not str(folder).startswith("/"):
                continue  # a name that the engine looks up
            if isinstance(folder, str) and not _is_folder(folder):
                what = "is not a folder" if Path(folder).exists() else "there is no such folder"
                yield place, f"{what}: {folder}"
    if isinstance(version.get("speculative"), dict):
        yield from ((("speculative", *place), fault) for place, fault in find_faults(version["speculative"]))
    for place, image in _find(version, "smoke.*.image"):
        if isinstance(image, str) and not Path(image).is_file():
            yield place, f"there is no such file: {image}"
    for place, adapter in _find(version, "smoke.*.adapter"):
        if adapter not in (version.get("adapters") or {}):
            yield place, f"is none of the version's adapters: {adapter}"
    pixels = _find_numbers(version, "pictures")
    if pixels.get("min_pixels", 0) > pixels.get("max_pixels", float("inf")):
        yield ("pictures", "min_pixels"), f"is more than max_pixels, {pixels['max_pixels']:g}"
    yield from _check_picture_defaults(version)
    for place, prompt in _find(version, "defaults.system_prompt"):
        if not isinstance(prompt, str):
            yield place, "should be text"


def _check_picture_defaults(version: dict[str, Any]) -> Iterator[Finding]:
    """Defaults for how pictures are read, with which the version would refuse every request."""
    if version.get("endpoints"):
        return
    pixels = {place[-1]: value for place, value in _find(version, "pictures.*") if _is_number(value)}
    has_trust = any(value for place, value in _find(version, "engine_args.*") if place[-1] in _TRUST_FLAGS)
    for place, value in _find(version, "defaults.*"):
        if place[-1] not in ("mm_processor_kwargs", "media_io_kwargs") or value == {}:
            continue
        if "max_pixels" not in pixels:
            if not has_trust and version.get("engine") != "simulated":
                yield place, "every request would be refused with it: set pictures.max_pixels, or engine_args, instead"
        elif place[-1] == "media_io_kwargs":
            yield place, "is not taken where pictures has max_pixels: set it in engine_args"
        elif not _is_within(value, pixels.get("min_pixels", 1), pixels["max_pixels"]):
            yield place, f"should be min_pixels and max_pixels alone, up to {pixels['max_pixels']:g}: see pictures"


def _is_within(pixels: Any, least: float, most: float) -> bool:
    if not isinstance(pixels, dict) or not pixels.keys() <= {"min_pixels", "max_pixels"}:
        return False
    if not all(type(value) is int and least <= value <= most for value in pixels.values()):
        return False
    return bool(pixels.get("min_pixels", 0) <= pixels.get("max_pixels", most))


def _check_address(address: str) -> Iterator[str]:
    try:
        parse_address(address)
    except ValueError as error:
        yield str(error)


def _is_folder(folder: str) -> bool:
    """A folder, or one of the checkpoints of a run's folder, as in `RUN@best`; which is for admission to say."""
    run, _, _ = folder.rpartition("@")
    return Path(folder).is_dir() or (bool(run) and Path(run).is_dir())


def _check_unique(items: list[tuple[Location, Any]]) -> Iterator[Finding]:
    seen: set[str] = set()
    for location, item in items:
        if _has_name(item):
            if item["name"] in seen:
                yield (*location, "name"), f"there are two called {item['name']!r}"
            seen.add(item["name"])


def _find(data: Any, pattern: str) -> Iterator[tuple[Location, Any]]:
    """Every value in `data` at a dotted pattern, where `*` stands for all items of a list or keys of a mapping."""
    first, _, rest = pattern.partition(".")
    children: Iterator[tuple[Any, Any]] = iter(())
    if isinstance(data, dict):
        children = iter(data.items())
    elif isinstance(data, list | tuple):
        children = enumerate(data)
    for key, value in children:
        if value is not None and first in ("*", key):
            if rest:
                yield from (((key, *place), found) for place, found in _find(value, rest))
            else:
                yield (key,), value


def _find_numbers(data: Any, key: str) -> dict[str, float]:
    value = data.get(key) if isinstance(data, dict) else None
    if isinstance(value, dict) and all(isinstance(k, str) and _is_number(v) for k, v in value.items()):
        return value
    return {}


def _has_name(item: Any) -> bool:
    return isinstance(item, dict) and isinstance(item.get("name"), str)


def _has_scheme(value: Any, *schemes: str) -> bool:
    return isinstance(value, str) and value.partition("://")[0].lower() in schemes and "://" in value


def _is_endpoint(url: str) -> bool:
    if not re.fullmatch(r"(dns\+)?https?://[^/?#@\s]+/?", url):
        return False
    try:
        return urlsplit(url).port != 0 and bool(urlsplit(url).hostname)
    except ValueError:  # no number, or none that a port can have
        return False


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
