import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.checkpoints import check, inspect
from tests.support.safetensors_files import (
    HIDDEN,
    LAYERS,
    RANK,
    VOCABULARY,
    edit_json,
    list_shapes,
    write_adapter,
    write_checkpoint,
    write_header,
    write_json,
    write_shards,
    write_tensors,
    write_tokenizer,
)

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
WEIGHTS, CONFIG, INDEX = "model.safetensors", "config.json", "model.safetensors.index.json"
SHARD = "model-00002-of-00002.safetensors"

Damage = Callable[[Path], object]


def edit(name: str, **changes: object) -> Damage:
    return lambda folder: edit_json(folder / name, **changes)


def remove(*names: str) -> Damage:
    return lambda folder: [(folder / name).unlink() for name in names]


def put(name: str, content: str | bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)


def cut(name: str, count: int) -> Damage:
    return lambda folder: os.truncate(folder / name, (folder / name).stat().st_size - count)


def weigh(shapes: dict[str, tuple[int, ...]], **options: object) -> Damage:
    return lambda folder: write_tensors(folder / WEIGHTS, shapes, **options)  # type: ignore[arg-type]


def without(*names: str) -> dict[str, tuple[int, ...]]:
    return {name: shape for name, shape in list_shapes().items() if name not in names}


def in_shards(damage: Damage) -> Damage:
    return lambda folder: damage(write_shards(folder))


def place(**changes: str) -> Damage:
    def damage(folder: Path) -> None:
        index = json.loads((folder / INDEX).read_text())
        index["weight_map"] |= {name.replace("__", "."): file for name, file in changes.items()}
        write_json(folder / INDEX, index)

    return in_shards(damage)


