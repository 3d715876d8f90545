"""Lines as vLLM 0.32 wrote them, shortened; paths replaced."""

import pytest

from gateway.engines.diagnosis import explain_exit

CORE = "(EngineCore pid=7857) ERROR 11-21 08:35:14 [core.py:1510] "
CONSEQUENCE = [
    "Traceback (most recent call last):",
    "    raise RuntimeError(",
    "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}",
]
MODEL_CONFIG = "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig"
MORE = "    For further information visit https://errors.pydantic.dev/2.14/v/value_error"


@pytest.mark.parametrize(
    ("lines", "code", "sentence"),
    [
        (
            [
                (
                    "huggingface_hub.errors.HFValidationError: Repo id must be in the form 'repo_name' or "
                    "'namespace/repo_name': '/models/nowhere'. Use `repo_type` argument if needed."
                )
            ],
            1,
            "the checkpoint folder /models/nowhere does not exist",
        ),
        (
            [MODEL_CONFIG, "  Value error, Invalid repository ID or local directory specified: '/models/empty'.", MORE],
            1,
            "/models/empty is not a checkpoint: no config.json in it",
        ),
        (
            [
                """    raise OSError(f"It looks like the config file at '{resolved_config_file}' is not a valid JSON file.")""",
                "OSError: It looks like the config file at '/m/config.json' is not a valid JSON file.",
            ],
            1,
            "/m/config.json is not valid JSON",
        ),
        (
            [
                MODEL_CONFIG,
                (
                    "  Value error, The checkpoint you are trying to load has model type `vila` but Transformers does not "
                    "recognize this architecture. This could be because of an issue with the checkpoint"
                ),
                MORE,
            ],
            1,
            "vLLM does not know the model type 'vila'",
        ),
        (
            [
                MODEL_CONFIG,
                (
                    "  Value error, Model architectures ['FooForCausalLM'] are not supported for now. Supported "
                    "architectures: dict_keys(['AfmoeForCausalLM', 'ApertusForCausalLM'"
                ),
            ],
            1,
            "vLLM does not support the architecture FooForCausalLM",
        ),
        (
            [
                MODEL_CONFIG,
                "  Value error, The repository /m contains custom code which must be executed to correctly load",
            ],
            1,
            "the checkpoint /m brings its own Python code; if you trust it, set trust-remote-code in engine_args",
        ),
        (
            [
                "OSError: Can't load image processor for '/m'. If you were trying to load it from 'https://huggingface.co"
            ],
            1,
            "/m has no readable preprocessor_config.json",
        ),
        (
            [CORE + "RuntimeError: Cannot find any model weights with `/m`", *CONSEQUENCE],
            1,
            "there are no weights in /m",
        ),
        (
            [
                CORE
                + "safetensors._safetensors_rust.SafetensorError: Error while deserializing header: incomplete metadata",
                *CONSEQUENCE,
            ],
            1,
            "a weights file is damaged: Error while deserializing header: incomplete metadata",
        ),
        (
            [
                "(EngineCore pid=88) ERROR 11-21 08:37:33 [core.py:1750] ValueError: /m/lora doesn't contain tensors",
                "ValueError: Call to add_lora method failed: <path> doesn't contain tensors",
            ],
            1,
            "there are no weights in the adapter /m/lora",
        ),
        (
            [
                CORE
                + "ValueError: To serve at least one request with the model's max seq len (2048), (0.0 GiB KV cache is "
                "needed, which is larger than the available KV cache memory (0.0 GiB). Based on the available memory, the "
                "estimated maximum model length is 640. Try increasing `gpu_memory_utilization`",
                *CONSEQUENCE,
            ],
            1,
            "the KV cache is too small for max-model-len 2048: set it to 640 or less, or give the KV cache more memory",
        ),
        (
            [CORE + "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`"],
            1,
            "no memory is left for the KV cache: raise kv-cache-memory-bytes (CPU) or gpu-memory-utilization",
        ),
        (
            [
                CORE
                + "ValueError: Available memory on node 0 (6.58/7.59 GiB) on kv cache allocation is less than requested "
                "memory for kv (900.0 GiB). Decrease --kv-cache-memory-bytes"
            ],
            1,
            "a KV cache of 900.0 GiB does not fit into the 6.58 GiB that are free: lower kv-cache-memory-bytes",
        ),
        (
            [
                (
                    "ValueError: Available memory on node 0 (5.1/7.59 GiB) on startup is less than desired CPU memory "
                    "utilization (0.92, 6.98 GiB)."
                )
            ],
            1,
            "only 5.1 GiB of memory are free: lower gpu-memory-utilization or free some",
        ),
        (
            [CORE + "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", *CONSEQUENCE],
            1,
            "out of memory: give the engine a smaller KV cache, a shorter max-model-len or more memory",
        ),
        (
            [
                MODEL_CONFIG,
                (
                    "  Value error, User-specified max_model_len (99999) is greater than the derived max_model_len "
                    "(max_position_embeddings=2048.0 or model_max_length=None in model's config.json)."
                ),
            ],
            1,
            "max-model-len 99999 is more than the 2048 tokens the model was made for",
        ),
        (
            ["    [--enable-log-requests]", "launcher.py: error: unrecognized arguments: --max-modle-len=7"],
            2,
            "vLLM does not know the engine argument --max-modle-len=7",
        ),
        (
            ["launcher.py: error: argument --max-model-len: invalid human_readable_int_or_auto value: 'many'"],
            2,
            "the engine argument --max-model-len is wrong: invalid human_readable_int_or_auto value: 'many'",
        ),
        (["OSError: [Errno 98] Address already in use"], 1, "the address of the engine's socket is in use"),
        (
            ["OSError: AF_UNIX path too long"],
            1,
            "the path of the engine's socket is too long: set a shorter engines.runtime_dir",
        ),
        (
            ["ModuleNotFoundError: No module named 'vllm'"],
            1,
            "vllm is not installed here: install nim-gateway[cpu] or nim-gateway[gpu]",
        ),
        (
            [
                "pydantic_core._pydantic_core.ValidationError: 1 validation error for SpeculativeConfig",
                "method",
                "  Input should be 'ngram' or 'suffix' [type=literal_error, input_value='nonsense', input_type=str]",
            ],
            1,
            "method is 'nonsense': Input should be 'ngram' or 'suffix'",
        ),
        (
            [
                "pydantic_core._pydantic_core.ValidationError: 1 validation error for VllmConfig",
                (
                    "  Value error, Total number of attention heads (2) must be divisible by tensor parallel size (3). "
                    "[type=value_error, input_value=ArgsKwargs((), {'model_co... 5}), input_type=ArgsKwargs]"
                ),
                MORE,
            ],
            1,
            "Total number of attention heads (2) must be divisible by tensor parallel size (3).",
        ),
        (
            [
                "TypeError: Error: --enable-auto-tool-choice requires --tool-call-parser",
            ],
            1,
            "TypeError: Error: --enable-auto-tool-choice requires --tool-call-parser",
        ),
        (
            [
                CORE + "    assert sum(self.mrope_section) == rotary_dim // 2",
                CORE + "           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^",
                CORE + "AssertionError",
                *CONSEQUENCE,
            ],
            1,
            "AssertionError: assert sum(self.mrope_section) == rotary_dim // 2",
        ),
    ],
)
def test_known_failures(lines: list[str], code: int, sentence: str) -> None:
    assert explain_exit(lines, code) == sentence


