"""The check of an output folder: its manifest against its images, and the notes on what is damaged.

An image that was written after the last check is compared with its hash, any other by its size. So a resumed run reads
no image twice, and notices one that another program has changed.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from pathlib import Path

from unclip.batch.manifest import MANIFEST, PRIVATE, RUN, Entry, read_lines
from unclip.batch.storage import Condition, Storage
from unclip.batch.tally import Tally

DAMAGED = "damaged.jsonl"
"""The lines of the manifest that could not be read."""
_CHECKED = "checked"  # an empty file, as old as the last check
_MAX_NAMED = 3  # images that a note names


class FolderCheck:
    """A check of the images of a folder.

    folder: has the manifest; storage: has the images. verify: compare the hashes of all images, not only of those
    written since the last check. start: check only the lines of the manifest from this byte on. seen: called with the
    entry of each image that is done.

    Attributes:
        altered: Names of images that were changed.
        dropped: The lines of the manifest to remove, as [first byte, first byte after them], in order.
        size: Of the manifest, in bytes.
        is_cut_off: Whether its last line has no end.
        images: All that are done.
    """

    def __init__(
        self,
        folder: Path,
        storage: Storage,
        verify: bool,
        start: int = 0,
        seen: Callable[[Entry], None] | None = None,
    ) -> None:
        self.altered: list[str] = []
        self.dropped: list[list[int]] = []
        self.size = start
        self.images = Tally()
        self._folder = folder
        self._storage = storage
        self.is_cut_off = False
        self._keys = array("Q")
        self._damaged: list[bytes] = []
        self._lost = not (folder / MANIFEST).exists() and (folder / PRIVATE / RUN).exists()
        checked = last_check(folder)
        for line, entry in read_lines(folder, start):
            condition = self._condition(line, entry, checked, verify)
            if condition == "done":
                assert entry is not None
                self._keys.append(int(entry.key, 16))
                self.images += Tally.of(entry.file, entry.bytes)
                if seen is not None:
                    seen(entry)
                self.is_cut_off = not line.endswith(b"\n")
            elif self.dropped and self.dropped[-1][1] == self.size:
                self.dropped[-1][1] += len(line)
            else:
                self.dropped.append([self.size, self.size + len(line)])
            self.size += len(line)

    def _condition(self, line: bytes, entry: Entry | None, checked: int, verify: bool) -> Condition | None:
        """The condition of the image of a line; None for a line without one."""
        if entry is None:
            if line.endswith(b"\n") and line.strip():  # another one was cut off when a run was killed
                self._damaged.append(line)
            return None
        condition = self._storage.condition(entry, checked, verify)
        if condition == "altered":
            self.altered.append(entry.file)
        return condition

    def keys(self) -> array[int]:
        """The keys of the images that are done, sorted."""
        return array("Q", sorted(self._keys))

    def finish(self) -> None:
        """Keep the damaged lines in a file of their own, and remember when the images were checked."""
        if self._damaged:
            with (self._folder / PRIVATE / DAMAGED).open("ab") as file:
                file.writelines(self._damaged)
        mark_checked(self._folder)

    def notes(self) -> list[str]:
        """Messages about damage, and what becomes of it."""
        found, where = [], self._storage.where
        again = "kept as found, and generated again under other names"
        if self._lost and (images := sum(not name.startswith("grid") for name in self._storage.names())):
            found.append(
                f"{where(MANIFEST)} is missing, so the prompts of {counted(images, 'image')} in the folder are "
                f"unknown: {again}"
            )
        if self._damaged:
            found.append(
                f"{counted(len(self._damaged), 'line')} of {where(MANIFEST)} cannot be read and moved to "
                f"{where(f'{PRIVATE}/{DAMAGED}')}; the images: {again}"
            )
        if self.altered:
            found.append(
                f"{counted(len(self.altered), 'image')} changed since written ({_some(self.altered)}): {again}"
            )
        return found


def mark_checked(folder: Path) -> None:
    """Remember that all images that exist now are as the manifest says."""
    (folder / PRIVATE / _CHECKED).touch()


def last_check(folder: Path) -> int:
    """The time of the last check of a folder, in nanoseconds by the clock of its file system; 0 without one."""
    try:
        return (folder / PRIVATE / _CHECKED).stat().st_mtime_ns
    except OSError:
        return 0


def counted(count: int, noun: str) -> str:
    """A number of things: "1 image", "2 images"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_MAX_NAMED]) + (", ..." if len(names) > _MAX_NAMED else "")
