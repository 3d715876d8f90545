"""Reading tensors for a merge: all of a tensor's bytes, or a refusal. Files may change while they are read."""

from collections.abc import Iterator

from gateway.checkpoints.contents import Contents
from gateway.checkpoints.digest import compute_digest
from gateway.checkpoints.files import list_folder
from gateway.checkpoints.findings import UnreadableError
from gateway.checkpoints.safetensors import Tensor
from gateway.merging import MergeRefused
from gateway.merging.arithmetic import Floats, decode

_PIECE_BYTES = 8 * 2**20


def read_pieces(contents: Contents, tensor: Tensor, piece_bytes: int = _PIECE_BYTES) -> Iterator[bytes]:
    """The bytes of a tensor, piece by piece. Raises MergeRefused if they are not all there."""
    try:
        with contents.folder.open(tensor.file) as file:
            for start in range(0, tensor.size_bytes, piece_bytes):
                wanted_bytes = min(piece_bytes, tensor.size_bytes - start)
                piece = file.read(wanted_bytes, tensor.start + start)
                if len(piece) < wanted_bytes:
                    raise MergeRefused(f"{contents.path / tensor.file} became shorter meanwhile: merge it again")
                yield piece
    except UnreadableError as unreadable:
        raise MergeRefused(f"{contents.path}: {unreadable.finding}") from unreadable


def read_digest(contents: Contents) -> str | None:
    """The folder's digest as it is now. Raises MergeRefused if it is gone."""
    try:
        return compute_digest(list_folder(contents.path))
    except UnreadableError as unreadable:
        raise MergeRefused(str(unreadable.finding)) from unreadable


def read_floats(contents: Contents, tensor: Tensor) -> Floats:
    """The numbers of a tensor. Raises MergeRefused."""
    return decode(b"".join(read_pieces(contents, tensor)), tensor.dtype, tensor.shape)
