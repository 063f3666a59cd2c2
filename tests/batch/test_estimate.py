import json

import pytest

from unclip.batch.estimate import Workload, estimate, measure_folder
from unclip.checkpoints.identity import ModelIdentity
from unclip.requests.request import Request

MODEL = ModelIdentity("fake", "0" * 16, ((64, 64), (256, 256)))


def workload() -> Workload:
    work = Workload(done=2)
    work.add(Request(prompt="a cat", size=64), 4)
    work.add(Request(prompt="a dog"), 8)
    return work


def test_without_images_the_time_is_unknown_and_the_space_follows_from_the_pixels(tmp_path):
    plan = estimate(workload(), MODEL, tmp_path / "none", "png", bad=3)
    assert (plan.images, plan.done, plan.bad, plan.seconds) == (12, 2, 3, None)
    assert plan.sizes == {"64x64": 4, "256x256": 8}
    assert plan.bytes == int(((4 * 64**2 + 8 * 256**2) * 1.2 + 12 * 3000) * 10 / 12)
    assert estimate(Workload(), MODEL, tmp_path, "png").bytes == 0


def test_with_images_both_are_the_mean_of_the_manifest(tmp_path):
    lines = [
        json.dumps({"file": "a.png", "key": "0" * 16, "timings": {"prior": 0.5, "decoder": 1.5}, "bytes": 1000}) + "\n",
        json.dumps({"file": "b.png", "key": "1" * 16, "timings": {"decoder": 4.0}, "bytes": 2000}) + "\n",
    ]
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text("".join(lines))
    size = (3000 + sum(map(len, lines))) / 2
    assert measure_folder(tmp_path) == pytest.approx((3.0, size))
    plan = estimate(workload(), MODEL, tmp_path, "png")
    assert plan.seconds == pytest.approx(10 * 3.0) and plan.bytes == int(10 * size)
    for cut_off in ('{"timings": {"deco', '{"timings": {"decoder": 9.0}}\n'):
        manifest.write_text("".join(lines) + cut_off)
        assert measure_folder(tmp_path) == pytest.approx((3.0, size))
    manifest.write_text('{"timings": {"decoder": 9.0}}\n')
    assert measure_folder(tmp_path) is None
