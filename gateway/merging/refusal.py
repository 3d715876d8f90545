"""The one failure of a merge."""


class MergeRefused(Exception):
    """The merge cannot be done, or must not be; the message is a sentence that says why and what to do."""
