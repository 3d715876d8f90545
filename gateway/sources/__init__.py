"""Checkpoints that lie elsewhere: fetched by each store's own library into a cache, whole and right or not at all."""

from importlib import import_module

from gateway.settings.addresses import SourceAddress
from gateway.sources.download import Told
from gateway.sources.fetcher import Fetcher
from gateway.sources.fetching import Fetched
from gateway.sources.source import Source, SourceFailed

__all__ = ["Fetched", "Fetcher", "Source", "SourceFailed", "Told", "open_source"]

_KINDS = {"hf": ("hub", "HubSource"), "s3": ("s3", "S3Source"), "gs": ("gcs", "GcsSource")}


def open_source(address: SourceAddress) -> Source:
    """The source that an address means. Its library is imported only now; SourceFailed says how to install it."""
    module, name = _KINDS[address.kind]
    try:
        found = import_module(f"gateway.sources.{module}")
    except ImportError as missing:
        message = f"{address.kind}:// needs a library that is not installed ({missing})"
        raise SourceFailed(f"{message}: pip install 'nim-gateway[{address.kind}]'", is_final=True) from missing
    source: Source = getattr(found, name)(address)
    return source
