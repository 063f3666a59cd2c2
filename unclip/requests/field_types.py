"""The types of a Request's fields: values that pydantic checks with the functions of `values`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationError, ValidationInfo

from unclip.errors import RequestError
from unclip.requests import values


def checked(check: Callable[[str, Any], Any], required: bool = False) -> BeforeValidator:
    """Validate a field by `check(name, value)`, which returns the value in its final form.

    None stays None, and is checked as well if the field is required.
    """

    def validate(value: Any, info: ValidationInfo) -> Any:
        return None if value is None and not required else check(str(info.field_name), value)

    return BeforeValidator(validate)


LIMITED = checked(values.within_limits)
REQUIRED = checked(values.within_limits, required=True)
Prompt = Annotated[str, checked(values.prompt, required=True)]
Text = Annotated[str | None, checked(values.text)]
OptionalPrompt = Annotated[str | None, checked(values.prompt)]
Integer = Annotated[int | None, LIMITED]
Decimal = Annotated[float | None, LIMITED]
Integers = Annotated[tuple[int, ...] | None, LIMITED]
Decimals = Annotated[tuple[float, ...] | None, LIMITED]
Choice = Annotated[str | None, LIMITED]
Source = Annotated[Any, checked(values.source)]


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn the first error of a validation by pydantic into a RequestError of one line."""
    try:
        yield
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        cause = first.get("ctx", {}).get("error")
        if isinstance(cause, RequestError):
            raise cause from None
        field = ".".join(map(str, first["loc"])) or "the request"
        raise RequestError(f"{field}: {' '.join(first['msg'].split())}") from None
