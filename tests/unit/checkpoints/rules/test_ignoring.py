from pathlib import Path
from typing import Any

import pytest

from gateway.checkpoints import check
from gateway.checkpoints.findings import Finding
from tests.support import packed_files as packed
from tests.support.safetensors_files import HIDDEN

Q_PROJ = "model.layers.1.self_attn.q_proj"


def judge(folder: Path, settings: dict[str, Any], *, has_plain: bool) -> tuple[Finding, ...]:
    """Findings about a checkpoint with one layer that is not packed, or with none."""
    entries = packed.list_packed(settings)
    if has_plain:
        entries = {name: entry for name, entry in entries.items() if not name.startswith(f"{Q_PROJ}.")}
        entries[f"{Q_PROJ}.weight"] = ("F32", (HIDDEN, HIDDEN))
    return check(packed.write_packed(folder, settings, entries)).findings


@pytest.mark.parametrize(
    ("settings", "key", "entry"),
    [
        (packed.FP8_BLOCKS, "modules_to_not_convert", Q_PROJ),
        (packed.FP8_BLOCKS, "ignored_layers", Q_PROJ),
        (packed.INT8, "ignore", Q_PROJ),
        (packed.INT8, "ignore", "re:.*"),
        (packed.INT8, "ignore", r"re:.*layers\.1\.self_attn\.q_proj$"),
    ],
)
def test_what_is_listed_must_be_plain(tmp_path: Path, settings: dict[str, Any], key: str, entry: str) -> None:
    (finding,) = judge(tmp_path, _listing(settings, key, entry), has_plain=False)
    assert finding.code == "packing-parts"
    assert "are packed that config.json says are not, first model.layers." in finding.message


@pytest.mark.parametrize("settings", [packed.FP8_BLOCKS, packed.INT8])
@pytest.mark.parametrize("entry", [None, "lm_head", "model.layers.3.self_attn.q_proj", "re:.*lm_head"])
def test_what_is_plain_must_be_listed(tmp_path: Path, settings: dict[str, Any], entry: str | None) -> None:
    key = "ignore" if settings == packed.INT8 else "modules_to_not_convert"
    (finding,) = judge(tmp_path, settings if entry is None else _listing(settings, key, entry), has_plain=True)
    assert finding.code == "packing-parts"
    assert f"{Q_PROJ} is not packed, and config.json does not list it as such" in finding.message


@pytest.mark.parametrize(
    "entry",
    [
        Q_PROJ, "q_proj", "self_attn.q_proj", "language_model.layers.1.self_attn.q_proj", "re:.*layers.1.*q_proj",
        "model.layers.1.self_attn.qkv_proj", "re:.*(q|k)_proj", "re:(.*)*x",
    ],
)  # fmt: skip
def test_what_may_be_listed_is_not_judged(tmp_path: Path, entry: str) -> None:
    assert judge(tmp_path, _listing(packed.INT8, "ignore", entry), has_plain=True) == ()


@pytest.mark.parametrize("entry", ["re:(.*)*x", "re:[", "re:" + ".*" * 30, "lm_head", ""])
def test_what_does_not_name_a_layer_for_sure_is_not_held_against_it(tmp_path: Path, entry: str) -> None:
    assert judge(tmp_path, _listing(packed.INT8, "ignore", entry), has_plain=False) == ()


def test_where_only_some_layers_are_to_be_packed_others_are_plain(tmp_path: Path) -> None:
    group = packed.INT8["config_groups"]["group_0"] | {"targets": ["re:.*mlp.*"]}
    entries = packed.list_packed(packed.INT8) | {f"{Q_PROJ}.weight": ("F32", (HIDDEN, HIDDEN))}
    del entries[f"{Q_PROJ}.weight_scale"]
    settings = packed.INT8 | {"config_groups": {"group_0": group}}
    assert check(packed.write_packed(tmp_path, settings, entries)).findings == ()


def _listing(settings: dict[str, Any], key: str, entry: str) -> dict[str, Any]:
    return settings | {key: [entry]}
