"""Merging: an adapter worked into its base, as a checkpoint of its own. Needs numpy; only its check needs torch."""


class MergeRefused(Exception):
    """The merge cannot be done, or must not be; the message is a sentence that says why and what to do."""
