"""Sweeps: axes, combinations, the labelled grid and the page."""

import pytest
from PIL import Image

from unclip.batch.sweep import Axis, Sweep, parse_axis
from unclip.batch.sweep_page import grid_plan
from unclip.errors import InputError
from unclip.images.contact_sheet import MAX_PIXELS
from unclip.images.labelled_grid import GridPlan, labelled_grid


@pytest.mark.parametrize(
    ("text", "field", "values"),
    [
        ("guidance=1,2.5,0", "guidance", (1.0, 2.5, 0.0)),
        ("steps=4..6", "steps", (4, 5, 6)),
        ("steps=4,8..9", "steps", (4, 8, 9)),
        ("seed=1..3,9", "seed", (1, 2, 3, 9)),
        ("sampler=ddim, unipc", "sampler", ("ddim", "unipc")),
        ("prompt=a cat, red|a dog", "prompt", ("a cat, red", "a dog")),
        ("negative-prompt=a, b", "negative_prompt", ("a, b",)),
        ("components=5,10|20", "components", ("5,10", "20")),
        ("size=64x64,256x256", "size", ("64x64", "256x256")),
        ("cfg scale=1|2", "guidance", (1.0, 2.0)),
        ("harmonize=1,2", "resample", (1, 2)),
    ],
)
def test_axes(text, field, values):
    assert parse_axis(text) == Axis(field, values)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("guidance", "write FIELD=VALUE,VALUE"),
        ("=1", "write FIELD=VALUE,VALUE"),
        ("guidnce=1", "did you mean 'guidance'?"),
        ("guidance=1,,2", "a value is empty"),
        ("guidance=", "a value is empty"),
        ("guidance=1,x", "guidance must be a number"),
        ("steps=0,4", "steps must be"),
        ("steps=8..4", "write the smaller number first"),
        ("steps=1..9999", "steps must be"),
        ("seed=0..999999999", "at most 100,000"),
        ("steps=4,4", "4 is given twice"),
        ("sampler=euler", "choose from"),
        ("n=1,2", "use --vary seed=1..4"),
        ("frames=2,3", "vary fraction or theta"),
        ("id=a,b", "changes nothing"),
    ],
)
def test_a_bad_axis_is_one_line(text, says):
    with pytest.raises(InputError) as caught:
        parse_axis(text)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_each_combination_is_a_row():
    sweep = Sweep((Axis("guidance", (1.0, 2.0)), Axis("steps", (4, 8, 16))), {"prompt": "a cat", "seed": 0})
    rows = [row.fields for row in sweep.rows()]
    assert sweep.count == len(rows) == 6
    assert [(row["guidance"], row["steps"]) for row in rows] == [(g, s) for g in (1.0, 2.0) for s in (4, 8, 16)]
    assert all(row["prompt"] == "a cat" and row["seed"] == 0 for row in rows)
    assert [row.index for row in sweep.rows()] == list(range(6))


def test_too_many_combinations_are_refused():
    with pytest.raises(InputError, match="1,000 x 1,000 = 1,000,000 images; at most 100,000"):
        Sweep((Axis("steps", tuple(range(1, 1001))), Axis("seed", tuple(range(1000))))).check()


def test_the_first_axis_has_the_columns_the_second_the_rows():
    axes = (Axis("guidance", (1.0, 2.0)), Axis("steps", (4, 8, 16)), Axis("seed", (1, 2)), Axis("size", ("8", "16")))
    plan = grid_plan(Sweep(axes), (32, 16))
    assert (plan.columns, plan.rows, plan.axes) == (("1.0", "2.0"), ("4", "8", "16"), ("guidance", "steps"))
    assert plan.panels == ("seed 1, size 8", "seed 1, size 16", "seed 2, size 8", "seed 2, size 16")
    plan = grid_plan(Sweep(axes[:1]), (32, 16))
    assert (plan.rows, plan.panels, plan.axes) == (("",), ("",), ("guidance", ""))


def test_a_grid_that_is_too_large_gets_smaller_cells():
    plan = grid_plan(Sweep((Axis("seed", tuple(range(100))), Axis("steps", tuple(range(1, 101))))), (1024, 512))
    assert plan.cell == (64, 32) and plan.size[0] * plan.size[1] <= MAX_PIXELS
    with pytest.raises(InputError, match="10,000 images do not fit on one grid; vary fewer"):
        grid_plan(Sweep((Axis("seed", tuple(range(10_000))),)), (256, 256))


def test_the_grid_shows_each_image_at_its_place(tmp_path):
    colours = {(0, 0, 0): "red", (0, 0, 1): "lime", (1, 1, 0): "blue"}
    for colour in colours.values():
        Image.new("RGB", (20, 10), colour).save(tmp_path / f"{colour}.png")
    plan = GridPlan(("1", "2"), ("a", "b"), ("seed 1", "seed 2"), ("guidance", "sampler"), (20, 10))
    data = labelled_grid(plan, {place: tmp_path / f"{colour}.png" for place, colour in colours.items()})
    (tmp_path / "grid.png").write_bytes(data)
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.size == plan.size
        counts = {colour: count for count, colour in grid.getcolors(1 << 16)}
        assert {counts[colour] for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))} == {200}
        found = {grid.getpixel((x, y)): (x, y) for x in range(grid.width) for y in range(grid.height)}
        red, lime, blue = found[255, 0, 0], found[0, 255, 0], found[0, 0, 255]
    assert lime[1] == red[1] and lime[0] > red[0]  # the second column
    assert blue[0] == red[0] and blue[1] > red[1] + plan.panel_size[1] - 1  # the second panel, its second row
