"""Lines that keep the best of some candidates, in a batch with a real pipeline."""

import json
from collections import Counter
from pathlib import Path

import pytest

from unclip.cli.main import main
from unclip.pipeline import Unclip


def test_candidates_are_drawn_once_however_their_line_is_cut(tiny_model: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("p.txt").write_text("a red cat -- -n 3 --best-of 5 --seed 1\na dog -- --seed 9\n", encoding="utf-8")
    drawn = Counter()
    real = Unclip.draw

    def draw(self, requests, *arguments, **options):
        drawn.update((request.prompt, request.seed) for request in requests)
        return real(self, requests, *arguments, **options)

    monkeypatch.setattr(Unclip, "draw", draw)
    options = ["--model", str(tiny_model), "--dtype", "float32", "--device", "cpu", "--size", "16", "--quiet"]
    assert main(["batch", "p.txt", "-o", "out", "--batch-size", "1", *options]) == 0
    assert drawn == {**{("a red cat", seed): 1 for seed in range(1, 6)}, ("a dog", 9): 1}
    entries = [json.loads(line) for line in Path("out", "manifest.jsonl").read_text().splitlines()]
    best = [entry for entry in entries if "ranked" in entry]
    assert len(best) == 3 and [entry["dtype"] for entry in entries] == ["float32"] * 4
    assert [entry["score"] for entry in best] == best[0]["ranked"][:3] == sorted(best[0]["ranked"], reverse=True)[:3]
    assert len({entry["seed"] for entry in best}) == 3
    assert sum(entry["timings"]["decoder"] for entry in best[1:]) == pytest.approx(0)
