"""The shipped names against the engine that is installed. After an engine update: bring methods.json up to date."""

import ast
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from gateway.settings.methods import find_faults, load_methods

METHODS = load_methods()


@pytest.mark.parametrize(
    ("section", "places"),
    [
        ({"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 4}, []),
        ({"method": "ngram"}, ["num_speculative_tokens"]),
        ({"method": "suffix"}, []),
        ({"method": "suffix", "model": "/d"}, ["model"]),
        ({"method": "mtp"}, ["num_speculative_tokens"]),
        ({"method": "mtp", "model": "/d"}, []),
        ({"method": "deepseek_mtp", "num_speculative_tokens": 1}, []),
        ({"method": "draft_model"}, ["model", "num_speculative_tokens"]),
        ({"method": "draft_model", "model": "/d"}, ["num_speculative_tokens"]),
        ({"method": "eagle3", "num_speculative_tokens": 2}, ["model"]),
        ({"method": "eagle3", "model": "org/head"}, []),
        ({"method": "ngrams", "num_speculative_tokens": 3}, ["method"]),
        ({"method": 7}, []),
        ({}, []),
    ],
)
def test_what_each_method_asks_for(section: dict[str, Any], places: list[str]) -> None:
    assert [place for (place,), _ in find_faults(section)] == places


def test_unknown_names_are_answered_with_a_known_one() -> None:
    assert next(find_faults({"method": "ngrams"}))[1] == "vLLM 0.32 has no method 'ngrams': did you mean ngram?"
    assert "there are ngram, ngram_gpu, suffix, draft_model" in next(find_faults({"method": "x" * 10_000}))[1]


def test_old_names_of_mtp_are_mtp() -> None:
    assert METHODS.find_kind("qwen3_5_mtp") == METHODS.find_kind("mtp") == "mtp"
    assert METHODS.find_kind("eagle") == "eagle"


def test_each_named_method_is_a_known_one() -> None:
    for names in (METHODS.with_model, METHODS.without_model, METHODS.with_number):
        assert set(names) <= set(METHODS.names)
    assert not set(METHODS.with_model) & set(METHODS.without_model)


@pytest.mark.skipif(find_spec("vllm") is None, reason="no engine is installed")
def test_the_names_are_those_of_the_installed_engine() -> None:
    spec = find_spec("vllm")
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse((Path(spec.origin).parent / "config" / "speculative.py").read_text())
    kinds = {
        statement.targets[0].id: [ast.unparse(item) for item in _items(statement.value.slice)]
        for statement in tree.body
        if isinstance(statement, ast.Assign)
        and isinstance(statement.targets[0], ast.Name)
        and isinstance(statement.value, ast.Subscript)
    }

    def expand(name: str) -> set[str]:
        return {one for item in kinds[name] for one in (expand(item) if item in kinds else {ast.literal_eval(item)})}

    assert expand("SpeculativeMethod") == {*METHODS.names, *METHODS.old_names_of_mtp}
    assert expand("MTPModelTypes") - {"mtp"} == set(METHODS.old_names_of_mtp)


def _items(node: ast.expr) -> list[ast.expr]:
    return node.elts if isinstance(node, ast.Tuple) else [node]
