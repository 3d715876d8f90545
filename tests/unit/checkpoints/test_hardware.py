from gateway.checkpoints.hardware import Hardware


def test_what_a_processor_can_do_is_unknown_unless_it_is_said() -> None:
    assert Hardware("cpu") == Hardware("cpu", has_avx512=None, has_amx=None)