def as_run(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()
    for number in (9, 100):
        write_checkpoint(folder / f"checkpoint-{number}")
    write_json(folder / "checkpoint-100" / "trainer_state.json", {"best_model_checkpoint": "out/checkpoint-9"})


def swap_pipe(name: str) -> Damage:
    return lambda folder: ((folder / name).unlink(), os.mkfifo(folder / name))


def write_bad_pickle(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")


def nan(dtype: str, raw: bytes) -> Damage:
    return weigh(list_shapes(), dtype=dtype, fill=raw)


DAMAGED: list[tuple[str, Damage, str, str, str]] = [
    # name, damage, code, what the reason names, what the reason says to do
    ("no config", remove(CONFIG), "config-missing", CONFIG, "save_pretrained"),
    ("config cut off", cut(CONFIG, 5), "json-broken", f"{CONFIG} is no JSON", "replace it"),
    ("config with a line break too many", put(CONFIG, '{\n "a": }'), "json-broken", "line 2, column 7", "replace it"),
    ("config is a list", put(CONFIG, "[1]"), "json-broken", CONFIG, "replace it"),
    ("config not UTF-8", put(CONFIG, b'{"a": "\xff"}'), "json-broken", "not UTF-8", "replace it"),
    ("config nested too deeply", put(CONFIG, "[" * 200_000), "json-broken", CONFIG, "replace it"),
    ("config with an endless number", put(CONFIG, '{"a": ' + "9" * 9999 + "}"), "json-broken", CONFIG, "replace it"),
    ("config too long", put(CONFIG, " " * (16 * 2**20 + 1)), "file-too-long", CONFIG, "replace it"),
    ("config empty", put(CONFIG, ""), "file-empty", CONFIG, "copy or download"),
    ("config is a pointer", put(CONFIG, POINTER), "lfs-pointer", CONFIG, "git lfs pull"),
    ("config is a pipe", swap_pipe(CONFIG), "file-unreadable", CONFIG, "replace it"),
    ("no architecture, pictures", edit(CONFIG, architectures=None, vision_config={"depth": 1}), "architecture-missing",
     CONFIG, "architectures"),
    ("architecture is a number", edit(CONFIG, architectures=[5]), "architecture-missing", CONFIG, "architectures"),
    ("misspelt architecture", edit(CONFIG, architectures=["LlamaForCausaLM"]), "architecture-unknown",
     "LlamaForCausaLM", "did you mean LlamaForCausalLM"),
    ("removed architecture", edit(CONFIG, architectures=["XverseForCausalLM"]), "architecture-unknown", "Xverse", "0.23.0"),
    ("NVILA", edit(CONFIG, architectures=["VILAForCausalLM"], model_type="vila"), "architecture-unknown",
     "VILA and NVILA models in this form are not served by vLLM 0.32", "NVILA-Lite is served as LlavaLlamaModel"),
    ("draft head", edit(CONFIG, architectures=["Eagle3LlamaForCausalLM"]), "architecture-draft", CONFIG, "speculative"),
    ("no model type", edit(CONFIG, model_type=None), "model-type-missing", CONFIG, "copy model_type"),
    ("unknown model type", edit(CONFIG, model_type="lamma"), "model-type-unknown", "'lamma'", "copy model_type"),
    ("hidden size in words", edit(CONFIG, hidden_size="eight"), "config-value", "hidden_size is 'eight'", "copy config.json"),
    ("context of nothing", edit(CONFIG, max_position_embeddings=0), "config-value", "max_position_embeddings", "copy"),
    ("unknown number type", edit(CONFIG, dtype="float7"), "config-value", "dtype is 'float7'", "bfloat16"),
    ("no weights", remove(WEIGHTS), "weights-missing", WEIGHTS, "save_pretrained"),
    ("only a pickle", write_bad_pickle, "weights-pickle", "pytorch_model.bin", "safe_serialization=True"),
    ("pickle by another name", put(WEIGHTS, b"PK\x03\x04" + b"x" * 50), "weights-pickle", WEIGHTS, "save_pretrained"),
    ("trainer's pieces", lambda f: ((f / WEIGHTS).unlink(), (f / "global_step7").mkdir()), "weights-in-pieces",
     "global_step7", "zero_to_fp32.py"),
    ("other format", lambda f: (f / WEIGHTS).rename(f / "m.gguf"), "weights-missing", "m.gguf", "save_pretrained"),
    ("weights cut off", cut(WEIGHTS, 7), "weights-cut-off", WEIGHTS, "copy or download"),
    ("weights cut off in the header", lambda f: os.truncate(f / WEIGHTS, 60), "weights-cut-off", WEIGHTS, "copy or download"),
    ("weights with a tail", lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes() + b"tail"), "weights-damaged", "4 bytes", "copy or download"),
    ("weights without a header", put(WEIGHTS, b"x" * 99), "weights-damaged", WEIGHTS, "copy or download"),
    ("weights with an endless header", put(WEIGHTS, struct.pack("<Q", 2**60) + b"{}"), "weights-damaged", WEIGHTS, "copy"),
    ("weights of five bytes", put(WEIGHTS, b"12345"), "weights-cut-off", WEIGHTS, "copy or download"),
    ("weights are a pointer", put(WEIGHTS, POINTER), "lfs-pointer", WEIGHTS, "git lfs pull"),
    ("weights are empty", put(WEIGHTS, ""), "file-empty", WEIGHTS, "copy or download"),
    ("weights are a pipe", swap_pipe(WEIGHTS), "file-unreadable", WEIGHTS, "replace it"),
    ("weights without tensors", lambda f: write_header(f / WEIGHTS, {}), "weights-missing", WEIGHTS, "save_pretrained"),
    ("weights not finite", nan("F32", struct.pack("<f", float("nan"))), "weights-not-finite", WEIGHTS, "earlier checkpoint"),
    ("infinity in bfloat16", nan("BF16", b"\x80\x7f"), "weights-not-finite", WEIGHTS, "earlier checkpoint"),
    ("infinity in float16", nan("F16", b"\x00\xfc"), "weights-not-finite", WEIGHTS, "earlier checkpoint"),
    ("shard missing", in_shards(remove(SHARD)), "shards-missing", SHARD, "copy or download"),
    ("shard missing, no index", in_shards(remove(SHARD, INDEX)), "shards-missing", "model-*", "copy or download"),
    ("shard cut off", in_shards(cut(SHARD, 4)), "weights-cut-off", SHARD, "copy or download"),
    ("index broken", in_shards(put(INDEX, '{"weight_map": [')), "index-broken", INDEX, "copy the index again"),
    ("index empty", in_shards(put(INDEX, '{"weight_map": {}}')), "index-broken", INDEX, "copy the index again"),
    ("index leaves the folder", place(x="../other/x.safetensors"), "index-escapes", "../other/x.safetensors", "do not serve"),
    ("index leaves by the root", place(x="/etc/passwd"), "index-escapes", "/etc/passwd", "do not serve"),
    ("index of another save", place(model__norm__weight=SHARD), "index-mismatch", INDEX, "same one"),
    ("fewer rows than the vocabulary", edit(CONFIG, vocab_size=VOCABULARY + 9), "weights-misfit", WEIGHTS, "save both"),
    ("another width", edit(CONFIG, hidden_size=HIDDEN * 2), "weights-misfit", "hidden_size 16", "the same one"),
    ("layer missing", edit(CONFIG, num_hidden_layers=LAYERS + 1), "layers-missing", WEIGHTS, "copy all shards"),
    ("layer too many", edit(CONFIG, num_hidden_layers=1), "layers-extra", "2 layers, config.json says 1", "copy"),
    ("head missing", weigh(without("lm_head.weight")), "head-missing", "lm_head.weight", "tie_word_embeddings"),
    ("names left wrapped", weigh({f"_orig_mod.{k}": v for k, v in list_shapes().items()}), "weights-wrapped",
     WEIGHTS, "unwrap the model"),
    ("adapter not merged", weigh(list_shapes() | {"a.lora_A.weight": (1, 1)}), "weights-unmerged", WEIGHTS, "merge"),
    ("no tokenizer", remove("tokenizer.json"), "tokenizer-missing", "tokenizer.json", "tokenizer.save_pretrained"),
    ("tokenizer cut off", cut("tokenizer.json", 9), "tokenizer-broken", "tokenizer.json", "copy the tokenizer"),
    ("tokenizer without words", put("tokenizer.json", '{"model": {}}'), "tokenizer-broken", "tokenizer.json", "copy"),
    ("tokenizer too large", lambda f: write_tokenizer(f, VOCABULARY + 1), "tokenizer-misfit", "17 tokens", "trained with"),
    ("chat token without a row", lambda f: (write_tokenizer(f, added={"<u>": 99}), put("chat_template.jinja", "<u>")(f)),
     "tokenizer-misfit", "<u>", "resize_token_embeddings"),
    ("tokenizer settings broken", put("tokenizer_config.json", "{"), "json-broken", "tokenizer_config.json", "replace it"),
    ("template broken", put("chat_template.jinja", "a\n{% if x %}"), "template-broken", "line 2", "mend it, or copy"),
    ("template with an unknown filter", put("chat_template.jinja", "{{ x | shout }}"), "template-broken", "'shout'", "mend"),
    ("template not UTF-8", put("chat_template.jinja", b"\xff"), "template-broken", "chat_template.jinja", "copy"),
    ("template empty", put("chat_template.jinja", "\n"), "template-broken", "chat_template.jinja", "copy"),
    ("generation settings broken", put("generation_config.json", "{,"), "json-broken", "generation_config.json", "replace"),
    ("generation settings refused", edit("generation_config.json", top_p=1.5), "generation-value", "top_p is 1.5", "in range"),
    ("link to nowhere", lambda f: (f / "vocab.json").symlink_to("gone"), "link-broken", "vocab.json", "copy the file"),
    ("own code", edit(CONFIG, architectures=["MineForCausalLM"], auto_map={"AutoModel": "m.M"}), "own-code",
     "MineForCausalLM is not known", "read that code, and set engine_args {trust-remote-code: true} if you trust it"),
    ("own configuration", edit(CONFIG, model_type="mine", auto_map={"AutoConfig": "m.M"}), "own-code", "model type mine", "read"),
    ("own tokenizer", lambda f: ((f / "tokenizer.json").unlink(), edit_json(f / "tokenizer_config.json", auto_map={"AutoTokenizer": "t.T"})),
     "own-code", "tokenizer_config.json: the tokenizer is code", "read that code"),
    ("tensor missing", weigh(without("model.layers.1.mlp.down_proj.weight")), "tensors-missing", "layers.1.mlp.down_proj", "copy all"),
    ("tensor of another shape", weigh(list_shapes() | {"model.layers.0.self_attn.k_proj.weight": (4, 8)}), "tensor-shape",
     "k_proj.weight is 4 by 8, config.json makes it 8 by 8", "the same one"),
    ("tensor too many", weigh(list_shapes() | {"model.layers.0.mlp.w.weight": (4,)}), "tensors-extra", "mlp.w.weight", "same one"),
    ("run folder", as_run, "folder-is-run", "training run", "@newest, which is checkpoint-100, or"),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "code", "named", "mend"), [row[1:] for row in DAMAGED], ids=[r[0] for r in DAMAGED])
