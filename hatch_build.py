"""Puts the models and the sprites into a wheel: an installed package looks for them in unclip/_bundled."""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SPRITES = ("LICENSE", "README.md", "atlas.webp", "sprites.json")


class CustomBuildHook(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":  # finds them in the checkout, and would keep a copy that grows stale
            return
        files = ("weights", *(f"assets/sprites/{name}" for name in SPRITES))
        build_data["force_include"].update({name: f"unclip/_bundled/{name}" for name in files})
