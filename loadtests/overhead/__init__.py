"""The paired benchmark: what a router in front of an engine costs, ours and others', on the same core in one run."""
