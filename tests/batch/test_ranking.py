"""Lines with best_of: with a real pipeline, and resumed and short of memory with a fake one."""

import json
from collections import Counter
from pathlib import Path

import pytest

from tests.batch.fake_pipeline import FakePipeline
from tests.batch.test_runner import RecordingReport, entries, image_files, run_file
from unclip.batch.report import Totals
from unclip.modes import dispatch
from unclip.pipeline import Unclip

CANDIDATES = [("a red cat", seed) for seed in range(1, 6)]


def test_candidates_are_generated_once_for_all_images_of_their_line(tiny: Unclip, tmp_path, monkeypatch) -> None:
    options = "--size 16 --sampler ddim"
    (tmp_path / "p.txt").write_text(
        f"a red cat -- -n 3 --best-of 5 --seed 1 {options}\na dog -- --seed 9 {options}\n", encoding="utf-8"
    )
    generated = Counter()
    real = dispatch.run_batch

    def run_batch(model, batch, *arguments):
        generated.update((request.prompt, request.seed) for request in batch)
        return real(model, batch, *arguments)

    monkeypatch.setattr(dispatch, "run_batch", run_batch)
    assert run_file(tiny, tmp_path / "p.txt", tmp_path / "out", batch_size=1) == Totals(made=4)
    assert generated == {**dict.fromkeys(CANDIDATES, 1), ("a dog", 9): 1}
    made = [json.loads(line) for line in (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()]
    best = [entry for entry in made if "ranked" in entry]
    assert len(best) == 3 and [entry["dtype"] for entry in made] == ["float32"] * 4
    assert [entry["score"] for entry in best] == best[0]["ranked"][:3] == sorted(best[0]["ranked"], reverse=True)[:3]
    assert len({entry["seed"] for entry in best}) == 3
    seconds = [entry["timings"]["decoder"] for entry in best]
    assert seconds[0] > 0 and seconds == pytest.approx([seconds[0]] * 3)  # they share the time of the candidates


def test_a_resumed_run_generates_only_the_group_of_a_missing_image(tmp_path: Path) -> None:
    file, out = tmp_path / "p.txt", tmp_path / "out"
    file.write_text("a red cat -- -n 3 --best-of 5 --seed 1\na blue cat -- -n 2 --best-of 4 --seed 1\na dog\n")
    run_file(FakePipeline(), file, out)
    before = image_files(out)
    [lost] = [entry["file"] for entry in entries(out) if entry["line"] == 1 and entry["image"] == 1]
    (out / lost).unlink()
    pipe = FakePipeline()
    assert run_file(pipe, file, out) == Totals(made=1, skipped=5)
    assert Counter(pipe.generated) == dict.fromkeys(CANDIDATES, 1)
    assert image_files(out) == before


def test_out_of_memory_among_candidates_halves_the_limit(tmp_path: Path) -> None:
    file = tmp_path / "p.txt"
    file.write_text("a red cat -- -n 3 --best-of 5 --seed 1\n" + "a dog\n" * 3)
    pipe, report = FakePipeline(room=2), RecordingReport()
    assert run_file(pipe, file, tmp_path / "out", batch_size=8, report=report) == Totals(made=6)
    assert pipe.batches == [5, 3, 2, 2, 1, 2, 1]
    assert report.notes == [
        "out of memory with 5 images at a time; continuing with 3",
        "out of memory with 3 images at a time; continuing with 2",
    ]
    whole = tmp_path / "whole"
    run_file(FakePipeline(), file, whole, batch_size=8)
    assert image_files(whole) == image_files(tmp_path / "out")
    none = RecordingReport()
    assert run_file(FakePipeline(room=0), file, tmp_path / "none", report=none).failed == 6
    assert all("out of memory with one image" in problem for _, problem in none.failures)
