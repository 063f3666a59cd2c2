"""The tables of a recipe as frozen, strictly typed models, and one-line errors for mistakes in them."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, get_args

import annotated_types
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from unclip.errors import InputError, RecipeError, did_you_mean, nearest
from unclip.requests.values import show

EXPECTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a string",
    "tuple_type": "a list",
    "dict_type": "a table",
    "model_type": "a table",
}
"""pydantic's error types -> what the value should be."""


class Table(BaseModel):
    """A table of a recipe. An integer is accepted as a float, but a bool or a string is not accepted as a number."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


AnyTable = TypeVar("AnyTable", bound=Table)


def read_table(
    model: type[AnyTable], values: Mapping[str, Any], where: str, error: type[InputError] = RecipeError
) -> AnyTable:
    """Validate the values of a table, as read from TOML.

    where: the file and the table, for messages.
    Raises `error` for an unknown key, a missing key, a wrong type or a value out of range.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as caught:
        faults = caught.errors(include_url=False)
        unknown = [fault for fault in faults if fault["type"] == "extra_forbidden"]
        raise error(_message(model, (unknown or faults)[0], where)) from None


def check_keys(table: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    """Raise RecipeError for an unknown key, naming the closest known one."""
    for key in table:
        if key not in known:
            raise RecipeError(f"{where}: unknown key {show(key)}; {did_you_mean(key, known)}")


def _message(model: type[BaseModel], fault: Any, where: str) -> str:
    """One line that names the table, the key, the value and what the value should be."""
    *tables, key = [part for part in fault["loc"] if isinstance(part, str)]
    place = f"{where} [{'.'.join(tables)}]" if tables else where
    for name in tables:
        model = _nested(model.model_fields[name])
    if fault["type"] == "extra_forbidden":
        return f"{place}: unknown key {show(key)}; {did_you_mean(key, model.model_fields)}"
    if fault["type"] == "missing":
        return f"{place}: the key {key!r} is missing; add it"
    index = "".join(f"[{part}]" for part in fault["loc"] if isinstance(part, int))
    if fault["type"] in ("string_too_short", "too_short"):
        return f"{place}: {key}{index} is empty; fill it in"
    return f"{place}: {key}{index} = {show(fault['input'])} should be {_expected(model.model_fields[key], fault)}"


def _nested(field: FieldInfo) -> type[BaseModel]:
    """The model of a field that holds a table: `Fit`, or `Fit | None`."""
    kinds = (field.annotation, *get_args(field.annotation))
    return next(kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel))


def _expected(field: FieldInfo, fault: Any) -> str:
    kind = fault["type"]
    if kind in EXPECTED:
        return EXPECTED[kind]
    if kind in ("greater_than_equal", "less_than_equal"):
        low = next(limit.ge for limit in field.metadata if isinstance(limit, annotated_types.Ge))
        high = next((limit.le for limit in field.metadata if isinstance(limit, annotated_types.Le)), None)
        return f"{low} or more" if high is None else f"from {low} to {high}"
    if kind == "literal_error":
        choices = list(map(str, get_args(field.annotation)))
        near = nearest(fault["input"], choices)
        return f"one of {', '.join(choices)}" + (f"; did you mean {near!r}?" if near else "")
    return str(fault["ctx"]["error"]) if kind == "value_error" else fault["msg"]
