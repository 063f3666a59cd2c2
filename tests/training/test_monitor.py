"""Loss curves, plots, progress bars and lists of bad files."""

import os
import signal
from pathlib import Path

import pytest
from PIL import Image

from tests.training.toy import STEPS, Toy, at, rows, run
from unclip.training.budget import Budget, Progress
from unclip.training.loss_plot import SIZE
from unclip.training.monitor import FaultList, ProgressBar, SkippedFiles

pytestmark = pytest.mark.usefixtures("no_tensorboard")


def test_the_bar_shows_speed_and_time_left_or_nothing(tmp_path: Path, capsys):
    run(tmp_path, quiet=False, title="decoder (3 of 4)")
    shown = capsys.readouterr().err
    assert "decoder (3 of 4): " in shown
    assert f"{STEPS}/{STEPS} steps" in shown and "images/s, ETA" in shown and "loss" in shown
    run(tmp_path, quiet=False, budget=Budget(1, minutes=0.05 / 60))
    assert "images/s, ETA" in capsys.readouterr().err
    run(tmp_path)
    assert capsys.readouterr() == ("", "")


def test_the_curve_is_plotted(whole: Path, tmp_path: Path):
    assert Image.open(whole / "loss.png").size == SIZE
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Toy(before=at(1, lambda: signal.raise_signal(signal.SIGTERM))))
    first = (tmp_path / "loss.png").read_bytes()
    run(tmp_path, resume=True)
    assert (tmp_path / "loss.png").read_bytes() == (whole / "loss.png").read_bytes() != first


def test_the_speed_is_that_of_this_session():
    with ProgressBar("toy", Budget(1000), Progress(step=500, seconds=1e6), batch_size=10, quiet=True) as bar:
        assert bar.speed == 0 and bar.left == float("inf")
        bar.update(Progress(501, 1e6 + 90))  # compiles
        for step in (502, 503):
            bar.update(Progress(step, 1e6 + 90 + 2 * (step - 501)))
        assert bar.speed == pytest.approx(5)
        assert bar.left == pytest.approx(2 * (1000 - 503))
    with ProgressBar("toy", Budget(1, minutes=10), Progress(step=500, seconds=300), batch_size=10, quiet=True) as bar:
        bar.update(Progress(501, 330))
        assert bar.left == pytest.approx(270)


def test_tensorboard_is_written_where_it_is_installed(tmp_path: Path, monkeypatch):
    run(tmp_path / "without")
    assert not (tmp_path / "without" / "tensorboard").exists() and len(rows(tmp_path / "without")) == STEPS
    monkeypatch.undo()
    pytest.importorskip("tensorboard")
    run(tmp_path / "with")
    assert [os.path.getsize(path) > 0 for path in (tmp_path / "with" / "tensorboard").iterdir()] == [True]
    assert rows(tmp_path / "with") == rows(tmp_path / "without")


def test_a_long_list_of_bad_files_is_cut(capsys):
    faults = FaultList(quiet=False, skip_bad=False)
    for n in range(50):
        faults.add(f"{n}.png is bad")
    faults.report()
    lines = [line.removeprefix("unclip: note: ") for line in capsys.readouterr().err.splitlines()]
    assert lines == [*(f"{n}.png is bad" for n in range(20)), "50 bad files; --check lists all of them"]


def test_a_single_bad_file_is_left_to_the_error(capsys):
    faults = FaultList(quiet=False, skip_bad=False)
    faults.add("a.png is bad")
    faults.report()
    assert capsys.readouterr().err == ""
    faults = FaultList(quiet=False, skip_bad=True)
    faults.add("a.png is bad")
    faults.report()
    assert (
        capsys.readouterr().err == "unclip: note: passed over: a.png is bad\nunclip: note: bad files passed over: 1\n"
    )


def test_files_that_are_skipped_often_are_counted_once(capsys):
    skipped = SkippedFiles(quiet=False)
    for n in range(100):
        skipped.add(f"{n % 30}.png is bad")
    skipped.report()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 21 and lines[-1] == "unclip: note: files passed over during the run: 30"
    quiet = SkippedFiles(quiet=True)
    quiet.add("a.png is bad")
    quiet.report()
    assert capsys.readouterr().err == ""
