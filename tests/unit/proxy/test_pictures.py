import json
from typing import Any

import msgspec
import pytest

from gateway.errors import BadRequest
from gateway.proxy.pictures import bound_pictures
from gateway.traffic.routes import PixelBounds

BOUNDS = PixelBounds(max_pixels=1000, min_pixels=100)


def bound(asked: Any, bounds: PixelBounds = BOUNDS, field: str = "mm_processor_kwargs") -> Any:
    fields = {"model": msgspec.Raw(b'"m"'), field: msgspec.Raw(json.dumps(asked).encode())}
    bound_pictures(fields, bounds)
    raw = fields.get(field)
    return None if raw is None else json.loads(bytes(raw))


@pytest.mark.parametrize(
    ("asked", "size"),
    [
        ({"max_pixels": 1000}, {"longest_edge": 1000}),
        ({"max_pixels": 100}, {"longest_edge": 100}),
        ({"min_pixels": 200, "max_pixels": 300}, {"shortest_edge": 200, "longest_edge": 300}),
        ({"min_pixels": 1000}, {"shortest_edge": 1000}),
    ],
)
def test_bounds_within_those_of_the_version_are_put_into_the_engines_words(asked: Any, size: dict[str, int]) -> None:
    assert bound(asked) == {"images_kwargs": {"size": size}}


@pytest.mark.parametrize("nothing", [None, {}])
@pytest.mark.parametrize("field", ["mm_processor_kwargs", "media_io_kwargs"])
def test_nothing_asked_for_is_nothing_told(nothing: Any, field: str) -> None:
    assert bound(nothing, field=field) is None


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"max_pixels": 1001}, "asks for max_pixels 1,001; this model takes at most 1,000"),
        ({"min_pixels": 1001}, "asks for min_pixels 1,001; this model takes at most 1,000"),
        ({"max_pixels": 99}, "asks for max_pixels 99; this model takes at least 100"),
        ({"min_pixels": 300, "max_pixels": 200}, "more min_pixels than max_pixels"),
        ({"max_pixels": "200"}, "must be an object of whole numbers"),
        ({"max_pixels": 2.5}, "must be an object of whole numbers"),
        ({"max_pixels": True}, "must be an object of whole numbers"),
        ({"max_pixels": None}, "must be an object of whole numbers"),
        ([200], "must be an object of whole numbers"),
        ({"size": {"longest_edge": 10**9}}, "must be an object of whole numbers"),
        ({"images_kwargs": {"max_pixels": 10**9}}, "must be an object of whole numbers"),
        ({"fps": 9}, "may hold min_pixels and max_pixels, not 'fps'"),
    ],
)
def test_anything_else_is_the_clients_mistake(asked: Any, words: str) -> None:
    with pytest.raises(BadRequest, match="mm_processor_kwargs") as refused:
        bound(asked)
    assert words in str(refused.value)


def test_a_number_beyond_all_numbers_is_refused() -> None:
    with pytest.raises(BadRequest, match="mm_processor_kwargs"):
        bound({"max_pixels": 10**30})


def test_without_a_least_one_pixel_is_the_least() -> None:
    assert bound({"max_pixels": 1}, PixelBounds(1000)) == {"images_kwargs": {"size": {"longest_edge": 1}}}
    with pytest.raises(BadRequest, match="at least 1"):
        bound({"max_pixels": 0}, PixelBounds(1000))


def test_how_media_are_loaded_is_not_for_requests_to_say() -> None:
    with pytest.raises(BadRequest, match="media_io_kwargs"):
        bound({"video": {"num_frames": 10**6}}, field="media_io_kwargs")
