"""Rollouts on the clock: what `traffic.rollout` decides is written, and so done, and told.

Each is a document of the state. Time is what has passed by the own clock of the gateway that acts, while it acted:
nobody can set it forward. Another gateway goes on with the time that was written last.
"""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import msgspec

from gateway.control.control import Control
from gateway.control.mirror import Decision, StateMirror
from gateway.control.rollout_record import (
    Rollout,
    State,
    describe,
    describe_finding,
    find,
    find_id,
    forget,
    forget_oldest,
    is_unreadable,
    list_all,
    read_past,
    read_plan,
    write,
    write_past,
)
from gateway.control.serving import Serving
from gateway.control.standing import Standing, is_failed, is_ready, is_up, is_up_everywhere
from gateway.errors import Conflict, NotFound, StateUnavailable
from gateway.settings import VersionSettings
from gateway.state import Counts, Event, Evidence, Lease, LeaseLost
from gateway.traffic.measuring import Past, count_users, find_past, find_strata, is_skewed
from gateway.traffic.rollout import Act, Facts, Finding, decide, forecast, judge

logger = logging.getLogger(__name__)

_WRITE_EVERY_S = 5.0
_LONGEST_TICK_S = 5.0
_FIRST_START_S = 900.0  # a gateway that has just been started loads all of its engines anew


@dataclass(slots=True)
class _Watch:
    """What has passed of a step that we act on, in seconds; `began_s`, `looked_s` … by the monotonic clock.

    `was_up`: the candidate has had an engine since we act.
    """

    step: int
    elapsed_s: float
    unready_s: float
    began_s: float
    looked_s: float
    written_s: float
    was_up: bool