def test_damaged(tmp_path: Path, damage: Damage, code: str, named: str, mend: str) -> None:
    folder = write_checkpoint(tmp_path / "model")
    assert check(folder).findings == ()
    damage(folder)
    report = check(folder)
    assert not report.is_servable
    assert report.has_errors
    assert code in [finding.code for finding in report.findings if finding.severity == "error"]
    assert named in report.reason()
    assert mend in report.reason()
    assert "\n" not in report.reason()


WARNED: list[tuple[str, Damage, str, str]] = [
    ("no template", remove("chat_template.jinja"), "template-missing", "chat requests will fail"),
    ("generic code", edit(CONFIG, architectures=["HeliumForCausalLM"], model_type="helium"), "architecture-generic", "slower"),
    ("odd context", edit(CONFIG, max_position_embeddings=10**12), "context-odd", "1,000,000,000,000"),
    ("short context", edit(CONFIG, max_position_embeddings=4), "context-odd", "4 tokens"),
    ("no architecture", edit(CONFIG, architectures=None), "architecture-missing", "the engine guesses one"),
    ("tensors twice", lambda f: write_tensors(f / "a.safetensors", list_shapes()), "weights-twice", "a.safetensors"),
    ("index too short", in_shards(lambda f: edit_json(f / INDEX, weight_map=dict.fromkeys(list(list_shapes())[4:], SHARD)
     | {"model.norm.weight": "model-00001-of-00002.safetensors"})), "index-mismatch", "does not name 3 tensors"),
    ("token without a row", lambda f: write_tokenizer(f, added={"<u>": 99}), "token-without-row", "<u>"),
    ("picture token without a row", edit(CONFIG, image_token_id=999), "token-without-row", "image_token_id 999"),
    ("no end", lambda f: [edit_json(f / n, eos_token_id=None, eos_token=None) for n in
     (CONFIG, "generation_config.json", "tokenizer_config.json")], "end-missing", "eos_token_id"),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "code", "said"), [row[1:] for row in WARNED], ids=[row[0] for row in WARNED])
