"""Hostile variants of JSON objects and TOML tables for tests: wrong types, missing keys, deep nesting, 1e999, NaN."""

import copy
import json
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

DEEP = "[" * 5000 + "]" * 5000
TOKENS = ["1e999", "-1e999", "NaN", "Infinity", "9" * 5000, DEEP, '{"a":' * 900 + "1" + "}" * 900, "[" * 90 + "]" * 90]
TOKENS += ['"\\ud800"', '"\\u0000"', '""', '"../../x"', '"/etc/passwd"', '"' + "x" * 3000 + '"', '"\\u001b[2J"']
TOKENS += ["null", "true", "-1", "0", "1.5", "[]", "{}", '{"": null}', '[["a"]]', "1e300", str(2**64)]
_MARK = "@hostile@"


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, part in inner for found in _paths(part, (*path, key)))]


@st.composite
def hostile_json(draw: Callable[..., Any], good: dict[str, Any]) -> str:
    """The text of a JSON object in which a value is hostile, a key is missing, or the text itself is damaged."""
    path = draw(st.sampled_from(_paths(good)))
    kind = draw(st.sampled_from(["replace", "replace", "replace", "remove", "cut"]))
    text = json.dumps(good)
    if kind == "cut":
        return text[: draw(st.integers(0, len(text)))]
    if not path:
        return draw(st.sampled_from(TOKENS))
    changed = copy.deepcopy(good)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    if kind == "remove":
        del inner[path[-1]]
        return json.dumps(changed)
    inner[path[-1]] = _MARK
    return json.dumps(changed).replace(json.dumps(_MARK), draw(st.sampled_from(TOKENS)))
