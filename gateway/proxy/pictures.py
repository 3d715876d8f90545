"""Bounds for pictures that a request brings: kept within those of its version, in the words that engines know.

Only where a version has such bounds does its engine take any from requests, and then these are the only ones that pass.
"""

import msgspec

from gateway.errors import BadRequest
from gateway.traffic.routes import PixelBounds

PIXELS_FIELD = "mm_processor_kwargs"
MEDIA_FIELD = "media_io_kwargs"
_EDGES = {"min_pixels": "shortest_edge", "max_pixels": "longest_edge"}

_decoder = msgspec.json.Decoder(dict[str, int] | None)


def bound_pictures(fields: dict[str, msgspec.Raw], bounds: PixelBounds) -> None:
    """Check the fields of a request that say how pictures are read, and put them into the engine's words.

    Raises BadRequest for more pixels than the version's most, and for anything that is no number of pixels.
    """
    if bytes(fields.pop(MEDIA_FIELD, b"null")) not in (b"null", b"{}"):
        raise BadRequest(f"The field {MEDIA_FIELD!r} is not taken from requests: leave it out.", param=MEDIA_FIELD)
    raw = fields.pop(PIXELS_FIELD, None)
    asked = {} if raw is None else _read(raw)
    for name, pixels in asked.items():
        _check(name, pixels, bounds)
    if asked.get("min_pixels", 0) > asked.get("max_pixels", bounds.max_pixels):
        raise _refuse("has more min_pixels than max_pixels")
    if asked:
        size = {_EDGES[name]: pixels for name, pixels in asked.items()}
        fields[PIXELS_FIELD] = msgspec.Raw(msgspec.json.encode({"images_kwargs": {"size": size}}))


def _read(raw: msgspec.Raw) -> dict[str, int]:
    try:
        found = _decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _refuse("must be an object of whole numbers, min_pixels and max_pixels") from error
    unknown = next((name for name in found or () if name not in _EDGES), None)
    if unknown is not None:
        raise _refuse(f"may hold min_pixels and max_pixels, not {unknown[:60]!r}")
    return found or {}


def _check(name: str, pixels: int, bounds: PixelBounds) -> None:
    least = bounds.min_pixels or 1
    if pixels > bounds.max_pixels:
        raise _refuse(f"asks for {name} {pixels:,}; this model takes at most {bounds.max_pixels:,}")
    if pixels < least:
        raise _refuse(f"asks for {name} {pixels:,}; this model takes at least {least:,}")


def _refuse(fault: str) -> BadRequest:
    return BadRequest(f"The field {PIXELS_FIELD!r} {fault}.", param=PIXELS_FIELD)
