import pytest

from gateway.simulator.options import FAULTS, Options, parse_options


def parse(line: str) -> Options:
    return parse_options(line.split())


def test_defaults_are_those_of_the_options() -> None:
    assert parse_options([]) == Options()


def test_flags_of_vllm_are_understood_and_unknown_ones_ignored() -> None:
    options = parse(
        "--model /m --uds /s --served-model-name a b --enforce-eager --dtype float32 "
        '--limit-mm-per-prompt {"image":4} --lora-modules x=/x {"name":"y","path":"/y"} --lora-modules z=/z '
        "--max-model-len 512 --shutdown-timeout 7 --enable-request-id-headers"
    )
    assert (options.model, options.uds, options.names) == ("/m", "/s", ("a", "b"))
    assert options.adapters == {"x": "/x", "y": "/y", "z": "/z"}
    assert (options.max_model_len, options.shutdown_timeout_s, options.echo_request_id) == (512, 7.0, True)


def test_a_model_without_a_served_name_is_called_as_it_is() -> None:
    assert parse_options(["--model", "/m"]).names == ("/m",)


def test_times_are_given_in_milliseconds() -> None:
    options = parse("--ttft-ms 250 --itl-ms 0 --start-delay-s 1.5")
    assert (options.ttft_s, options.itl_s, options.start_delay_s) == (0.25, 0.0, 1.5)


def test_faults_take_their_number_or_its_default() -> None:
    options = parse("--fault die-at-start:3 --fault hang --fault cut-stream --fault bad-frame")
    assert options.faults == {"die-at-start": 3, "hang": 0, "cut-stream": 2, "bad-frame": 0}


@pytest.mark.parametrize("kind", FAULTS)
def test_every_fault_can_be_given_and_is_explained(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert kind in parse_options(["--fault", kind]).faults
    with pytest.raises(SystemExit):
        parse_options(["--help"])
    assert f"{kind} " in capsys.readouterr().out.replace(":", " ")


@pytest.mark.parametrize(
    "arguments",
    [
        "--fault sneeze",
        "--fault bad-frame:1",
        "--fault hang:soon",
        "--itl-ms -1",
        "--ttft-ms nan",
        "--tokens 0",
        "--lora-modules x",
        "--port x",
    ],
)
def test_bad_values_end_with_code_2(arguments: str) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(arguments)
    assert caught.value.code == 2


def test_what_is_guessed_ahead_is_told_as_vllm_is_told() -> None:
    assert parse_options([]).guessed_tokens == 0
    options = parse('--speculative-config {"method":"ngram","num_speculative_tokens":4} --spec-acceptance 0.25')
    assert (options.guessed_tokens, options.acceptance) == (4, 0.25)


@pytest.mark.parametrize("rate", ["-0.1", "1.1", "nan", "x"])
def test_an_acceptance_is_a_fraction(rate: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(f"--spec-acceptance {rate}")
    assert "--spec-acceptance" in capsys.readouterr().err
