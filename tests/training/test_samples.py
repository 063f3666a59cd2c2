"""Contact sheets."""

import torch

from unclip.training.samples import contact_sheet


def test_a_contact_sheet():
    sheet = contact_sheet(torch.stack([torch.full((3, 4, 4), value) for value in (-1.0, 1.0, 9.0)]), 3)
    assert sheet.size == (20, 8)
    assert [sheet.getpixel((x, 4)) for x in (3, 9, 15)] == [(0, 0, 0), (255, 255, 255), (255, 255, 255)]
