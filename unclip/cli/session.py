"""A session with one loaded model: what `unclip shell` does with each line."""

import secrets
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unclip.batch.jobs import defaults_for
from unclip.cli.image_command import ImageOptions, describe, recorder
from unclip.cli.output import Target
from unclip.cli.progress import Progress, note, on_terminal
from unclip.cli.prompts import make_requests, word_lists
from unclip.errors import InputError, UnclipError, did_you_mean, is_out_of_memory
from unclip.images.inputs import check_inputs
from unclip.requests.fields import OLD_NAMES, SIDES, foreign_fields
from unclip.requests.request import Request
from unclip.requests.seeds import parse_seeds
from unclip.requests.text_values import FIELDS, parse_value

if TYPE_CHECKING:
    from unclip.images.result import Result
    from unclip.pipeline import Unclip

HELP = """\
Type a prompt to generate images of it. Commands begin with a colon:

  :set                     show the settings
  :set steps 20            change a field of all requests; also n, seed, size, strength, right, ...
  :set steps               give a field the model's default again
  :vary [STRENGTH]         variations of the current image
  :edit TEXT               edit the current image towards a text, from its own prompt
  :inpaint MASK [TEXT]     repaint the white part of a mask
  :outpaint [TEXT]         extend the current image; :set right, left, top or bottom first
  :interpolate [FRAMES]    a sequence from the image before to the current one
  :reconstruct             the current image from its embedding and noise
  :image FILE              make a file the current image
  :undo                    make the image before the current one
  :open                    open the current image with the desktop's program
  :help, :quit             Ctrl-D quits too; Ctrl-C stops what is being generated"""
NO_SETTINGS = ("prompt", "mode", "id", "image", "mask", "sources")


class Quit(Exception):  # noqa: N818
    """The session is over."""


