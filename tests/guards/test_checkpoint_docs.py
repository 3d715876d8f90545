"""Every finding of the check is explained in docs/checkpoints.md, and nothing else is."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_finding_is_explained() -> None:
    sources = [path.read_text() for path in (ROOT / "gateway" / "checkpoints").rglob("*.py")]
    raised = {
        code
        for source in sources
        for code in re.findall(r'(?:error|warning|note|own_code|grade)\)?\(\s*"([a-z-]+)"', source)
    }
    explained = set(re.findall(r"^\| `([a-z-]+)` \|", (ROOT / "docs" / "checkpoints.md").read_text(), re.MULTILINE))
    assert len(raised) > 30
    assert raised == explained
