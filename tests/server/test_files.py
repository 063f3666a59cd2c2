"""Uploads and results: ids that cannot be guessed, that expire, and take a bounded amount of memory."""

import io

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.helpers import noise_image
from tests.images.profiles import rgb_profile
from tests.server.calls import GENERATIONS, error_of, png
from unclip.images import metadata
from unclip.server.store import Store

IMAGE = noise_image(20, 12)


def upload(client, image: Image.Image) -> str:
    return client.post("/v1/files", files={"file": ("a.png", png(image))}, data={"purpose": "vision"}).json()["id"]


def content(client, id: str) -> Image.Image:
    return Image.open(io.BytesIO(client.get(f"/v1/files/{id}/content").content))


def test_an_upload_is_described_fetched_and_dropped(client):
    data = png(IMAGE, "JPEG")
    answer = client.post("/v1/files", files={"file": ("../../etc/passwd", data)}, data={"purpose": "vision"}).json()
    assert (answer["object"], answer["bytes"]) == ("file", len(data))
    assert (answer["width"], answer["height"]) == (20, 12)
    assert answer["filename"].startswith("file-") and answer["path"].endswith(".jpeg")
    assert client.get(f"/v1/files/{answer['id']}").json()["id"] == answer["id"]
    for path in (f"/v1/files/{answer['id']}/content", answer["path"]):
        response = client.get(path)
        assert response.content == data
        assert response.headers["content-type"] == "image/jpeg"
        assert response.headers["x-content-type-options"] == "nosniff"
    assert client.delete(f"/v1/files/{answer['id']}").json()["deleted"]
    for call in (client.get, client.delete):
        assert error_of(call(f"/v1/files/{answer['id']}"), 404)["code"] == "file_not_found"


def test_a_picture_of_a_phone_is_kept(client):
    """JPEGs with several pictures, of depth or of a burst, are MPO to Pillow."""
    buffer = io.BytesIO()
    IMAGE.save(buffer, "MPO", save_all=True, append_images=[noise_image(20, 12)])
    response = client.post("/v1/files", files={"file": ("a.jpg", buffer.getvalue())})
    assert response.status_code == 200
    assert client.get(response.json()["path"]).headers["content-type"] == "image/jpeg"


@pytest.mark.parametrize("path", ["/files/..%2f..%2fetc%2fpasswd", "/files/x.png", "/v1/files/%00", "/web/../app.py"])
def test_no_path_reaches_the_file_system(client, path):
    error_of(client.get(path), 404)


def test_what_is_no_image_is_not_kept(client):
    for data in (b"", b"<svg onload='alert(1)'/>", b"\x89PNG\r\n\x1a\nbroken"):
        assert error_of(client.post("/v1/files", files={"file": ("a.png", data)}))["param"] == "file"
    assert error_of(client.post("/v1/files", data={"purpose": "vision"}))["param"] == "file"
    response = client.post("/v1/files", files={"file": ("a.png", png(IMAGE))}, data={"purpose": "batch"})
    assert error_of(response)["param"] == "purpose"


def test_result_ids_are_long_and_different(client):
    data = client.post(GENERATIONS, json={"prompt": "a cat", "n": 2, "seed": 1}).json()["data"]
    ids = {one["file_id"] for one in data}
    assert len(ids) == 2 and all(len(id) > 30 for id in ids)


def test_files_expire_after_their_last_use():
    now = [0.0]
    store = Store(60, 1000, lambda: now[0])
    file = store.add(b"12345", "png", (1, 1))
    now[0] = 50
    assert store.get(file.id) is file
    now[0] = 100
    assert store.get(file.id) is file
    now[0] = 161
    assert store.get(file.id) is None
    assert (len(store), store.bytes) == (0, 0)


def test_the_least_recently_used_files_give_way():
    store = Store(60, 100)
    first, second = store.add(b"x" * 40, "png", (1, 1)), store.add(b"y" * 40, "png", (1, 1))
    store.get(first.id)
    third = store.add(b"z" * 40, "png", (1, 1))
    assert [store.get(file.id) is not None for file in (first, second, third)] == [True, False, True]
    assert store.bytes == 80
    large = store.add(b"x" * 101, "png", (1, 1))
    assert store.get(large.id) is not None and (len(store), store.bytes) == (1, 101)


# ---- the canvas


def compose(client, *layers):
    return client.post("/v1/canvas", json={"layers": layers})


def test_layers_are_put_together_without_loss(client):
    other = noise_image(10, 30)
    one, two = upload(client, IMAGE), upload(client, other)
    answer = compose(client, {"file_id": one}, {"file_id": two, "left": 15, "top": -8}).json()
    assert (answer["width"], answer["height"]) == (25, 30)
    canvas = content(client, answer["id"])
    found = np.asarray(canvas)
    assert (found[:, 15:25, :3] == np.asarray(other)).all()
    assert (found[8:20, :15, :3] == np.asarray(IMAGE)[:, :15]).all()
    assert canvas.mode == "RGBA" and (found[:8, :15] == 0).all() and (found[20:, :15] == 0).all()


