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
        obj.docstring.value = format_docstring(obj.docstring.value, names)


def format_docstring(text: str, names: Collection[str]) -> str:
    """The docstring as Markdown, in which descriptions of `names` are list items."""
    return "\n\n".join(format_paragraph(part, names) for part in re.split(r"\n\s*\n", text))


def format_paragraph(text: str, names: Collection[str]) -> str:
    if text.startswith(("    ", "- ", "* ", ">>>")):
        return text
    lines: list[str] = []
    for line in text.split("\n"):
        found = COLUMNS.match(line)
        if found and is_known(found[1], names):
            lines.append(list_item(found[1]) + found[2])
        elif lines and lines[-1].startswith("- ") and line.startswith("  "):
            lines[-1] += " " + line.strip()
        else:
            lines.append(line)
    text = "\n".join(lines)
    text = ARGUMENT.sub(lambda found: "\n" + list_item(found[1]) if is_known(found[1], names) else found[0], text)
    text = RAISES.sub("\n", text)
    text = re.sub(r";\s*(?=\n- )", ".", text)
    return tidy(text.split("\n"))


def tidy(lines: list[str]) -> str:
    """Lines with a blank one before a list and none in it, and without the indents that would make them code."""
    tidied: list[str] = []
    in_list = False
    for line in map(str.strip, lines):
        if not line:
            continue
        if line.startswith("- "):
            tidied += [] if in_list or not tidied else [""]
            in_list = True
        elif line.startswith("Raises "):
            tidied.append("")
            in_list = False
        tidied.append(line)
    return "\n".join(tidied).strip()


def list_item(found: str) -> str:
    return "- " + ", ".join(f"`{name}`" for name in found.split(", ")) + ": "


def is_known(found: str, names: Collection[str]) -> bool:
    return all(name in names for name in found.split(", "))
