"""Fields of a request that are given as FIELD=VALUE."""

from typing import Any

from unclip.errors import InputError
from unclip.requests.fields import OLD_NAMES, foreign_fields
from unclip.requests.request import Request
from unclip.requests.text_values import FIELDS, parse_value
from unclip.requests.validation import check_mode_name


def checked_defaults(given: dict[str, Any], assignments: list[str]) -> dict[str, Any]:
    """The fields for lines that do not set them, from options and from --set FIELD=VALUE.

    Raises InputError for a field that no request has, or a value that no request can have.
    """
    fields = {name: value for name, value in given.items() if value is not None}
    for assignment in assignments:
        field, mark, value = assignment.partition("=")
        field = field.strip().replace("-", "_")
        field = OLD_NAMES.get(field, field)
        if not mark or not field:
            raise InputError(f"--set {assignment!r}: write FIELD=VALUE, such as prior_best_of=4")
        if field in ("prompt", "seed", "id"):
            raise InputError(f"--set {field}: each line has its own; put it into the file")
        if given.get(field) is not None:
            raise InputError(f"--set {field}: it is given twice; keep one of them")
        fields[field] = parse_value(field, value)
    mode = fields.get("mode")
    if mode is None:  # lines may have their own modes, so fields of other modes are allowed
        foreign = foreign_fields("generate")
        common = {name: value for name, value in fields.items() if name in FIELDS and name not in foreign}
        Request.from_dict({"prompt": "x", **common})
    else:
        check_mode_name(mode)
    unknown = [name for name in fields if name not in FIELDS]
    if unknown:
        Request.from_dict({"prompt": "x", unknown[0]: None})  # raises, with the closest name
    return fields


def assigned_fields(assignments: list[str], given: set[str]) -> dict[str, Any]:
    """The fields of FIELD=VALUE; None for an empty value. Raises InputError for one without "=" or given twice."""
    fields: dict[str, Any] = {}
    for assignment in assignments:
        name, mark, value = assignment.partition("=")
        name = name.strip().replace("-", "_")
        name = OLD_NAMES.get(name, name)
        if not mark or not name:
            raise InputError(f"--set {assignment!r}: write FIELD=VALUE, such as strength=0.5")
        if name in fields or name in given:
            raise InputError(f"--set {name}: it is given twice; keep one of them")
        if name not in FIELDS:
            Request.from_dict({"prompt": "x", name: None})  # raises, with the closest name
        fields[name] = parse_value(name, value) if value.strip() else None
    return fields
