"""One request's life between client and engine: read, place, send, relay, account. Knows replicas, never engines."""
