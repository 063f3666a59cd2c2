"""MkDocs hook: takes pages and images from outside docs/ into the site, and rewrites the links to them.

It also writes the table of the limits of a Request's fields.

The README, the changelog and the model card stay where readers of the repository expect them, and the pages link to
them and to `assets/` by relative paths, which work on a code host as they are. The strict build checks all of them.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent

PAGES = {  # path in the repository -> page of the site
    "README.md": "index.md",
    "CHANGELOG.md": "project/changelog.md",
    "weights/stickers/README.md": "models/stickers.md",
    "assets/sprites/README.md": "models/sprites.md",
}
IMAGES = "assets"
LIMITS_HERE = "<!-- the limits of the fields -->"
LINK = re.compile(r"(\]\()([^)\s#]+)([^)]*\))")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages of `PAGES` and the images below `IMAGES` to the site."""
    images = (path for kind in ("png", "webp") for path in (ROOT / IMAGES).rglob(f"*.{kind}"))
    paths = {path.relative_to(ROOT).as_posix() for path in images if path.name != "atlas.webp"}
    for source, target in {**PAGES, **{path: path for path in paths}}.items():
        files.append(File.generated(config, target, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Rewrite relative links from paths in the repository to paths in the site."""
    site_path = page.file.src_uri
    source = next((path for path, target in PAGES.items() if target == site_path), f"docs/{site_path}")

    def rewrite(match: re.Match[str]) -> str:
        before, link, after = match.groups()
        if "://" in link or link.startswith("mailto:"):
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), link))
        target = PAGES.get(path, path.removeprefix("docs/"))
        return before + posixpath.relpath(target, posixpath.dirname(site_path) or ".") + after

    return LINK.sub(rewrite, markdown.replace(LIMITS_HERE, limits_table()))


def limits_table() -> str:
    """A table of the values that each field of a Request may have, from the table that validates them."""
    from unclip.requests.fields import LIMITS, Interval, OneOf, Whole

    rows = ["| field | values | unit |", "| --- | --- | --- |"]
    for name, limit in LIMITS.items():
        if isinstance(limit, OneOf):
            values, unit = ", ".join(f"`{choice}`" for choice in limit.choices), ""
        else:
            numbers = "two numbers" if isinstance(limit, Interval) else "numbers"
            kind = "whole numbers" if isinstance(limit, Whole) else numbers
            values = f"{kind} from {limit.low if isinstance(limit, Whole) else 0} to {limit.high}"
            unit = limit.unit or "" if isinstance(limit, Whole) else ""
        rows.append(f"| `{name}` | {values} | {unit} |")
    return "\n".join(rows)
