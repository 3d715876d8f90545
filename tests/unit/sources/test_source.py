import pytest

from gateway.sources.source import SourceFailed, describe_fault, hide_login


def test_a_failure_says_whether_trying_again_can_help() -> None:
    assert SourceFailed("gone", is_final=True).is_final
    assert str(SourceFailed("down", is_final=False)) == "down"


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (OSError("no route"), "no route"),
        (OSError(), "OSError"),
        (ValueError("at http://a:b@host/x?token=c"), "ValueError"),
    ],
)
def test_a_fault_that_may_hold_a_login_is_told_by_its_kind(fault: Exception, said: str) -> None:
    assert describe_fault(fault) == said


def test_an_address_is_shown_without_its_login() -> None:
    assert hide_login("http://user:p@ss@host:1/a") == "http://host:1/a"
    assert hide_login("https://host/a@b") == "https://host/a@b"
