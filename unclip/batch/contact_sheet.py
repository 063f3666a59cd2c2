"""The contact sheet of a prompt file's images, in their output folder."""

from __future__ import annotations

from pathlib import Path

from unclip.batch.grid_file import write_grid
from unclip.batch.jobs import Settings, Task, check_rows
from unclip.batch.manifest import read_entries
from unclip.batch.prompt_file import PromptFile
from unclip.batch.report import Report
from unclip.batch.storage import disk_full
from unclip.batch.sweep import Sweep
from unclip.errors import UnclipError
from unclip.images.contact_sheet import layout, sheet, size_of


def write_contact_sheet(
    prompts: PromptFile | Sweep, settings: Settings, folder: Path, labels: bool, report: Report
) -> None:
    """Write a contact sheet of the images of this file that exist, in the file's order, and report its path.

    labels: with prompts and seeds. Raises WriteError if it cannot be written.
    """
    lines = (line for line in check_rows(prompts.rows(), settings) if isinstance(line, Task))
    places = {f"{job.key:016x}": place for place, job in enumerate(job for line in lines for job in line.jobs())}
    found = []
    for entry in read_entries(folder):
        if entry.key not in places:
            continue
        path = folder / entry.file
        try:
            size = size_of(path)
        except UnclipError as error:
            report.note(f"{error}; the grid goes without it")
            continue
        found.append((places[entry.key], path, f"{entry.seed} {entry.prompt}", size))
    if not found:
        return
    found.sort()
    images = [(path, label) for _, path, label, _ in found]
    cell = max(size[0] for *_, size in found), max(size[1] for *_, size in found)
    data = sheet(images, layout(len(images), cell, labels))
    try:
        path = write_grid(folder, "grid.png", data)
    except OSError as error:
        raise disk_full(error, folder) from error
    report.grid(path)
