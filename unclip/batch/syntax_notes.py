"""Notes about the syntax of other tools in prompts, which is plain text here."""

from __future__ import annotations

import re
from collections.abc import Iterator

from unclip.batch.jobs import Task
from unclip.requests.values import show

_SYNTAX = {
    "weights": r"\([^()]*:\s*\d+(?:\.\d+)?\s*\)|\[[^\[\]:]*:[^\[\]:]*:\s*\d*\.?\d+\]|(?<=\S)::-?\d",
    "networks": r"<(?:lora|lyco|hypernet|embedding):[^<>]*>",
    "wildcard files": r"(?<!\w)__[\w-]{1,60}__(?!\w)",
    "comments": r"(?<=\s)#(?=\s)",
}
_ANY = re.compile("|".join(f"({pattern})" for pattern in _SYNTAX.values()), re.IGNORECASE)


class SyntaxNotes:
    """Collects the prompts of a file that seem to be written for another tool."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[int, str, int]] = {}  # kind: (first line, example, number of lines)

    def add(self, task: Task) -> None:
        """Look at the prompt of a line."""
        kinds: dict[str, str] = {}
        for match in _ANY.finditer(task.request.prompt):
            kinds.setdefault(list(_SYNTAX)[(match.lastindex or 1) - 1], match[0])
        for kind, example in kinds.items():
            line, first, count = self._found.get(kind, (task.row.line, example, 0))
            self._found[kind] = line, first, count + 1

    def __iter__(self) -> Iterator[str]:
        """One note for each kind of syntax."""
        for kind, (line, example, count) in self._found.items():
            others = f" and {count - 1:,} more" if count > 1 else ""
            yield f"line {line}{others}: {show(example)} is plain text here; {kind} of other tools are not read"
