"""S3's source with the real library over moto's server on loopback."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import CredentialRetrievalError, TokenRetrievalError
from moto.server import ThreadedMotoServer

from gateway.settings.addresses import parse_address
from gateway.sources import open_source
from gateway.sources.attempts import FetchTiming
from gateway.sources.cache import Cache
from gateway.sources.checksums import Checksum
from gateway.sources.fetching import Fetched, fetch
from gateway.sources.s3 import S3Source
from gateway.sources.source import RemoteFile, SourceFailed

WEIGHTS = os.urandom(300_000)
TIMING = FetchTiming(first_pause_s=0, longest_pause_s=0, poll_s=0.01)


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def client(moto: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name, value in {
        "AWS_ENDPOINT_URL": moto, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/nowhere", "AWS_SHARED_CREDENTIALS_FILE": "/nowhere",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    client = boto3.client("s3", region_name="us-east-1")
    client.create_bucket(Bucket="bucket")
    put(client, "m/config.json", b"{}")
    put(client, "m/model.safetensors", WEIGHTS)
    put(client, "m/sub/", b"")
    put(client, "model.safetensors", b"another one")
    yield client
    for item in client.list_objects_v2(Bucket="bucket")["Contents"]:
        client.delete_object(Bucket="bucket", Key=item["Key"])
    client.delete_bucket(Bucket="bucket")


def put(client: Any, name: str, data: bytes, **options: str) -> None:
    client.put_object(Bucket="bucket", Key=name, Body=data, **options)


def get(folder: Path, address: str = "s3://bucket/m") -> Fetched:
    return fetch(
        parse_address(address), Cache(folder), open_source, lambda done, total: None, threading.Event(), TIMING
    )


def test_a_folder_of_a_bucket_is_fetched(client: Any, tmp_path: Path) -> None:
    folder = get(tmp_path).folder
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"}
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS


def test_another_upload_is_another_revision(client: Any, tmp_path: Path) -> None:
    first = get(tmp_path)
    assert get(tmp_path) == first
    put(client, "m/config.json", b"[]")
    second = get(tmp_path)
    assert second.revision != first.revision
    assert (second.folder / "config.json").read_bytes() == b"[]"


def test_reading_begins_anywhere(client: Any) -> None:
    source = S3Source(parse_address("s3://bucket/m"))
    file = next(file for file in source.list_files().files if file.name == "model.safetensors")
    got: list[bytes] = []
    source.read(file, 299_000, got.append)
    assert b"".join(got) == WEIGHTS[299_000:]


def test_an_object_that_was_replaced_meanwhile_is_not_mixed_in(client: Any) -> None:
    source = S3Source(parse_address("s3://bucket/m"))
    file = next(file for file in source.list_files().files if file.name == "config.json")
    put(client, "m/config.json", b"[]")
    with pytest.raises(SourceFailed, match="changes while it is fetched: wait for its upload") as caught:
        source.read(file, 0, lambda piece: None)
    assert not caught.value.is_final


@pytest.mark.parametrize("kind", ["SHA256", "SHA1", "CRC32"])
def test_a_checksum_over_the_whole_object_is_taken(client: Any, tmp_path: Path, kind: str) -> None:
    put(client, "m/config.json", b"[1]", ChecksumAlgorithm=kind)
    source = S3Source(parse_address("s3://bucket/m"))
    file = next(file for file in source.list_files().files if file.name == "config.json")
    checksum = source.find_checksum(file)
    assert checksum is not None
    assert checksum.kind == kind.lower()
    assert get(tmp_path).folder.is_dir()


def test_what_was_uploaded_in_parts_is_verified_by_them(client: Any, tmp_path: Path) -> None:
    parts = [os.urandom(5 * 2**20), b"the rest"]
    upload = {"Bucket": "bucket", "Key": "m/model.safetensors"}
    number = client.create_multipart_upload(**upload)["UploadId"]
    tags = [
        client.upload_part(**upload, UploadId=number, PartNumber=index, Body=part)["ETag"]
        for index, part in enumerate(parts, 1)
    ]
    whole = {"Parts": [{"PartNumber": index, "ETag": tag} for index, tag in enumerate(tags, 1)]}
    tag = client.complete_multipart_upload(**upload, UploadId=number, MultipartUpload=whole)["ETag"].strip('"')
    source = S3Source(parse_address("s3://bucket/m"))
    size_bytes = sum(map(len, parts))
    checksum = source.find_checksum(RemoteFile("model.safetensors", size_bytes, tag))
    assert checksum == Checksum("md5-parts", tag.removesuffix("-2"), 5 * 2**20)
    assert (get(tmp_path).folder / "model.safetensors").read_bytes() == b"".join(parts)


def test_a_tag_that_is_no_md5_is_not_taken_for_one(client: Any) -> None:
    put(client, "m/config.json", b"{}", ServerSideEncryption="aws:kms", SSEKMSKeyId="key")
    source = S3Source(parse_address("s3://bucket/m"))
    file = RemoteFile("config.json", 2, "d41d8cd98f00b204e9800998ecf8427e")
    found = source.find_checksum(file)
    assert found is None or found.kind != "md5"


def test_no_bucket_and_nothing_in_it(client: Any, tmp_path: Path) -> None:
    with pytest.raises(SourceFailed, match="there is no bucket none-such: check the address") as caught:
        get(tmp_path, "s3://none-such/m")
    assert caught.value.is_final
    with pytest.raises(SourceFailed, match="there is nothing in s3://bucket/none: check the address"):
        get(tmp_path, "s3://bucket/none")


def test_names_that_play_tricks_are_refused(client: Any, tmp_path: Path) -> None:
    put(client, "m/../../x.json", b"{}")
    with pytest.raises(SourceFailed, match="a name that leads elsewhere"):
        get(tmp_path)


def test_without_credentials_it_says_where_they_belong(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as without:
        without.delenv("AWS_ACCESS_KEY_ID")
        without.delenv("AWS_SECRET_ACCESS_KEY")
        with pytest.raises(SourceFailed, match="no credentials for s3://bucket/m: set AWS_PROFILE") as caught:
            get(tmp_path)
    assert caught.value.is_final


@pytest.mark.parametrize(
    "fault",
    [
        CredentialRetrievalError(provider="iam-role", error_msg="metadata stutters"),
        TokenRetrievalError(provider="sso", error_msg="no answer"),
    ],
    ids=lambda fault: type(fault).__name__,
)
def test_credentials_that_cannot_be_had_now_may_be_had_later(client: Any, fault: Exception) -> None:
    source = S3Source(parse_address("s3://bucket/m"))

    def stutter(*args: Any, **options: Any) -> None:
        raise fault

    source._client.get_paginator = stutter
    with pytest.raises(SourceFailed, match="no credentials for s3://bucket/m at the moment: renew the login") as caught:
        source.list_files()
    assert not caught.value.is_final


def test_a_login_in_the_endpoint_is_not_shown(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://user:secret@127.0.0.1:9")
    with pytest.raises(SourceFailed, match="S3 ") as caught:
        S3Source(parse_address("s3://bucket/m")).list_files()
    assert "secret" not in str(caught.value)


def test_a_store_that_is_down_may_come_back(client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = get(tmp_path)
    with monkeypatch.context() as down:
        down.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        with pytest.raises(SourceFailed, match="S3 does not answer") as caught:
            get(tmp_path / "other")
        assert not caught.value.is_final
        again = get(tmp_path)
    assert again.folder == first.folder
    assert again.note is not None


@pytest.mark.parametrize(
    ("code", "status", "said", "is_final"),
    [
        ("AccessDenied", 403, "the account needs s3:ListBucket and s3:GetObject", True),
        ("ExpiredToken", 400, "does not take the credentials", True),
        ("SlowDown", 503, "S3 answered 503 SlowDown", False),
        ("MethodNotAllowed", 405, "S3 answered 405", True),
    ],
)
def test_each_refusal_is_one_sentence(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, status: int, said: str, is_final: bool
) -> None:
    from tests.support.stores import Store

    class Refusing(Store):
        def answer(self, handler: Any) -> None:
            body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
            handler.answer(body, status, {"content-type": "application/xml"})

    with Refusing({}) as store, monkeypatch.context() as there:
        there.setenv("AWS_ENDPOINT_URL", store.url)
        with pytest.raises(SourceFailed, match=said) as caught:
            get(tmp_path)
    assert caught.value.is_final is is_final
