"""Which version answers a request. Pure: facts in, decision out; no clock, no network, no randomness."""
