"""The rules of admission: each file holds those about one thing, as functions from what was read to findings."""
