"""The trade-off table of speeds and shortcuts."""

from pathlib import Path

from PIL import Image

from tests.evaluation.stand_ins import StandIn, blank_image, new_suite, suite_scenes
from unclip.evaluation.report import format_result
from unclip.evaluation.speeds import DECODER_SHORTCUTS, measure_speeds
from unclip.requests.request import Request
from unclip.stickers.render import render


def lossy(scenes: dict) -> StandIn:
    """Return a model that renders the scene, but nothing at speed fast or with reused features."""

    def generate(request: Request) -> Image.Image:
        fails = request.speed == "fast" or (request.cache_every or 1) > 2
        return blank_image(request) if fails else Image.fromarray(render(scenes[request.prompt], 64))

    return StandIn(generate, scenes)


def test_each_setting_is_compared_with_the_defaults_prompt_by_prompt(tmp_path: Path) -> None:
    scenes = suite_scenes(3)
    model = lossy(scenes)
    found = measure_speeds(new_suite(tmp_path, model, n=3))
    rows = {row[""]: row for row in found["rows"]}
    names = ["speed best", "speed balanced", "speed fast", "defaults, at the decoder's size"]
    assert list(rows) == [*names, *DECODER_SHORTCUTS]
    assert rows["speed best"]["right"]["rate"] == 1 and rows["speed best"]["right, difference"] is None
    assert rows["speed balanced"]["right, difference"]["mean"] == 0
    assert rows["speed balanced"]["CLIP, difference"]["mean"] == 0
    lost = {name for name, row in rows.items() if row["right"]["rate"] == 0}
    assert lost == {"speed fast", "deep features of every 3rd step"}
    for name in lost:
        assert rows[name]["right, difference"]["mean"] == -1 and rows[name]["CLIP, difference"]["mean"] < -0.05
    assert "n = 3 leaves differences uncertain" in found["notes"][1]
    assert "speed fast" in format_result("Speeds", found)
    again = new_suite(tmp_path, lossy(scenes), n=3)
    assert measure_speeds(again) == found and again.pipe.generated == 0  # every setting was stored


def test_a_model_with_an_upsampler_of_several_steps_has_rows_for_it(tmp_path: Path) -> None:
    class Upsampler:
        steps = 7

    scenes = suite_scenes(1)
    model = lossy(scenes)
    model.upsamplers = (Upsampler(),)
    seen: list[Request] = []
    make = model.generate
    model.generate = lambda request: seen.append(request) or make(request)
    names = [row[""] for row in measure_speeds(new_suite(tmp_path, model, n=1))["rows"]]
    assert names[3:5] == ["half the upsampler steps", "deep upsampler features of every 2nd step"]
    assert (seen[3].upsampler_steps, seen[4].upsampler_cache_every) == (3, 2)


def test_a_model_without_bundles_has_rows_for_its_shortcuts(tmp_path: Path) -> None:
    model = lossy(suite_scenes(1))
    model.speeds = {}
    names = [row[""] for row in measure_speeds(new_suite(tmp_path, model, n=1))["rows"]]
    assert names[:2] == ["speed best", "defaults, at the decoder's size"]
