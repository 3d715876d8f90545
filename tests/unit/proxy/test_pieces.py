import pytest

from gateway.proxy.pieces import LARGE_BYTES, Piece, write_pieces


class Recorder:
    """Keeps what each write brought."""

    def __init__(self) -> None:
        self.writes: list[list[Piece]] = []

    def write(self, data: Piece) -> None:
        self.writes.append([data])

    def writelines(self, pieces: list[Piece]) -> None:
        self.writes.append(list(pieces))


def test_small_pieces_leave_in_one() -> None:
    transport = Recorder()
    write_pieces(transport, (b"a", memoryview(b"b"), b""))  # type: ignore[arg-type]
    assert transport.writes == [[b"ab"]]


@pytest.mark.parametrize("size", [LARGE_BYTES - 1, LARGE_BYTES, 10 * LARGE_BYTES])
def test_large_pieces_are_passed_on_as_they_are(size: int) -> None:
    transport = Recorder()
    large = memoryview(b"x" * size)
    write_pieces(transport, (b"a", large, b"b"))  # type: ignore[arg-type]
    assert transport.writes[0][1] is large
    assert b"".join(transport.writes[0]) == b"a" + b"x" * size + b"b"
