import httpx
import pytest

from gateway.cli import unload
from tests.support.fake_admin import FakeAdmin


def test_a_version_is_unloaded(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    admin = FakeAdmin(monkeypatch, httpx.Response(202, json={"id": "m:v1"}))
    assert admin.run(unload, "m", "v1") == 0
    assert admin.asked == [("DELETE", "/admin/v1/models/m/versions/v1", None)]
    assert "m:v1 is served no longer" in capsys.readouterr().out
