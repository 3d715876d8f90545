from dataclasses import replace
from pathlib import Path

import pytest

from gateway.checkpoints import Drafting, Hardware
from gateway.control.admission import admit, read_digests
from tests.support.fake_engines import engine_spec
from tests.support.packed_files import GPTQ, write_packed
from tests.support.safetensors_files import edit_json, write_checkpoint

DEMO = Path(__file__).parents[3] / "gateway" / "demo"


def test_a_version_without_files_is_admitted(tmp_path: Path) -> None:
    admission = admit(engine_spec(tmp_path))
    assert (admission.fault, admission.is_visual) == (None, False)


@pytest.mark.parametrize("adapter", [None, "shapes-v2-mirror"])
def test_a_good_checkpoint_is_admitted_and_its_eyes_are_seen(tmp_path: Path, adapter: str | None) -> None:
    adapters = (("shapes:v2+mirror", DEMO / adapter),) if adapter else ()
    admission = admit(replace(engine_spec(tmp_path), checkpoint=DEMO / "shapes-v2", adapters=adapters))
    assert (admission.fault, admission.is_visual) == (None, True)
    assert 3_000_000 < admission.weights_bytes < 5_000_000
    assert admission.digests.keys() == {"", *(name for name, _ in adapters)}
    assert len(set(admission.digests.values())) == len(admission.digests)
    spec = replace(engine_spec(tmp_path), checkpoint=DEMO / "shapes-v2", adapters=adapters)
    assert read_digests(spec) == admission.digests


def test_code_in_the_folder_is_refused_unless_it_is_trusted(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "model")
    edit_json(folder / "config.json", architectures=["MineForCausalLM"], auto_map={"AutoModel": "modeling.Mine"})
    spec = replace(engine_spec(tmp_path), checkpoint=folder)
    assert "set engine_args {trust-remote-code: true} if you trust it" in (admit(spec).fault or "")
    assert admit(replace(spec, trusts_code=True)).fault is None


def test_weights_that_the_device_cannot_load_are_refused(tmp_path: Path) -> None:
    spec = replace(engine_spec(tmp_path), checkpoint=write_packed(tmp_path / "model", GPTQ))
    assert admit(spec, Hardware("cuda")).fault is None
    assert "needs a processor with AVX-512" in (admit(spec, Hardware("cpu", has_avx512=False)).fault or "")


def test_a_draft_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    base, draft = write_checkpoint(tmp_path / "base"), write_checkpoint(tmp_path / "draft")
    spec = replace(engine_spec(tmp_path), checkpoint=base, drafting=Drafting(draft=draft))
    assert admit(spec).fault is None
    assert admit(spec).digests.keys() == {"", "draft"}
    assert read_digests(spec) == admit(spec).digests
    assert admit(spec).weights_bytes == 2 * admit(replace(spec, drafting=None)).weights_bytes, "both are loaded"
    (draft / "model.safetensors").unlink()
    assert (admit(spec).fault or "").startswith(f"the draft {draft} cannot be used: model.safetensors is missing")


def test_an_empty_folder_is_refused_with_the_reason(tmp_path: Path) -> None:
    admission = admit(replace(engine_spec(tmp_path), checkpoint=tmp_path))
    assert "is empty" in (admission.fault or "")


def test_an_adapter_that_is_none_is_refused_by_its_name(tmp_path: Path) -> None:
    spec = replace(engine_spec(tmp_path), checkpoint=DEMO / "shapes-v2", adapters=(("shapes:v2+mine", tmp_path),))
    assert (admit(spec).fault or "").startswith("adapter shapes:v2+mine: ")
