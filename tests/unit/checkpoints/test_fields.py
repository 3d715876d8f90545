from gateway.checkpoints.fields import Fields

FIELDS = Fields({
    "text": "a", "whole": 5, "number": 0.5, "flag": True, "list": ["a", 1, {"k": 2}], "section": {"k": 1}, "null": None,
    "huge": 10**400, "nan": float("nan"), "infinite": float("inf"),
})  # fmt: skip


def test_values_of_the_wanted_type() -> None:
    assert FIELDS.text("text") == "a"
    assert FIELDS.whole("whole") == FIELDS.number("whole") == 5
    assert FIELDS.number("number") == 0.5
    assert FIELDS.flag("flag") is True
    assert FIELDS.texts("list") == ("a",)
    assert FIELDS.texts("text") == ("a",)
    assert [part.whole("k") for part in FIELDS.sections("list")] == [2]
    assert FIELDS.section("section").whole("k") == 1
    assert "text" in FIELDS
    assert "null" not in FIELDS
    assert bool(FIELDS)
    assert not Fields()


def test_values_of_another_type_are_none() -> None:
    for key in ("list", "section", "null", "gone", "huge", "nan", "infinite", "flag"):
        assert FIELDS.whole(key) is None
        assert FIELDS.number(key) is None
        assert FIELDS.text(key) is None
    assert FIELDS.flag("whole") is None
    assert FIELDS.texts("whole") == FIELDS.sections("text") == ()
    assert not FIELDS.section("text")


def test_the_first_integer_of_several_keys() -> None:
    fields = Fields({"a": "8", "b": 0, "c": 4})
    assert (fields.first_whole("a", "b", "c"), fields.first_whole("a", "none")) == (0, None)
