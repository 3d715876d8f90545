from gateway.merging.refusal import MergeRefused


def test_it_says_why() -> None:
    assert str(MergeRefused("the base is packed")) == "the base is packed"
