"""Checkpoints on the Hugging Face Hub, or what speaks like it (HF_ENDPOINT), by the library `huggingface_hub`.

Login, proxies and endpoint are the library's matter (HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE). The bytes are asked for in
ranges over its session: its own download starts anew when a process was killed.
"""

import contextlib
import re
from collections.abc import Iterator

import httpx2
from huggingface_hub import HfApi, get_session, hf_hub_url
from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoSibling
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]

from gateway.settings.addresses import SourceAddress
from gateway.sources.checksums import Checksum
from gateway.sources.source import Listing, NotAsked, RemoteFile, Sink, SourceFailed, describe_fault, hide_login

_TIMEOUT_S = 10.0  # between bytes; a listing of many files is longer in coming
_LIST_TIMEOUT_S = 30.0
_PASSING = (408, 425, 429)


class HubSource:
    """One folder of a repository, at one commit once it was listed. `endpoint` None is the library's own."""

    def __init__(self, address: SourceAddress, endpoint: str | None = None) -> None:
        self._address = address
        self._prefix = f"{address.path}/" if address.path else ""
        self._api = HfApi(endpoint=endpoint)
        self._commit = address.revision or ""

    def list_files(self) -> Listing:
        """Ask which commit the revision is, and what lies in it."""
        with self._explained():
            info = self._api.model_info(
                self._address.place, revision=self._address.revision, files_metadata=True, timeout=_LIST_TIMEOUT_S
            )
            if not re.fullmatch(r"[0-9a-f]{40,64}", info.sha or ""):
                raise ValueError("it names no commit")
            self._commit = info.sha or ""
            files = (file for file in info.siblings or () if file.rfilename.startswith(self._prefix))
            return Listing(self._commit, tuple(map(self._describe, files)))

    def _describe(self, file: RepoSibling) -> RemoteFile:
        checksum = Checksum("sha256", file.lfs.sha256) if file.lfs else Checksum("git", file.blob_id or "")
        size_bytes = file.lfs.size if file.lfs else file.size
        if not isinstance(size_bytes, int) or size_bytes < 0:
            raise ValueError(f"{file.rfilename} has no size")
        return RemoteFile(file.rfilename.removeprefix(self._prefix), size_bytes, checksum.value, checksum)

    def read(self, file: RemoteFile, offset: int, sink: Sink) -> None:
        """Ask for the bytes of a file from `offset` on."""
        name = self._prefix + file.name
        url = hf_hub_url(self._address.place, name, revision=self._commit, endpoint=self._api.endpoint)
        # Packed on the way, a range would be one of other bytes.
        headers = build_hf_headers() | {"accept-encoding": "identity", "range": f"bytes={offset}-"}
        with self._explained(), get_session().stream("GET", url, headers=headers, timeout=_TIMEOUT_S) as answer:
            hf_raise_for_status(answer)
            # One that takes no ranges sends it from the beginning.
            left = offset if answer.status_code != 206 else 0
            # As they come: pieces that wait to be filled are lost when the rest does not come.
            for piece in answer.iter_raw():
                if len(piece) > left:
                    sink(piece[left:])
                left = max(0, left - len(piece))

    def find_checksum(self, file: RemoteFile) -> Checksum | None:
        """The SHA-256 of large files, Git's own for the others: the listing said it."""
        return file.checksum

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns the library's faults into ours."""
        place, endpoint = self._address.place, hide_login(self._api.endpoint)
        try:
            yield
        except GatedRepoError as fault:
            message = f"hf://{place} is gated: ask for access on its page at {endpoint}/{place}"
            raise SourceFailed(f"{message}, and set HF_TOKEN to a token of that account", is_final=True) from fault
        except DisabledRepoError as fault:
            raise SourceFailed(f"hf://{place} was disabled by the Hub: take another one", is_final=True) from fault
        except RepositoryNotFoundError as fault:
            raise self._judge(401) from fault
        except RevisionNotFoundError as fault:
            message = f"hf://{place} has no revision {self._address.revision or 'main'}"
            raise SourceFailed(f"{message}: give a branch, a tag or a commit", is_final=True) from fault
        except RemoteEntryNotFoundError as fault:
            message = f"there is no {self._address.path or 'such file'} in hf://{place}"
            raise SourceFailed(f"{message}: check the folder", is_final=True) from fault
        except HfHubHTTPError as fault:
            raise self._judge(fault.response.status_code) from fault
        except LocalTokenNotFoundError as fault:
            raise SourceFailed(f"hf://{place} needs a login: set HF_TOKEN", is_final=True) from fault
        except HFValidationError as fault:
            raise SourceFailed(
                f"hf://{place} is no name that the Hub takes: {describe_fault(fault)}", is_final=True
            ) from fault
        except OfflineModeIsEnabled as fault:
            raise NotAsked("HF_HUB_OFFLINE is set, so the Hub is not asked") from fault
        except (httpx2.TransportError, httpx2.InvalidURL) as fault:
            message = f"the Hub does not answer at {endpoint} ({describe_fault(fault)})"
            raise SourceFailed(f"{message}: check the network, or HF_ENDPOINT", is_final=False) from fault
        except (ValueError, KeyError, TypeError) as fault:
            message = f"what answers at {endpoint} does not speak like the Hub"
            raise SourceFailed(f"{message}: check HF_ENDPOINT ({describe_fault(fault)})", is_final=True) from fault

    def _judge(self, status: int) -> SourceFailed:
        place = self._address.place
        if status == 401:  # of the Hub's own, for what is not there too
            message = f"there is no hf://{place}, or this account may not see it"
            return SourceFailed(f"{message}: check the name, or set HF_TOKEN", is_final=True)
        if status == 403:
            message = f"the Hub refuses hf://{place} (403): set HF_TOKEN to a token that may read it"
            return SourceFailed(message, is_final=True)
        is_passing = status in _PASSING or status >= 500
        return SourceFailed(f"the Hub answered {status} for hf://{place}", is_final=not is_passing)
