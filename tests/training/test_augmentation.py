"""Augmentations of the decoder's training images: known regions, windows, context views and drafts."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from unclip.training.augmentation import (
    add_draft_windows,
    add_known_regions,
    context_views,
    images_beside,
    is_unknown_uniform,
    random_known_masks,
    shifted_windows,
)
from unclip.training.data.datasets import open_dataset
from unclip.training.data.loader import batches


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def boxes(known: Tensor) -> Iterator[tuple[float, bool]]:
    """The known fraction of each mask, and whether one of its two values fills exactly a box."""
    for mask in known[:, 0].bool():
        yield mask.float().mean().item(), any(is_box(part) for part in (mask, ~mask))


def is_box(mask: Tensor) -> bool:
    return torch.equal(mask, mask.any(1)[:, None] & mask.any(0)[None])


def test_known_regions_are_boxes_or_all_but_boxes():
    known = random_known_masks(2000, 16, 0.3, seeded())
    assert known.shape == (2000, 1, 16, 16) and set(known.unique().tolist()) == {0.0, 1.0}
    fractions, are_boxes = zip(*boxes(known), strict=True)
    assert all(are_boxes)
    assert sum(fraction > 0 for fraction in fractions) / 2000 == pytest.approx(0.3, abs=0.06)
    assert any(fraction > 0.9 for fraction in fractions) and any(0 < fraction < 0.1 for fraction in fractions)
    halves = sum(bool((mask == mask[:, :1]).all()) and 0 < mask.mean() < 1 for mask in known[:, 0])  # as windows have
    assert halves > 30
    assert not random_known_masks(50, 16, 0.0, seeded()).any()


def test_shifted_windows_move_the_image_towards_the_known_side():
    size, count = 16, 400
    ramp = torch.arange(size * size).view(1, 1, size, size).expand(count, 3, size, size) / size**2
    windows, known = shifted_windows(ramp, seeded())
    assert 0.4 < (windows == ramp).flatten(1).all(1).float().mean() < 0.6
    assert windows.shape == ramp.shape and known.shape == (count, 1, size, size)
    sides = set()
    for window, mask, image in zip(windows[:, 0], known[:, 0], ramp[:, 0], strict=True):
        rows, columns = (mask == 0).any(1), (mask == 0).any(0)  # the unknown region is a box
        assert torch.equal(mask == 0, rows[:, None] & columns[None])
        unknown = [line.nonzero().flatten() for line in (rows, columns)]
        # The rows and the columns of the image that the window's pixels show.
        shifts = [(window[:, 0] * size).floor(), (window[0] * size * size) % size]
        assert not rows.all() or not columns.all()
        for axis, (where, position) in enumerate(zip(unknown, shifts, strict=True)):
            low, high = where[0].item(), where[-1].item()
            assert (low == 0) != (high == size - 1) or len(where) == size
            if len(where) == size:  # known on neither side: the image has not moved along this axis
                assert torch.equal(position.long(), torch.arange(size))
                continue
            assert 4 <= len(where) <= 12
            step = 1 if low > 0 else -1  # known before the unknown part: the image moves that way
            sides.add((axis, step))
            first = position[0].item() if step > 0 else position[-1].item() - (size - 1)
            assert step * first >= 0
            expected = (torch.arange(size) + first).clamp(0, size - 1)
            assert torch.equal(position.long(), expected.long())
        assert torch.isin(window, image).all()
    assert len(sides) == 4


def test_images_without_a_known_part_are_unchanged():
    images = torch.rand(400, 3, 16, 16, generator=seeded())
    same, known, window = add_known_regions(images, seeded(), known=0.5, moved=0.0, beside=0.0, views=0.0)
    assert torch.equal(same, images) and not window.any() and 0.35 < known.flatten(1).any(1).float().mean() < 0.65
    # No two of these images have the same border colour, so none is beside another.
    moved, known, _ = add_known_regions(images, seeded(), known=0.5, moved=0.5, beside=1.0, views=0.0)
    changed = (moved != images).flatten(1).any(1)
    assert 0.1 < changed.float().mean() < 0.35
    assert known.flatten(1).any(1)[changed].all()


SIZE = 32


def stickers(count: int) -> Tensor:
    """Squares of 20, 12 and 28 pixels, each of its own grey, in the middle of one of two colours: `b 3 32 32`."""
    images = torch.full((count, 3, SIZE, SIZE), -0.5)
    images[1::2] = 0.75
    for i, image in enumerate(images):
        far = (SIZE - (20, 12, 28)[i % 3]) // 2
        image[:, far:-far, far:-far] = grey(i, count)
    return images


def grey(i: int, count: int) -> float:
    return 0.5 * i / count - 0.25


def test_an_image_beside_another_is_whole_in_the_unknown_part():
    count = 120
    images = stickers(count)
    windows, known, possible = images_beside(images, seeded())
    assert windows.shape == images.shape and known.shape == (count, 1, SIZE, SIZE)
    sides, partners, exchanged = set(), set(), []
    for i in possible.nonzero().flatten().tolist():
        image, mask, own = windows[i], known[i, 0].bool(), images[i]
        rows, columns = (~mask).any(1), (~mask).any(0)
        assert torch.equal(~mask, rows[:, None] & columns) and rows.all() != columns.all()  # unknown on one side
        assert 0.2 < mask.float().mean().item() < 0.8
        sides.add((bool(rows.all()), bool(mask[0, 0]), bool(mask[-1, -1])))
        background = own[0, 0, 0]
        if (image[0][~mask] == background).all():  # exchanged: the image is known and nothing is beside it
            exchanged.append(i)
            mask = ~mask
        # in the unknown part: the image's own square, whole, at full size or at 5/8 of it
        shown = ((image[0] - background).abs() > 0.1) & ~mask
        side = (20, 12, 28)[i % 3]
        height, width = int(shown.any(1).sum()), int(shown.any(0).sum())
        assert min(abs(height - side), abs(height - side * 5 / 8)) <= 2 and abs(height - width) <= 1
        assert image[0][shown].median().item() == pytest.approx(grey(i, count), abs=1e-3)
        assert (image[0][~mask] == background).any()
        # in the known part: the near part of another image with the same border colour
        values = set(image[0][mask].tolist()) - {background.item()}
        assert len(values) == (i not in exchanged) and values.isdisjoint({grey(i, count)})
        partners |= values
    assert 5 < len(exchanged) < possible.sum() / 2
    assert possible.float().mean() > 0.3 and len(sides) == 4 and len(partners) > 10


@pytest.mark.parametrize("size", [24, 32, 64])
def test_no_image_beside_another_is_cut_off(size: int):
    images = torch.full((90, 3, size, size), -0.5)
    for i, image in enumerate(images):
        far = 2 + i % (size // 2 - 4)
        image[:, far:-far, far:-far] = 0.5
    windows, known, possible = images_beside(images, seeded())
    for i in possible.nonzero().flatten().tolist():
        unknown = known[i, 0] == 0
        unknown = unknown if (windows[i, 0][unknown] != -0.5).any() else ~unknown
        shown = (windows[i, 0] + 0.5).masked_fill(~unknown, 0)  # of the square, from 0 to 1
        side = size - 2 * (2 + i % (size // 2 - 4))
        for line in (shown.sum(0), shown.sum(1)):
            length = line[line > line.max() / 2].median().item()  # bicubic resizing overshoots at the edges
            assert min(abs(length - side), abs(length - side * 5 / 8)) < 0.5
    assert possible.sum() > 10


def test_the_known_part_is_the_near_end_of_the_other_image():
    images = stickers(60)
    windows, known, possible = images_beside(images, seeded())
    for i in possible.nonzero().flatten().tolist():
        mask = known[i, 0].bool()
        line = mask.any(1) if mask.all(1).any() else mask.any(0)
        # Known above or on the left: the last rows or columns of the other image.
        if line[0] and (windows[i, 0][~mask] != images[i, 0, 0, 0]).any():
            part = windows[i][:, line] if mask.all(1).any() else windows[i][:, :, line]
            length = int(line.sum())
            others = images[:, :, -length:] if mask.all(1).any() else images[:, :, :, -length:]
            assert any(torch.equal(part, other) for other in others)


@pytest.mark.parametrize("why", ["", "of another colour", "no flat border", "empty", "too large", "neighbours"])
def test_an_image_stays_alone_if_no_other_fits_beside_it(why: str):
    images = stickers(60)[:3]  # the second is of another colour
    if why == "of another colour":
        images[2, :, images[2, 0] == images[2, 0, 0, 0]] = 0.0
    elif why == "no flat border":
        images[2, :, :, 0] = torch.linspace(-1, 1, SIZE)
    elif why == "empty":
        images[2] = images[2, 0, 0, 0]
    elif why == "too large":
        images[0, :, 1:-1, 1:-1] = images[0, 0, SIZE // 2, SIZE // 2]
    elif why == "neighbours":  # as a pair of objects and the same pair exchanged
        images = images[[0, 2, 1]]
    found = []
    for seed in range(40):
        windows, known, possible = images_beside(images, torch.Generator().manual_seed(seed))
        is_empty = (windows[0, 0][known[0, 0] == 0] == images[0, 0, 0, 0]).all()  # this is always possible
        found.append(bool(possible[0] & ~is_empty))
    assert any(found) == (not why)


def test_a_fraction_of_the_windows_is_beside_others():
    dataset = open_dataset({"kind": "scenes", "spread": 0, "singles": 1.0, "nouns": ["cat", "dog"]}, SIZE, 0)
    images = next(batches(dataset, 400))[0].float() / 127.5 - 1
    fractions = []
    for beside in (0.0, 0.5, 1.0):
        windows, known, _ = add_known_regions(images, seeded(), known=1.0, moved=1.0, beside=beside, views=0.0)
        fractions.append(objects_apart(windows, known))
    assert fractions[0] < fractions[1] < fractions[2] and fractions[0] < 0.1 and fractions[2] > 0.25


def objects_apart(windows: Tensor, known: Tensor) -> float:
    """The fraction of images with content in both the known and the unknown part, but not at the edge between."""
    differs = ((windows - windows[..., :1, :1]).abs() > 0.1).any(1, keepdim=True)
    inside = torch.nn.functional.max_pool2d(known, 3, 1, 1) * torch.nn.functional.max_pool2d(1 - known, 3, 1, 1) > 0
    parts = [differs & known.bool(), differs & ~known.bool()]
    apart = parts[0].flatten(1).any(1) & parts[1].flatten(1).any(1) & ~(differs & inside).flatten(1).any(1)
    return apart.float().mean().item()


def extent(content: Tensor) -> tuple[slice, slice]:
    """Rows and columns of the box around the True values of `h w`."""
    return tuple(
        slice(int(line.nonzero()[0]), int(line.nonzero()[-1]) + 1) for line in (content.any(1), content.any(0))
    )


def test_a_context_view_shows_a_whole_original_and_new_content_or_nothing_beside_it():
    count = 240
    images = stickers(count)
    windows, known, possible = context_views(images, seeded())
    assert windows.shape == images.shape and known.shape == (count, 1, SIZE, SIZE)
    places, alone, others = set(), 0, 0
    for i in possible.nonzero().flatten().tolist():
        image, mask, background = windows[i, 0], known[i, 0].bool(), images[i, 0, 0, 0]
        rows, columns = extent(mask)
        side = rows.stop - rows.start
        assert mask.sum() == side**2 and columns.stop - columns.start == side and side in (16, 20, 24)
        at = [(s.start > 0) + (s.stop < SIZE) * 2 for s in (rows, columns)]  # 1 at the end, 2 at the start, 3 between
        places.add(tuple(at))
        shown = (image - background).abs() > 0.1
        in_known = image[rows, columns][shown[rows, columns]].median().item()
        rest = shown & ~mask
        if not rest.any():  # the image itself, and nothing else
            alone += 1
            assert in_known == pytest.approx(grey(i, count), abs=0.12)  # a distorted one has blotches
            continue
        others += 1
        assert at != [3, 3]  # at a side of the view: there is room beside it
        assert image[rest].median().item() == pytest.approx(grey(i, count), abs=0.1)  # resizing overshoots
        height, width = (s.stop - s.start for s in extent(rest))
        own = (20, 12, 28)[i % 3] * side / SIZE
        assert abs(height - width) <= 1 and min(abs(height - own), abs(height - own * 5 / 8)) <= 2
    assert alone > 40 and others > 40 and len(places) == 9


def test_some_originals_in_context_views_are_distorted():
    images = stickers(240)
    windows, known, possible = context_views(images, seeded())
    values = [
        len(set(windows[i, 0][known[i, 0] == 1].round(decimals=2).tolist())) for i in possible.nonzero().flatten()
    ]
    assert (
        0.25 < sum(n > 25 for n in values) / len(values) < 0.75
    )  # blotches; the others have edges of bicubic resizing


def test_windows_become_context_views_where_possible():
    images = stickers(300)
    windows, known, _ = add_known_regions(images, seeded(), known=1.0, moved=1.0, beside=0.0, views=1.0)
    boxes = [extent(mask[0].bool()) for mask in known if mask.any()]
    small = sum(rows.stop - rows.start < SIZE and columns.stop - columns.start < SIZE for rows, columns in boxes)
    assert small / 300 > 0.5


@pytest.mark.parametrize(("beside", "views"), [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (0.5, 0.5)])
def test_some_windows_have_nothing_to_generate(beside: float, views: float):
    images = stickers(300)
    windows, known, is_window = add_known_regions(images, seeded(), known=0.8, moved=0.5, beside=beside, views=views)
    assert 0.25 < is_window.float().mean() < 0.5 and known[is_window].flatten(1).any(1).all()
    assert torch.equal(windows[~is_window], images[~is_window])
    is_empty = is_unknown_uniform(windows, known)
    assert 0.05 < is_empty[is_window].float().mean() < 0.6
    for image, mask, empty in zip(windows, known, is_empty.tolist(), strict=True):
        unknown = image[:, mask[0] == 0]  # 3 n
        assert empty == (not bool(((unknown - unknown[:, :1]).abs() > 0.1).any()))


def test_draft_windows_show_any_part_of_an_image_without_a_known_part():
    size, count = 16, 600
    ramp = torch.arange(size * size).view(1, 1, size, size).expand(count, 3, size, size) / size**2
    known = torch.zeros(count, 1, size, size)
    known[::3, :, 2:5, 1:3] = 1
    windows, is_draft = add_draft_windows(ramp, known, 0.5, seeded())
    assert is_draft.dtype == torch.bool and not is_draft[::3].any()
    assert 0.4 < is_draft.float().mean() * 1.5 < 0.6
    assert torch.equal(windows[~is_draft], ramp[~is_draft])
    steps = set()
    for image in windows[is_draft, 0]:
        # The rows and the columns of the image that the window's pixels show.
        down, right = (image[:, 0] * size).floor(), (image[0] * size**2) % size
        for position in (down, right):
            first = int(position[0]) if position[0] > 0 else int(position[-1]) - (size - 1)
            assert torch.equal(position.long(), (torch.arange(size) + first).clamp(0, size - 1))
            steps.add(first)
    assert min(steps) == 1 - size and max(steps) == size - 1 and len(steps) > 20
    assert torch.equal(add_draft_windows(ramp, known, 0.0, seeded())[0], ramp)
