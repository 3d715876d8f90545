from gateway.sources.source import SourceFailed


def test_a_failure_says_whether_trying_again_can_help() -> None:
    assert SourceFailed("gone", is_final=True).is_final
    assert str(SourceFailed("down", is_final=False)) == "down"
