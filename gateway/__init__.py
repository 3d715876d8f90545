"""An open, NIM-compatible inference serving gateway: checkpoints in, one OpenAI endpoint out."""
