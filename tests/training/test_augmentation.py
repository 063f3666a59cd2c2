"""The images and masks that the augmentations make for the decoder."""

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
    """Share of a mask that is known, and whether one of its two values fills exactly a box."""
    for mask in known[:, 0].bool():
        yield mask.float().mean().item(), any(is_box(part) for part in (mask, ~mask))


def is_box(mask: Tensor) -> bool:
    return torch.equal(mask, mask.any(1)[:, None] & mask.any(0)[None])


def test_known_regions_are_boxes_or_all_but_boxes():
    known = random_known_masks(2000, 16, 0.3, seeded())
    assert known.shape == (2000, 1, 16, 16) and set(known.unique().tolist()) == {0.0, 1.0}
    shares, whole = zip(*boxes(known), strict=True)
    assert all(whole)
    assert sum(share > 0 for share in shares) / 2000 == pytest.approx(0.3, abs=0.06)
    assert any(share > 0.9 for share in shares) and any(0 < share < 0.1 for share in shares)
    halves = sum(bool((mask == mask[:, :1]).all()) and 0 < mask.mean() < 1 for mask in known[:, 0])  # as windows have
    assert halves > 30
    assert not random_known_masks(50, 16, 0.0, seeded()).any()


def test_windows_are_pictures_moved_towards_what_is_known():
    size, count = 16, 400
    ramp = torch.arange(size * size).view(1, 1, size, size).expand(count, 3, size, size) / size**2
    windows, known = shifted_windows(ramp, seeded())
    assert 0.4 < (windows == ramp).flatten(1).all(1).float().mean() < 0.6
    assert windows.shape == ramp.shape and known.shape == (count, 1, size, size)
    sides = set()
    for window, mask, picture in zip(windows[:, 0], known[:, 0], ramp[:, 0], strict=True):
        rows, columns = (mask == 0).any(1), (mask == 0).any(0)  # what is free is a box
        assert torch.equal(mask == 0, rows[:, None] & columns[None])
        free = [line.nonzero().flatten() for line in (rows, columns)]
        shifts = [(window[:, 0] * size).floor(), (window[0] * size * size) % size]  # the row and column shown there
        assert not rows.all() or not columns.all()
        for axis, (where, shown) in enumerate(zip(free, shifts, strict=True)):
            low, high = where[0].item(), where[-1].item()
            assert (low == 0) != (high == size - 1) or len(where) == size
            if len(where) == size:  # known on no side: it has not moved along this axis
                assert torch.equal(shown.long(), torch.arange(size))
                continue
            assert 4 <= len(where) <= 12
            step = 1 if low > 0 else -1  # known before what is free: the picture moves that way, its border behind it
            sides.add((axis, step))
            first = shown[0].item() if step > 0 else shown[-1].item() - (size - 1)
            assert step * first >= 0
            expected = (torch.arange(size) + first).clamp(0, size - 1)
            assert torch.equal(shown.long(), expected.long())
        assert torch.isin(window, picture).all()
    assert len(sides) == 4


def test_with_known_leaves_the_others_as_they_are():
    images = torch.rand(400, 3, 16, 16, generator=seeded())
    same, known, window = add_known_regions(images, seeded(), known=0.5, moved=0.0, beside=0.0, views=0.0)
    assert torch.equal(same, images) and not window.any() and 0.35 < known.flatten(1).any(1).float().mean() < 0.65
    moved, known, _ = add_known_regions(
        images, seeded(), known=0.5, moved=0.5, beside=1.0, views=0.0
    )  # of such colours none has another beside it
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


def test_a_picture_beside_another_is_whole_in_what_is_free():
    count = 120
    images = stickers(count)
    drawn, known, can = images_beside(images, seeded())
    assert drawn.shape == images.shape and known.shape == (count, 1, SIZE, SIZE)
    sides, partners, seen = set(), set(), []
    for i in can.nonzero().flatten().tolist():
        picture, mask, own = drawn[i], known[i, 0].bool(), images[i]
        rows, columns = (~mask).any(1), (~mask).any(0)
        assert torch.equal(~mask, rows[:, None] & columns) and rows.all() != columns.all()  # free on one side
        share = mask.float().mean().item()
        assert 0.2 < share < 0.8
        sides.add((bool(rows.all()), bool(mask[0, 0]), bool(mask[-1, -1])))
        background = own[0, 0, 0]
        if (picture[0][~mask] == background).all():  # the other way round: nothing is to be painted beside it
            seen.append(i)
            mask = ~mask
        # in what is free: the picture's own square, whole, of its own size or at five eighths of it
        shown = ((picture[0] - background).abs() > 0.1) & ~mask
        side = (20, 12, 28)[i % 3]
        height, width = int(shown.any(1).sum()), int(shown.any(0).sum())
        assert min(abs(height - side), abs(height - side * 5 / 8)) <= 2 and abs(height - width) <= 1
        assert picture[0][shown].median().item() == pytest.approx(grey(i, count), abs=1e-3)
        assert (picture[0][~mask] == background).any()
        # in what is known: the near part of another of the same colour
        values = set(picture[0][mask].tolist()) - {background.item()}
        assert len(values) == (i not in seen) and values.isdisjoint({grey(i, count)})
        partners |= values
    assert 5 < len(seen) < can.sum() / 2
    assert can.float().mean() > 0.3 and len(sides) == 4 and len(partners) > 10


