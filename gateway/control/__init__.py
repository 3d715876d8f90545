"""The one owner of truth: decides which engines run and publishes route snapshots. Relays only read."""
