"""Engine processes: launched, watched, restarted and ended here. Knows nothing of requests and routes."""