def test_warned_of(tmp_path: Path, damage: Damage, code: str, said: str) -> None:
    folder = write_checkpoint(tmp_path / "model")
    damage(folder)
    report = check(folder)
    assert report.is_servable
    assert report.reason() == ""
    assert [(finding.severity, finding.code) for finding in report.findings] == [("warning", code)]
    assert said in str(report.findings[0])


def test_code_that_is_trusted_is_warned_of(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "model")
    edit_json(folder / CONFIG, architectures=["MineForCausalLM"], auto_map={"AutoModel": "m.M"})
    report = check(folder, trusts_code=True)
    assert report.is_servable
    assert [(finding.severity, finding.code) for finding in report.findings] == [("warning", "own-code")]


def test_eight_bits_that_nothing_is_said_of_are_warned_of(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "model")
    write_tensors(folder / WEIGHTS, list_shapes(), dtype="I8")
    assert {finding.code for finding in check(folder).findings} == {"quantization-unsaid", "tensor-dtype"}


def test_folder_that_is_none(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    empty = tmp_path / "empty"
    empty.mkdir()
    parent = tmp_path / "parent"
    write_checkpoint(parent / "inner")
    for path, said in (
        (tmp_path / "gone", "gone does not exist: check the path"),
        (file, "is a file, not a folder"),
        (empty, "is empty"),
        (parent, f"give the folder inside it: {parent / 'inner'}"),
        (Path("a\0b"), "does not exist"),
        (Path("x" * 5000), "cannot be read"),
        (Path("/dev/null"), "is a file, not a folder"),
    ):
        report = check(path)
        assert not report.is_servable
        assert said in report.reason()


def test_folder_without_right_to_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    write_checkpoint(tmp_path / "model")
    monkeypatch.setattr(os, "scandir", refuse)
    assert "cannot be read (Permission denied): give the user who runs" in check(tmp_path / "model").reason()


def test_file_without_right_to_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, flags: int) -> int:
        raise PermissionError(13, f"Permission denied {path} {flags}"[:17])

    write_checkpoint(tmp_path / "model")
    monkeypatch.setattr(os, "open", refuse)
    assert (
        check(tmp_path / "model").reason().startswith("config.json cannot be read (Permission denied): give the user")
    )


