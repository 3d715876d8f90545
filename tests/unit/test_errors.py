import json

import pytest

from gateway import errors
from gateway.errors import (
    BadRequest,
    Conflict,
    Draining,
    Fault,
    Forbidden,
    GatewayError,
    OperatorFault,
    StateUnavailable,
    UnknownModel,
    render,
)


def all_classes(root: type[GatewayError]) -> list[type[GatewayError]]:
    return [root, *(found for child in root.__subclasses__() for found in all_classes(child))]


@pytest.mark.parametrize("kind", all_classes(GatewayError))
def test_every_error_renders_as_the_openai_object(kind: type[GatewayError]) -> None:
    status, headers, body = render(_make(kind))
    assert 400 <= status <= 599
    assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}
    assert dict(headers)[b"content-length"] == str(len(body)).encode()
    assert dict(headers)[b"x-gateway-error-origin"] == b"gateway"


def _make(kind: type[GatewayError]) -> GatewayError:
    return kind("Because.", is_untouched=True) if kind.__name__ == "ConnectionLost" else kind("Because.")


@pytest.mark.parametrize("kind", all_classes(BadRequest))
def test_a_clients_mistake_is_never_a_5xx_and_never_worth_a_retry(kind: type[GatewayError]) -> None:
    assert 400 <= kind.status < 500
    assert not kind.is_retry_safe


def test_details_come_out() -> None:
    _, _, body = render(UnknownModel("No such model.", param="model"))
    assert json.loads(body)["error"] == {
        "message": "No such model.",
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
    }
    _, headers, _ = render(Draining("Later.", retry_after_s=5), [(b"x-extra", b"1")])
    assert (b"retry-after", b"5") in headers
    assert headers[-1] == (b"x-extra", b"1")


def test_half_a_character_in_a_message_is_spelt_out() -> None:
    _, _, body = render(BadRequest("no \ud83d, but é"))
    assert json.loads(body)["error"]["message"] == "no \\ud83d, but é"


def test_the_tree_in_the_docstring_names_every_class() -> None:
    for kind in all_classes(GatewayError):
        if kind.__module__ == errors.__name__:
            assert kind.__name__ in (errors.__doc__ or "")


def test_a_failure_is_the_same_in_another_process() -> None:
    for error in (
        BadRequest("a", param="model"), StateUnavailable("b", retry_after_s=5), Conflict("c"), UnknownModel("d"),
        OperatorFault("e"), Forbidden("f"),
    ):  # fmt: skip
        revived = Fault.of(error).revive()
        assert type(revived) is type(error)
        assert (revived.message, revived.param, revived.retry_after_s) == (
            error.message,
            error.param,
            error.retry_after_s,
        )
    assert type(Fault("of_a_later_release", "x").revive()) is OperatorFault
