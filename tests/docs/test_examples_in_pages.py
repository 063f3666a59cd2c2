"""The commands and snippets of the pages run, in order, with the bundled model, and the images show what the pages say.

A page's ``sh`` blocks are commands, its ``python`` blocks share one namespace, and a ``toml`` block is an
``unclip.toml``. A page runs in a folder of its own that has the ``assets`` and ``examples`` of a checkout. The checker
that judges the images shares nothing with the model.
"""

import glob
import io
import json
import random
import re
import secrets
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer.main
from PIL import Image

from unclip.cli.app import app
from unclip.cli.main import main
from unclip.errors import DataError
from unclip.images import metadata
from unclip.pipeline import Unclip
from unclip.stickers.captions import COUNT_WORDS, RELATION_PHRASES, add_article, canonical_caption
from unclip.stickers.recognition.checker import check, detect
from unclip.stickers.render import render
from unclip.stickers.scene import BACKGROUNDS, PlacedObject, Scene
from unclip.stickers.sprites import load_nouns
from unclip.training.recipe import load_recipe
from unclip.training.recipe_tables import RecipeFile

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", *(path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").rglob("*.md"))))
PAGES_WITH_BLOCKS = [page for page in PAGES if "\n```" in (ROOT / page).read_text(encoding="utf-8")]

# Commands (regular expressions) that are not run, and the reason. The arguments of those of unclip are parsed by the
# real command line, and Python is compiled.
NOT_RUN = {
    r"git clone|pip install|unclip models download|\S*python3? -m venv|\. \.venv": "needs a network",
    r"unclip .*--model (kakaobrain|kandinsky-community|stabilityai|sd2-community)/": "needs a downloaded model",
    r"unclip (train|evaluate|bench)|.*--model runs/": "takes minutes or more",
    r"accelerate launch|torchrun": "tests/training/test_processes.py starts several processes",
    r"unclip .* \w+://": "needs an object store",
    r"unclip serve|unclip .* --server|curl|from openai|python assets/canvas": "needs a running server",
    r"docker": "needs docker",
    r"unclip shell": "reads what is typed",
    r"unclip batch .*--engine ray": "tests/cli/test_batch_ray.py starts a cluster",
    r"unclip .*\b(NAME|PATH)\b": "the word stands for a model or a folder of the reader's",
    r"python examples/": "tests/test_examples.py runs the scripts",
    r"python -m pytest|ruff|mkdocs": "a tool of the developers",
}

