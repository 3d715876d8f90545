"""A stand-in engine: answers like a vLLM server with set timing and set faults. Only ever launched as a program
(`python -m gateway.simulator`); imports nothing of ours, and nothing of ours imports it."""
