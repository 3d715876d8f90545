import sys

import pytest

from gateway.settings.addresses import SOURCE_KINDS, SourceAddress
from gateway.sources import SourceFailed, open_source


@pytest.mark.parametrize(
    ("kind", "library"), [("hf", "huggingface_hub"), ("s3", "boto3"), ("gs", "google.cloud")], ids=SOURCE_KINDS
)
def test_a_missing_library_is_named_with_its_extra(kind: str, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = {"hf": "hub", "s3": "s3", "gs": "gcs"}[kind]
    monkeypatch.delitem(sys.modules, f"gateway.sources.{module}", raising=False)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(SourceFailed, match=rf"pip install 'nim-gateway\[{kind}\]'") as caught:
        open_source(SourceAddress(kind, "org/name" if kind == "hf" else "bucket"))
    assert caught.value.is_final
