"""Checkpoints in Google Cloud Storage by the library `google-cloud-storage`.

Credentials and endpoint are the library's matter (GOOGLE_APPLICATION_CREDENTIALS, workload identity,
STORAGE_EMULATOR_HOST).
"""

import base64
import contextlib
from collections.abc import Iterator
from typing import Any

import requests
import urllib3
from google.api_core.exceptions import Forbidden, GoogleAPICallError, NotFound, Unauthorized
from google.auth.exceptions import GoogleAuthError, TransportError
from google.cloud import storage

from gateway.settings.addresses import SourceAddress
from gateway.sources.checksums import Checksum
from gateway.sources.objects import MOST_OBJECTS, list_objects
from gateway.sources.source import Listing, RemoteFile, Sink, SourceFailed, describe_fault

_TIMEOUT_S = (10.0, 10.0)  # to connect, between bytes
_PASSING = (408, 429)


class GcsSource:
    """One folder of a bucket, each object in the generation that was listed."""

    def __init__(self, address: SourceAddress) -> None:
        self._address = address
        self._prefix = f"{address.path}/" if address.path else ""
        with self._explained():
            # Reading needs no project, which the library would look for otherwise.
            self._client: Any = storage.Client(project="gateway")

    def list_files(self) -> Listing:
        """Ask which objects there are."""
        with self._explained(is_listing=True):
            blobs = self._client.list_blobs(
                self._address.place, prefix=self._prefix or None, max_results=MOST_OBJECTS, timeout=_TIMEOUT_S,
                retry=None,
            )  # fmt: skip
            files = (
                RemoteFile(blob.name, int(blob.size or 0), str(blob.generation), _read_checksum(blob)) for blob in blobs
            )
            return list_objects(self._prefix, files)

    def read(self, file: RemoteFile, offset: int, sink: Sink) -> None:
        """Ask for the bytes of an object from `offset` on."""
        with self._explained():
            bucket = self._client.bucket(self._address.place)
            blob = bucket.blob(self._prefix + file.name, generation=int(file.tag))
            blob.download_to_file(
                _Writer(sink), start=offset, raw_download=True, checksum=None, timeout=_TIMEOUT_S, retry=None
            )

    def find_checksum(self, file: RemoteFile) -> Checksum | None:
        """The MD5 of an object, or its CRC32C where it was put together from others: the listing said it."""
        return file.checksum

    @contextlib.contextmanager
    def _explained(self, *, is_listing: bool = False) -> Iterator[None]:
        """Turns the library's faults into ours."""
        place = self._address
        try:
            yield
        except NotFound as fault:
            if is_listing:
                raise SourceFailed(f"there is no bucket {place.place}: check the address", is_final=True) from fault
            raise SourceFailed(f"{place} changes while it is fetched: wait for its upload", is_final=False) from fault
        except (Forbidden, Unauthorized) as fault:
            message = f"Google Cloud Storage refuses {place}: the account needs the role Storage Object Viewer"
            raise SourceFailed(message, is_final=True) from fault
        except GoogleAPICallError as fault:
            code = int(fault.code or 0)
            is_passing = code in _PASSING or code >= 500
            message = f"Google Cloud Storage answered {code} for {place}"
            raise SourceFailed(message, is_final=not is_passing) from fault
        except (TransportError, requests.RequestException, urllib3.exceptions.HTTPError) as fault:
            raise SourceFailed(
                f"Google Cloud Storage does not answer for {place}: {describe_fault(fault)}", is_final=False
            ) from fault
        except GoogleAuthError as fault:
            if fault.retryable or isinstance(fault.__cause__, TransportError):  # as when a metadata server stutters
                message = f"who gives out the credentials for {place} does not answer: {describe_fault(fault)}"
                raise SourceFailed(message, is_final=False) from fault
            message = f"there are no credentials for {place}: set GOOGLE_APPLICATION_CREDENTIALS"
            message += f" ({describe_fault(fault)})"
            raise SourceFailed(message, is_final=True) from fault


class _Writer:
    """A file to the library: it writes, and asks nothing."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def write(self, piece: bytes) -> int:
        self._sink(piece)
        return len(piece)


def _read_checksum(blob: Any) -> Checksum | None:
    if blob.md5_hash:
        return Checksum("md5", base64.b64decode(blob.md5_hash).hex())
    if blob.crc32c:
        return Checksum("crc32c", base64.b64decode(blob.crc32c).hex())
    return None
