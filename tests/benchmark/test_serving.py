"""The benchmark of a server measures what it says."""

import json

import pytest

from unclip.benchmark.serving import format_serving
from unclip.cli.main import main


def test_a_server_is_measured(tiny_model, capfd):
    pytest.importorskip("fastapi")
    arguments = ["bench", "--serve", "--clients", "3", "--requests", "10", "--repeat", "1", "--json"]
    assert main([*arguments, "--model", str(tiny_model), "--device", "cpu"]) == 0
    report = json.loads(capfd.readouterr().out)
    assert len(report["memory_mib"]) == 10 and all(50 < mib < 10_000 for mib in report["memory_mib"])
    for name in ("start_s", "first_image_s", "second_image_s", "direct_images_per_s", "served_images_per_s"):
        assert report[name] > 0
    text = format_serving(report)
    assert "3 clients at once" in text and "memory over 10 requests" in text