# What an image shows, where a page promises more than that an image shows its own prompt:
# page, files, part of the image ("left", "right", "middle": a square; "" for all of it), caption.
STYLE = "flat"  # of the objects of the bundled model
SCENE_EDITED = "a strawberry to the left of a mushroom on a turquoise background"
PINK, YELLOW = "a penguin on a pink background", "a penguin on a yellow background"
FOX = "a fox on a blue background"
EDITING, EMBEDDINGS = "docs/guides/editing.md", "docs/guides/embeddings.md"
CLAIMS: tuple[tuple[str, str, str, str], ...] = (
    ("README.md", "edited/*.png", "", SCENE_EDITED),
    ("README.md", "wide.png", "left", "an apple to the left of a mushroom on a turquoise background"),
    ("README.md", "wide.png", "right", "a strawberry on a turquoise background"),
    ("README.md", "variations/*.png", "", PINK),
    ("README.md", "frames/*-0000.png", "", PINK),
    ("README.md", "frames/*-1000.png", "", FOX),
    ("README.md", "yellow.png", "", YELLOW),
    ("README.md", "penguin-and-fox.png", "left", PINK),
    ("README.md", "penguin-and-fox.png", "right", "a fox on a pink background"),
    (EDITING, "strawberries/*.png", "", SCENE_EDITED),
    (EDITING, "wide.png", "right", "a strawberry on a turquoise background"),
    (EDITING, "wider.png", "left", "an apple to the left of a mushroom on a turquoise background"),
    (EDITING, "wider.png", "right", "nothing on a turquoise background"),
    (EDITING, "edited.png", "", SCENE_EDITED),
    (EDITING, "from-python.png", "right", "a strawberry on a turquoise background"),
    (EMBEDDINGS, "variations/*.png", "", PINK),
    (EMBEDDINGS, "frames/*-0000.png", "", PINK),
    (EMBEDDINGS, "frames/*-1000.png", "", FOX),
    (EMBEDDINGS, "yellow/*-0000.png", "", PINK),
    (EMBEDDINGS, "yellow/*-0500.png", "", YELLOW),
    (EMBEDDINGS, "again.png", "", PINK),
    (EMBEDDINGS, "components/*-0[248]0.png", "", "a pineapple on a pink background"),
    (EMBEDDINGS, "same/*.png", "", PINK),
    (EMBEDDINGS, "turned.png", "", YELLOW),
)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: its language, its text, the number of its first line."""

    language: str
    text: str
    line: int


def blocks(page: str) -> list[Block]:
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Block(match[1], match[2], text[: match.start()].count("\n") + 2) for match in found]


def commands(text: str) -> Iterator[str]:
    """The commands of a block: one a line, or several with && between; a line that ends with \\ continues."""
    for line in text.replace("\\\n", " ").splitlines():
        for command in line.split(" && "):
            if command.strip() and not command.startswith("#"):
                yield command.strip()


def reason_not_to_run(command: str) -> str | None:
    return next((reason for pattern, reason in NOT_RUN.items() if re.match(pattern, command)), None)


def parse(arguments: list[str]) -> None:
    """Parse arguments as the command line does, and run nothing. Raises a usage error of click."""
    command, context = typer.main.get_command(app), None
    while arguments and hasattr(command, "commands"):
        context = command.context_class(command, info_name=command.name, parent=context, **command.context_settings)
        name, *arguments = arguments
        assert name in command.commands, f"unclip has no command {name!r}"
        command = command.commands[name]
    command.make_context(command.name, arguments, parent=context)


def arguments_of(command: str) -> list[str]:
    """The arguments of a command line of unclip, with its wildcards expanded as a shell does."""
    parts = shlex.split(command, comments=True)[1:]
    return [name for part in parts for name in (sorted(glob.glob(part)) if "*" in part else [part])]


@pytest.fixture(scope="module")
def pipelines() -> dict[Any, Unclip]:
    return {}


@pytest.fixture
def checkout(tmp_path, monkeypatch, pipelines):
    """The working folder, with the files of a checkout. Each model is loaded once for all pages."""
    for name in ("assets", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    of_reader = ("runs/mine/model", "runs/more/model", "runs/few-steps/model", "NAME")
    for name in of_reader:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).symlink_to(ROOT / "weights" / "stickers")
    (tmp_path / "style.safetensors").touch()  # a LoRA file; no command that is run reads it
    monkeypatch.chdir(tmp_path)
    load = Unclip.from_pretrained

    def load_once(name, device="auto", dtype="auto", memory="auto", image_encoder=None, *others, progress=None, **more):
        assert not any((*others, *more.values())), "a prior or a LoRA would need another pipeline"
        key = (str(name), device, memory, image_encoder)
        if (*key, dtype) not in pipelines:
            pipe = load(name, device=device, dtype=dtype, memory=memory, image_encoder=image_encoder)
            pipelines[(*key, dtype)] = pipelines[(*key, str(pipe.model.dtype).removeprefix("torch."))] = pipe
        return pipelines[(*key, dtype)]

    monkeypatch.setattr(Unclip, "from_pretrained", staticmethod(load_once))
    return tmp_path


def scene_of(caption: str) -> Scene | None:
    """The scene that a plain caption describes, without its positions; None for any other text."""
    found = re.fullmatch(r"(?P<subject>.+) on an? (?P<background>\w+) background", caption)
    if found is None:
        return None
    subject, background = found.groups()
    nouns, place = load_nouns(), lambda name: PlacedObject(name, 0.5, 0.5, 0.5)
    singular = {f"{article}{name}": name for name in nouns for article in ("a ", "an ", "")}
    plural = {
        f"{words[0]} {noun.plural}": (n, name) for n, words in COUNT_WORDS.items() for name, noun in nouns.items()
    }
    if subject in plural:
        count, name = plural[subject]
        scene = Scene((place(name),) * count, background, "count", count=count)
    elif subject in singular:
        scene = Scene((place(singular[subject]),), background, "single")
    elif (size := re.fullmatch(r"an? (small|large) (.+)", subject)) and size[2] in nouns:
        scene = Scene((place(size[2]),), background, "single", size_word=size[1])
    else:
        for relation, (phrase, *_) in RELATION_PHRASES.items():
            between = phrase.replace("{x}", "").replace("{y}", "")
            first, _, second = subject.partition(between)
            if first in singular and second in singular:
                scene = Scene((place(singular[first]), place(singular[second])), background, "pair", relation=relation)
                break
        else:
            return None
    assert canonical_caption(scene) == caption
    return replace(scene, style=STYLE)


def part_of(image: Image.Image, part: str) -> Image.Image:
    """A square part of an image, as wide as it is high."""
    left = {"": 0, "left": 0, "middle": (image.width - image.height) // 2, "right": image.width - image.height}[part]
    return image if part == "" else image.crop((left, 0, left + image.height, image.height))


def shows(image: Image.Image, caption: str) -> bool:
    """Whether an image shows what a plain caption says, which may be "nothing on a yellow background"."""
    if caption.startswith("nothing on "):
        found = detect(image, STYLE)
        return not found.objects and caption == f"nothing on {add_article(found.background.name)} background"
    scene = scene_of(caption)
    assert scene is not None, caption
    return check(image, scene).all


def read(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def request_of(path: Path) -> dict[str, Any]:
    """The request in the record of an image, or {} for an image without a record."""
    try:
        return metadata.read(path)["request"]
    except DataError:
        return {}


def check_kept_pixels(path: Path, request: dict[str, Any]) -> None:
    """The pixels that an edit keeps are those of its input."""
    result, given = np.asarray(read(path)), read(Path(request["image"]))
    if request["mode"] == "inpaint":
        keep = np.asarray(Image.open(request["mask"]).convert("L")) == 0
        assert keep.any()
        assert np.array_equal(result[keep], np.asarray(given)[keep]), path
    else:
        top, left = (request.get(name) or 0 for name in ("top", "left"))
        kept = result[top : top + given.height, left : left + given.width]
        assert np.array_equal(kept, np.asarray(given)), path


def check_images(page: str, folder: Path) -> None:
    """The images that a page made: what they show, and their kept pixels."""
    requests = {path: request_of(path) for path in sorted(folder.rglob("*.png"))}  # follows no links
    shown: dict[str, list[bool]] = {}
    for path, request in requests.items():
        if request.get("mode") in ("inpaint", "outpaint") and Path(request["image"]).is_file():  # not one in memory
            check_kept_pixels(path, request)
        if request.get("mode") == "generate" and scene_of(request["prompt"]) is not None:
            shown.setdefault(request["prompt"], []).append(shows(read(path), request["prompt"]))
    for _, pattern, part, caption in (claim for claim in CLAIMS if claim[0] == page):
        files = sorted(folder.glob(pattern))
        assert files, f"{page} makes no {pattern}"
        shown[f"{pattern} {part}: {caption}"] = [shows(part_of(read(path), part), caption) for path in files]
    # Weights are replaced from time to time, and no model is always right: three of four images are enough.
    assert not {text: right for text, right in shown.items() if sum(right) < 0.75 * len(right)}


def run_command(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if command.startswith("cp "):
        shutil.copy(*shlex.split(command, comments=True)[1:])
        return
    before, is_piped, after = command.rpartition(" | ")
    if is_piped:  # printf 'text' | unclip ...
        text = shlex.split(before)[1].replace("\\n", "\n")
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert after.startswith("unclip ") and (not is_piped or before.startswith("printf ")), (
        f"neither run nor in NOT_RUN: {command}"
    )
    assert main(arguments_of(after)) == 0, command


@pytest.mark.parametrize("page", PAGES_WITH_BLOCKS)
def test_page(page, checkout, monkeypatch, capsys):
    monkeypatch.setattr(secrets, "randbelow", random.Random(0).randrange)  # seeds where a command has none
    namespace: dict[str, Any] = {}
    for block in blocks(page):
        if block.language == "sh":
            for command in commands(block.text):
                if reason_not_to_run(command) is None:
                    run_command(command, monkeypatch)
                elif command.startswith("unclip ") or " -m unclip " in command:
                    parse(arguments_of(f"unclip {command.removeprefix('unclip ').rpartition(' -m unclip ')[2]}"))
        elif block.language == "python":
            code = compile("\n" * (block.line - 1) + block.text, page, "exec")
            if reason_not_to_run(block.text) is None:
                exec(code, namespace)
        elif block.language == "toml":
            check_toml(block.text, checkout / "example.toml", monkeypatch)
        elif block.language == "json":
            json.loads(block.text)
        else:
            assert block.language == "text", f"{page}:{block.line}: a block of an unknown language"
    check_images(page, checkout)
    assert "Traceback" not in capsys.readouterr().err


def check_toml(text: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check a part of a recipe, or the settings of commands."""
    if tomllib.loads(text).keys() & RecipeFile.model_fields.keys():
        file.write_text(f'data = {{ kind = "scenes" }}\n{text}', encoding="utf-8")
        load_recipe(file)
        return
    file.write_text(text, encoding="utf-8")
    with monkeypatch.context() as patch:
        patch.setenv("UNCLIP_CONFIG", str(file))
        assert main(["config"]) == 0


