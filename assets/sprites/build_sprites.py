"""Rebuild the sprite atlas of the training scenes from Noto Color Emoji.

    apt-get install fonts-noto-color-emoji
    python assets/sprites/build_sprites.py

``assets/sprites/sprites.json`` lists the nouns and is edited by hand. The script renders them, in that order, into
``assets/sprites/atlas.webp``: rows of 16 cells of 128 x 128 px, RGBA, each object centred, its longer side 120 px.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
FOLDER = Path(__file__).resolve().parent
STRIKE = 109  # the only size of this bitmap font; its glyphs are 136 x 128 px
CELL, OBJECT, COLUMNS = 128, 120, 16


def render_cell(font: ImageFont.FreeTypeFont, character: str) -> Image.Image:
    """Return a glyph, trimmed to its visible part and centred in a cell: RGBA, CELL x CELL."""
    glyph = Image.new("RGBA", (2 * CELL, 2 * CELL))
    ImageDraw.Draw(glyph).text((32, 32), character, font=font, embedded_color=True)
    # Nearly transparent fringes would make the bounding box larger than the visible object.
    box = glyph.getchannel("A").point(lambda alpha: 255 if alpha > 8 else 0).getbbox()
    if box is None:
        raise SystemExit(f"{FONT.name} has no glyph for U+{ord(character):X}")
    glyph = glyph.crop(box).convert("RGBa")  # premultiplied: resizing must not bleed hidden colours into edges
    scale = OBJECT / max(glyph.size)
    size = (max(1, round(glyph.width * scale)), max(1, round(glyph.height * scale)))
    glyph = glyph.resize(size, Image.Resampling.LANCZOS).convert("RGBA")
    cell = Image.new("RGBA", (CELL, CELL))
    cell.paste(glyph, ((CELL - size[0]) // 2, (CELL - size[1]) // 2))
    return cell


def build_atlas(sprites: list[dict], font_path: Path) -> Image.Image:
    """Return all sprites in reading order, COLUMNS to a row."""
    font = ImageFont.truetype(str(font_path), STRIKE)
    rows = -(-len(sprites) // COLUMNS)
    atlas = Image.new("RGBA", (COLUMNS * CELL, rows * CELL))
    for i, sprite in enumerate(sprites):
        cell = render_cell(font, chr(int(sprite["codepoint"], 16)))
        atlas.paste(cell, (i % COLUMNS * CELL, i // COLUMNS * CELL))
    return atlas


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--font", type=Path, default=FONT, help="the emoji font (default: %(default)s)")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="the folder of sprites.json and atlas.webp")
    args = parser.parse_args()
    sprites = json.loads((args.folder / "sprites.json").read_text(encoding="utf-8"))
    path = args.folder / "atlas.webp"
    build_atlas(sprites, args.font).save(path, lossless=True, quality=100, method=6)
    print(f"{path}: {len(sprites)} sprites, {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