def test_socket_in_place_of_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_checkpoint(tmp_path / "m")
    (folder / WEIGHTS).unlink()
    monkeypatch.chdir(folder)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(WEIGHTS)
        assert "model.safetensors is no plain file" in check(folder).reason()


def test_cache_of_links_is_accepted(tmp_path: Path) -> None:
    cache = tmp_path / "models--a--b"
    source = write_checkpoint(cache / "blobs")
    snapshot = cache / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    for file in source.iterdir():
        (snapshot / file.name).symlink_to(Path("../../blobs") / file.name)
    assert check(snapshot).findings == ()
    assert "snapshots/abc" in check(cache).reason()


def test_link_out_of_the_folder_is_warned_of(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "model")
    (folder / "tokenizer.json").rename(tmp_path / "elsewhere.json")
    (folder / "tokenizer.json").symlink_to("../elsewhere.json")
    report = check(folder)
    assert report.is_servable
    assert [finding.code for finding in report.findings] == ["link-outside"]
    assert str(tmp_path / "elsewhere.json") in report.findings[0].message


def test_linked_folder_is_fine(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "model")
    (tmp_path / "current").symlink_to("model")
    assert check(tmp_path / "current").findings == ()


def test_shards_and_visual_model_are_fine(tmp_path: Path) -> None:
    assert check(write_shards(write_checkpoint(tmp_path / "a"))).findings == ()
    report = check(write_checkpoint(tmp_path / "b", is_visual=True))
    assert report.findings == ()
    assert report.manifest.is_visual


def test_lone_adapter_is_sound_but_not_servable(tmp_path: Path) -> None:
    report = check(write_adapter(tmp_path / "lora"))
    assert not report.has_errors
    assert not report.is_servable
    assert "is a LoRA adapter: give its base as the checkpoint" in report.reason()


def test_adapter_over_its_base(tmp_path: Path) -> None:
    base = write_checkpoint(tmp_path / "base")
    report = check(write_adapter(tmp_path / "lora"), base)
    assert report.is_servable
    assert report.findings == ()
    assert report.base == base


@pytest.mark.parametrize(
    ("make_base", "said"),
    [
        (lambda path: write_adapter(path), "is an adapter itself: give the full checkpoint"),
        (lambda path: path, "does not exist"),
        (lambda path: (write_checkpoint(path) / CONFIG).unlink(), "cannot be served: config.json is missing"),
    ],
)
def test_adapter_over_an_unusable_base(tmp_path: Path, make_base: Damage, said: str) -> None:
    make_base(tmp_path / "base")
    report = check(write_adapter(tmp_path / "lora"), tmp_path / "base")
    assert not report.is_servable
    assert said in report.reason()


def test_checkpoint_in_place_of_an_adapter(tmp_path: Path) -> None:
    base = write_checkpoint(tmp_path / "base")
    assert "is a full checkpoint, not an adapter: serve it as a version" in check(base, base).reason()


def test_report_is_plain_data(tmp_path: Path) -> None:
    base = write_checkpoint(tmp_path / "base")
    data = json.loads(json.dumps(check(write_adapter(tmp_path / "lora"), base).to_dict(), allow_nan=False))
    assert data["is_servable"] is True
    assert data["manifest"]["adapter"]["rank"] == RANK
    assert data["base"] == str(base)