@pytest.mark.parametrize("page", PAGES)
def test_commands_in_the_text_of_a_page_exist(page):
    text = re.sub(r"^```.*?^```$", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    assert not re.search(r"^    (unclip|pip|python|curl|mkdocs) ", text, re.MULTILINE), "use a block of the language sh"
    for command in re.findall(r"`(unclip [^`]+)`", text):
        if re.search(r" --(help|version|install-completion)\b", command):  # act as soon as they are parsed
            continue
        try:
            parse(shlex.split(re.sub(r"\bFOLDER\b", "stickers", command))[1:])
        except Exception as error:  # a usage error; in a sentence, arguments may be left out
            assert type(error).__name__ in ("MissingParameter", "NoArgsIsHelpError"), f"{page}: {command}: {error}"


def test_every_reason_not_to_run_a_command_is_used():
    found = [
        each
        for page in PAGES_WITH_BLOCKS
        for block in blocks(page)
        for each in (commands(block.text) if block.language == "sh" else [block.text])
    ]
    assert all(any(re.match(pattern, command) for command in found) for pattern in NOT_RUN)


def test_claims_name_pages():
    assert {page for page, *_ in CLAIMS} <= set(PAGES_WITH_BLOCKS)


@pytest.mark.parametrize(
    "caption",
    [
        "a penguin on a pink background",
        "an apple to the left of a mushroom on a turquoise background",
        "three apples on a white background",
        "a small rocket on a black background",
    ],
)
def test_plain_captions_are_read(caption):
    scene = scene_of(caption)
    assert scene is not None and canonical_caption(scene) == caption


def test_a_wrong_image_is_noticed():
    scene = scene_of(FOX)
    assert scene is not None
    image = Image.fromarray(render(scene, 64))
    assert shows(image, FOX)
    assert not shows(image, "a dog on a blue background")
    assert not shows(image, "a fox on a red background")
    assert not shows(image, "nothing on a blue background")
    assert shows(Image.new("RGB", (64, 64), BACKGROUNDS["blue"]), "nothing on a blue background")