@dataclass
class Session:
    """The settings, the current image and the images before it.

    show: called with the path of each image that was made. failed: lines that could not be done.
    """

    pipe: "Unclip"
    shared: ImageOptions
    target: Target
    show: Callable[[Path], None]
    settings: dict[str, Any] = field(default_factory=dict)
    images: list[tuple[Path, str]] = field(default_factory=list)
    failed: int = 0

    def __post_init__(self) -> None:
        given = self.shared.request_fields()
        defaults = {"n": 1, "negative_prompt": ""}
        self.settings = {name: v for name, v in given.items() if v is not None and defaults.get(name) != v}
        self._remember = recorder(self.shared)
        self._notes: set[str] = set()

    @property
    def current(self) -> tuple[Path, str]:
        """The current image and its prompt. Raises InputError if there is none."""
        if not self.images:
            raise InputError("there is no image yet: type a prompt, or :image FILE")
        return self.images[-1]

    def run(self, lines: Iterable[str]) -> None:
        """Do every line until `:quit`; errors are printed, and the next line is done."""
        for line in lines:
            try:
                self.do(line)
            except Quit:
                return
            except UnclipError as error:
                self.fail(str(error))
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                self.fail("the device ran out of memory; set a smaller size or n")

    def fail(self, message: str) -> None:
        """Print an error of one line."""
        self.failed += 1
        print(f"unclip: error: {' '.join(message.split())}", file=sys.stderr, flush=True)

    def do(self, line: str) -> None:
        """Do one line. Raises UnclipError for what cannot be done, and Quit."""
        line = line.strip()
        if not line or line.startswith("#"):
            return
        if not line.startswith(":"):
            self.make({"prompt": line})
            return
        name, _, rest = line[1:].partition(" ")
        command = COMMANDS.get(name)
        if command is None:
            raise InputError(f":{name[:40]} is not a command; {did_you_mean(name[:40], COMMANDS)}, or :help")
        command(self, rest.strip())

    # ---- commands

    def help(self, _: str) -> None:
        """Print the commands."""
        print(HELP, flush=True)

    def quit(self, _: str) -> None:
        """End the session."""
        raise Quit

    def set(self, rest: str) -> None:
        """Show the settings, or change one; without a value, it has the model's default again."""
        name, _, value = rest.replace("=", " ", 1).partition(" ")
        if not name:
            for name, value in self.settings.items():
                print(f"{name} {value}")
            if not self.settings:
                print("every field has the model's default")
            sys.stdout.flush()
            return
        name = name.replace("-", "_")
        name = OLD_NAMES.get(name, name)
        if name not in FIELDS or name in NO_SETTINGS:
            known = [one for one in FIELDS if one not in NO_SETTINGS]
            raise InputError(f"{name!r:.60} cannot be set; {did_you_mean(name[:40], known)}")
        value = value.strip()
        if not value:
            self.settings.pop(name, None)
            return
        if name == "seed":
            parse_seeds(value)
        else:
            Request.check_value(name, parse_value(name, value))
        self.settings[name] = value if name == "seed" else parse_value(name, value)

    def vary(self, rest: str) -> None:
        """Variations of the current image."""
        path, prompt = self.current
        strength = {"strength": parse_value("strength", rest)} if rest else {}
        self.make({"mode": "vary", "image": str(path), "prompt": prompt, **strength})

    def edit(self, rest: str) -> None:
        """Edit the current image towards a text."""
        path, prompt = self.current
        self.make({"mode": "edit", "image": str(path), "prompt": rest, "from_prompt": prompt or None})

    def inpaint(self, rest: str) -> None:
        """Repaint a part of the current image."""
        mask, _, prompt = rest.partition(" ")
        if not mask:
            raise InputError(":inpaint needs the file of a mask: :inpaint mask.png a red hat")
        self.make({"mode": "inpaint", "image": str(self.current[0]), "mask": mask, "prompt": prompt.strip()})

    def outpaint(self, rest: str) -> None:
        """Extend the current image."""
        path, _ = self.current
        sides = {side: self.settings[side] for side in SIDES if self.settings.get(side)}
        if not sides:
            raise InputError("say how far: :set right 128, or left, top, bottom; then :outpaint")
        self.make({"mode": "outpaint", "image": str(path), "prompt": rest, **sides})

    def interpolate(self, rest: str) -> None:
        """A sequence from the image before to the current one."""
        if len(self.images) < 2:
            raise InputError(":interpolate needs two images: type another prompt first")
        frames = parse_value("frames", rest) if rest else self.settings.get("frames", 9)
        sources = [str(path) for path, _ in self.images[-2:]]
        self.make({"mode": "interpolate", "sources": sources, "frames": frames})

    def reconstruct(self, _: str) -> None:
        """The current image from its own embedding."""
        path, prompt = self.current
        self.make({"mode": "reconstruct", "image": str(path), "prompt": prompt})

    def image(self, rest: str) -> None:
        """Make a file the current image."""
        if not Path(rest).is_file():
            raise InputError(f"{rest!r} is not a file; write :image FILE")
        check_inputs(Request(mode="vary", image=rest), decode=True)
        self.images.append((Path(rest), ""))

    def undo(self, _: str) -> None:
        """Make the image before the current one."""
        if len(self.images) < 2:
            raise InputError("there is no image before this one")
        self.images.pop()
        print(self.current[0], flush=True)

    def open(self, _: str) -> None:
        """Open the current image."""
        from unclip.cli.options import open_result

        open_result(self.current[0])

    # ---- images

    def make(self, job: dict[str, Any]) -> None:
        """Generate, save, remember and show the images of a job. Raises UnclipError."""
        fields = {**defaults_for(job, self.settings), **{name: v for name, v in job.items() if v is not None}}
        seed = fields.get("seed")
        fields["seed"] = (secrets.randbelow(2**32),) if seed is None else parse_seeds(seed)
        foreign = foreign_fields(fields.get("mode", "generate"))
        lists = None if self.shared.no_wildcards else word_lists(self.shared.wildcards)
        requests = list(make_requests({n: v for n, v in fields.items() if n not in foreign}, lists))
        for request in requests:
            check_inputs(request, decode=True)
        with closing(Progress(on_terminal(self.shared.quiet))) as progress:
            for result in self.pipe.stream(requests, batch_size=self.shared.batch_size, progress=progress):
                progress.close()
                self._keep(result)

    def _keep(self, result: "Result") -> None:
        path = self.target.save(result)
        self._remember(path, result)
        self.images.append((path, result.request.prompt))
        print(describe(result, path, self.shared.as_json), flush=True)
        for text in result.notes:
            if text not in self._notes and not self.shared.quiet:
                note(text)
            self._notes.add(text)
        self.show(path)

    def completions(self, text: str) -> Iterator[str]:
        """What the last word of a line may become."""
        words = text.split(" ")
        if len(words) == 1 and text.startswith(":"):
            yield from (f":{name}" for name in COMMANDS if f":{name}".startswith(text))
        elif words[0] == ":set" and len(words) == 2:
            yield from (name for name in FIELDS if name not in NO_SETTINGS and name.startswith(words[1]))
        elif words[0] == ":set" and len(words) == 3:
            from unclip.cli.completion import assignments

            prefix = f"{words[1]}="
            yield from (one.removeprefix(prefix) for one in assignments(prefix + words[2]))


COMMANDS: dict[str, Callable[[Session, str], None]] = {
    name: getattr(Session, name)
    for name in (
        *("help", "quit", "set", "vary", "edit", "inpaint", "outpaint", "interpolate", "reconstruct"),
        *("image", "undo", "open"),
    )
}
