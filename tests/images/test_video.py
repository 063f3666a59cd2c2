"""Videos of sequences, decoded again."""

import importlib.util
import io

import pytest
from PIL import Image

from unclip.errors import InputError, UnclipError
from unclip.images.video import check_video, video

av = pytest.importorskip("av")


@pytest.mark.parametrize(("format", "codec"), [("mp4", "h264"), ("webm", "vp9")])
@pytest.mark.parametrize("size", [(32, 16), (31, 17)])
def test_the_frames_come_back(tmp_path, format, codec, size):
    colours = {"red": (255, 0, 0), "lime": (0, 255, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}
    paths = []
    for name in colours:
        paths.append(tmp_path / f"{name}.png")
        Image.new("RGB", size, name).save(paths[-1])
    with av.open(io.BytesIO(video(paths, format, fps=12))) as container:
        [stream] = container.streams
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        assert (stream.codec_context.name, float(stream.average_rate)) == (codec, 12)
    assert [frame.shape for frame in frames] == [(size[1] + size[1] % 2, 32, 3)] * 6
    shown = [*colours, "blue", "lime"]  # there and back, ready to be repeated
    for frame, name in zip(frames, shown, strict=True):
        assert abs(frame.astype(int) - colours[name]).max() <= 3, name


def test_a_file_that_cannot_be_read(tmp_path):
    (tmp_path / "a.png").write_text("no")
    with pytest.raises(UnclipError, match="cannot be read"):
        video([tmp_path / "a.png"], "mp4", 8)


def test_without_the_library_one_line_names_the_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"--mp4 needs PyAV: pip install 'unclip\[video\]'"):
        check_video("--mp4")