@pytest.mark.parametrize("size", [24, 32, 64])
def test_nothing_of_a_picture_beside_another_is_cut(size: int):
    images = torch.full((90, 3, size, size), -0.5)
    for i, image in enumerate(images):
        far = 2 + i % (size // 2 - 4)
        image[:, far:-far, far:-far] = 0.5
    drawn, known, can = images_beside(images, seeded())
    for i in can.nonzero().flatten().tolist():
        free = known[i, 0] == 0
        free = free if (drawn[i, 0][free] != -0.5).any() else ~free
        shown = (drawn[i, 0] + 0.5).masked_fill(~free, 0)  # what there is of it, in pixels, each way
        side = size - 2 * (2 + i % (size // 2 - 4))
        for line in (shown.sum(0), shown.sum(1)):
            length = line[line > line.max() / 2].median().item()  # bicubic resizing overshoots at the edges
            assert min(abs(length - side), abs(length - side * 5 / 8)) < 0.5
    assert can.sum() > 10


def test_what_is_beside_starts_where_the_other_picture_ends():
    images = stickers(60)
    drawn, known, can = images_beside(images, seeded())
    for i in can.nonzero().flatten().tolist():
        mask = known[i, 0].bool()
        line = mask.any(1) if mask.all(1).any() else mask.any(0)
        if (
            line[0] and (drawn[i, 0][~mask] != images[i, 0, 0, 0]).any()
        ):  # known above or on the left: the last rows or columns of the other
            part = drawn[i][:, line] if mask.all(1).any() else drawn[i][:, :, line]
            length = int(line.sum())
            others = images[:, :, -length:] if mask.all(1).any() else images[:, :, :, -length:]
            assert any(torch.equal(part, other) for other in others)


@pytest.mark.parametrize(
    "why", ["", "of another colour", "no flat border", "nothing to see", "too large", "next to one another"]
)
def test_a_picture_stands_alone_where_no_other_can_be_beside_it(why: str):
    images = stickers(60)[:3]  # the second is of another colour
    if why == "of another colour":
        images[2, :, images[2, 0] == images[2, 0, 0, 0]] = 0.0
    elif why == "no flat border":
        images[2, :, :, 0] = torch.linspace(-1, 1, SIZE)
    elif why == "nothing to see":
        images[2] = images[2, 0, 0, 0]
    elif why == "too large":
        images[0, :, 1:-1, 1:-1] = images[0, 0, SIZE // 2, SIZE // 2]
    elif why == "next to one another":  # as a pair and its exchange are
        images = images[[0, 2, 1]]
    possible = []
    for seed in range(40):
        drawn, known, can = images_beside(images, torch.Generator().manual_seed(seed))
        bare = (drawn[0, 0][known[0, 0] == 0] == images[0, 0, 0, 0]).all()  # beside it is nothing, which can always be
        possible.append(bool(can[0] & ~bare))
    assert any(possible) == (not why)


def test_a_share_of_the_windows_is_beside_others():
    dataset = open_dataset({"kind": "scenes", "spread": 0, "singles": 1.0, "nouns": ["cat", "dog"]}, SIZE, 0)
    images = next(batches(dataset, 400))[0].float() / 127.5 - 1
    shares = []
    for beside in (0.0, 0.5, 1.0):
        drawn, known, _ = add_known_regions(images, seeded(), known=1.0, moved=1.0, beside=beside, views=0.0)
        shares.append(objects_apart(drawn, known))
    assert shares[0] < shares[1] < shares[2] and shares[0] < 0.1 and shares[2] > 0.25


def objects_apart(drawn: Tensor, known: Tensor) -> float:
    """In how many pictures something is to be seen in the known part and in the rest, and not at the edge between."""
    differs = ((drawn - drawn[..., :1, :1]).abs() > 0.1).any(1, keepdim=True)
    inside = torch.nn.functional.max_pool2d(known, 3, 1, 1) * torch.nn.functional.max_pool2d(1 - known, 3, 1, 1) > 0
    parts = [differs & known.bool(), differs & ~known.bool()]
    apart = parts[0].flatten(1).any(1) & parts[1].flatten(1).any(1) & ~(differs & inside).flatten(1).any(1)
    return apart.float().mean().item()


def extent(shown: Tensor) -> tuple[slice, slice]:
    """Rows and columns of the box around what is True, `h w`."""
    return tuple(slice(int(line.nonzero()[0]), int(line.nonzero()[-1]) + 1) for line in (shown.any(1), shown.any(0)))


def test_a_view_has_all_of_an_original_in_it_and_what_is_new_or_nothing_beside_it():
    count = 240
    images = stickers(count)
    drawn, known, can = context_views(images, seeded())
    assert drawn.shape == images.shape and known.shape == (count, 1, SIZE, SIZE)
    places, bare, others = set(), 0, 0
    for i in can.nonzero().flatten().tolist():
        picture, mask, background = drawn[i, 0], known[i, 0].bool(), images[i, 0, 0, 0]
        rows, columns = extent(mask)
        side = rows.stop - rows.start
        assert mask.sum() == side**2 and columns.stop - columns.start == side and side in (16, 20, 24)
        at = [(s.start > 0) + (s.stop < SIZE) * 2 for s in (rows, columns)]  # 1 at the end, 2 at the start, 3 between
        places.add(tuple(at))
        shown = (picture - background).abs() > 0.1
        in_known = picture[rows, columns][shown[rows, columns]].median().item()
        rest = shown & ~mask
        if not rest.any():  # the picture itself, and nothing else
            bare += 1
            assert in_known == pytest.approx(grey(i, count), abs=0.12)  # a rough one has blotches
            continue
        others += 1
        assert at != [3, 3]  # at a side of the view: there is room beside it
        assert picture[rest].median().item() == pytest.approx(grey(i, count), abs=0.1)  # resizing overshoots
        height, width = (s.stop - s.start for s in extent(rest))
        own = (20, 12, 28)[i % 3] * side / SIZE
        assert abs(height - width) <= 1 and min(abs(height - own), abs(height - own * 5 / 8)) <= 2
    assert bare > 40 and others > 40 and len(places) == 9


def test_some_originals_in_views_are_rough():
    images = stickers(240)
    drawn, known, can = context_views(images, seeded())
    values = [len(set(drawn[i, 0][known[i, 0] == 1].round(decimals=2).tolist())) for i in can.nonzero().flatten()]
    assert (
        0.25 < sum(n > 25 for n in values) / len(values) < 0.75
    )  # blotches; the others have edges of bicubic resizing


def test_with_known_shows_views_where_they_can_be():
    images = stickers(300)
    drawn, known, _ = add_known_regions(images, seeded(), known=1.0, moved=1.0, beside=0.0, views=1.0)
    boxes = [extent(mask[0].bool()) for mask in known if mask.any()]
    small = sum(rows.stop - rows.start < SIZE and columns.stop - columns.start < SIZE for rows, columns in boxes)
    assert small / 300 > 0.5


@pytest.mark.parametrize(("beside", "views"), [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (0.5, 0.5)])
def test_some_windows_are_bare_of_more(beside: float, views: float):
    images = stickers(300)
    drawn, known, window = add_known_regions(images, seeded(), known=0.8, moved=0.5, beside=beside, views=views)
    assert 0.25 < window.float().mean() < 0.5 and known[window].flatten(1).any(1).all()
    assert torch.equal(drawn[~window], images[~window])
    bare = is_unknown_uniform(drawn, known)
    assert 0.05 < bare[window].float().mean() < 0.6
    for picture, mask, nothing in zip(drawn, known, bare.tolist(), strict=True):
        free = picture[:, mask[0] == 0]  # 3 n
        assert nothing == (not bool(((free - free[:, :1]).abs() > 0.1).any()))


def test_drafts_are_any_part_of_a_picture_of_which_nothing_is_known():
    size, count = 16, 600
    ramp = torch.arange(size * size).view(1, 1, size, size).expand(count, 3, size, size) / size**2
    known = torch.zeros(count, 1, size, size)
    known[::3, :, 2:5, 1:3] = 1
    drawn, drafted = add_draft_windows(ramp, known, 0.5, seeded())
    assert drafted.dtype == torch.bool and not drafted[::3].any()
    assert 0.4 < drafted.float().mean() * 1.5 < 0.6
    assert torch.equal(drawn[~drafted], ramp[~drafted])
    steps = set()
    for picture in drawn[drafted, 0]:
        down, right = (picture[:, 0] * size).floor(), (picture[0] * size**2) % size  # the row and column shown there
        for shown in (down, right):
            first = int(shown[0]) if shown[0] > 0 else int(shown[-1]) - (size - 1)
            assert torch.equal(shown.long(), (torch.arange(size) + first).clamp(0, size - 1))
            steps.add(first)
    assert min(steps) == 1 - size and max(steps) == size - 1 and len(steps) > 20
    assert torch.equal(add_draft_windows(ramp, known, 0.0, seeded())[0], ramp)
