import pytest

from gateway.engines.output import OutputTail


def read(*pieces: bytes) -> list[str]:
    tail = OutputTail()
    for piece in pieces:
        tail.feed(piece)
    tail.end()
    return tail.lines(1000)


def test_keeps_lines_cut_anywhere() -> None:
    assert read(b"one\ntw", b"o\nth", b"ree") == ["one", "two", "three"]


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_gives_the_same_lines_for_any_cut(size: int) -> None:
    data = "Größe\r\n\x1b[31mred\x1b[0m\n  0%|  |\r 50%|▌ |\r100%|█ |\nend\n".encode()
    assert read(*(data[at : at + size] for at in range(0, len(data), size))) == ["Größe", "red", "100%|█ |", "end"]


def test_removes_colours_titles_and_control_characters() -> None:
    assert read(b"\x1b[1;32mINFO\x1b[0m \x1b]0;title\x07ok\x00\x08\tend\n") == ["INFO ok\tend"]


def test_drops_empty_lines() -> None:
    assert read(b"a\n\n   \n\x1b[0m\nb\n") == ["a", "b"]


def test_survives_bytes_that_are_no_text() -> None:
    assert read(b"\xff\xfea\n") == ["��a"]


def test_cuts_long_lines() -> None:
    (line,) = read(b"x" * 5000 + b"\n")
    assert len(line) == 1000
    assert line.endswith("…")


def test_memory_stays_bounded_without_any_newline() -> None:
    tail = OutputTail()
    for _ in range(100):
        tail.feed(b"x" * 100_000)
    assert len(tail._partial) <= 16 * 1024


def test_memory_stays_bounded_with_many_lines() -> None:
    tail = OutputTail()
    for number in range(10_000):
        tail.feed(b"line %d\n" % number)
    assert tail.lines(10_000)[-1] == "line 9999"
    assert len(tail.lines(10_000)) == 400


def test_gives_as_many_lines_as_asked_for() -> None:
    tail = OutputTail()
    tail.feed(b"a\nb\nc\n")
    assert (tail.lines(2), tail.lines(0), tail.lines(9)) == (["b", "c"], [], ["a", "b", "c"])


def test_tells_each_line_and_each_redraw_of_a_bar() -> None:
    told: list[str] = []
    tail = OutputTail(told.append)
    for piece in (b"start\n", b"\rshards:  0%", b"\rshards: 50%", b"\rshards: 100%\n", b"end\n"):
        tail.feed(piece)
    assert told == ["start", "shards:  0%", "shards: 50%", "shards: 100%", "end"]
    assert tail.lines(9) == ["start", "shards: 100%", "end"]
