"""The report as one HTML page that needs no other file: tables, and pictures drawn at random."""

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unclip.evaluation.intervals import text
from unclip.evaluation.report import columns
from unclip.evaluation.suite import Suite
from unclip.system.files import write_atomic

SHOWN = 24  # pictures of a grid
SIDE = 128  # px of a picture on the page
_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 68rem; padding: 0 1rem; color: #222 }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse }
td, th { padding: .2rem 1.2rem .2rem 0; text-align: left; border-bottom: 1px solid #ddd }
.grid { display: grid; grid-template-columns: repeat(auto-fill, 132px); gap: 12px }
figure { margin: 0; font-size: 12px } img { width: 128px; height: 128px; display: block }
.wrong { color: #a11 } .note { color: #666 }
"""


def write_page(suite: Suite, titles: Mapping[str, str]) -> Path:
    """Write what the report holds so far, in the order of `titles`, which are those of its parts."""
    results = {name: suite.report.results[name] for name in titles if name in suite.report.results}
    setup = "; ".join(f"{name} {_plainly(value)}" for name, value in suite.report.setup.items())
    parts = [f"<h2>{escape(titles[name])}</h2>{_body(result)}" for name, result in results.items()]
    if "objects" in results:
        parts.append(_grids(suite, results["objects"]["pictures"]))
    html = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(suite.pipe.name)}, evaluated</title>'
        f"<style>{_STYLE}</style><h1>{escape(suite.pipe.name)}, evaluated</h1><p class=note>{escape(setup)}</p>"
        f"{''.join(parts)}</html>\n"
    )
    return write_atomic(suite.page, html.encode())


def at_random(places: Sequence[int], count: int, seed: int) -> list[int]:
    """At most `count` of them, drawn by the seed alone, in their own order."""
    rng = np.random.Generator(np.random.Philox(key=[seed, 1]))
    return sorted(rng.permutation(np.array(places, dtype=int))[:count].tolist())


def _plainly(value: Any) -> str:
    return ", ".join(f"{name} {part}" for name, part in value.items()) if isinstance(value, dict) else str(value)


def _body(result: Mapping[str, Any]) -> str:
    names = columns(result["rows"])
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    lines = ("".join(f"<td>{escape(text(row.get(name)))}</td>" for name in names) for row in result["rows"])
    notes = "".join(f"<p class=note>{escape(note)}</p>" for note in result.get("notes", ()))
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>{notes}"


def _grids(suite: Suite, pictures: Sequence[Mapping[str, Any]]) -> str:
    right = [i for i, picture in enumerate(pictures) if picture["right"]]
    wrong = [i for i, picture in enumerate(pictures) if not picture["right"]]
    grids = []
    for name, places in (("all", range(len(pictures))), ("those right in everything", right), ("the others", wrong)):
        drawn = at_random(places, SHOWN, suite.seed)
        figures = "".join(_figure(suite.picture(i), pictures[i]) for i in drawn)
        title = f"Drawn at random from {name}: {len(drawn)} of {len(places)}"
        grids.append(f"<h2>{escape(title)}</h2><div class=grid>{figures}</div>")
    return "".join(grids)


def _figure(path: Path, picture: Mapping[str, Any]) -> str:
    with Image.open(path, formats=("PNG",)) as image:
        small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)
    data = io.BytesIO()
    small.save(data, format="WEBP", quality=90)
    source = base64.b64encode(data.getvalue()).decode()
    failed = ", ".join(name for name, outcome in picture["outcomes"].items() if not outcome and "every" not in name)
    wrong = f"<br><span class=wrong>wrong: {escape(failed)}; seen: {escape(picture['seen'])}</span>" if failed else ""
    return (
        f'<figure><img alt="{escape(picture["prompt"])}" src="data:image/webp;base64,{source}">'
        f"<figcaption>{escape(picture['prompt'])}{wrong}</figcaption></figure>"
    )
