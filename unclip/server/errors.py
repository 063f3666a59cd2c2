"""Errors of the API, in the form that clients of OpenAI's API read."""

from collections.abc import Mapping
from typing import Any

from unclip.errors import InputError, UnclipError, is_out_of_memory
from unclip.requests.text_values import named_field

NO_RETRY = {"x-should-retry": "false"}
"""A header for failures that would happen again: OpenAI's clients repeat calls of status 408, 409, 429 and 5xx."""


class ApiError(Exception):
    """A call that fails. status: of HTTP. code: a word for programs. param: the field that is wrong."""

    def __init__(
        self,
        message: str,
        status: int = 400,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    @property
    def type(self) -> str:
        """OpenAI's kind of error, which follows from the status."""
        kinds = {401: "invalid_request_error", 429: "rate_limit_error"}
        return kinds.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")

    def body(self) -> dict[str, Any]:
        """The JSON body: {"error": {"message", "type", "param", "code"}}."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


def too_busy(message: str, seconds: float) -> ApiError:
    """The error of a full queue. seconds: until a repeated call may find room."""
    wait = str(max(1, min(120, round(seconds))))
    return ApiError(message, 429, code="queue_full", headers={"retry-after": wait})


def shutting_down() -> ApiError:
    """The error of a call that a server has not begun when it is stopped."""
    return ApiError("the server is shutting down", 503, code="shutting_down", headers={"retry-after": "5"})


def api_error(error: Exception) -> ApiError:
    """The error of a call, from any exception that it raised.

    Wrong input is 400 with the field; out of memory and other failures that would happen again are 5xx that clients do
    not repeat. The message of an unexpected error says nothing about the server.
    """
    if isinstance(error, ApiError):
        return error
    message = " ".join(str(error).split())
    if isinstance(error, InputError):
        return ApiError(message, param=field_of(message))
    if is_out_of_memory(error):
        return ApiError(
            "out of memory with one image at a time; ask for a smaller size",
            507,
            code="out_of_memory",
            headers=NO_RETRY,
        )
    if isinstance(error, UnclipError):  # such as values that are not finite: the same call fails again
        return ApiError(message, 422, code="generation_failed", headers=NO_RETRY)
    return ApiError(
        "an unexpected error; the server's log names it by the x-request-id of this response",
        500,
        code="internal_error",
        headers=NO_RETRY,
    )


def field_of(message: str) -> str | None:
    """The field that a message is about: it begins with the name, also as in "the mask is ..."."""
    return named_field(message.removeprefix("the ").removeprefix("cannot read the "))
