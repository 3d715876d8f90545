import pytest

from gateway.settings.addresses import SourceAddress, is_address, parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("hf://org/name", SourceAddress("hf", "org/name")),
        ("HF://org/name/", SourceAddress("hf", "org/name")),
        ("hf://org/na.me_1@v1.0", SourceAddress("hf", "org/na.me_1", "", "v1.0")),
        ("hf://org/name@refs%2Fpr%2F1/a/b", SourceAddress("hf", "org/name", "a/b", "refs/pr/1")),
        ("s3://bucket/run/checkpoint-500/", SourceAddress("s3", "bucket", "run/checkpoint-500")),
        ("s3://my.bucket", SourceAddress("s3", "my.bucket")),
        ("gs://bucket/a@b/c d", SourceAddress("gs", "bucket", "a@b/c d")),
    ],
)
def test_an_address_is_read(text: str, address: SourceAddress) -> None:
    assert parse_address(text) == address
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ftp://host/a", "should be a folder, hf://ORG/NAME"),
        ("http://host/a", "should be a folder"),
        ("/models/a", "should be a folder"),
        ("hf://name", "should be hf://ORG/NAME"),
        ("hf://", "should be hf://ORG/NAME"),
        ("hf://org/", "should be hf://ORG/NAME"),
        ("hf://org/..", "should be hf://ORG/NAME"),
        ("hf://org/name@", "REVISION"),
        ("hf://org/name@a b", "REVISION"),
        ("hf://org/name@..%2F..%2Fetc", "REVISION"),
        ("hf://datasets/org", "datasets hold no checkpoints"),
        ("hf://org/name/../other", "no .. and no"),
        ("hf://org/name/a//b", "no .. and no"),
        ("hf://org/name/a\\b", "no .. and no"),
        ("hf://org/name/sub@best", "for folders of this machine"),
        ("s3://bucket/run@newest", "for folders of this machine"),
        ("s3://key:secret@bucket/a", "credentials stand elsewhere"),
        ("s3://B/a", "should be s3://BUCKET/FOLDER"),
        ("s3:///a", "should be s3://BUCKET/FOLDER"),
        ("gs://bucket/a\0b", "no .. and no"),
        ("gs://bucket/" + "a" * 1100, "no .. and no"),
    ],
)
def test_what_is_no_address_is_refused_without_being_shown(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        parse_address(text)
    assert "secret" not in str(caught.value)


def test_folders_and_runs_are_no_addresses() -> None:
    assert [is_address(text) for text in ("/a", "RUN@best", "a/b", "hf:/a", "hf://a", "S3://a", "x-y://a")] == [
        False, False, False, False, True, True, True,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "name"), [("hf://org/name@v1", "name"), ("hf://org/name/sub", "sub"), ("s3://bucket", "bucket")]
)
def test_the_last_name_says_what_it_is(text: str, name: str) -> None:
    assert parse_address(text).name == name
