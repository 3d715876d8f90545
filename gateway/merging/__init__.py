"""Merging: an adapter worked into its base, as a checkpoint of its own. Needs numpy; only its check needs torch."""
