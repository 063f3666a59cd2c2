"""Show an image in the terminal, where it can: by the protocols of kitty and iTerm2, and as sixels."""

from __future__ import annotations

import os
import sys
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

from unclip.errors import InputError

COLUMNS = 40  # width of an image in characters; a narrower terminal limits it
RATIO = 0.5  # of the width of a character to its height


PROTOCOLS = ("auto", "kitty", "iterm2", "sixel", "off")


def inline_viewer(protocol: str) -> Callable[[Path], None] | None:
    """A function that shows an image file on standard output; None if the terminal cannot.

    protocol: one of PROTOCOLS; "auto" takes that of the terminal, by its variables, if chafa.py is installed. Raises
    InputError for any other without chafa.py.
    """
    if protocol == "off" or not sys.stdout.isatty():
        return None
    try:
        import chafa
    except (ImportError, OSError):  # it brings a library of the system, which may not load
        if protocol == "auto":
            return None
        raise InputError(f"--images {protocol} needs chafa.py: pip install 'unclip[shell]'") from None
    info = chafa.TermDb().detect()
    mode = pixel_mode(chafa, info, protocol)
    return None if mode is None else lambda path: _show(encode(chafa, info, mode, path))


def pixel_mode(chafa: Any, info: Any, protocol: str = "auto") -> Any:
    """The protocol for images of a terminal, or the given one; None if the terminal has characters only.

    The terminal itself is not asked: one that does not answer would stop the program.
    """
    modes, sequences = chafa.PixelMode, chafa.TermSeq
    known = {
        "kitty": (sequences.CHAFA_TERM_SEQ_BEGIN_KITTY_IMMEDIATE_IMAGE_V1, modes.CHAFA_PIXEL_MODE_KITTY),
        "iterm2": (sequences.CHAFA_TERM_SEQ_BEGIN_ITERM2_IMAGE, modes.CHAFA_PIXEL_MODE_ITERM2),
        "sixel": (sequences.CHAFA_TERM_SEQ_BEGIN_SIXELS, modes.CHAFA_PIXEL_MODE_SIXELS),
    }
    if protocol != "auto":
        return known[protocol][1]
    return next((mode for sequence, mode in known.values() if info.have_seq(sequence)), None)


def encode(chafa: Any, info: Any, mode: Any, path: Path) -> bytes:
    """The bytes that show an image."""
    from unclip.images.contact_sheet import open_for_sheet

    image = open_for_sheet(path)
    config = chafa.CanvasConfig()
    config.pixel_mode = mode
    config.cell_width, config.cell_height = 10, 20
    config.width = config.height = min(COLUMNS, _columns())
    config.calc_canvas_geometry(image.width, image.height, RATIO)
    canvas = chafa.Canvas(config)
    pixels = array("B", image.tobytes())
    canvas.draw_all_pixels(chafa.PixelType.CHAFA_PIXEL_RGB8, pixels, image.width, image.height, image.width * 3)
    return canvas.print(term_info=info, fallback=True)


def _show(data: bytes) -> None:
    sys.stdout.flush()
    sys.stdout.buffer.write(data + b"\n")
    sys.stdout.buffer.flush()


def _columns() -> int:
    try:
        return os.get_terminal_size().columns
    except OSError:
        return COLUMNS
