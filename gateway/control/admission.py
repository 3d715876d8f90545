"""What is looked at before an engine is started: a checkpoint that can't be served costs milliseconds, not minutes."""

from collections.abc import Mapping

from gateway.checkpoints import Hardware, check, identify
from gateway.engines.engine import Admission, EngineSpec

_DRAFT = "draft"  # no adapter is called so: their ids have the model's and the version's names in them


def admit(spec: EngineSpec, hardware: Hardware | None = None) -> Admission:
    """Look at the files an engine would serve, on `hardware` if it is given. Reads headers; call it off the loop."""
    if spec.checkpoint is None:
        return Admission()
    report = check(spec.checkpoint, drafting=spec.drafting, trusts_code=spec.trusts_code, hardware=hardware)
    if not report.is_servable:
        return Admission(report.reason())
    digests, weights_bytes = {"": report.digest}, 0 if report.memory is None else report.memory.weights_bytes
    if spec.drafting is not None and spec.drafting.draft is not None:
        draft = identify(spec.drafting.draft)
        digests[_DRAFT] = draft.digest
        weights_bytes += draft.weights_bytes
    for name, folder in spec.adapters:
        adapter = check(folder, base=spec.checkpoint, trusts_code=spec.trusts_code, hardware=hardware)
        if not adapter.is_servable:
            return Admission(f"adapter {name}: {adapter.reason()}")
        digests[name] = adapter.digest
    return Admission(is_visual=report.manifest.is_visual, weights_bytes=weights_bytes, digests=_drop_unknown(digests))


def read_digests(spec: EngineSpec) -> Mapping[str, str]:
    """The digests of `admit` as they are now, without another judgement. Call it off the loop."""
    if spec.checkpoint is None:
        return {}
    folders = {"": spec.checkpoint, **dict(spec.adapters)}
    if spec.drafting is not None and spec.drafting.draft is not None:
        folders[_DRAFT] = spec.drafting.draft
    return _drop_unknown({name: identify(folder).digest for name, folder in folders.items()})


def _drop_unknown(digests: Mapping[str, str | None]) -> dict[str, str]:
    return {name: digest for name, digest in digests.items() if digest is not None}