def test_a_canvas_without_gaps_is_opaque(client):
    part = noise_image(4, 4)
    answer = compose(client, {"file_id": upload(client, IMAGE)}, {"file_id": upload(client, part), "left": 3}).json()
    canvas = content(client, answer["id"])
    expected = IMAGE.copy()
    expected.paste(part, (3, 0))
    assert canvas.mode == "RGB" and canvas.tobytes() == expected.tobytes()


def test_transparent_pixels_of_a_layer_show_what_is_below_and_layers_can_be_scaled(client):
    glass = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    glass.putpixel((0, 0), (1, 2, 3, 255))
    answer = compose(client, {"file_id": upload(client, IMAGE)}, {"file_id": upload(client, glass)}).json()
    canvas = content(client, answer["id"])
    expected = IMAGE.copy()
    expected.putpixel((0, 0), (1, 2, 3))
    assert canvas.convert("RGB").tobytes() == expected.tobytes()
    answer = compose(client, {"file_id": upload(client, IMAGE), "width": 40, "height": 24}).json()
    assert (answer["width"], answer["height"]) == (40, 24)


@pytest.mark.parametrize(
    ("layers", "status", "param"),
    [
        ([], 400, "layers"),
        ([{}], 400, "layers.0.file_id"),
        ([{"file_id": "file-gone"}], 404, "id"),
        ([{"file_id": "ID", "left": 1.5}], 400, "layers.0.left"),
        ([{"file_id": "ID", "x": 1}], 400, "layers.0.x"),
        ([{"file_id": "ID"}, {"file_id": "ID", "left": 9000}], 400, "layers"),
        ([{"file_id": "ID"}, {"file_id": "ID", "left": 6000, "top": 6000}], 400, "layers"),
        ([{"file_id": "ID", "width": 8000, "height": 8000}], 400, "layers"),
    ],
)
def test_an_impossible_canvas_is_refused(client, layers, status, param):
    id = upload(client, IMAGE)
    layers = [{name: id if value == "ID" else value for name, value in layer.items()} for layer in layers]
    assert error_of(compose(client, *layers), status)["param"] == param


def test_a_canvas_keeps_the_records_of_its_parts(client, tmp_path):
    seeds = (1, 2)
    first, second = (
        client.post(GENERATIONS, json={"prompt": "a cat", "seed": seed}).json()["data"][0]["file_id"] for seed in seeds
    )
    one = compose(client, {"file_id": first}, {"file_id": second, "left": -32}).json()["id"]
    two = compose(client, {"file_id": upload(client, IMAGE), "left": 100}, {"file_id": one, "left": 4, "top": 5}).json()
    path = tmp_path / "canvas.png"
    path.write_bytes(client.get(two["path"]).content)
    record = metadata.read(path)
    places = [(part["left"], part["top"], part["width"], part["height"]) for part in record["canvas"]]
    assert places == [(96, 0, 20, 12), (32, 5, 32, 32), (0, 5, 32, 32)]
    assert [part["record"] and part["record"]["seed"] for part in record["canvas"]] == [None, *seeds]


@pytest.mark.parametrize("text", ["[]", "{", '{"canvas": 1}', '{"canvas": [{"left": "a", "top": 0}, 1]}', '{"a": NaN}'])
def test_a_record_from_outside_cannot_break_a_canvas(client, text, tmp_path):
    info, buffer = PngInfo(), io.BytesIO()
    info.add_text(metadata.KEY, text)
    IMAGE.save(buffer, format="PNG", pnginfo=info)
    id = client.post("/v1/files", files={"file": ("a.png", buffer.getvalue())}).json()["id"]
    path = tmp_path / "canvas.png"
    path.write_bytes(client.get(compose(client, {"file_id": id}).json()["path"]).content)
    assert "canvas" in metadata.read(path)


def test_transparent_pixels_of_a_layer_that_replaces_replace(client):
    glass = Image.new("RGBA", (4, 4), (255, 0, 0, 128))
    layers = {"file_id": upload(client, IMAGE)}, {"file_id": upload(client, glass), "replaces": True}
    canvas = content(client, compose(client, *layers).json()["id"])
    assert {canvas.getpixel((x, y)) for x in range(4) for y in range(4)} == {(255, 0, 0, 128)}
    assert canvas.getpixel((4, 0)) == (*IMAGE.getpixel((4, 0)), 255)


def test_a_canvas_has_the_colour_profile_of_its_first_image(client):
    profile = rgb_profile(1.0)
    below = IMAGE.copy()
    below.info["icc_profile"] = profile
    buffer = io.BytesIO()
    below.save(buffer, format="PNG", icc_profile=profile)
    id = client.post("/v1/files", files={"file": ("a.png", buffer.getvalue())}).json()["id"]
    grey = Image.new("RGB", (4, 4), (128, 128, 128))
    canvas = content(client, compose(client, {"file_id": id}, {"file_id": upload(client, grey)}).json()["id"])
    assert canvas.info["icc_profile"] == profile
    assert canvas.getpixel((10, 5)) == IMAGE.getpixel((10, 5))
    assert canvas.getpixel((1, 1)) == pytest.approx((55, 55, 55), abs=2)  # sRGB's 128 in linear light
