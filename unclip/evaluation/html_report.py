"""The report as one self-contained HTML page: tables and random samples of the images."""

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unclip.evaluation.correctness import ALL
from unclip.evaluation.intervals import format_value
from unclip.evaluation.report import column_names
from unclip.evaluation.suite import Suite
from unclip.system.files import write_atomic

SAMPLES = 24  # images in a grid
SIDE = 128  # px; size of an image on the page
_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 68rem; padding: 0 1rem; color: #222 }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse }
td, th { padding: .2rem 1.2rem .2rem 0; text-align: left; border-bottom: 1px solid #ddd }
.grid { display: grid; grid-template-columns: repeat(auto-fill, 132px); gap: 12px }
figure { margin: 0; font-size: 12px } img { width: 128px; height: 128px; display: block }
.wrong { color: #a11 } .note { color: #666 }
"""


def write_html(suite: Suite, titles: Mapping[str, str]) -> Path:
    """Write the results so far to the suite's HTML page and return its path.

    Args:
        suite: The evaluation.
        titles: Part -> title, in the order of the page.
    """
    results = {name: suite.report.results[name] for name in titles if name in suite.report.results}
    setup = "; ".join(f"{name} {_format_setting(value)}" for name, value in suite.report.setup.items())
    sections = [f"<h2>{escape(titles[name])}</h2>{_render_result(result)}" for name, result in results.items()]
    if "objects" in results:
        sections.append(_render_grids(suite, results["objects"]["pictures"]))
    title = f"Evaluation of {escape(suite.pipe.model.name)}"
    html = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style><h1>{title}</h1><p class=note>{escape(setup)}</p>"
        f"{''.join(sections)}</html>\n"
    )
    return write_atomic(suite.html_path, html.encode())


def choose_samples(indices: Sequence[int], count: int, seed: int) -> list[int]:
    """Return at most `count` of the indices, chosen by the seed alone, in ascending order."""
    rng = np.random.Generator(np.random.Philox(key=[seed, 1]))
    return sorted(rng.permutation(np.array(indices, dtype=int))[:count].tolist())


def _format_setting(value: Any) -> str:
    return ", ".join(f"{name} {part}" for name, part in value.items()) if isinstance(value, dict) else str(value)


def _render_result(result: Mapping[str, Any]) -> str:
    names = column_names(result["rows"])
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    lines = ("".join(f"<td>{escape(format_value(row.get(name)))}</td>" for name in names) for row in result["rows"])
    notes = "".join(f"<p class=note>{escape(note)}</p>" for note in result.get("notes", ()))
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>{notes}"


def _render_grids(suite: Suite, judged: Sequence[Mapping[str, Any]]) -> str:
    """Return grids of random images. `judged` has the prompt, outcomes and detected objects of each image."""
    right = [i for i, image in enumerate(judged) if image["right"]]
    wrong = [i for i, image in enumerate(judged) if not image["right"]]
    grids = []
    for name, indices in (("all images", range(len(judged))), ("the correct ones", right), ("the wrong ones", wrong)):
        samples = choose_samples(indices, SAMPLES, suite.seed)
        figures = "".join(_render_figure(suite.image_path(i), judged[i]) for i in samples)
        title = f"Random samples of {name}: {len(samples)} of {len(indices)}"
        grids.append(f"<h2>{escape(title)}</h2><div class=grid>{figures}</div>")
    return "".join(grids)


def _render_figure(path: Path, judged: Mapping[str, Any]) -> str:
    with Image.open(path, formats=("PNG",)) as image:
        small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)
    data = io.BytesIO()
    small.save(data, format="WEBP", quality=90)
    source = base64.b64encode(data.getvalue()).decode()
    failed = ", ".join(name for name, outcome in judged["outcomes"].items() if not outcome and name != ALL.name)
    wrong = (
        f"<br><span class=wrong>wrong: {escape(failed)}; detected: {escape(judged['seen'])}</span>" if failed else ""
    )
    return (
        f'<figure><img alt="{escape(judged["prompt"])}" src="data:image/webp;base64,{source}">'
        f"<figcaption>{escape(judged['prompt'])}{wrong}</figcaption></figure>"
    )
