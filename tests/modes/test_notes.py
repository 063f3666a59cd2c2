from dataclasses import replace

from PIL import Image

from tests.tiny import TOKENS
from unclip.modes.notes import notes
from unclip.pipeline import Unclip
from unclip.requests.request import Request
from unclip.stickers.captions import vocabulary

FEW = {"steps": 4, "size": 16}  # of inversions that need not be close


def test_notes_name_cut_tokens_and_unknown_words(tiny: Unclip) -> None:
    long = "a red cat on a blue dog on a red cat"  # as long as can be
    notes = [r.notes for r in tiny.generate([long, f"{long} on a dog"], size=16)]
    assert notes == [(), (f"the prompt is longer than {TOKENS - 2} tokens; cut off: 'on a dog'",)]
    [result] = tiny.generate("a cat", negative_prompt=f"{long} on", size=16)
    assert result.notes == (f"the negative_prompt is longer than {TOKENS - 2} tokens; cut off: 'on'",)
    [result] = tiny.generate("A Red wizard, on a unicorn", size=16)
    assert result.notes == ("tiny does not know 'wizard', 'unicorn': see `unclip models show tiny --vocabulary`",)
    sides = {"left": 4, "left_prompt": "a wizard", "right": 4, "right_prompt": f"{long} on"}
    [result] = tiny.outpaint(Image.new("RGB", (16, 16)), "a cat", **sides)
    cut = f"the right_prompt is longer than {TOKENS - 2} tokens; cut off: 'on'"
    assert result.notes == (cut, "tiny does not know 'wizard': see `unclip models show tiny --vocabulary`")
    anything_goes = Unclip(replace(tiny.model, vocabulary=None))
    assert anything_goes.generate("A Red wizard, on a unicorn", size=16)[0].notes == ()


def test_notes_name_unknown_words_of_all_prompts(tiny: Unclip, cat: Image.Image) -> None:
    [result] = tiny.interpolate("a red wizard", "a blue dog", frames=None, seed=5, size=16)
    assert result.notes == ("tiny does not know 'wizard': see `unclip models show tiny --vocabulary`",)
    [result] = tiny.edit(cat, "a dog", from_prompt="a unicorn", seed=5, **FEW)
    assert any("does not know 'unicorn'" in note for note in result.notes)


def test_notes_are_short_and_quick_for_a_long_prompt(tiny: Unclip) -> None:
    prompt = " ".join(f"wizard{i}" for i in range(20_000))
    cut, unknown = notes(tiny.model, Request(prompt=prompt))
    assert len(cut) < 200 and len(unknown) < 1000
    assert "'wizard9'" in unknown and "'wizard10'" not in unknown and "and 19,990 more words" in unknown


def test_a_note_names_objects_with_a_colour_where_only_backgrounds_have_one(tiny: Unclip) -> None:
    words = vocabulary().words
    model = replace(tiny.model, vocabulary=words)
    [note] = notes(model, Request(mode="interpolate", sources=("a red cat", "two blue dogs")))
    assert (
        note == "tiny knows colours of backgrounds, not of objects: 'red cat' and 'blue dogs' may change the background"
    )
    assert not [*notes(model, Request(prompt="an orange next to a cat, blue background"))]
    assert not [*notes(replace(model, vocabulary=words - {"background"}), Request(prompt="a red cat"))]