def test_the_cores_own_exception_goes_before_what_followed_from_it() -> None:
    lines = [CORE + "ZeroDivisionError: the cause", "KeyError: 'a consequence'", *CONSEQUENCE]
    assert explain_exit(lines, 1) == "ZeroDivisionError: the cause"


def test_exit_code_zero_is_no_good_end_when_the_core_died() -> None:
    lines = [
        (
            "(APIServer pid=9144) WARNING 11-21 08:38:37 [core_client.py:817] [shutdown] MPClient: engine core exited "
            "unexpectedly; starting cleanup"
        ),
        (
            "(APIServer pid=9144) ERROR 11-21 08:38:37 [async_llm.py:906] vllm.v1.engine.exceptions.EngineDeadError: "
            "EngineCore encountered an issue. See stack trace (above) for the root cause."
        ),
        "INFO:     Application shutdown complete.",
    ]
    assert explain_exit(lines, 0) == "its core process died"
    broken = [CORE + "RuntimeError: a broken kernel", *lines]
    assert explain_exit(broken, 0) == "its core process died: RuntimeError: a broken kernel"


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (-9, "killed by signal 9: the system had no memory left, or somebody killed it"),
        (-11, "ended by signal 11 (SIGSEGV)"),
        (-64, "ended by signal 64"),
    ],
)
def test_signals(code: int, sentence: str) -> None:
    assert explain_exit(["ValueError: said long before"], code).startswith(sentence)


def test_says_what_it_can_when_nothing_is_known() -> None:
    assert explain_exit([], 0) == "it ended by itself (exit code 0)"
    assert explain_exit(["something odd"], 5) == "it ended by itself (exit code 5); its last words: something odd"


def test_is_one_line_of_bounded_length() -> None:
    sentence = explain_exit(["ValueError: " + "very  long " * 100], 1)
    assert len(sentence) == 300
    assert "  " not in sentence
