import httpx
import pytest

from gateway.cli import split
from tests.support.fake_admin import FakeAdmin

SPLIT = httpx.Response(200, json={"split": {"v1": 0.9, "v2": 0.1}})


def test_shares_are_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    admin = FakeAdmin(monkeypatch, SPLIT)
    assert admin.run(split, "org/m") == 0
    assert admin.asked == [("GET", "/admin/v1/models/org/m/split", None)]
    assert capsys.readouterr().out == "v1  0.9\nv2  0.1\n"


def test_shares_are_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    admin = FakeAdmin(monkeypatch, SPLIT)
    assert admin.run(split, "m", "v1=90", "v2=1e1") == 0
    assert admin.asked == [("PUT", "/admin/v1/models/m/split", {"v1": 90.0, "v2": 10.0})]


@pytest.mark.parametrize("word", ["v1", "=3", "v1=much", "v1=nan", "v1=inf"])
def test_what_is_no_share_is_wrong_use(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], word: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        FakeAdmin(monkeypatch).run(split, "m", word)
    assert ended.value.code == 2
    assert "should be VERSION=WEIGHT" in capsys.readouterr().err
