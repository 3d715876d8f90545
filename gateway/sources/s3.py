"""Checkpoints in S3, or what speaks like it (AWS_ENDPOINT_URL), by the library `boto3`.

Credentials, region and endpoint are the library's matter (AWS_PROFILE, AWS_ACCESS_KEY_ID, roles, ...).
"""

import base64
import contextlib
import re
from collections.abc import Iterator
from typing import Any

import boto3
import urllib3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,  # noqa: A004 - the library's own word
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    ResponseStreamingError,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)
from botocore.exceptions import SSLError as TlsError

from gateway.settings.addresses import SourceAddress
from gateway.sources.checksums import Checksum
from gateway.sources.objects import MOST_OBJECTS, list_objects
from gateway.sources.source import Listing, RemoteFile, Sink, SourceFailed, describe_fault

_PIECE_BYTES = 128 * 1024
_NO_LOGIN = (NoCredentialsError, PartialCredentialsError, ProfileNotFound, UnauthorizedSSOTokenError)
_NO_LOGIN_NOW = (CredentialRetrievalError, TokenRetrievalError)  # as when a metadata server stutters
_BROKEN = (
    ConnectionError, HTTPClientError, IncompleteReadError, ResponseStreamingError, TlsError,
    urllib3.exceptions.HTTPError,
)  # fmt: skip
_PASSING_CODES = ("SlowDown", "RequestTimeout", "ThrottlingException", "Throttling", "PreconditionFailed")
_WRONG_LOGIN = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired")


class S3Source:
    """One folder of a bucket. An object that changes while it is fetched is asked for no more."""

    def __init__(self, address: SourceAddress) -> None:
        self._address = address
        self._prefix = f"{address.path}/" if address.path else ""
        # Faults are met one level up, which goes on where the bytes ended.
        config = Config(connect_timeout=10, read_timeout=10, retries={"total_max_attempts": 1}, max_pool_connections=16)
        with self._explained():
            # S3 has one name space: the region only says whom to ask first, and need not be known.
            session = boto3.session.Session()
            region = session.region_name or "us-east-1"
            self._client: Any = session.client("s3", region_name=region, config=config)

    def list_files(self) -> Listing:
        """Ask which objects there are."""
        with self._explained():
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._address.place, Prefix=self._prefix, PaginationConfig={"MaxItems": MOST_OBJECTS}
            )
            items = (item for page in pages for item in page.get("Contents", ()))
            files = (RemoteFile(item["Key"], item["Size"], item["ETag"].strip('"')) for item in items)
            return list_objects(self._prefix, files)

    def read(self, file: RemoteFile, offset: int, sink: Sink) -> None:
        """Ask for the bytes of an object from `offset` on."""
        with self._explained():
            answer = self._client.get_object(**self._name(file), Range=f"bytes={offset}-", IfMatch=f'"{file.tag}"')
            with contextlib.closing(answer["Body"]) as body:
                for piece in body.iter_chunks(_PIECE_BYTES):
                    sink(piece)

    def find_checksum(self, file: RemoteFile) -> Checksum | None:
        """What S3 knows: a checksum over the whole object, or a tag that is an MD5."""
        with self._explained():
            head = self._client.head_object(**self._name(file), ChecksumMode="ENABLED")
            if head.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT":
                for kind in ("SHA256", "SHA1", "CRC32"):
                    if value := head.get(f"Checksum{kind}"):
                        return Checksum(kind.lower(), base64.b64decode(value).hex())
            if head.get("ServerSideEncryption", "AES256") != "AES256" or head.get("SSECustomerAlgorithm"):
                return None  # the tag is no MD5 then
            if re.fullmatch(r"[0-9a-f]{32}", file.tag):
                return Checksum("md5", file.tag)
            return self._find_parts_checksum(file)

    def _find_parts_checksum(self, file: RemoteFile) -> Checksum | None:
        tag = re.fullmatch(r"([0-9a-f]{32})-(\d+)", file.tag)
        if tag is None:
            return None
        part_bytes = self._client.head_object(**self._name(file), PartNumber=1)["ContentLength"]
        # Only of parts of one length, as every uploader makes them, is it known where they end.
        if part_bytes <= 0 or -(-file.size_bytes // part_bytes) != int(tag[2]):
            return None
        return Checksum("md5-parts", tag[1], part_bytes)

    def _name(self, file: RemoteFile) -> dict[str, str]:
        return {"Bucket": self._address.place, "Key": self._prefix + file.name}

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns the library's faults into ours."""
        try:
            yield
        except ClientError as fault:
            raise self._judge(fault) from fault
        except _NO_LOGIN as fault:
            message = f"there are no credentials for {self._address}"
            raise SourceFailed(
                f"{message}: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and its secret", is_final=True
            ) from fault
        except _NO_LOGIN_NOW as fault:
            message = f"there are no credentials for {self._address} at the moment: renew the login if that lasts"
            raise SourceFailed(f"{message} ({describe_fault(fault)})", is_final=False) from fault
        except _BROKEN as fault:
            message = f"S3 does not answer for {self._address}: {describe_fault(fault)}"
            raise SourceFailed(message, is_final=False) from fault
        except (BotoCoreError, ValueError) as fault:
            message = f"S3 cannot be asked for {self._address}: {describe_fault(fault)}"
            raise SourceFailed(message, is_final=True) from fault

    def _judge(self, fault: ClientError) -> SourceFailed:
        answer: Any = fault.response
        code = str(answer.get("Error", {}).get("Code", ""))
        status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        if code in _WRONG_LOGIN:
            return SourceFailed(
                f"S3 does not take the credentials for {self._address} ({code}): renew them", is_final=True
            )
        if code == "NoSuchBucket":
            return SourceFailed(f"there is no bucket {self._address.place}: check the address", is_final=True)
        if status in (401, 403):
            message = f"S3 refuses {self._address} ({code}): the account needs s3:ListBucket and s3:GetObject"
            return SourceFailed(message, is_final=True)
        if code in ("NoSuchKey", "404", "PreconditionFailed", "412"):
            return SourceFailed(f"{self._address} changes while it is fetched: wait for its upload", is_final=False)
        is_passing = code in _PASSING_CODES or status >= 500 or status == 429
        return SourceFailed(f"S3 answered {status} {code} for {self._address}", is_final=not is_passing)
