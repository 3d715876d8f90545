from gateway.settings.docs import render


def test_a_key_has_type_default_and_meaning() -> None:
    page = render()
    assert "| `max_body_bytes` | whole number | `64MiB` |" in page
    assert "| `fork` | `auto` or `always` or `never` | `auto` |" in page
    assert "| `adapters` | map of names to text | none |" in page
    assert "## `models[].versions[]`" in page


def test_what_the_program_fills_in_itself_is_not_offered() -> None:
    page = render()
    assert "| `key` |" not in page
    assert "| `path` |" not in page


def test_what_is_refused_is_listed() -> None:
    assert "- `models[].versions[].endpoints.*`: only http://HOST:PORT is possible yet" in render()


def test_lists_of_sections_have_a_section_of_their_own() -> None:
    page = render()
    assert "## `auth.keys[]`" in page
    assert "| `sha256` | text | required |" in page


def test_files_and_folders_are_paths() -> None:
    assert "| `access_log_path` | path | none |" in render()
    assert "| `runtime_dir` | path | none |" in render()
