"""Ctrl-C and SIGTERM end real processes with 130 and one line: at any moment, in the background too."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")

ROOT = Path(__file__).parents[2]
# Runs the command line; when a module is imported, it signals itself.
PROGRAM = """
import os, signal, sys
_, module, number, *arguments = sys.argv
class Finder:
    def find_spec(name, path, target=None):
        if name == module:
            sys.meta_path.remove(Finder)
            os.kill(os.getpid(), int(number))
sys.meta_path.insert(0, Finder)
from unclip.cli.main import main
sys.argv = ["unclip", *arguments]
sys.exit(main())
"""


def start(*command: str, ignored: tuple[signal.Signals, ...] = (), **options) -> subprocess.Popen:
    """Start a process in which some signals are ignored, as those of a shell's background jobs are."""

    def ignore() -> None:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)

    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    return subprocess.Popen([sys.executable, *command], preexec_fn=ignore, **pipes, **options)


def handles(process: subprocess.Popen, number: int) -> bool:
    """Whether a process has a handler for a signal."""
    caught = next(line for line in Path(f"/proc/{process.pid}/status").read_text().splitlines() if "SigCgt" in line)
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


def wait(condition, process: subprocess.Popen) -> None:
    while not condition() and process.poll() is None:
        time.sleep(0.002)


@pytest.mark.parametrize(
    ("module", "number"),
    [("typer", 2), ("unclip.cli.train", 15), ("numpy", 2), ("torch.nn", 15), ("open_clip", 2)],
)
def test_during_an_import(tmp_path, module, number):
    process = start("-c", PROGRAM, module, str(number), "generate", "a cat", "-o", str(tmp_path / "out"))
    out, err = process.communicate()
    assert (process.returncode, out, err) == (130, "", "unclip: interrupted\n")


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc to see that the program has begun")
@pytest.mark.parametrize("delay", [0, 0.1, 0.5])
def test_at_any_moment_of_the_start(tmp_path, delay):
    process = start("-m", "unclip", "generate", "a cat", "-n", "200", "-o", str(tmp_path / "out"))
    wait(lambda: handles(process, signal.SIGTERM), process)
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert (process.returncode, err) == (130, "unclip: interrupted\n")


def test_twice_in_a_row(tmp_path):
    program = PROGRAM.replace("os.kill(os.getpid(), int(number))", "[signal.raise_signal(2) for _ in range(2)]")
    process = start("-c", program, "torch", "2", "generate", "a cat", "-o", str(tmp_path / "out"))
    _, err = process.communicate()
    assert (process.returncode, err) == (130, "unclip: interrupted\n")


def test_an_interrupt_in_a_finalizer_is_not_lost(tmp_path):
    code = (
        "import os, sys\nfrom unclip.cli.main import main\nfrom unclip.images import metadata\n"
        "class Final:\n    def __del__(self):\n        os.kill(os.getpid(), 2)\n        sum(range(10000))\n"
        "metadata.read = lambda path: Final() and {}\nsys.argv = ['unclip', 'show', 'x']\nsys.exit(main())"
    )
    process = start("-c", code)
    out, err = process.communicate()
    assert (process.returncode, err) == (130, "unclip: interrupted\n") and out == ""


def test_a_copy_of_standard_input_is_removed(tmp_path):
    (tmp_path / "temporary").mkdir()
    arguments = ["unclip.pipeline", "2", "batch", "-", "--input-format", "txt", "-o", str(tmp_path / "out")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path / "temporary")}
    program = [sys.executable, "-c", PROGRAM, *arguments]
    done = subprocess.run(program, input="a cat\n", capture_output=True, text=True, env=environment)
    assert done.returncode == 130 and not list((tmp_path / "temporary").iterdir())


def run_batch(tmp_path: Path, model: Path, ignored: tuple[signal.Signals, ...] = ()) -> subprocess.Popen:
    """A batch of the tiny model in the background that has written its first images."""
    (tmp_path / "p.txt").write_text("".join(f"a red cat {i}\n" for i in range(400)))
    arguments = ["--model", str(model), "--size", "16", "--batch-size", "2", "--device", "cpu", "-o", "out"]
    process = start("-m", "unclip", "batch", "p.txt", *arguments, ignored=ignored, cwd=tmp_path)
    wait(lambda: len(list((tmp_path / "out").glob("*.png"))) > 2, process)
    return process


def test_a_batch_in_the_background_stops_on_sigterm_and_ignores_sigint(tiny_model, tmp_path):
    process = run_batch(tmp_path, tiny_model, ignored=(signal.SIGINT,))
    process.send_signal(signal.SIGINT)
    before = len(list((tmp_path / "out").glob("*.png")))
    wait(lambda: len(list((tmp_path / "out").glob("*.png"))) > before + 4, process)
    assert process.poll() is None  # it goes on
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    assert process.returncode == 130 and "the same command again resumes it" in err and "Traceback" not in err
    images, lines = list((tmp_path / "out").glob("*.png")), (tmp_path / "out/manifest.jsonl").read_text().splitlines()
    assert before < len(images) == len(lines) < 400
    assert not (tmp_path / "out/.unclip/owner.json").exists()


def test_generate_in_the_background_stops_on_sigterm(tiny_model, tmp_path):
    arguments = ["generate", "a cat", "-n", "400", "--batch-size", "2", "--model", str(tiny_model), "--size", "16"]
    process = start("-m", "unclip", *arguments, "-o", str(tmp_path / "out"), ignored=(signal.SIGINT,))
    wait(lambda: len(list((tmp_path / "out").glob("*.png"))) > 2, process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    assert process.returncode == 130 and err.splitlines()[-1] == "unclip: interrupted" and "Traceback" not in err
