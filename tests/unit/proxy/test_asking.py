import asyncio
import gc
from pathlib import Path

import pytest

from gateway.errors import UpstreamFailed
from gateway.fleet.replica import Replica
from gateway.proxy import asking as module
from gateway.proxy.asking import ask
from tests.support.exchanges import engine_and_client
from tests.support.scripted_engine import answer, chunked


def replica(address: str) -> Replica:
    return Replica("v2-0", "m", "v2", address, "m")


async def test_an_answer_is_read_whole(tmp_path: Path) -> None:
    async with engine_and_client(tmp_path, [[answer(b'{"a":1}')]]) as (engine, upstream, address):
        asked = await ask(upstream, replica(address), "/v1/x", [b"{", b"}"], "id1")
        assert (asked.status, asked.document, asked.is_stream, asked.is_failed) == (200, b'{"a":1}', False, False)
        assert 0 < (asked.first_byte_s or 0) <= asked.total_s
        assert engine.requests[0].startswith(b"POST /v1/x HTTP/1.1\r\n")
        assert b"content-length: 2\r\n" in engine.requests[0]
        assert b"x-request-id: id1\r\n" in engine.requests[0]


async def test_so_is_a_stream(tmp_path: Path) -> None:
    script = chunked([b"data: 1\n\n", b"data: 2\n\n"])
    script.insert(2, 0.02)
    async with engine_and_client(tmp_path, [script]) as (_, upstream, address):
        asked = await ask(upstream, replica(address), "/v1/x", [b"{}"], "id1")
        assert (asked.document, asked.is_stream) == (b"data: 1\n\ndata: 2\n\n", True)
        assert asked.total_s - (asked.first_byte_s or 0) > 0.01


async def test_what_goes_wrong_is_told_and_not_raised(tmp_path: Path) -> None:
    scripts = [[answer(b"{}", status="500 Oops")], chunked([b"data: 1\n\n"], has_end=False)]
    async with engine_and_client(tmp_path, scripts) as (_, upstream, address):
        refused = await ask(upstream, replica(address), "/v1/x", [b"{}"], "id1")
        assert (refused.status, refused.is_failed, refused.error) == (500, True, None)
        broken = await ask(upstream, replica(address), "/v1/x", [b"{}"], "id1")
        assert broken.is_failed
        assert isinstance(broken.error, UpstreamFailed)
        nobody = await ask(upstream, replica(f"unix://{tmp_path}/nobody.sock"), "/v1/x", [b"{}"], "id1")
        assert (nobody.is_failed, nobody.first_byte_s) == (True, None)


async def test_an_answer_without_an_end_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_BYTES", 1000)
    async with engine_and_client(tmp_path, [chunked([b"x" * 600] * 5)]) as (_, upstream, address):
        asked = await ask(upstream, replica(address), "/v1/x", [b"{}"], "id1")
        assert asked.is_failed
        assert "longer than" in str(asked.error)


async def test_whoever_does_not_wait_any_more_ends_the_engines_work(tmp_path: Path) -> None:
    async with engine_and_client(tmp_path, [[5.0]]) as (engine, upstream, address):
        asking = asyncio.create_task(ask(upstream, replica(address), "/v1/x", [b"{}"], "id1"))
        async with asyncio.timeout(5):
            while not engine.requests:
                await asyncio.sleep(0.001)
        asking.cancel()
        await asyncio.wait([asking])
        async with asyncio.timeout(5):
            await engine.hung_up.wait()


async def test_an_answer_leaves_with_the_last_who_has_it(tmp_path: Path) -> None:
    async with engine_and_client(tmp_path, [[answer(b"x" * 1000)]]) as (_, upstream, address):
        gc.collect()
        gc.disable()
        try:
            for _ in range(3):
                assert not (await ask(upstream, replica(address), "/v1/x", [b"{}"], "id1")).is_failed
                await asyncio.sleep(0)
            assert not [one for one in gc.get_objects() if type(one) is module._Gathering]
        finally:
            gc.enable()
