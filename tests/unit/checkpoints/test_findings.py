from gateway.checkpoints.findings import error, join_names, make_printable, note, warning


def test_finding_reads_as_one_line() -> None:
    finding = error("x", "a.json", "a.json is broken\n", "mend it")
    assert str(finding) == "a.json is broken\\x0a: mend it"
    assert str(note("x", "", "so it is")) == "so it is"
    assert warning("x", "f", "m", "d").to_dict() == {
        "severity": "warning", "code": "x", "file": "f", "message": "m", "mend": "d",
    }  # fmt: skip


def test_text_is_cut_in_the_middle() -> None:
    assert make_printable("a" * 100 + "b" * 100, 21) == "a" * 10 + "…" + "b" * 10
    assert make_printable("a\udc80\x1b") == "a\\xdc80\\x1b"


def test_names_are_counted_beyond_the_first() -> None:
    assert join_names(["a", "b", "c"]) == "a, b, c"
    assert join_names(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
