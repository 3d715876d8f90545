import os

from gateway.simulator import parent


class FakeLibrary:
    """The C library, keeping its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, ...]] = []

    def prctl(self, *arguments: int) -> int:
        self.calls.append(arguments)
        return 0


def test_the_kernel_is_asked_and_a_lost_parent_is_noticed(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    library = FakeLibrary()
    monkeypatch.setattr(parent.ctypes, "CDLL", lambda *_, **__: library)
    assert parent.follow_parent()
    assert parent.follow_parent(os.getppid())
    assert not parent.follow_parent(os.getppid() + 1)
    assert library.calls == [(1, 9, 0, 0, 0)] * 3
