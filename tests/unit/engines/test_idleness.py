from gateway.engines.idleness import Idleness

KEY = ("m", "v1")


def test_it_is_idle_since_its_last_request_was_seen() -> None:
    idleness = Idleness()
    assert idleness.note(KEY, ended=5, running=0, now_s=100) == 0
    assert idleness.note(KEY, ended=5, running=0, now_s=103) == 3
    assert idleness.note(KEY, ended=6, running=0, now_s=104) == 0
    assert idleness.note(KEY, ended=6, running=1, now_s=110) == 0, "one is under way"
    assert idleness.note(KEY, ended=6, running=0, now_s=112) == 2


def test_versions_are_told_apart_and_one_can_begin_anew() -> None:
    idleness = Idleness()
    idleness.note(KEY, ended=0, running=0, now_s=0)
    assert idleness.note(("m", "v2"), ended=0, running=0, now_s=9) == 0
    idleness.forget(KEY)
    assert idleness.note(KEY, ended=0, running=0, now_s=9) == 0