class Rollouts:
    """All rollouts of a state. `step` does what is due, on the gateway that has the lease."""

    def __init__(self, control: Control, mirror: StateMirror, store: Counts) -> None:
        self._control = control
        self._mirror = mirror
        self._store = store
        self._watches: dict[str, _Watch] = {}

    # What people ask.

    async def start(self, model: str, data: object) -> str:
        """Begin to move the traffic of a model by a plan; returns the rollout's id.

        Where the candidate is a version as it stands in the file, and not a name, it is loaded first. Raises
        UnknownModel, BadRequest for a plan that cannot be, Conflict while another one runs, StateUnavailable.
        """
        written = data.get("candidate") if isinstance(data, dict) else None
        loaded = self._control.read_version(model, written) if isinstance(written, dict) else None
        asked = data if loaded is None or not isinstance(data, dict) else data | {"candidate": loaded.name}

        def decide(documents: Mapping[str, bytes]) -> Decision[Rollout]:
            known = self._control.read(documents)
            known.require_free(model)
            known.require_settled(model)
            if loaded is not None:
                known = known.add(model, loaded)
            settings = known.find_model(model)
            plan = read_plan(asked, settings)
            rollout = Rollout(find_id(documents), model, plan, dict(settings.split), time.time())
            said = f"{plan.candidate} is to take the place of {plan.baseline}"
            return self._write(documents, rollout, rollout.before, "started", said, loaded=loaded)

        rollout = await self._mirror.commit(decide)
        self._log(rollout, "started")
        return rollout.id

    def show_all(self, model: str) -> list[dict[str, Any]]:
        """The rollouts of a model, the latest first. Raises UnknownModel."""
        self._control.serving.find_model(model)
        return [describe(one) for one in list_all(self._mirror.snapshot.documents) if one.model == model]

    async def show(self, model: str, name: str) -> dict[str, Any]:
        """A rollout, how its guards stand, and how long it may take. Raises NotFound and StateUnavailable."""
        rollout = find(self._mirror.snapshot.documents, model, name)
        if (watch := self._watches.get(name)) is not None and watch.step == rollout.step:
            rollout = msgspec.structs.replace(rollout, elapsed_s=watch.elapsed_s, unready_s=watch.unready_s)
        shown = describe(rollout)
        if rollout.step >= 0 and not rollout.is_over:
            candidate = f"{model}:{rollout.plan.candidate}"
            facts, _ = await self._measure(rollout, is_up=is_up([self._control.read_standing()], candidate))
            asked = (rollout.plan, facts, self._control.serving.find_model(model).metrics)
            findings = await asyncio.to_thread(judge, *asked)
            shown |= {"users": facts.users, "findings": [describe_finding(one) for one in findings]}
            if rollout.state is State.RUNNING:
                shown["reason"] = (await asyncio.to_thread(decide, *asked)).reason
            shown["seconds_to_decision"] = await asyncio.to_thread(forecast, *asked)
        return shown

    async def act(self, model: str, name: str, act: str) -> dict[str, Any]:
        """Let a person `pause`, `resume`, `abort` or `promote` a rollout; returns it as it is then.

        Paused, it goes no step further, but back when a guard is violated. Aborted, shares are as before. Raises
        NotFound, Conflict for what cannot be done now, and StateUnavailable; then nothing has changed.
        """
        if act == "abort" and is_unreadable(self._mirror.snapshot.documents, name):
            return await self._drop(model, name)
        findings = await self._judge(model, name)

        def decide(documents: Mapping[str, bytes]) -> Decision[Rollout]:
            known = find(documents, model, name)
            split = None
            if act == "pause" and known.state is State.RUNNING:
                after = msgspec.structs.replace(known, state=State.PAUSED)
            elif act == "resume" and known.state is State.PAUSED:
                after = msgspec.structs.replace(known, state=State.RUNNING)
            elif act == "abort" and not known.is_over:
                after, split = _end(known, State.ABORTED, findings), known.before
            elif act == "promote" and known.state in (State.RUNNING, State.PAUSED):
                after, split = _end(known, State.PROMOTED, findings), known.share(100)
            else:
                raise Conflict(f"The rollout {name} is {known.state}: one cannot {act} it now.")
            after = msgspec.structs.replace(after, reason=_ASKED)
            return self._write(documents, after, split, _PAST_TENSE[act], _ASKED, findings)

        rollout = await self._mirror.commit(decide)
        self._log(rollout, _PAST_TENSE[act])
        return describe(rollout)

    async def _drop(self, model: str, name: str) -> dict[str, Any]:
        """Abort a rollout that cannot be read, so that others may begin: shares stay as they are."""

        def decide(documents: Mapping[str, bytes]) -> Decision[None]:
            if self._control.read(documents).read(model).rollout != name:
                raise NotFound(f"{model} has no rollout {name[:200]}.")
            _, written = self._control.compose(documents, lambda serving: serving.move(
                model, serving.find_model(model).split, ""
            ))  # fmt: skip
            text = f"rollout {name} of {model}, which cannot be read, is aborted: shares stay as they are"
            return Decision(written | forget(name), (Event("rollout_aborted", text, model),), None)

        await self._mirror.commit(decide)
        logger.warning("rollout %s of %s, which could not be read, is aborted", name, model)
        return {"id": name, "model": model, "state": State.ABORTED}

    async def _judge(self, model: str, name: str) -> Sequence[Finding]:
        """How the guards of a rollout stand, for the event of a person's act."""
        rollout = find(self._mirror.snapshot.documents, model, name)
        if rollout.is_over or rollout.step < 0:
            return ()
        facts, _ = await self._measure(rollout)
        return await asyncio.to_thread(judge, rollout.plan, facts, self._control.serving.find_model(model).metrics)

    # What the clock asks.

    async def step(self, lease: Lease, standings: Sequence[Standing]) -> None:
        """Do what is due of every rollout. Raises StateUnavailable and LeaseLost."""
        served = {model.name for model in self._control.serving.models}
        for rollout in reversed(list_all(self._mirror.snapshot.documents)):
            if not rollout.is_over and rollout.model in served:
                try:
                    await self._step(rollout, lease, standings)
                except (StateUnavailable, LeaseLost):
                    raise
                except Exception:  # of one must not stop the others
                    logger.exception("the rollout %s of %s cannot go on", rollout.id, rollout.model)

    async def _step(self, rollout: Rollout, lease: Lease, standings: Sequence[Standing]) -> None:
        name = f"{rollout.model}:{rollout.plan.candidate}"
        has_failed = is_failed(standings, name)
        if rollout.state is State.WAITING:
            if has_failed:
                await self._move(rollout, lease, State.ROLLED_BACK, f"{name} cannot be served")
            elif is_ready(standings, name):
                await self._move(rollout, lease, State.RUNNING, f"{name} is ready")
            return
        rollout = self._let_pass(rollout, standings)
        if self._control.serving.stages[rollout.model] != rollout.stages[-1]:
            await self._enter(rollout, lease)
            return
        facts, past = await self._measure(rollout, has_failed=has_failed, is_up=is_up(standings, name))
        metrics = self._control.serving.find_model(rollout.model).metrics
        decision = await asyncio.to_thread(decide, rollout.plan, facts, metrics)
        state = {Act.ROLL_BACK: State.ROLLED_BACK, Act.PROMOTE: State.PROMOTED, Act.ADVANCE: State.RUNNING}
        if decision.act is Act.HOLD:
            await self._hold(rollout, lease, decision.reason)
        else:
            await self._move(rollout, lease, state[decision.act], decision.reason, decision.findings, past)

    def _let_pass(self, rollout: Rollout, standings: Sequence[Standing]) -> Rollout:
        """The rollout with the time that has passed since it was looked at last, by us and without a long pause.

        That the candidate has no engine is its fault only where the baseline has one, and where it is not for the
        first time that they are started.
        """
        now_s, watch = time.monotonic(), self._watches.get(rollout.id)
        if watch is None or watch.step != rollout.step or now_s - watch.looked_s > _LONGEST_TICK_S:
            times = (rollout.elapsed_s, rollout.unready_s, now_s, now_s, now_s)
            watch = _Watch(rollout.step, *times, was_up=rollout.unready_s > 0)
            self._watches[rollout.id] = watch
        passed_s, watch.looked_s = now_s - watch.looked_s, now_s
        watch.elapsed_s += 0.0 if rollout.state is State.PAUSED else passed_s
        if is_up(standings, f"{rollout.model}:{rollout.plan.candidate}"):
            watch.was_up, watch.unready_s = True, 0.0
        elif is_up(standings, f"{rollout.model}:{rollout.plan.baseline}"):
            is_late = watch.was_up or now_s - watch.began_s > _FIRST_START_S
            watch.unready_s += passed_s if is_late else 0.0
        both = (f"{rollout.model}:{version}" for version in (rollout.plan.candidate, rollout.plan.baseline))
        if not all(is_up_everywhere(standings, version) for version in both) and not rollout.was_out:
            rollout = msgspec.structs.replace(rollout, was_out=True)
            watch.written_s = -inf  # whoever goes on has to know
        return msgspec.structs.replace(rollout, elapsed_s=watch.elapsed_s, unready_s=watch.unready_s)

    async def _hold(self, rollout: Rollout, lease: Lease, reason: str) -> None:
        """Write now and then how long it has taken, and why it holds."""
        watch = self._watches[rollout.id]
        if watch.looked_s - watch.written_s < _WRITE_EVERY_S:
            return
        watch.written_s = watch.looked_s

        def decide(documents: Mapping[str, bytes]) -> Decision[None]:
            known = find(documents, rollout.model, rollout.id)
            if (known.state, known.step) != (rollout.state, rollout.step):
                return Decision({}, (), None)
            after = msgspec.structs.replace(
                known,
                elapsed_s=rollout.elapsed_s,
                unready_s=rollout.unready_s,
                was_out=rollout.was_out or known.was_out,
                reason=reason,
            )
            return Decision(write(documents, after), (), None)

        await self._mirror.commit(decide, lease)

    async def _enter(self, rollout: Rollout, lease: Lease) -> None:
        """What is served has changed within the step, an adapter perhaps: what is measured from now on counts too."""
        _, past = await self._measure(rollout)
        stage = self._control.serving.stages[rollout.model]

        def decide(documents: Mapping[str, bytes]) -> Decision[None]:
            known = find(documents, rollout.model, rollout.id)
            if (known.state, known.step) != (rollout.state, rollout.step):
                return Decision({}, (), None)
            after = known.enter(stage)
            written = write(documents, after)
            if stage not in known.stages:  # one that comes again began with what was known then
                written |= write_past(after, stage, past)
            text = f"rollout {after.id} of {after.model}: what is served has changed, the step goes on"
            event = Event("rollout_changed", text, after.model, details={"rollout": describe(after)})
            return Decision(written, (event,), None)

        await self._mirror.commit(decide, lease)

    async def _move(
        self,
        rollout: Rollout,
        lease: Lease,
        state: State,
        reason: str,
        findings: Sequence[Finding] = (),
        past: Past | None = None,
    ) -> None:
        """Go a step on, or to an end, unless a person or another gateway has been faster."""
        kind = "step" if state is State.RUNNING else str(state)

        def decide(documents: Mapping[str, bytes]) -> Decision[Rollout | None]:
            known = find(documents, rollout.model, rollout.id)
            if (known.state, known.step) != (rollout.state, rollout.step):
                return Decision({}, (), None)
            if state is State.RUNNING:
                after = msgspec.structs.replace(
                    known, state=state, step=known.step + 1, elapsed_s=0.0, unready_s=0.0, was_out=False, reason=reason
                )
                split = after.share(after.plan.steps[after.step].percent)
            else:
                after = msgspec.structs.replace(_end(known, state, findings), reason=reason)
                split = known.share(100.0 if state is State.PROMOTED else 0.0)
                if known.step < 0:
                    split = known.before
            written = self._write(documents, after, split, kind, reason, findings, past)
            return Decision(written.changes, written.events, written.result)

        moved = await self._mirror.commit(decide, lease)
        if moved is not None:
            self._log(moved, kind)

    def _write(
        self,
        documents: Mapping[str, bytes],
        after: Rollout,
        split: Mapping[str, float] | None,
        kind: str,
        reason: str,
        findings: Sequence[Finding] = (),
        past: Past | None = None,
        loaded: VersionSettings | None = None,
    ) -> Decision[Rollout]:
        """A rollout as it is from now on, with the split that it gives and the event that tells of it."""

        def change(serving: Serving) -> Serving:
            if loaded is not None:
                serving = serving.add(after.model, loaded)
            return serving.move(after.model, split or {}, "" if after.is_over else after.id)

        written: dict[str, bytes | None] = {}
        if split is not None:
            settled, written = self._control.compose(documents, change)
            if kind == "step":
                stage = settled.stages[after.model]
                after = after.enter(stage)
                written |= write_past(after, stage, {} if past is None else past)
        written |= write(documents, after)
        if kind == "started":
            written |= forget_oldest(documents)
        text = f"rollout {after.id} of {after.model}, {after.plan.candidate} at {after.percent:g} %: {kind}: {reason}"
        details = {"rollout": describe(after), "findings": [describe_finding(one) for one in findings]}
        return Decision(written, (Event(f"rollout_{kind}", text, after.model, details=details),), after)

    async def _measure(self, rollout: Rollout, *, has_failed: bool = False, is_up: bool = True) -> tuple[Facts, Past]:
        """What is known of a rollout that has begun, and what its next step would begin with."""
        plan = rollout.plan
        steps: list[Evidence] = [await self._store.read_evidence(stage) for stage in rollout.stages]
        documents = self._mirror.snapshot.documents
        pasts = [read_past(documents, rollout, stage) for stage in rollout.stages]
        strata = find_strata(steps, pasts, plan.candidate, plan.baseline, (*plan.guards, *plan.goal))
        facts = Facts(
            step=rollout.step,
            elapsed_s=rollout.elapsed_s,
            users=count_users(steps[-1]).get(plan.candidate, 0),
            strata=strata,
            is_paused=rollout.state is State.PAUSED,
            is_failed=has_failed,
            unready_s=rollout.unready_s,
            is_up=is_up,
            # Users whose version was out have been given to another one meanwhile: that is no riddle.
            is_skewed=not rollout.was_out
            and is_skewed(steps[-1], rollout.share(rollout.plan.steps[rollout.step].percent)),
        )
        return facts, find_past(strata)

    def _log(self, rollout: Rollout, kind: str) -> None:
        told = f": {rollout.reason}" if rollout.reason else ""
        level = logging.WARNING if rollout.state is State.ROLLED_BACK else logging.INFO
        plan, percent = rollout.plan, rollout.percent
        logger.log(
            level, "rollout %s of %s, %s at %g %%: %s%s", rollout.id, rollout.model, plan.candidate, percent, kind, told
        )


_ASKED = "a person has asked for it"
_PAST_TENSE = {"pause": "paused", "resume": "resumed", "abort": "aborted", "promote": "promoted"}
ACTS = tuple(_PAST_TENSE)
"""What a person can do with a rollout."""


def _end(rollout: Rollout, state: State, findings: Sequence[Finding]) -> Rollout:
    shown = [describe_finding(one) for one in findings]
    return msgspec.structs.replace(rollout, state=state, ended=time.time(), findings=shown)
