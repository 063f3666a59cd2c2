"""The JSON schema of a Request says what validation does, field by field."""

import json
from typing import Any

import pytest

from unclip.errors import RequestError
from unclip.requests.fields import FIELDS_OF, LIMITS, MODES, Interval, OneOf, Whole
from unclip.requests.request import Request

SCHEMA = Request.model_json_schema()["properties"]
NEEDED = {  # a valid request of each mode
    "generate": {"prompt": "a cat"},
    "inpaint": {"image": "a.png", "prompt": "a cat"},
    "outpaint": {"image": "a.png", "prompt": "a cat", "left": 8, "right": 8},
    "vary": {"image": "a.png"},
    "interpolate": {"sources": ["a cat", "a dog"]},
    "edit": {"image": "a.png", "prompt": "a cat"},
    "reconstruct": {"image": "a.png"},
}


def values_of(name: str) -> list[dict[str, Any]]:
    """The schemas of the values of a field, other than null."""
    return [one for one in SCHEMA[name].get("anyOf", [SCHEMA[name]]) if one.get("type") != "null"]


def request(name: str, value: Any) -> Request:
    """A request that is valid if the value of the field is."""
    mode = next((mode for mode in MODES if name in FIELDS_OF[mode]), "generate")
    fields: dict[str, Any] = {"mode": mode} | NEEDED[mode] | {name: value}
    if name == "anchor":
        del fields["left"], fields["right"]
        fields["size"] = 64
    if name == "weights":
        fields["sources"] = ["a cat"] * max(2, len(value))
        fields["weights"] = [*value, 1] if len(value) == 1 else value
    if name == "mode" and value in MODES:
        fields = NEEDED[value] | {"mode": value}
    return Request(**fields)


def refuse(name: str, value: Any) -> None:
    with pytest.raises(RequestError, match=f"^{name} ") as caught:
        request(name, value)
    assert "\n" not in str(caught.value)


def test_every_field_is_in_the_schema_with_its_type() -> None:
    assert set(SCHEMA) == set(Request.field_names())
    for name, schema in SCHEMA.items():
        assert schema["description"], name
        assert all(one.get("type") for one in values_of(name)), name
        optional = {"type": "null"} in schema.get("anyOf", ())
        assert optional == (Request.model_fields[name].default is None), name
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA
    assert Request.model_json_schema()["additionalProperties"] is False


def test_every_number_and_choice_has_limits() -> None:
    for name in SCHEMA:
        for one in values_of(name):
            one = one.get("items", one)
            if one["type"] in ("integer", "number"):
                assert {"minimum", "maximum"} <= set(one) and name in LIMITS, name
    for name, limit in LIMITS.items():
        if isinstance(limit, Whole) and limit.unit:
            assert limit.unit in json.dumps(SCHEMA[name])


@pytest.mark.parametrize("name", [name for name, limit in LIMITS.items() if not isinstance(limit, OneOf)])
def test_numbers_at_the_limits_are_valid_and_beyond_them_refused(name: str) -> None:
    limit = LIMITS[name]
    step = 1 if isinstance(limit, Whole) else 0.001
    for schema in values_of(name):
        if schema["type"] == "string":
            continue
        many = schema["type"] == "array"
        one = schema["items"] if many else schema
        for value in (one["minimum"], one["maximum"]):
            if name == "weights" and value == 0:
                continue  # not all may be 0
            given = [value] * schema.get("minItems", 1) if many else value
            if isinstance(limit, Interval):
                given = [one["minimum"], one["maximum"]]
            assert request(name, given) is not None
        for value in (one["minimum"] - step, one["maximum"] + step, True, None if many else [], "x"):
            refuse(name, [value] * schema.get("minItems", 1) if many else value)
        if one["type"] == "integer":
            refuse(name, [1.5] * schema.get("minItems", 1) if many else 1.5)
        if many:
            refuse(name, [])


@pytest.mark.parametrize("name", [name for name, limit in LIMITS.items() if isinstance(limit, OneOf)])
def test_only_the_choices_of_the_schema_are_valid(name: str) -> None:
    [schema] = values_of(name)
    for value in schema["enum"]:
        assert getattr(request(name, value), name) == value
    for value in ("other", "", schema["enum"][0].upper(), 3, ["x"], {}):
        refuse(name, value)


@pytest.mark.parametrize("name", [name for name in SCHEMA if name not in LIMITS and name != "same_noise"])
def test_other_fields_take_text_only(name: str) -> None:
    for schema in values_of(name):
        assert schema["type"] == ("array" if name == "sources" else "string")
    for value in (3, {}, True):
        refuse(name, value)


def test_the_size_has_three_forms() -> None:
    text, number, pair = values_of("size")
    for value in ("64x48", "64", 64, [64, 48]):
        assert request("size", value).size in ((64, 48), (64, 64))
    assert (pair["minItems"], pair["maxItems"], number["maximum"]) == (2, 2, 8192) and "pattern" in text
    refuse("size", [64] * 3)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"prompt": "a cat", "n": 0}, "n must be a whole number from 1 to 100000, not 0"),
        ({"prompt": "a cat", "n": None}, "n must be a whole number from 1 to 100000, not None"),
        ({"prompt": "a cat", "mode": None}, "mode None is unknown"),
        ({"prompt": None}, "prompt must be text, not None"),
        ({}, "prompt is empty"),
        ({"prompt": "a cat", "guidance_scale": 3}, "'guidance_scale' is not a field"),
        ([], "the request: "),
        (None, "the request: "),
        ("a cat", "the request: "),
    ],
)
def test_every_way_to_make_a_request_raises_a_request_error(fields: Any, says: str) -> None:
    ways = [lambda: Request.model_validate(fields), lambda: Request.model_validate_json(json.dumps(fields))]
    if isinstance(fields, dict):
        ways += [lambda: Request(**fields), lambda: Request.from_dict(fields)]
    for make in ways:
        with pytest.raises(RequestError) as caught:
            make()
        assert says in str(caught.value) and "\n" not in str(caught.value)
    for make in (Request.model_validate, Request.from_dict):
        with pytest.raises(RequestError, match="^1 is not a field of a request; names of fields are text$"):
            make({1: 2})
    with pytest.raises(RequestError, match="the request: Invalid JSON"):
        Request.model_validate_json("{")


def test_model_validate_returns_the_request() -> None:
    fields = {"prompt": "a cat", "negative": "a dog", "size": "64x48", "seed": 3}
    expected = Request(**fields)
    assert Request.model_validate(fields) == Request.model_validate_json(json.dumps(fields)) == expected
    assert Request.model_validate(expected) == expected
