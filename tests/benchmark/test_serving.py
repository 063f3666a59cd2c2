"""The benchmark of a server measures what it says."""

import json

import pytest

from unclip.cli.main import main

ARGUMENTS = ["bench", "--serve", "--clients", "3", "--repeat", "1", "--device", "cpu"]


def test_a_server_is_measured(tiny_model, capfd):
    pytest.importorskip("fastapi")
    assert main([*ARGUMENTS, "--requests", "20", "--json", "--model", str(tiny_model)]) == 0
    report = json.loads(capfd.readouterr().out)
    assert len(report["memory_mib"]) == 11 and all(50 < mib < 10_000 for mib in report["memory_mib"])
    for name in ("start_s", "first_image_s", "second_image_s", "image_s", "direct_images_per_s", "served_images_per_s"):
        assert report[name] > 0
    assert report["requests_per_s"] > 0 and report["clients"] == 3 and report["requests"] == 20


def test_each_figure_is_a_line(tiny_model, capfd):
    pytest.importorskip("fastapi")
    assert main([*ARGUMENTS, "--requests", "0", "--model", str(tiny_model)]) == 0
    _, *lines = capfd.readouterr().out.splitlines()
    labels = [line.partition(":")[0] for line in lines]
    assert labels == [
        "16x16, 3 images without a server",
        "start",
        "32x32, first image",
        "32x32, second image",
        "32x32, one image",
        "16x16, 3 clients at once",
    ]
