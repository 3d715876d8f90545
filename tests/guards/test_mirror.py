"""Every source file has its test file, and every unit test its source file."""

from pathlib import Path

ROOT = Path(__file__).parents[2]

# Joined from other rooms' tested parts; what they do together is tested end to end.
TESTED_ELSEWHERE = (
    {"__main__.py", "cli/demo.py", "app/__init__.py"}
    | {
        f"nvila/{name}.py"
        for name in ("__init__", "frames", "model", "processing")  # run inside vLLM
    }
    | {
        f"app/{name}.py"
        for name in ("control", "deciding", "engines", "orders", "public_port", "relay", "running", "several", "single")
    }
)
# The demo's trainer: what it draws and asks is tested, the network by the accuracy it reaches.
MEASURED = {
    f"demo/{name}.py" for name in ("adapter", "lettering", "measure", "network", "optimizer", "other_drawing", "train")
}


def mirror_of(source: Path) -> Path:
    name = source.stem.strip("_")
    return source.parent / f"test_{name}.py"


def sources() -> set[Path]:
    root = ROOT / "gateway"
    found = {path.relative_to(root) for path in root.rglob("*.py")}
    is_empty = {path for path in found if path.name == "__init__.py" and "def " not in (root / path).read_text()}
    return {path for path in found - is_empty if str(path) not in TESTED_ELSEWHERE | MEASURED}


def test_every_source_file_has_its_test() -> None:
    missing = {str(path) for path in sources() if not (ROOT / "tests" / "unit" / mirror_of(path)).exists()}
    assert missing == set()


def test_every_unit_test_has_its_source() -> None:
    wanted = {mirror_of(path) for path in sources()}
    root = ROOT / "tests" / "unit"
    found = {path.relative_to(root) for path in root.rglob("test_*.py")}
    assert {str(path) for path in found - wanted} == set()
