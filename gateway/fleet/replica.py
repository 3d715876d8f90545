"""What the data plane knows of an engine: an address that serves one version."""

from dataclasses import dataclass

VersionKey = tuple[str, str]
"""A model and one of its versions."""


@dataclass(frozen=True, slots=True)
class Replica:
    """An address that serves a version.

    `name` is shown to clients (`v1-0`). `address` is `unix:///path/to.sock` or `http://host:port`. `served_name` is
    the model name the engine itself puts into its answers.
    """

    name: str
    model: str
    version: str
    address: str
    served_name: str
