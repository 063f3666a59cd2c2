"""Griffe extension: shows the arguments and fields that a docstring describes as a list.

Docstrings of this project describe an argument as "name: description" in a paragraph, or in aligned columns ("name
description"). Markdown would join either into one paragraph.
"""

import re
from collections.abc import Collection
from typing import Any

import griffe

NAMES = r"`?(\w+(?:, \w+)*)`?"
COLUMNS = re.compile(rf"{NAMES} {{2,}}(\S.*)")
ARGUMENT = re.compile(rf"(?:^|(?<=[.;] )|(?<=\n)) *{NAMES}: ", re.MULTILINE)
RAISES = re.compile(r"(?:^|(?<=[.;] )|(?<=\n)) *(?=Raises )", re.MULTILINE)


class ArgumentLists(griffe.Extension):
    """Rewrites the docstrings of every function and class of a package."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        self.visit(pkg)

    def visit(self, obj: griffe.Object) -> None:
        """Rewrite the docstrings of an object and of its members."""
        for member in obj.members.values():
            if not member.is_alias:
                self.visit(member)
        if obj.docstring is None:
            return
        if isinstance(obj, griffe.Function):
            names = {parameter.name.lstrip("*") for parameter in obj.parameters}
        elif isinstance(obj, griffe.Class):
            names = set(obj.members) | {parameter.name for parameter in obj.parameters}
        else:
            return
        obj.docstring.value = with_lists(obj.docstring.value, names)


def with_lists(text: str, names: Collection[str]) -> str:
    """The docstring as Markdown, in which descriptions of `names` are list items."""
    return "\n\n".join(paragraph_with_list(part, names) for part in re.split(r"\n\s*\n", text))


def paragraph_with_list(text: str, names: Collection[str]) -> str:
    if text.startswith(("    ", "- ", "* ", ">>>")):
        return text
    lines: list[str] = []
    for line in text.split("\n"):
        found = COLUMNS.match(line)
        if found and is_known(found[1], names):
            lines.append(item(found[1]) + found[2])
        elif lines and lines[-1].startswith("- ") and line.startswith("  "):
            lines[-1] += " " + line.strip()
        else:
            lines.append(line)
    text = "\n".join(lines)
    text = ARGUMENT.sub(lambda found: "\n" + item(found[1]) if is_known(found[1], names) else found[0], text)
    text = RAISES.sub("\n\n", text)
    # A list needs a blank line before it, and no indented lines in it, which would be code.
    text = re.sub(r"\n +", "\n", text)
    text = re.sub(r";\s*(?=\n- )", ".", text)
    return re.sub(r"(?<!\n)\n(?=- )|\n{2,}(?=- )", "\n\n", text).strip()


def item(found: str) -> str:
    return "- " + ", ".join(f"`{name}`" for name in found.split(", ")) + ": "


def is_known(found: str, names: Collection[str]) -> bool:
    return all(name in names for name in found.split(", "))
