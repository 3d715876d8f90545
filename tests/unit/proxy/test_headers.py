from os import urandom

import pytest

from gateway.proxy.headers import _make_ids, lines_for_client, lines_for_engine, request_id, trace_lines, write_lines


@pytest.mark.parametrize("offered", [b"abc", b"a.b_c-d:9", b"x" * 128])
def test_a_sane_request_id_is_kept(offered: bytes) -> None:
    assert request_id(offered) == offered.decode()


@pytest.mark.parametrize("offered", [None, b"", b" a", b"a b", b"x" * 129, b"\xc3\xa4", b"a\nb", b'a"b', b"-a"])
def test_any_other_is_replaced_by_a_new_one(offered: bytes | None) -> None:
    made = request_id(offered)
    assert len(made) == 32
    assert made != request_id(offered)


def test_ids_are_the_systems_random_bytes_fetched_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[bytes] = []

    def fetch(size: int) -> bytes:
        fetched.append(urandom(size))
        return fetched[-1]

    monkeypatch.setattr("os.urandom", fetch)
    made = [request_id(None) for _ in range(1024)]
    assert len(set(made)) == len(made)
    assert len(fetched) == 4
    assert made[-1][12:] in fetched[-1].hex()


def test_ids_of_later_times_come_later(monkeypatch: pytest.MonkeyPatch) -> None:
    clock_ns = iter(range(1_700_000_000_000_000_000, 2_000_000_000_000_000_000, 5_000_000))
    monkeypatch.setattr("time.time_ns", lambda: next(clock_ns))
    ids = _make_ids()
    blocks = [[next(ids) for _ in range(256)] for _ in range(3)]
    assert max(blocks[0]) < min(blocks[1]) <= max(blocks[1]) < min(blocks[2])
    assert int(blocks[1][0][:12], 16) == 1_700_000_000_005


def test_secrets_and_framing_stay_out_of_the_engine() -> None:
    client = [
        (b"authorization", b"Bearer secret"),
        (b"cookie", b"secret"),
        (b"x-api-key", b"secret"),
        (b"transfer-encoding", b"chunked"),
        (b"host", b"public"),
        (b"accept", b"text/event-stream"),
        (b"traceparent", b"00-1-2-3"),
    ]
    assert lines_for_engine(client) == b"accept: text/event-stream\r\ncontent-type: application/json\r\n"


def test_the_place_in_a_trace_crosses_by_itself() -> None:
    client = [(b"accept", b"*/*"), (b"tracestate", b"a=1"), (b"traceparent", b"00-1-2-3"), (b"tracestate", b"b=2")]
    assert trace_lines(client) == b"tracestate: a=1\r\ntraceparent: 00-1-2-3\r\ntracestate: b=2\r\n"


def test_the_client_gets_what_belongs_to_the_answer() -> None:
    engine = [
        (b"content-type", b"application/json"),
        (b"content-length", b"10"),
        (b"connection", b"close"),
        (b"server", b"uvicorn"),
        (b"transfer-encoding", b"chunked"),
        (b"x-engine", b"1"),
    ]
    assert lines_for_client(engine) == b"content-type: application/json\r\nx-engine: 1\r\n"


def test_lines_are_what_goes_over_the_wire() -> None:
    assert write_lines([]) == b""
    assert write_lines([(b"a", b"1"), (b"a", b"")]) == b"a: 1\r\na: \r\n"
