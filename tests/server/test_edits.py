"""POST /v1/images/edits: masks, margins, frames and text diffs, as clients send them."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from tests.helpers import box_mask, noise_image
from tests.server.calls import EDITS, decoded, error_of, events_of, images_of, png, same
from unclip.requests.request import Request

IMAGE = noise_image(48, 40)
BOX = (8, 8, 24, 24)
MASK = box_mask(IMAGE.size, BOX)


def transparent(image: Image.Image, mask: Image.Image) -> Image.Image:
    """The image with the white pixels of a mask made transparent."""
    found = image.convert("RGBA")
    found.putalpha(mask.point(lambda value: 255 - value))
    return found


ALPHA = transparent(IMAGE, MASK)


def post(client, files, **fields):
    return client.post(EDITS, files=files, data={name: str(value) for name, value in fields.items()})


def file(image, name="image.png"):
    return (name, image if isinstance(image, bytes) else png(image), "application/octet-stream")


def kept(image: Image.Image) -> np.ndarray:
    """The pixels that `MASK` keeps."""
    return np.asarray(image)[np.asarray(MASK) == 0]


def test_inpainting_is_that_of_the_pipeline_and_keeps_pixels(client, tiny):
    response = post(client, {"image": file(IMAGE), "mask": file(MASK)}, prompt="a cat", seed=3, n=2)
    expected = tiny.inpaint(IMAGE, MASK, "a cat", seed=3, n=2)
    found = images_of(response)
    assert all(map(same, found, [result.image for result in expected]))
    assert all((kept(image) == kept(IMAGE)).all() for image in found)
    assert not (np.asarray(found[0]) == np.asarray(IMAGE)).all()


@pytest.mark.parametrize("mask", [ALPHA, ALPHA.getchannel("A").convert("LA"), "without colours"])
def test_a_mask_with_transparency_is_openais(client, tiny, mask):
    if mask == "without colours":
        mask = transparent(Image.new("RGB", IMAGE.size), MASK)
    elif mask.mode == "LA":
        mask.putalpha(ALPHA.getchannel("A"))
    response = post(client, {"image": file(IMAGE), "mask": file(mask)}, prompt="a cat", seed=3)
    assert same(images_of(response)[0], tiny.inpaint(IMAGE, MASK, "a cat", seed=3)[0].image)


def test_an_opaque_mask_with_an_alpha_channel_is_read_by_its_white(client, tiny):
    response = post(client, {"image": file(IMAGE), "mask": file(MASK.convert("RGBA"))}, prompt="a cat", seed=3)
    assert same(images_of(response)[0], tiny.inpaint(IMAGE, MASK, "a cat", seed=3)[0].image)


def test_mask_mode_and_feather_are_fields(client, tiny):
    inverse = MASK.point(lambda value: 255 - value)
    response = post(
        client, {"image": file(IMAGE), "mask": file(inverse)}, prompt="a cat", seed=3, mask_mode="black", feather=4
    )
    expected = tiny.inpaint(IMAGE, inverse, "a cat", seed=3, mask_mode="black", feather=4)
    assert same(images_of(response)[0], expected[0].image)


def test_an_image_with_a_transparent_part_needs_no_mask(client, tiny):
    response = post(client, {"image": file(ALPHA)}, prompt="a cat", seed=3)
    assert same(images_of(response)[0], tiny.inpaint(ALPHA, None, "a cat", seed=3)[0].image)


def test_transparent_margins_are_outpainted(client, tiny):
    padded = Image.new("RGBA", (72, 48))
    padded.paste(IMAGE, (8, 4))
    response = post(client, {"image": file(padded)}, prompt="a cat", seed=3, size="72x48")
    expected = tiny.outpaint(IMAGE, "a cat", seed=3, left=8, right=16, top=4, bottom=4)
    assert same(images_of(response)[0], expected[0].image)


def test_margins_and_sizes_outpaint(client, tiny):
    response = post(client, {"image": file(IMAGE)}, prompt="a cat", seed=3, right=16, right_prompt="a dog")
    expected = tiny.outpaint(IMAGE, "a cat", seed=3, right=16, right_prompt="a dog")
    assert same(images_of(response)[0], expected[0].image)
    response = post(client, {"image": file(IMAGE)}, prompt="a cat", seed=3, mode="outpaint", size="64x40")
    assert same(images_of(response)[0], tiny.outpaint(IMAGE, "a cat", seed=3, size="64x40")[0].image)


def test_an_opaque_image_without_a_mask_is_changed_by_a_text_diff(client, tiny):
    response = post(client, {"image": file(IMAGE)}, prompt="a cat", from_prompt="a dog", theta=0.5, seed=3)
    expected = tiny.edit(IMAGE, "a cat", "a dog", theta=0.5, seed=3)
    assert same(images_of(response)[0], expected[0].image)
    assert any("text diff" in note for note in response.json()["notes"])
    response = post(client, {"image": file(IMAGE)}, prompt="a cat", mode="edit", seed=3)
    assert not any("text diff" in note for note in response.json()["notes"])


def test_the_frames_of_a_text_diff_are_images_of_one_call(client, tiny):
    response = post(client, {"image": file(IMAGE)}, prompt="a cat", frames=3, seed=3)
    expected = tiny.edit(IMAGE, "a cat", frames=3, seed=3)
    assert all(map(same, images_of(response), [result.image for result in expected]))


@pytest.mark.parametrize("name", ["image", "image[]", "image[0]"])
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF"])
def test_images_are_recognised_by_content(client, tiny, name, format):
    data = png(IMAGE, format)
    files = {name: ("upload", data, "application/octet-stream"), "mask": ("blob", png(MASK))}
    [found] = images_of(post(client, files, prompt="a cat", seed=3))
    assert same(found, tiny.inpaint(Image.open(io.BytesIO(data)), MASK, "a cat", seed=3)[0].image)


def test_json_takes_data_urls_and_stored_files(client):
    expected = images_of(post(client, {"image": file(IMAGE), "mask": file(MASK)}, prompt="a cat", seed=3))[0]
    urls = [f"data:image/png;base64,{base64.b64encode(png(image)).decode()}" for image in (IMAGE, MASK)]
    stored = [client.post("/v1/files", files={"file": file(image)}).json() for image in (IMAGE, MASK)]
    for images, mask in (
        ({"image": urls[0]}, urls[1]),
        ({"images": [{"image_url": urls[0]}]}, {"image_url": urls[1]}),
        ({"images": [{"file_id": stored[0]["id"]}]}, {"file_id": stored[1]["id"]}),
        ({"image": f"http://127.0.0.1:8000{stored[0]['path']}"}, stored[1]["path"]),
    ):
        response = client.post(EDITS, json={**images, "mask": mask, "prompt": "a cat", "seed": 3})
        assert same(images_of(response)[0], expected)
    response = post(client, {"mask": file(MASK)}, image=stored[0]["id"], prompt="a cat", seed=3)
    assert same(images_of(response)[0], expected)


def test_a_result_can_be_edited_without_sending_it(client):
    first = client.post("/v1/images/generations", json={"prompt": "a cat", "seed": 1}).json()["data"][0]
    mask = box_mask((32, 32), (0, 0, 16, 32))
    [found] = images_of(post(client, {"mask": file(mask)}, image=first["file_id"], prompt="a dog"))
    assert (np.asarray(found)[:, 16:] == np.asarray(decoded(first["b64_json"]))[:, 16:]).all()


def test_transparency_that_is_kept_is_named(client):
    half = IMAGE.convert("RGBA")
    half.putpixel((0, 0), (1, 2, 3, 0))
    mask = box_mask(IMAGE.size, (20, 20, 30, 30))
    response = post(client, {"image": file(half), "mask": file(mask)}, prompt="a cat", background="opaque")
    assert images_of(response)[0].getpixel((0, 0)) == (1, 2, 3, 0)
    assert any("background" in note for note in response.json()["notes"])
    response = post(client, {"image": file(IMAGE), "mask": file(mask)}, prompt="a cat", background="opaque")
    assert not response.json()["notes"]


# ---- frames


def test_a_frame_edits_a_part_and_keeps_the_rest_of_it(client, tiny):
    frame_mask = box_mask((32, 32), (0, 0, 12, 32))
    response = post(client, {"image": file(IMAGE), "mask": file(frame_mask)}, prompt="a cat", frame="8,4,32,32", seed=3)
    part = IMAGE.crop((8, 4, 40, 36))
    assert same(images_of(response)[0], tiny.inpaint(part, frame_mask, "a cat", seed=3)[0].image)


def test_a_frame_past_the_image_outpaints(client, tiny):
    response = client.post(
        EDITS, files={"image": file(IMAGE)}, data={"prompt": "a cat", "frame": "32,8,32,32", "seed": "3"}
    )
    part = IMAGE.crop((32, 8, 48, 40))
    assert same(images_of(response)[0], tiny.outpaint(part, "a cat", seed=3, right=16)[0].image)


def test_a_frame_past_the_image_with_a_mask_generates_both(client, tiny):
    frame_mask = box_mask((32, 32), (0, 0, 8, 32))
    response = post(
        client, {"image": file(IMAGE), "mask": file(frame_mask)}, prompt="a cat", frame="-8,-4,32,32", seed=3
    )
    [found] = images_of(response)
    assert found.mode == "RGB" and found.size == (32, 32)
    assert (np.asarray(found)[4:, 8:] == np.asarray(IMAGE)[:28, :24]).all()
    stored = client.post("/v1/files", files={"file": file(ALPHA)}).json()["id"]
    [found] = images_of(post(client, {}, image=stored, prompt="a cat", frame="0,0,32,32", seed=3))
    assert same(found, tiny.inpaint(ALPHA.crop((0, 0, 32, 32)), None, "a cat", seed=3)[0].image)


@pytest.mark.parametrize(
    "frame", ["1,2,3", "a", "0,0,0,5", "0,0,5000,5000", "0,0,9000,2", "100,0,32,32", "0,-32,32,32", "0.5,0,32,32"]
)
def test_an_impossible_frame_is_refused(client, frame):
    error = error_of(post(client, {"image": file(IMAGE)}, prompt="a cat", frame=frame))
    assert error["param"] == "frame" and "frame" in error["message"]


# ---- previews


def test_previews_of_an_edit_show_it_in_its_place(client):
    fields = {"prompt": "a cat", "seed": 3, "stream": "true", "partial_images": 2}
    events = events_of(post(client, {"image": file(IMAGE), "mask": file(MASK)}, **fields))
    assert [kind for kind, _ in events] == ["image_edit.partial_image"] * 2 + ["image_edit.completed"]
    for _, data in events:
        image = decoded(data["b64_json"])
        assert (kept(image) == kept(IMAGE)).all()
        assert not (np.asarray(image) == np.asarray(IMAGE)).all()
        assert data["size"] == "48x40"


@pytest.mark.parametrize("margins", [{"right": 16}, {"left": 40, "right": 70, "top": 3}])
def test_previews_of_an_outpainting_cover_the_canvas(client, margins):
    fields = {"prompt": "a cat", "seed": 3, "stream": "true", "partial_images": 8, **margins}
    events = events_of(post(client, {"image": file(IMAGE)}, **fields))
    left, top = margins.get("left", 0), margins.get("top", 0)
    partial = [decoded(data["b64_json"]) for kind, data in events if kind.endswith("partial_image")]
    size = decoded(events[-1][1]["b64_json"]).size
    assert partial and all(image.size == size for image in partial)
    for image in partial:
        assert (np.asarray(image)[top : top + 40, left : left + 48] == np.asarray(IMAGE)).all()
    # By the last preview, every margin has been begun.
    black = (np.asarray(partial[-1]) == 0).all(axis=2)
    assert black.mean() < 0.5


# ---- errors


@pytest.mark.parametrize(
    ("files", "fields", "param", "words"),
    [
        ({}, {"prompt": "a"}, "image", "Missing required parameter: 'image'"),
        ({}, {"prompt": "a", "image": "cat.png"}, "image", "expected a file, but got a string"),
        ({}, {"prompt": "a", "image": "/etc/passwd"}, "image", "expected a file, but got a string"),
        ({}, {"prompt": "a", "image": "file:///etc/passwd"}, "image", "expected a file, but got a string"),
        ({}, {"prompt": "a", "image": "http://127.0.0.1:1/x.png"}, "image", "fetches no urls"),
        ({}, {"prompt": "a", "image": "data:image/png;base64,%%%"}, "image", "data url"),
        ({}, {"prompt": "a", "image": "data:image/png,abc"}, "image", "data url"),
        ({"image": b"Example data"}, {"prompt": "a"}, "image", "not a readable image"),
        ({"image": b""}, {"prompt": "a"}, "image", "not a readable image"),
        ({"image": IMAGE, "mask": b"no mask"}, {"prompt": "a"}, "mask", "not a readable image"),
        ({"image": IMAGE, "mask": box_mask((8, 8), (0, 0, 4, 4))}, {"prompt": "a"}, "mask", "the mask is 8x8"),
        ({"image": IMAGE, "mask": MASK}, {"prompt": "a", "left": 8}, "left", "left is a field of outpaint"),
        ({"image": IMAGE, "mask": MASK}, {"prompt": "a", "mode": "edit"}, "mask", "mask is a field of inpaint"),
        ({"image": IMAGE, "mask": MASK}, {"prompt": "a", "mask_mode": "alpha"}, "mask", "no transparency"),
        ({"image": IMAGE}, {"prompt": "a", "mode": "inpaint"}, "mask", "mask is missing"),
        ({"image": IMAGE}, {"prompt": "a", "mode": "edit", "mask_mode": "black"}, "mask_mode", "a field of inpaint"),
        (
            {"image": IMAGE},
            {"prompt": "a", "mode": "outpaint", "left": 9, "mask_mode": "white"},
            "mask_mode",
            "inpaint",
        ),
        ({"image": IMAGE}, {}, "mask", "mask is missing"),
        ({"image": IMAGE}, {"prompt": "a", "mode": "vary"}, "mode", "'vary' is not one of"),
        ({"image": IMAGE}, {"prompt": "a", "left": 8192}, None, "8192"),
        ({"image": IMAGE}, {"prompt": "a", "left": 4500, "top": 4500}, "size", "pixels"),
        ({"image": IMAGE}, {"prompt": "a", "size": "8192x8192"}, "size", "pixels"),
        ({"image": IMAGE, "picture": IMAGE}, {"prompt": "a"}, "picture", "Unknown parameter: 'picture'"),
    ],
)
def test_a_wrong_edit_is_refused(client, files, fields, param, words):
    error = error_of(post(client, {name: file(image) for name, image in files.items()}, **fields))
    assert words in error["message"]
    assert error["param"] == param


def test_several_images_or_masks_are_refused(client):
    files = [("image", file(IMAGE)), ("mask", file(MASK)), ("mask", file(MASK))]
    assert error_of(client.post(EDITS, files=files, data={"prompt": "a"}))["param"] == "mask"
    assert "17" in error_of(client.post(EDITS, json={"prompt": "a", "image": ["x"] * 100}))["message"]
    error = error_of(client.post(EDITS, files=[("image[]", file(IMAGE))] * 2, data={"prompt": "a"}))
    assert error["param"] == "image" and "one image at a time" in error["message"]


@pytest.mark.parametrize("value", [3, True, {}, {"file_id": 3}, {"file_id": "file-a", "image_url": "x"}, ["", 1.5]])
def test_a_wrong_type_of_image_in_json(client, value):
    assert error_of(client.post(EDITS, json={"image": value, "prompt": "a"}))["param"] == "image"


def test_an_expired_file_is_not_found(client):
    error = error_of(client.post(EDITS, json={"image": "file-gone", "prompt": "a"}), 404)
    assert (error["code"], error["param"]) == ("file_not_found", "image")


def test_no_request_names_a_file_of_the_server(client, tmp_path, monkeypatch):
    """Every string of a call that could be a path is refused before a request is made of it."""
    path = tmp_path / "secret.png"
    path.write_bytes(png(IMAGE))
    made = []
    original = Request.__init__
    monkeypatch.setattr(Request, "__init__", lambda self, **fields: (made.append(fields), original(self, **fields))[1])
    for name in ("image", "mask", "embedding"):
        fields = {"image": f"data:image/png;base64,{base64.b64encode(png(ALPHA)).decode()}", "prompt": "a"}
        error_of(client.post(EDITS, json={**fields, name: str(path)}))
    error_of(client.post("/v1/images/variations", json={"sources": [str(path), "a cat"]}))
    assert not made