def test_names_from_a_checkpoint_cannot_reach_the_terminal(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "model")
    edit_json(folder / CONFIG, architectures=["\x1b[2J\nevil"], model_type="\x1b[31m")
    report = check(folder)
    shown = json.dumps(report.to_dict(), ensure_ascii=False) + report.reason()
    assert "\x1b" not in shown
    assert "\\x1b[2J" in report.reason()


def count_read_bytes() -> int:
    """Bytes that this process has read by system calls, from caches too."""
    return int(Path("/proc/self/io").read_text().split("rchar: ")[1].split()[0])


def test_twenty_gigabytes_take_no_time(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "model")
    shapes = {f"model.layers.{number}.mlp.w.weight": (10_000, 10_000) for number in range(50)}
    header, end = {}, 0
    for name, shape in shapes.items():
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + 4 * 10**8]}
        end += 4 * 10**8
    write_header(folder / WEIGHTS, header)
    os.truncate(folder / WEIGHTS, (folder / WEIGHTS).stat().st_size + end)
    edit_json(folder / CONFIG, num_hidden_layers=50, model_type="helium", architectures=["HeliumForCausalLM"])
    read_before = count_read_bytes()
    start = perf_counter()
    report = check(folder)
    assert perf_counter() - start < 2
    assert count_read_bytes() - read_before < 100 * 10**6
    assert report.manifest.size_bytes == 20 * 10**9
    assert report.is_servable


def test_nothing_heavy_is_imported() -> None:
    code = "import sys, gateway.checkpoints; print([m for m in ('torch', 'transformers', 'vllm') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FUZZED = {
    "config.json": [
        "architectures", "model_type", "hidden_size", "num_hidden_layers", "vocab_size", "text_config", "vision_config",
        "auto_map", "quantization_config", "dtype", "tie_word_embeddings", "max_position_embeddings", "image_token_id",
        "thinker_config", "is_encoder_decoder", "vision_tower", "num_nextn_predict_layers",
    ],
    "generation_config.json": ["temperature", "top_p", "top_k", "eos_token_id", "max_new_tokens"],
    "tokenizer_config.json": ["chat_template", "eos_token", "auto_map"],
    "processor_config.json": ["chat_template", "image_processor"],
    "tokenizer.json": ["model", "added_tokens"],
    "model.safetensors.index.json": ["weight_map"],
}  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(file=st.sampled_from(sorted(FUZZED)), data=st.data())
def test_any_value_anywhere_is_survived(tmp_path: Path, file: str, data: st.DataObject) -> None:
    folder = write_checkpoint(tmp_path / "model", is_visual=True)
    for name in ("processor_config.json", INDEX):
        (folder / name).unlink(missing_ok=True)
    path = folder / file
    known = json.loads(path.read_text()) if path.exists() else {}
    changes = data.draw(st.dictionaries(st.sampled_from(FUZZED[file]), values, min_size=1, max_size=4))
    write_json(path, known | changes)
    report = check(folder)
    json.dumps(report.to_dict())
    assert report.is_servable == (report.reason() == "")
    assert inspect(folder).kind == "checkpoint"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(header=st.dictionaries(st.text(max_size=5), values, max_size=3), data=st.binary(max_size=16))
def test_any_header_is_survived(tmp_path: Path, header: dict[str, object], data: bytes) -> None:
    folder = write_checkpoint(tmp_path / "model")
    write_header(folder / WEIGHTS, header, data)
    assert not check(folder).is_servable


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.dictionaries(st.sampled_from(
    ["r", "lora_alpha", "target_modules", "peft_type", "rank_pattern", "modules_to_save", "bias", "init_lora_weights",
     "base_model_name_or_path", "use_dora", "fan_in_fan_out"]), values, min_size=1, max_size=4))  # fmt: skip
def test_any_adapter_setting_is_survived(tmp_path: Path, changes: dict[str, object]) -> None:
    base = write_checkpoint(tmp_path / "base")
    report = check(write_adapter(tmp_path / "lora", **changes), base)
    json.dumps(report.to_dict())
