"""Real child processes, since what is tested is what the system does with them; none of them is an engine."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.engines.launcher import __name__ as launcher_module
from gateway.engines.process import DirectSpawner, EngineProcess, ForkSpawner, LaunchFailed, LaunchSpec, Spawner

SUPPORT = Path(__file__).parents[2] / "support"
DEADLINE_S = 20


def spec(*words: str, module: str = "scripted_process", **env: str) -> LaunchSpec:
    return LaunchSpec("shapes:v1#0", module, words, {"PYTHONPATH": str(SUPPORT), **env})


def forked(*words: str, **env: str) -> LaunchSpec:
    return spec(*words, module=launcher_module, **env)


@pytest.fixture(params=["direct", "forked"])
async def spawner(request: pytest.FixtureRequest) -> AsyncIterator[Spawner]:
    spawner: Spawner = DirectSpawner() if request.param == "direct" else ForkSpawner("scripted_fork_server")
    yield spawner
    await spawner.close()


async def spawn(spawner: Spawner, *words: str, **env: str) -> EngineProcess:
    module = launcher_module if isinstance(spawner, ForkSpawner) else "scripted_process"
    return await spawner.spawn(spec(*words, module=module, **env))


async def code_of(process: EngineProcess) -> int:
    async with asyncio.timeout(DEADLINE_S):
        return await process.wait()


async def lines_of(process: EngineProcess, count: int) -> list[str]:
    async with asyncio.timeout(DEADLINE_S):
        while len(process.tail(100)) < count:
            await asyncio.sleep(0.01)
    return process.tail(100)


async def is_gone(pid: int) -> bool:
    """Whether the process has ended, or does within the deadline; a zombie that nobody has reaped counts as ended."""
    try:
        async with asyncio.timeout(DEADLINE_S):
            while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                await asyncio.sleep(0.01)
    except (FileNotFoundError, ProcessLookupError):
        return True
    except TimeoutError:
        return False
    return True


async def test_gives_exit_code_and_output(spawner: Spawner) -> None:
    process = await spawn(spawner, "say", r"one\ntwo", "exit", "3")
    assert await code_of(process) == 3
    assert process.tail() == ["one", "two"]
    assert process.tail(1) == ["two"]


async def test_any_number_may_wait_and_one_may_give_up(spawner: Spawner) -> None:
    process = await spawn(spawner, "sleep")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await process.wait()
    process.kill()
    assert await asyncio.gather(code_of(process), code_of(process)) == [-9, -9]
    assert await code_of(process) == -9


async def test_environment_is_the_gateways_plus_the_specs(spawner: Spawner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_THE_GATEWAY", "g")
    first = await spawn(spawner, "say-variable", "OF_THE_GATEWAY", "say-variable", "OF_THE_SPEC", OF_THE_SPEC="s")
    await code_of(first)
    assert first.tail() == ["g", "s"]
    second = await spawn(spawner, "say-variable", "OF_THE_SPEC")
    await code_of(second)
    assert second.tail() == ["unset"]


async def test_terminate_asks_kill_does_not(spawner: Spawner) -> None:
    process = await spawn(spawner, "sleep")
    process.terminate()
    assert await code_of(process) == -signal.SIGTERM
    deaf = await spawn(spawner, "deaf", "sleep")
    await lines_of(deaf, 1)
    deaf.terminate()
    deaf.kill()
    assert await code_of(deaf) == -signal.SIGKILL


async def test_signals_after_the_end_do_nothing(spawner: Spawner) -> None:
    process = await spawn(spawner, "exit", "0")
    await code_of(process)
    process.terminate()
    process.kill()
    assert await code_of(process) == 0


async def test_kill_ends_the_whole_group(spawner: Spawner) -> None:
    process = await spawn(spawner, "start-other", "sleep")
    (other,) = await lines_of(process, 1)
    process.kill()
    assert await code_of(process) == -9
    assert await is_gone(int(other))


async def test_what_a_dead_leader_leaves_behind_is_killed(spawner: Spawner) -> None:
    process = await spawn(spawner, "start-other", "exit", "0")
    assert await code_of(process) == 0
    assert await is_gone(int(process.tail()[0]))


async def test_an_outsider_that_holds_the_output_open_is_not_waited_for(spawner: Spawner) -> None:
    process = await spawn(spawner, "start-outsider", "sleep")
    outsider, _ = await lines_of(process, 2)
    process.kill()
    assert await code_of(process) == -9
    os.kill(int(outsider), signal.SIGKILL)


async def test_a_failing_start_is_a_sentence() -> None:
    with pytest.raises(LaunchFailed, match="shapes:v1#0: the system did not start a process"):
        await DirectSpawner().spawn(spec("say", "x" * 10_000_000))


async def test_each_line_is_told() -> None:
    told: list[str] = []
    process = await DirectSpawner().spawn(spec("say", r"a\nb\n"), told.append)
    await code_of(process)
    assert told == ["a", "b"]


async def test_killing_the_gateway_kills_its_children() -> None:
    gateway = await DirectSpawner().spawn(spec("be-gateway", "tie", "sleep"))
    child = int(next(line for line in await lines_of(gateway, 2) if line.isdigit()))
    os.kill(gateway.pid, signal.SIGKILL)
    assert await code_of(gateway) == -9
    assert await is_gone(child)


async def test_killing_the_gateway_kills_what_its_children_forked() -> None:
    gateway = await DirectSpawner().spawn(spec("be-gateway", "tie", "fork", "sleep"))
    lines = await lines_of(gateway, 3)
    pids = [int(line) for line in lines if line.isdigit()]
    os.kill(gateway.pid, signal.SIGKILL)
    assert await code_of(gateway) == -9
    assert len(pids) == 2
    assert [await is_gone(pid) for pid in pids] == [True, True]


async def test_only_the_launcher_can_be_forked() -> None:
    spawner = ForkSpawner("scripted_fork_server")
    with pytest.raises(LaunchFailed, match=r"only gateway\.engines\.launcher can be forked, not gateway\.simulator"):
        await spawner.spawn(spec(module="gateway.simulator"))
    await spawner.close()


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [("refuses", "shapes:v1#0: not on this machine"), ("broken", "the fork server died: cannot import the engine")],
)
async def test_a_fork_server_that_cannot_start_says_why(behaviour: str, reason: str) -> None:
    spawner = ForkSpawner("scripted_fork_server")
    with pytest.raises(LaunchFailed, match=reason):
        await spawner.spawn(forked("sleep", FORK_SERVER=behaviour))
    await spawner.close()


async def test_engines_of_a_dead_fork_server_count_as_killed_and_the_next_gets_a_new_one() -> None:
    spawner = ForkSpawner("scripted_fork_server")
    first = await spawner.spawn(forked("sleep"))
    second = await spawner.spawn(forked("start-other", "kill-server", "sleep"))
    assert await asyncio.gather(code_of(first), code_of(second)) == [-9, -9]
    assert await is_gone(first.pid)
    assert await is_gone(second.pid)
    third = await spawner.spawn(forked("say", "back", "exit", "0"))
    assert await code_of(third) == 0
    assert third.tail() == ["back"]
    await spawner.close()


async def test_closing_ends_the_fork_server_and_what_still_runs() -> None:
    spawner = ForkSpawner("scripted_fork_server")
    engine = await spawner.spawn(forked("sleep"))
    await spawner.close()
    assert await code_of(engine) == -9
    assert await is_gone(engine.pid)


async def test_many_forks_at_once_share_one_server() -> None:
    spawner = ForkSpawner("scripted_fork_server")
    engines = await asyncio.gather(*(spawner.spawn(forked("exit", str(code))) for code in range(5)))
    assert await asyncio.gather(*map(code_of, engines)) == [0, 1, 2, 3, 4]
    await spawner.close()


async def test_the_gateways_own_variables_stay_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_ADMIN_KEY", "secret")
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))
    spec = LaunchSpec(name="x", module="scripted_process", args=("say-variable", "GATEWAY_ADMIN_KEY"), env={})
    process = await DirectSpawner().spawn(spec)
    assert await process.wait() == 0
    assert process.tail() == ["unset"]


@pytest.mark.parametrize(
    "name",
    [
        "HF_TOKEN",
        "HUGGING_FACE_HUB_TOKEN",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "GOOGLE_APPLICATION_CREDENTIALS",
    ],
)
@pytest.mark.parametrize(
    ("env", "said"), [({"HF_HUB_OFFLINE": "1"}, "unset"), ({}, "secret"), ({"HF_HUB_OFFLINE": "0"}, "secret")]
)
async def test_an_engine_whose_files_are_here_gets_no_logins_of_stores(
    monkeypatch: pytest.MonkeyPatch, name: str, env: dict[str, str], said: str
) -> None:
    monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))
    for given, expected in ((env, said), (env | {name: "its own"}, "its own")):
        spec = LaunchSpec(name="x", module="scripted_process", args=("say-variable", name), env=given)
        process = await DirectSpawner().spawn(spec)
        assert await process.wait() == 0
        assert process.tail() == [expected]
