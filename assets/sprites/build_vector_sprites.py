"""Build the vector sprites of the training scenes from emoji sets that Iconify publishes as JSON.

    npm pack @iconify-json/fluent-emoji-flat@1.2.6 @iconify-json/twemoji@1.2.5
    pip install -e ".[train]"
    python assets/sprites/build_vector_sprites.py *.tgz

``sprites.json`` names the nouns and is edited by hand. For each style this writes ``STYLE.json``: one noun a line, its
SVG body and the box of its visible part, found on a rendering of 512 px. ``--sheet FOLDER`` also makes contact sheets.
"""

from __future__ import annotations

import argparse
import json
import tarfile
from pathlib import Path

from PIL import Image, ImageDraw

from unclip.stickers.drawings import render_svg

FOLDER = Path(__file__).resolve().parent
PACKAGES = {"flat": "fluent-emoji-flat", "cartoon": "twemoji", "glossy": "fluent-emoji"}  # style -> Iconify set
NAMES_FROM = {"glossy": "flat"}  # fluent-emoji has no chars.json; its icons bear the names of the flat set
SIDE = 512  # px of the rendering on which the visible box is measured
FAINT = 8  # of 255: alpha that does not count as visible


def read_package(path: Path) -> dict[str, dict]:
    """The JSON files of an npm package: {"icons": ..., "chars": ..., "info": ..., "package": ...}."""
    with tarfile.open(path) as archive:
        files = {}
        for member in archive.getmembers():
            name = Path(member.name)
            if name.suffix == ".json" and (file := archive.extractfile(member)) is not None:
                files[name.stem] = json.load(file)
    return files


def find_icon(icons: dict, chars: dict[str, str], codepoint: str) -> dict | None:
    """The icon of a code point (hexadecimal), with the variation selector U+FE0F or without; None if there is none."""
    name = chars.get(codepoint.lower()) or chars.get(f"{codepoint.lower()}-fe0f")
    while name in icons.get("aliases", {}):
        name = icons["aliases"][name]["parent"]
    return icons["icons"].get(name)


def visible_box(body: str, canvas: tuple[float, float, float, float]) -> list[float]:
    """The box [left, top, width, height] of what is visible, in the units of the SVG."""
    left, top, width, height = canvas
    alpha = render_svg(body, canvas, (SIDE, SIDE)).getchannel("A")
    bounds = alpha.point(lambda value: 255 if value > FAINT else 0).getbbox()
    if bounds is None:
        raise SystemExit("an icon has no visible part")
    x, y = width / SIDE, height / SIDE
    box = (
        left + bounds[0] * x,
        top + bounds[1] * y,
        (bounds[2] - bounds[0]) * x,
        (bounds[3] - bounds[1]) * y,
    )
    return [round(value, 3) for value in box]


def build_style(style: str, packages: dict[str, dict[str, dict]], nouns: list[dict]) -> dict[str, dict]:
    """The sprites of a style: name -> {"box": [left, top, width, height], "body": SVG}."""
    icons = packages[style]["icons"]
    chars = packages[NAMES_FROM.get(style, style)]["chars"]
    sprites = {}
    for noun in nouns:
        if style in noun.get("not_in", ()):
            continue
        icon = find_icon(icons, chars, noun["codepoint"])
        if icon is None:
            raise SystemExit(f"the style {style} has no icon for {noun['name']} (U+{noun['codepoint']})")
        side = [icon.get(key, icons.get(key, 16)) for key in ("width", "height")]
        canvas = (icon.get("left", 0), icon.get("top", 0), *side)
        sprites[noun["name"]] = {"box": visible_box(icon["body"], canvas), "body": icon["body"]}
    return sprites


def make_sheet(sprites: dict[str, dict], columns: int = 16, side: int = 96) -> Image.Image:
    """Return a contact sheet of all sprites with their names, `columns` to a row."""
    rows, height = -(-len(sprites) // columns), side + 16
    sheet = Image.new("RGB", (columns * (side + 8), rows * height), (246, 164, 196))
    pen = ImageDraw.Draw(sheet)
    for i, (name, sprite) in enumerate(sprites.items()):
        width, tall = sprite["box"][2:]
        scale = side / max(width, tall)
        size = (max(1, round(width * scale)), max(1, round(tall * scale)))
        image = render_svg(sprite["body"], sprite["box"], size)
        x, y = i % columns * (side + 8) + 4, i // columns * height
        sheet.paste(image, (x + (side - size[0]) // 2, y + (side - size[1]) // 2), image)
        pen.text((x, y + side + 1), name[:16], fill=0)
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("packages", type=Path, nargs="+", help="the .tgz files of npm pack")
    parser.add_argument("--styles", nargs="+", default=["flat", "cartoon"], choices=PACKAGES)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--sheet", type=Path, help="a folder for contact sheets")
    args = parser.parse_args()
    nouns = json.loads((args.folder / "sprites.json").read_text(encoding="utf-8"))
    found = {
        files["package"]["name"].removeprefix("@iconify-json/"): files for files in map(read_package, args.packages)
    }
    packages = {style: found[name] for style, name in PACKAGES.items() if name in found}
    for style in args.styles:
        if style not in packages:
            raise SystemExit(f"the style {style} needs the npm package @iconify-json/{PACKAGES[style]}")
        sprites = build_style(style, packages, nouns)
        lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(sprite)}" for name, sprite in sprites.items())
        path = args.folder / f"{style}.json"
        path.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
        version = packages[style]["package"]["version"]
        print(f"{path}: {len(sprites)} sprites of {PACKAGES[style]} {version}, {path.stat().st_size / 1e3:.0f} kB")
        if args.sheet is not None:
            args.sheet.mkdir(parents=True, exist_ok=True)
            make_sheet(sprites).save(args.sheet / f"{style}.png")


if __name__ == "__main__":
    main()
