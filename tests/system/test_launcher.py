"""Processes of one machine: their environment, and one line and one exit code for what ends them."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from unclip.system import launcher
from unclip.system.launcher import run_processes

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
HEAD = """
import os, signal, sys, time
from pathlib import Path
from unclip.system.launcher import leave_error
rank, folder = int(os.environ["RANK"]), Path(sys.argv[1])
"""
LOST = 'leave_error("another process of this run ended early; the state of step 3 is saved for --resume", 1, True)'


def run(tmp_path: Path, body: str, count: int = 2) -> int:
    """The exit code of a script in several processes."""
    script = tmp_path / "script.py"
    script.write_text(HEAD + body)
    return run_processes([sys.executable, str(script), str(tmp_path)], count)


def test_each_process_knows_its_number_and_where_to_meet(tmp_path: Path, capfd):
    names = "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"
    body = f"(folder / str(rank)).write_text(' '.join(os.environ[name] for name in {names}))"
    assert run(tmp_path, body, 3) == 0
    found = [(tmp_path / str(rank)).read_text().split() for rank in range(3)]
    assert [values[:5] for values in found] == [[str(r), str(r), "3", "3", "127.0.0.1"] for r in range(3)]
    assert len({values[5] for values in found}) == 1
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("body", "code", "line"),
    [
        (  # the main process knows what is saved
            f"if rank: os.kill(os.getpid(), signal.SIGKILL)\ntime.sleep(0.3); {LOST}; sys.exit(1)",
            1,
            "process 2 of 2 was killed (SIGKILL), perhaps for want of memory; "
            "the state of step 3 is saved for --resume",
        ),
        (
            "if rank == 0: os.kill(os.getpid(), signal.SIGKILL)\n"
            'time.sleep(0.3); leave_error("another process of this run ended early", 1, True); sys.exit(1)',
            1,
            "process 1 of 2 was killed (SIGKILL), perhaps for want of memory; the others were ended",
        ),
        (
            'if rank: leave_error("step 4 ran out of memory", 1, False); sys.exit(1)\n'
            f"time.sleep(0.3); {LOST}; sys.exit(1)",
            1,
            "step 4 ran out of memory; the state of step 3 is saved for --resume",
        ),
        ('leave_error(f"bad recipe, says {rank}", 2, False); sys.exit(2)', 2, "bad recipe, says 0"),
    ],
)
def test_the_cause_is_one_line(tmp_path: Path, capfd, body: str, code: int, line: str):
    assert run(tmp_path, body) == code
    assert capfd.readouterr() == ("", f"unclip: error: {line}\n")


def test_a_process_that_hangs_is_ended_after_some_time(tmp_path: Path, capfd, monkeypatch):
    monkeypatch.setattr(launcher, "GRACE", 0.2)
    monkeypatch.setattr(launcher, "STOP", 0.2)
    body = (
        "if rank: os.kill(os.getpid(), signal.SIGKILL)\nsignal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(99)"
    )
    assert run(tmp_path, body) == 1
    assert capfd.readouterr().err.startswith("unclip: error: process 2 of 2 was killed (SIGKILL)")


def test_a_signal_is_passed_on_once_to_each(tmp_path: Path):
    body = """
def stop(number, frame):
    with (folder / f"came{rank}").open("a") as file: file.write("x")
    time.sleep(0.3); sys.exit(130)
signal.signal(signal.SIGINT, stop)
(folder / f"ready{rank}").touch()
time.sleep(99)
"""
    script = tmp_path / "script.py"
    script.write_text(HEAD + body)
    parent = start_parent(script, tmp_path)
    wait_for(lambda: (tmp_path / "ready0").exists() and (tmp_path / "ready1").exists())
    parent.send_signal(signal.SIGINT)
    assert parent.wait(30) == 130
    assert [(tmp_path / f"came{rank}").read_text() for rank in range(2)] == ["x", "x"]


def test_processes_end_with_the_one_that_started_them(tmp_path: Path):
    body = """
from unclip.system.launcher import end_with_parent
end_with_parent()
def stop(number, frame):
    (folder / f"stopped{rank}").touch(); sys.exit(0)
signal.signal(signal.SIGTERM, stop)
(folder / f"ready{rank}").touch()
time.sleep(99)
"""
    script = tmp_path / "script.py"
    script.write_text(HEAD + body)
    parent = start_parent(script, tmp_path)
    wait_for(lambda: (tmp_path / "ready0").exists() and (tmp_path / "ready1").exists())
    parent.kill()
    parent.wait()
    wait_for(lambda: (tmp_path / "stopped0").exists() and (tmp_path / "stopped1").exists())


def start_parent(script: Path, folder: Path) -> subprocess.Popen:
    """A process that starts a script in two processes, and exits with their code."""
    command = [sys.executable, str(script), str(folder)]
    program = f"import sys; from unclip.system.launcher import run_processes; sys.exit(run_processes({command!r}, 2))"
    return subprocess.Popen([sys.executable, "-c", program], cwd=Path(__file__).parents[2])


def wait_for(done) -> None:
    """Wait up to 60 seconds."""
    end = time.monotonic() + 60
    while not done():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_outside_of_such_a_process_an_error_is_the_program_s_own(monkeypatch):
    monkeypatch.delenv(launcher.ERRORS, raising=False)
    assert not launcher.leave_error("text", 1, False)
    threads = threading.active_count()
    launcher.end_with_parent()
    assert threading.active_count() == threads and os.getpid()
