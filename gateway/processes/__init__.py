"""The gateway's own processes, where relays and control are not one: keeping them, and what they tell each other."""
