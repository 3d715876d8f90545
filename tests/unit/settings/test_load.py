from pathlib import Path

import pytest

from gateway.settings import Settings, SettingsError, for_checkpoint, for_demo, load

SIMULATED = "models: [{name: m, versions: [{name: v1, engine: simulated}]}]\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("v1", "lora"):
        (tmp_path / "weights" / name).mkdir(parents=True)
    return tmp_path


def write(folder: Path, text: str) -> Path:
    path = folder / "gateway.yaml"
    path.write_text(text)
    return path


def fail(path: Path | None, flags: dict[str, object] | None = None, environ: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(path, flags, environ or {})
    return [str(problem).removeprefix(f"{path.parent}/" if path else "") for problem in caught.value.problems]


def test_without_a_file_everything_is_default() -> None:
    assert load(None, {}, {}) == Settings()


def test_flag_wins_over_environment_over_file_over_default(folder: Path) -> None:
    path = write(folder, "server: {port: 1, relays: 1, idle_timeout_s: 7}\n" + SIMULATED)
    assert load(path, {}, {}).server.port == 1
    assert load(path, {}, {"GATEWAY_SERVER_PORT": "2"}).server.port == 2
    assert load(path, {"server.port": None}, {"GATEWAY_SERVER_PORT": "2"}).server.port == 2
    settings = load(path, {"server.port": 3}, {"GATEWAY_SERVER_PORT": "2", "GATEWAY_SERVER_MAX_BODY_BYTES": "1MiB"})
    assert (settings.server.port, settings.server.idle_timeout_s, settings.server.max_body_bytes) == (3, 7.0, 2**20)
    assert settings.path == path


def test_folders_are_relative_to_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    version = "{name: v1, checkpoint: weights/../weights/v1, adapters: {a: ~/weights/lora}, speculative: {method: eagle, model: ./weights/v1}}"
    server = "server: {access_log_path: logs/requests.log}\n"
    path = write(folder, f"{server}engines: {{runtime_dir: run}}\nmodels: [{{name: m, versions: [{version}]}}]\n")
    settings = load(path, {}, {})
    assert settings.models[0].versions[0].checkpoint == str(folder / "weights/v1")
    assert settings.models[0].versions[0].adapters == {"a": str(folder / "weights/lora")}
    speculative = settings.models[0].versions[0].speculative
    assert speculative is not None
    assert speculative.engine_config == {"method": "eagle", "model": str(folder / "weights/v1")}
    assert settings.engines.runtime_dir == folder / "run"
    assert settings.server.access_log_path == folder / "logs/requests.log"
    assert not (folder / "run").exists()
    assert not (folder / "logs").exists()


def test_all_problems_come_together_with_their_lines(folder: Path) -> None:
    path = write(
        folder,
        """server: {prot: 80, port: true}
admin: {host: 0.0.0.0, key: abc}
auth: {required: true}
admin: {host: 0.0.0.0, key: abc}
models:
  - name: a:b
    split: {v1: 1, v9: 3}
    versions:
      - name: v1
        checkpont: x
        checkpoint: nope
      - name: v1
        engine: vlm
        checkpoint: weights/v1
""",
    )
    lines = fail(path, {"server.idle_timeout_s": "x"}, {"GATEWAY_SERVER_RELAYS": "many", "GATEWAY_STATE_URL": "db"})
    wanted = [
        "environment GATEWAY_SERVER_RELAYS: server.relays",
        "environment GATEWAY_STATE_URL: state.url",
        "flag: server.idle_timeout_s",
        "gateway.yaml:1: server.prot",
        "gateway.yaml:1: server.port",
        "gateway.yaml:4: admin",
        "gateway.yaml:4: admin.key",
        "gateway.yaml:4: admin.host",
        "gateway.yaml:6: models[0].name",
        "gateway.yaml:7: models[0].split",
        "gateway.yaml:10: models[0].versions[0].checkpont",
        "gateway.yaml:11: models[0].versions[0].checkpoint",
        "gateway.yaml:12: models[0].versions[1].name",
        "gateway.yaml:13: models[0].versions[1].engine",
    ]
    assert sorted(": ".join(line.split(": ")[:2]) for line in lines) == sorted(wanted)


def test_problems_stand_in_the_order_of_the_file(folder: Path) -> None:
    lines = fail(write(folder, "zzz: 1\nserver: {zzz: 1}\nauth: {zzz: 1}\n" + SIMULATED))
    assert [line.split(": ")[0] for line in lines] == ["gateway.yaml:1", "gateway.yaml:2", "gateway.yaml:3"]


def test_a_file_that_contains_itself_says_what_is_wrong(folder: Path) -> None:
    (line,) = fail(write(folder, "zzz: &a [*a]\n" + SIMULATED))
    assert line.startswith("gateway.yaml:1: zzz: is an unknown key")
    assert fail(write(folder, "~: '\\ud83d'\n" + SIMULATED))[0].startswith("gateway.yaml: None: keys should be strings")


@pytest.mark.parametrize("text", ["", "server: {port: 1}\n", "models: []\n", "models:\n"])
def test_a_file_without_models_is_refused(folder: Path, text: str) -> None:
    (line,) = fail(write(folder, text))
    assert "name at least one model" in line


def test_a_file_that_cannot_be_read(folder: Path) -> None:
    assert fail(folder / "gone.yaml") == ["gone.yaml: cannot be read: No such file or directory"]
    assert fail(folder) == [f"{folder.name}: cannot be read: Is a directory"]
    (folder / "latin.yaml").write_bytes(b"a: \xff")
    assert "is not UTF-8" in fail(folder / "latin.yaml")[0]


def test_a_byte_order_mark_is_no_problem(folder: Path) -> None:
    path = folder / "gateway.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + SIMULATED.encode())
    assert load(path, {}, {}).models[0].name == "m"


def test_broken_yaml_has_a_line(folder: Path) -> None:
    (line,) = fail(write(folder, "server:\n  port: [1\nmodels: 3\n"))
    assert line.startswith("gateway.yaml:3: not valid YAML")


def test_the_admin_key_comes_from_the_variable_the_file_names(folder: Path) -> None:
    path = write(folder, "admin: {host: 0.0.0.0, key_env: MY_KEY}\n" + SIMULATED)
    settings = load(path, {}, {"MY_KEY": "hush", "GATEWAY_ADMIN_KEY": "other"})
    assert settings.admin.key is not None
    assert settings.admin.key.get_secret_value() == "hush"
    assert "hush" not in repr(settings)
    assert "set MY_KEY" in fail(path, {}, {"GATEWAY_ADMIN_KEY": "other", "MY_KEY": ""})[0]


KEYS = "auth:\n  required: true\n  keys:\n    - {{name: laptop, sha256: {}}}\n"


def test_the_hashes_of_keys_come_from_the_file(folder: Path) -> None:
    settings = load(write(folder, KEYS.format("a" * 64) + SIMULATED), {}, {})
    assert [(key.name, key.sha256) for key in settings.auth.keys] == [("laptop", "a" * 64)]
    assert load(settings.path, {}, {"GATEWAY_AUTH_REQUIRED": "false"}).auth.required is False


@pytest.mark.parametrize(
    ("text", "environ"),
    [
        (KEYS.format("sk-hush"), {}),
        ("auth: {keys: [sk-hush]}\n", {}),
        ("auth: {keys: sk-hush}\n", {}),
        ("", {"GATEWAY_AUTH_KEYS": "sk-hush"}),
    ],
)
def test_a_key_in_the_place_of_its_hash_is_refused_and_not_shown(
    folder: Path, text: str, environ: dict[str, str]
) -> None:
    lines = fail(write(folder, text + SIMULATED), {}, environ)
    assert "auth.keys" in lines[0]
    assert "hush" not in str(lines)


def test_an_engine_elsewhere_needs_no_folder(folder: Path) -> None:
    version = "{name: v1, endpoints: ['http://10.0.0.5:8000']}"
    settings = load(write(folder, f"models: [{{name: m, versions: [{version}]}}]\n"), {}, {})
    assert settings.models[0].versions[0].endpoints == ("http://10.0.0.5:8000",)


def test_internal_fields_are_unknown_to_the_file(folder: Path) -> None:
    lines = fail(write(folder, "path: /x\nadmin:\n  key: hush\n" + SIMULATED))
    assert [line.split(": ")[:2] for line in lines] == [["gateway.yaml:1", "path"], ["gateway.yaml:3", "admin.key"]]
    assert "hush" not in str(lines)


@pytest.mark.parametrize("text", ["server: 3\n", "server: [1]\n", "engines: x\nadmin: y\n"])
def test_sections_of_the_wrong_type_are_reported(folder: Path, text: str) -> None:
    assert fail(write(folder, text + SIMULATED), {"server.port": 1}, {"GATEWAY_ADMIN_KEY": "s"})


def test_the_environment_of_the_process_is_used_when_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_SERVER_PORT", "4321")
    assert load(None).server.port == 4321


def test_settings_for_one_checkpoint(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    settings = for_checkpoint(Path("weights/v1"), None, {"server.port": 5}, {"GATEWAY_SERVER_HOST": "127.0.0.1"})
    (model,) = settings.models
    assert (model.name, model.versions[0].name, model.split) == ("v1", "v1", {"v1": 1.0})
    assert model.versions[0].checkpoint == str(folder / "weights/v1")
    assert (settings.server.port, settings.server.host) == (5, "127.0.0.1")
    assert for_checkpoint(folder / "weights/v1", "org/m", {}, {}).models[0].name == "org/m"


@pytest.mark.parametrize(("name", "model"), [("my model (2)", "my-model-2"), ("a:b+c", "a-b-c"), ("...", "model")])
def test_a_folder_name_becomes_a_model_name(tmp_path: Path, name: str, model: str) -> None:
    (tmp_path / name / "x").mkdir(parents=True) if name != "..." else (tmp_path / name).mkdir()
    assert for_checkpoint(tmp_path / name, None, {}, {}).models[0].name == model


def test_a_missing_checkpoint_and_a_bad_name_come_together(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        for_checkpoint(tmp_path / "gone", "a:b", {}, {})
    assert [problem.key for problem in caught.value.problems] == ["models[0].name", "models[0].versions[0].checkpoint"]
    assert caught.value.problems[1].where == "command line"


def test_settings_of_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.settings.checks.Path.is_dir", lambda _: True)
    settings = for_demo({}, {})
    (model,) = settings.models
    assert (model.name, model.split, settings.server.host) == ("shapes", {"v1": 0.9, "v2": 0.1}, "127.0.0.1")
    first, second = model.versions
    assert first.engine_args == second.engine_args
    assert first.engine_args["dtype"] == "float32"
    assert list(second.adapters) == ["mirror"]
    assert second.defaults == {"temperature": 0.0}


def test_an_address_is_served_under_its_last_name() -> None:
    version = for_checkpoint("hf://org/Name@v1", None, {}, {}).models[0].versions[0]
    assert version.checkpoint == "hf://org/Name@v1"
    assert for_checkpoint("s3://bucket/runs/best one", None, {}, {}).models[0].name == "best-one"
    with pytest.raises(SettingsError, match="should be a folder, hf://ORG/NAME"):
        for_checkpoint("ftp://host/m", None, {}, {})


def test_the_cache_is_found_like_other_folders(tmp_path: Path) -> None:
    (tmp_path / "g.yaml").write_text("cache: {dir: c}\nmodels: [{name: m, versions: [{name: v, engine: simulated}]}]")
    assert load(tmp_path / "g.yaml", {}, {}).cache.folder == tmp_path / "c"
    assert load(None, {}, {"GATEWAY_CACHE_DIR": "/cache"}).cache.folder == Path("/cache")
    assert load(None, {}, {}).cache.folder == Path.home() / ".cache" / "gateway"
