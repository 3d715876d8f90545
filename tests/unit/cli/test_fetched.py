from pathlib import Path

import pytest

from gateway.cli.fetched import NoFolder, find_folder


def test_a_folder_is_itself() -> None:
    assert find_folder("models/RUN@best") == Path("models/RUN@best")


@pytest.mark.parametrize(
    ("given", "said"), [("ftp://h/m", "an address should be"), ("hf://m", "should be hf://ORG/NAME")]
)
def test_what_is_no_address_is_wrong_use(given: str, said: str) -> None:
    with pytest.raises(NoFolder, match=said) as caught:
        find_folder(given)
    assert caught.value.code == 2


def test_settings_that_cannot_be_used_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_SERVER_PORT", "none")
    with pytest.raises(NoFolder, match=r"GATEWAY_SERVER_PORT: server\.port") as caught:
        find_folder("hf://org/name")
    assert caught.value.code == 2
