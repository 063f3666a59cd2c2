"""Notes about the syntax of other tools in prompts, which is plain text here."""

from __future__ import annotations

import re
from collections.abc import Iterator

from unclip.batch.jobs import Task
from unclip.requests.values import show

_SYNTAX = {  # explanation: pattern, which matches or fails in linear time
    "no other networks are loaded": r"<(?:lora|lyco|hypernet|embedding):[^<>]*>",
    "only a # at the start of a line of text begins a comment": r"(?<=\s)#(?=\s)",
    "options in a prompt are not read": r"(?<!\S)--[A-Za-z][\w-]*(?!\S)",
}
_EXPLANATIONS = tuple(_SYNTAX)
_ANY = re.compile("|".join(f"({pattern})" for pattern in _SYNTAX.values()), re.IGNORECASE)


class SyntaxNotes:
    """Collects the prompts of a file that seem to be written for another tool."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[int, str, int]] = {}  # explanation: (first line, example, number of lines)

    def add(self, task: Task) -> None:
        """Look at the prompt of a line."""
        examples: dict[str, str] = {}
        for match in _ANY.finditer(task.request.prompt):
            examples.setdefault(_EXPLANATIONS[(match.lastindex or 1) - 1], match[0])
        for explanation, example in examples.items():
            line, first, count = self._found.get(explanation, (task.row.line, example, 0))
            self._found[explanation] = line, first, count + 1

    def __iter__(self) -> Iterator[str]:
        """One note for each kind of syntax."""
        for explanation, (line, example, count) in self._found.items():
            others = f" and {count - 1:,} more" if count > 1 else ""
            yield f"line {line}{others}: {show(example)} is plain text; {explanation}"
