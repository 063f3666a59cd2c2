"""The work of an edit: bounded by the area of its canvas, and interrupted within one step."""

import contextlib
import signal
from collections.abc import Iterator

import pytest
from PIL import Image

from tests.helpers import kept, noise_image, pixels
from unclip.pipeline import Unclip
from unclip.requests.request import Request


@contextlib.contextmanager
def counted_rows(pipe: Unclip) -> Iterator[list[int]]:
    """The rows that the decoder's and the upsamplers' networks get, one number per call."""
    rows: list[int] = []
    stages = (pipe.model.decoder, *pipe.model.upsamplers)
    hooks = [stage.network.register_forward_pre_hook(lambda _, args: rows.append(len(args[0]))) for stage in stages]
    try:
        yield rows
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize("size", [(75, 2), (2, 75), (32, 1), (150, 2)])
def test_a_thin_image_costs_no_more_than_one_of_the_models_size(tiny: Unclip, size: tuple[int, int]) -> None:
    costs = []
    for width, height in (size, (max(32, size[0]), max(32, size[1]))):
        image, mask = noise_image(width, height), Image.new("L", (width, height))
        mask.paste(255, (size[0] // 10, size[1] // 10, width - size[0] // 10, height - size[1] // 10))
        with counted_rows(tiny) as rows:
            [result] = tiny.inpaint(image, mask, "a cat", seed=1)
        assert kept(result, image, mask)
        costs.append(sum(rows))
    assert 0 < costs[0] <= costs[1]


def test_outpainting_a_thin_image_costs_no_more_than_inpainting_its_canvas(tiny: Unclip) -> None:
    thin, whole = noise_image(1, 37), noise_image(32, 45)
    with counted_rows(tiny) as outpainted:
        [result] = tiny.outpaint(thin, "a cat", seed=1, right=31, bottom=8)
    with counted_rows(tiny) as inpainted:
        tiny.inpaint(whole, Image.new("L", whole.size, 255), "a cat", seed=1)
    assert (pixels(result)[:37, :1] == pixels(thin)).all()
    assert 0 < sum(outpainted) <= sum(inpainted)


@pytest.mark.parametrize("stage", ["prior", "context view 1 of", "decoder", "window 1 of", "window 2 of"])
def test_an_interrupt_ends_an_edit_within_one_step(tiny: Unclip, stage: str) -> None:
    """Interrupted by the user, or by the progress callback."""
    image, mask = noise_image(200, 20), Image.new("L", (200, 20), 255)
    request = Request(mode="inpaint", image=image, mask=mask, prompt="a cat", seed=1)
    for interrupt in (lambda: signal.raise_signal(signal.SIGINT), lambda: exec("raise KeyboardInterrupt")):
        with counted_rows(tiny) as rows:

            def progress(name: str, done: int, total: int, rows=rows, interrupt=interrupt) -> None:
                if name.startswith(stage):
                    rows.clear()
                    interrupt()

            with pytest.raises(KeyboardInterrupt):
                tiny.generate(request, progress=progress)
            assert rows == []
