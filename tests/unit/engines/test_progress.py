from gateway.engines.progress import LoadProgress

LINES = [
    "INFO [api_server.py] vLLM API server version 0.32.0",
    "INFO [model.py] Resolved architecture: Qwen2_5_VLForConditionalGeneration",
    "INFO [core.py] Initializing a V1 LLM engine (v0.32.0) with config",
    "INFO [cpu_model_runner.py] Starting to load model /m",
    "Loading safetensors checkpoint shards:  50% Completed | 1/2",
    "something else",
    "INFO Starting vLLM server on unix:/x",
]


def test_progress_goes_from_line_to_line_and_never_back() -> None:
    progress = LoadProgress()
    seen = []
    for line in LINES + LINES[:3]:
        moved = progress.read(line)
        seen.append((moved, progress.fraction))
    assert [moved for moved, _ in seen] == [True, True, True, True, True, False, True, False, False, False]
    fractions = [fraction for _, fraction in seen]
    assert fractions == sorted(fractions)
    assert progress.phase == "opening the server"


def test_shards_count_between_the_phases() -> None:
    progress = LoadProgress()
    progress.read(LINES[4])
    assert (progress.phase, progress.fraction) == ("loading weights", 0.625)
