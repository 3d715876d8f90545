"""What is looked at before an engine is started: a checkpoint that can't be served costs milliseconds, not minutes."""

from gateway.checkpoints import Hardware, check
from gateway.engines.engine import Admission, EngineSpec


def admit(spec: EngineSpec, hardware: Hardware | None = None) -> Admission:
    """Look at the files an engine would serve, on `hardware` if it is given. Reads headers; call it off the loop."""
    if spec.checkpoint is None:
        return Admission()
    report = check(spec.checkpoint, drafting=spec.drafting, trusts_code=spec.trusts_code, hardware=hardware)
    if not report.is_servable:
        return Admission(report.reason())
    digests, loaded = {"": report.digest}, [report]
    if spec.drafting is not None and spec.drafting.draft is not None:
        draft = check(spec.drafting.draft)
        digests["draft"] = draft.digest
        loaded.append(draft)
    for name, folder in spec.adapters:
        adapter = check(folder, base=spec.checkpoint, trusts_code=spec.trusts_code, hardware=hardware)
        if not adapter.is_servable:
            return Admission(f"adapter {name}: {adapter.reason()}")
        digests[name] = adapter.digest
    known = {name: digest for name, digest in digests.items() if digest is not None}
    weights_bytes = sum(one.memory.weights_bytes for one in loaded if one.memory is not None)
    return Admission(is_visual=report.manifest.is_visual, weights_bytes=weights_bytes, digests=known)
