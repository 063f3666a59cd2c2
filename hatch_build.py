"""Hooks of the build: the models and the sprites go into the wheel, and the README gets links that work on an index.

An installed package looks for the models and the sprites in unclip/_bundled. A code host resolves the README's relative
links by itself; a package index does not.
"""

import os
import posixpath
import re
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

SPRITES = (
    *("LICENSE", "LICENSE-FLUENT", "LICENSE-TWEMOJI", "README.md"),
    *("atlas.webp", "cartoon.json", "flat.json", "sprites.json"),
)
VARIABLE = "UNCLIP_REPOSITORY"
"""Overrides `repository` in pyproject.toml, for the builds of a fork."""
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#:]+)(#[^)\s]*)?\)")  # relative: without a colon


class CustomBuildHook(BuildHookInterface):
    """Adds the models and the sprites to a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":  # finds them in the checkout, and would keep a copy that grows stale
            return
        files = ("weights", *(f"assets/sprites/{name}" for name in SPRITES))
        build_data["force_include"].update({name: f"unclip/_bundled/{name}" for name in files})


class CustomMetadataHook(MetadataHookInterface):
    """Fills in the readme and the urls, which depend on the address of the repository."""

    def update(self, metadata: dict[str, Any]) -> None:
        repository = os.environ.get(VARIABLE, self.config.get("repository", "")).rstrip("/")
        with open(posixpath.join(self.root, "README.md"), encoding="utf-8") as file:
            text = readme_for_index(file.read(), repository)
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
        metadata["urls"] = project_urls(repository)


def project_urls(repository: str) -> dict[str, str]:
    """The links beside a project on an index; none without an address."""
    if not repository:
        return {}
    pages = {"Documentation": "tree/HEAD/docs", "Changelog": "blob/HEAD/CHANGELOG.md", "Issues": "issues"}
    return {"Homepage": repository, "Source": repository} | {name: f"{repository}/{p}" for name, p in pages.items()}


def readme_for_index(text: str, repository: str) -> str:
    """A README with absolute links. Without an address, links become their text, and images are left out."""

    def absolute(match: re.Match[str]) -> str:
        mark, label, path, anchor = match[1], match[2], match[3], match[4] or ""
        if not repository:
            return "" if mark else label
        return f"{mark}[{label}]({repository}/{'raw' if mark else 'blob'}/HEAD/{posixpath.normpath(path)}{anchor})"

    return _LINK.sub(absolute, text.replace("--depth 1 REPOSITORY", f"--depth 1 {repository or 'REPOSITORY'}"))
