"""Error answers of the FastAPI apps, in the one shape that `errors.render` gives."""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from gateway.errors import BadRequest, GatewayError, MethodNotAllowed, OperatorFault, UnknownRoute, render
from gateway.proxy.headers import request_id

logger = logging.getLogger(__name__)


def add_error_answers(app: FastAPI) -> None:
    """Make every failure inside `app` an OpenAI error object."""

    @app.exception_handler(GatewayError)
    async def answer_known(request: Request, error: GatewayError) -> Response:
        return _respond(request, error)

    @app.exception_handler(HTTPException)
    async def answer_http(request: Request, error: HTTPException) -> Response:
        if error.status_code == 405:
            return _respond(request, MethodNotAllowed(f"{request.url.path} does not take {request.method}."))
        if error.status_code == 404:
            return _respond(request, UnknownRoute(f"There is no {request.method} {request.url.path[:200]} here."))
        return _respond(request, BadRequest(str(error.detail)))

    @app.exception_handler(RequestValidationError)
    async def answer_invalid(request: Request, error: RequestValidationError) -> Response:
        return _respond(request, BadRequest(describe_faults(error.errors())))

    @app.exception_handler(Exception)
    async def answer_unknown(request: Request, error: Exception) -> Response:
        logger.error("%s %s failed inside the gateway", request.method, request.url.path, exc_info=error)
        return _respond(request, OperatorFault("The gateway failed on this request; its log has the details."))


def describe_faults(faults: Iterable[Mapping[str, Any]]) -> str:
    """What pydantic says, in one line."""
    return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}".removeprefix(": ") for one in faults)


def _respond(request: Request, error: GatewayError) -> Response:
    offered = request.headers.get("x-request-id")
    name = request_id(offered.encode("latin-1") if offered else None)
    status, headers, body = render(error, [(b"x-request-id", name.encode())])
    response = Response(body, status)
    response.raw_headers = headers
    return response
