"""MP4 and WebM of a sequence of images, by PyAV, which is optional."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unclip.errors import InputError
from unclip.images.contact_sheet import open_for_sheet, there_and_back

CODECS = {"mp4": ("libx264", {"crf": "16"}), "webm": ("libvpx-vp9", {"crf": "20", "b": "0"})}
"""Formats of videos, with the codec that browsers and phones play, and its quality."""


def check_video(option: str) -> None:
    """Raise InputError, with the option, if PyAV is not installed."""
    if importlib.util.find_spec("av") is None:
        raise InputError(f"{option} needs PyAV: pip install 'unclip[video]', or take --gif")


def video(paths: Sequence[Path], format: str, fps: float) -> bytes:
    """The bytes of a video of image files, forwards and backwards, as of `contact_sheet.animation`.

    format: one of CODECS. fps: images per second. Odd sides get a pixel more, which the codecs need. Raises UnclipError
    for a file that cannot be read.
    """
    from fractions import Fraction

    import av
    import numpy as np
    from av.video.reformatter import ColorPrimaries, Colorspace, ColorTrc

    codec, options = CODECS[format]
    frames = [np.asarray(open_for_sheet(path)) for path in paths]
    frames = [np.pad(frame, [(0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)], "edge") for frame in frames]
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=format) as container:
        stream: Any = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1000), options=options)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"  # the only one that all players read
        context = stream.codec_context
        context.colorspace, context.color_primaries = int(Colorspace.ITU709), int(ColorPrimaries.BT709)
        context.color_trc = int(ColorTrc.BT709)
        for frame in there_and_back(frames):
            image = av.VideoFrame.from_ndarray(frame, format="rgb24")
            container.mux(stream.encode(image.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709)))
        container.mux(stream.encode())
    return buffer.getvalue()
