import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.merging.arithmetic import Addition, LowRank, Replacement, decode, encode, is_finite


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32", "F64"])
def test_what_is_stored_is_read_again(dtype: str) -> None:
    values = floats(0.5, -2.0, 0.0, 96.0).reshape(2, 2)
    again = decode(encode(values, dtype), dtype, (2, 2))
    assert again.dtype == np.float32
    assert (again == values).all()


@given(st.binary(min_size=2, max_size=40).filter(lambda raw: len(raw) % 2 == 0))
def test_bfloat16_survives_the_way_there_and_back(raw: bytes) -> None:
    values = decode(raw, "BF16", (len(raw) // 2,))
    if is_finite(values):
        assert encode(values, "BF16") == raw


@pytest.mark.parametrize(
    ("bits", "rounded"),
    [
        (0x3F80_0000, 0x3F80),
        (0x3F80_7FFF, 0x3F80),
        (0x3F80_8000, 0x3F80),  # a tie goes to the even one
        (0x3F80_8001, 0x3F81),
        (0x3F81_8000, 0x3F82),
        (0xBF80_8001, 0xBF81),
        (0x3FFF_FFFF, 0x4000),  # carried into the exponent
    ],
)
def test_bfloat16_is_rounded_to_the_nearest(bits: int, rounded: int) -> None:
    value = np.array([bits], np.uint32).view(np.float32)
    assert int.from_bytes(encode(value, "BF16"), "little") == rounded


def test_a_change_of_low_rank_is_added() -> None:
    weight = np.arange(6, dtype=np.float32).reshape(2, 3)
    change = LowRank(a=floats(1, 2, 3).reshape(1, 3), b=floats(10, 0).reshape(2, 1), scale=0.5)
    assert change.apply(weight.copy()).tolist() == [[5, 11, 17], [3, 4, 5]]
    turned = LowRank(change.a, change.b, 0.5, is_transposed=True)
    assert turned.apply(weight.T.copy()).tolist() == [[5, 3], [11, 4], [17, 5]]


def test_with_magnitudes_each_output_has_that_norm() -> None:
    weight = floats(3, 4, 0, 2).reshape(2, 2)
    change = LowRank(np.zeros((1, 2), np.float32), np.zeros((2, 1), np.float32), 1.0, magnitude=floats(10, 1))
    assert change.apply(weight).tolist() == [[6, 8], [0, 1]]


def test_a_bias_is_added_and_a_whole_tensor_takes_the_place_of_the_old() -> None:
    assert Addition(floats(1, 2), 2.0).apply(floats(10, 10)).tolist() == [12, 14]
    assert Replacement(floats(1, 2)).apply(floats(5, 5)).tolist() == [1, 2]


def test_what_is_no_number_is_seen() -> None:
    assert is_finite(floats(1, -1))
    assert not is_finite(floats(1, float("inf")))
    assert not is_finite(floats(float("nan")))
