"""What a server must withstand: other pages and names, wrong keys, hostile uploads, slow and vanishing clients."""

import io
import json
import logging
import socket
import struct
import time
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from urllib.parse import urlsplit

import httpx
import pytest
from PIL import Image

from tests.helpers import noise_image
from tests.server.calls import EDITS, GENERATIONS, VARIATIONS, error_of, png
from tests.server.conftest import client_of, served
from unclip.server.security import allowed_hosts
from unclip.server.settings import LOOPBACK

PROMPT = {"prompt": "a cat", "size": "16x16"}


# ---- other pages and names


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:8000", "", "[::1", "0.0.0.0:8000"])
def test_another_host_name_is_refused(client, host):
    """A page of evil.example that resolves to 127.0.0.1 (DNS rebinding) sends its own name."""
    for call in (client.get("/", headers={"host": host}), client.get("/v1/models", headers={"host": host})):
        assert error_of(call, 421)["code"] == "unknown_host"


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "LOCALHOST", "[::1]:8000"])
def test_the_loopback_names_are_served(client, host):
    assert client.get("/v1/models", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:9000", "http://127.0.0.1"])
def test_a_call_from_another_page_is_refused(client, origin):
    response = client.post(GENERATIONS, json=PROMPT, headers={"origin": origin})
    assert error_of(response, 403)["code"] == "origin"
    assert "access-control-allow-origin" not in response.headers
    assert client.options(GENERATIONS, headers={"origin": origin}).status_code == 403


def test_the_servers_own_page_may_call(client):
    response = client.post(GENERATIONS, json=PROMPT, headers={"origin": "http://127.0.0.1:8000"})
    assert response.status_code == 200


def test_a_page_of_an_unknown_name_may_not_call_an_open_server_without_a_key(tiny):
    """With --host 0.0.0.0 any name is served. One that another site gave this machine's address is not trusted."""
    for settings, statuses in (({}, [200, 200, 403]), ({"api_keys": ("k",)}, [200, 200, 200])):
        with client_of(tiny, hosts=None, **settings) as client:
            for host, status in zip(
                ("192.168.1.5:8000", f"{socket.gethostname()}.local:8000", "evil.example:8000"), statuses, strict=True
            ):
                headers = {"host": host, "authorization": "Bearer k"}
                call = {"json": PROMPT, "headers": {**headers, "origin": f"http://{host}"}}
                assert client.post(GENERATIONS, **call).status_code == status
                # Programs send no Origin, and may use the name of a container, for example.
                assert client.post(GENERATIONS, json=PROMPT, headers=headers).status_code == 200


def test_an_allowed_page_may_call(tiny):
    page = "https://chat.example"
    with client_of(tiny, origins=(page,)) as client:
        asked = client.options(GENERATIONS, headers={"origin": page, "access-control-request-method": "POST"})
        assert asked.status_code == 204
        assert "authorization" in asked.headers["access-control-allow-headers"]
        own = {"origin": page, "access-control-request-headers": "authorization,x-stainless-os"}  # OpenAI's client
        assert "x-stainless-os" in client.options(GENERATIONS, headers=own).headers["access-control-allow-headers"]
        response = client.post(GENERATIONS, json=PROMPT, headers={"origin": page})
        assert response.headers["access-control-allow-origin"] == page
        assert client.post(GENERATIONS, json=PROMPT, headers={"origin": f"{page}.evil"}).status_code == 403


def test_the_names_of_a_server_follow_from_its_address():
    assert allowed_hosts("127.0.0.1", [], LOOPBACK) == LOOPBACK
    assert allowed_hosts("0.0.0.0", [], LOOPBACK) is None
    assert allowed_hosts("0.0.0.0", ["proxy.example"], LOOPBACK) == (*LOOPBACK, "proxy.example")


# ---- keys


@pytest.mark.parametrize(
    "headers",
    [{}, {"authorization": "Bearer"}, {"authorization": "Bearer wrong"}, {"authorization": "Basic one"},
     {"authorization": "one"}, {"x-api-key": "on"}, {"authorization": b"Bearer \xff"}],
)  # fmt: skip
def test_without_its_key_nothing_is_generated(tiny, headers):
    with client_of(tiny, api_keys=("one", "two")) as client:
        for response in (
            client.post(GENERATIONS, json=PROMPT, headers=headers),
            client.get("/v1/models", headers=headers),
            client.get("/metrics", headers=headers),
            client.get("/openapi.json", headers=headers),
            client.get("/v1/nothing", headers=headers),
        ):
            assert error_of(response, 401)["code"] == "invalid_api_key"


def test_each_key_opens_and_results_and_the_page_need_none(tiny):
    with client_of(tiny, api_keys=("one", "zwei-ü")) as client:
        for headers in (
            {"authorization": "Bearer one"},
            {"Authorization": "bearer one"},
            {"x-api-key": "one"},
            {"authorization": "Bearer zwei-ü".encode()},
            {"authorization": "Bearer zwei-ü".encode("latin-1")},
        ):
            response = client.post(GENERATIONS, json=PROMPT, headers=headers)
            assert response.status_code == 200
        assert client.get(response.json()["data"][0]["url"]).status_code == 200
        assert client.get("/").status_code == 200
        assert client.get("/healthz").status_code == 200


# ---- headers


def test_every_answer_has_the_headers_that_browsers_heed(client):
    for response in (client.get("/"), client.get("/v1/models"), client.get("/nothing"), client.post(GENERATIONS)):
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["x-request-id"].startswith("req_")
        assert "frame-ancestors 'none'" in response.headers["content-security-policy"]
        assert "unsafe" not in response.headers["content-security-policy"]
        assert response.headers["referrer-policy"] == "no-referrer"


# ---- hostile bodies


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few kilobytes whose pixels would fill the memory."""
    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    pixels = zlib.compress(bytes(1 << 20), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


WHOLE = png(noise_image(32, 32))
HOSTILE = {
    "bomb by sides": bomb(100_000, 100_000),
    "bomb below the limit of sides": bomb(8000, 8000),
    "bomb of text": b"\x89PNG\r\n\x1a\n"
    + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0))
    + chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(100 << 20), 9)),
    "truncated": WHOLE[:200],
    "truncated late": WHOLE[:-40],
    "header only": WHOLE[:40],
    "not an image": b"MZ" + bytes(1000),
    "html": b"<html><script>alert(1)</script>",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(/etc/passwd) run\n",
    "zip": b"PK\x03\x04" + bytes(100),
    "tiff": png(noise_image(8, 8), "TIFF"),
    "huge gif": b"GIF89a" + struct.pack("<HH", 65535, 65535) + bytes(100),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("path", [EDITS, VARIATIONS, "/v1/files"])
def test_a_hostile_image_is_a_wrong_request(client, name, path):
    data = {"prompt": "a cat"} if path == EDITS else {}
    field = "file" if path == "/v1/files" else "image"
    start = time.monotonic()
    error = error_of(client.post(path, files={field: ("a.png", HOSTILE[name], "image/png")}, data=data))
    assert error["param"] == field
    assert time.monotonic() - start < 5


def test_a_hostile_mask_is_a_wrong_request(client):
    files = {"image": ("a.png", WHOLE), "mask": ("m.png", HOSTILE["bomb below the limit of sides"])}
    assert error_of(client.post(EDITS, files=files, data={"prompt": "a cat"}))["param"] == "mask"


@pytest.mark.parametrize(
    ("body", "boundary"),
    [
        (b"", "x"),
        (b"--x\r\n", "x"),
        (b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\nabc', "x"),
        (b"--x\r\nContent-Disposition: form-data\r\n\r\nabc\r\n--x--", "x"),
        (b"garbage" * 100, "x"),
        (b"--x--", ""),
        (b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n' + b"y" * (2 << 20) + b"\r\n--x--", "x"),
        (b"".join(b'--x\r\nContent-Disposition: form-data; name="a%d"\r\n\r\n\r\n' % i for i in range(300)), "x"),
        (
            b"".join(
                b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n\r\n' for _ in range(30)
            ),
            "x",
        ),
    ],
)
def test_a_damaged_form_is_a_wrong_request(client, body, boundary):
    headers = {"content-type": f"multipart/form-data; boundary={boundary}"}
    error_of(client.post(EDITS, content=body, headers=headers))


def test_a_body_with_a_length_above_the_limit_is_not_read(url):
    with closing(connect(url)) as connection:
        connection.sendall(head(url, EDITS, **{"content-length": str(100 << 20)}))
        assert b" 413 " in answer(connection)


def test_a_large_body_is_cut_off_at_the_limit(tiny):
    with served(tiny, max_body=100_000) as url:
        sent = 0

        def chunks():
            nonlocal sent
            while sent < 100 << 20:
                sent += 1 << 16
                yield bytes(1 << 16)

        with httpx.Client() as client:
            try:
                response = client.post(url + GENERATIONS, content=chunks())
                assert error_of(response, 413)["code"] == "body_too_large"
            except (httpx.WriteError, httpx.ReadError):
                pass  # closed by the server while the client was still sending
            assert sent < 20 << 20
            assert client.post(url + GENERATIONS, json=PROMPT).status_code == 200
            files = {"image": ("a.png", bytes(200_000))}
            assert client.post(url + EDITS, files=files).status_code == 413


def test_a_slow_body_is_given_up_and_stalls_nobody(tiny):
    with served(tiny, body_timeout=1.0) as url, closing(connect(url)) as connection:
        connection.sendall(head(url, GENERATIONS, **{"content-length": "1000"}) + b'{"prompt"')
        start = time.monotonic()
        assert httpx.post(url + GENERATIONS, json=PROMPT).status_code == 200
        assert b" 408 " in answer(connection)
        assert 0.5 < time.monotonic() - start < 15


def test_a_client_that_does_not_read_is_dropped(tiny):
    """It holds a few hundred kilobytes of its answer, not all of it, and not for ever."""
    with served(tiny, send_timeout=1.0) as url:
        image = noise_image(1500, 1500)
        id = httpx.post(f"{url}/v1/files", files={"file": ("a.png", png(image))}).json()["id"]
        with closing(connect(url)) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
            lines = f"GET /v1/files/{id}/content HTTP/1.1\r\nhost: {urlsplit(url).netloc}\r\n\r\n"
            connection.sendall(lines.encode())
            path = 'path="/v1/files/{id}/content",status="200"'
            wait_until(lambda: path in httpx.get(f"{url}/metrics").text)
            read = 0
            with suppress(ConnectionError):
                while data := connection.recv(1 << 16):
                    read += len(data)
            assert read < len(png(image))


@pytest.mark.parametrize("stream", [False, True])
def test_the_memory_of_a_call_is_free_once_it_is_answered(tiny, stream):
    with client_of(tiny) as client:
        for fields, status in (({"n": 3, "stream": stream}, 200), ({"seed": -1}, 400)):
            assert client.post(GENERATIONS, json={**PROMPT, **fields}).status_code == status
            assert "unclip_call_bytes 0.0\n" in client.get("/metrics").text


def test_calls_beyond_the_memory_are_told_to_come_again(held):
    with served(held, max_memory=1 << 20) as url:
        with long_call(url):
            large = json.dumps({**PROMPT, "user": "x" * (1 << 20)})
            error = error_of(httpx.post(url + GENERATIONS, content=large), 429)
            assert "memory" in error["message"]
            assert error_of(httpx.post(url + GENERATIONS, json={**PROMPT, "size": "512x512"}), 429)
        held.gate.set()
        wait_until(lambda: httpx.post(url + GENERATIONS, json={**PROMPT, "size": "512x512"}).status_code == 200)


def test_a_client_that_does_not_read_stalls_nobody(url):
    with closing(connect(url)) as connection:
        body = json.dumps({**PROMPT, "n": 10, "stream": True, "partial_images": 3, "progress": True}).encode()
        connection.sendall(head(url, GENERATIONS, **{"content-length": str(len(body))}) + body)
        assert httpx.post(url + GENERATIONS, json=PROMPT, timeout=30).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_whose_client_left_is_dropped(held, stream):
    with served(held) as url:
        with long_call(url, stream):
            assert queued(url) == 1
        wait_until(lambda: queued(url) == 0)
        held.gate.set()
        assert httpx.post(url + GENERATIONS, json=PROMPT, timeout=30).status_code == 200
        assert 'outcome="cancelled"} 1.0' in httpx.get(f"{url}/metrics").text


def test_a_full_queue_answers_at_once(held):
    with served(held, queue_size=1) as url:
        with long_call(url):
            response = httpx.post(url + GENERATIONS, json=PROMPT)
            assert error_of(response, 429)["code"] == "queue_full"
            assert int(response.headers["retry-after"]) >= 1
        held.gate.set()
        wait_until(lambda: httpx.post(url + GENERATIONS, json=PROMPT).status_code == 200)


def test_an_error_of_the_server_tells_nothing_of_it(tiny, monkeypatch, caplog):
    logger = logging.getLogger("unclip.server")  # other tests may have changed it
    monkeypatch.setattr(logger, "propagate", True)
    monkeypatch.setattr(logger, "disabled", False)
    with client_of(tiny) as client:
        monkeypatch.setattr(type(tiny), "generate_batch", lambda *_: {}["/secret/path"])
        response = client.post(GENERATIONS, json=PROMPT)
        assert "secret" not in response.text and "KeyError" not in response.text
        assert error_of(response, 500)["code"] == "internal_error"
        assert response.headers["x-should-retry"] == "false"
        events = client.post(GENERATIONS, json={**PROMPT, "stream": True}).text
        assert "event: error" in events and "secret" not in events
    assert "/secret/path" in caplog.text


def wait_until(condition, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@contextmanager
def long_call(url: str, stream: bool = False) -> Iterator[None]:
    """A call of a held pipeline, while it is being generated. At the end its client leaves."""
    body = json.dumps({**PROMPT, "stream": stream}).encode()
    with closing(connect(url)) as connection:
        connection.sendall(head(url, GENERATIONS, **{"content-length": str(len(body))}) + body)
        wait_until(lambda: queued(url) == 1)
        yield


def queued(url: str) -> int:
    return httpx.get(f"{url}/v1/server").json()["queued_images"]


def connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), timeout=15)


def head(url: str, path: str, **headers: str) -> bytes:
    lines = {"host": urlsplit(url).netloc, "content-type": "application/json", **headers}
    fields = "".join(f"{key}: {value}\r\n" for key, value in lines.items())
    return f"POST {path} HTTP/1.1\r\n{fields}\r\n".encode()


def answer(connection: socket.socket) -> bytes:
    found = b""
    while b"\r\n" not in found and (data := connection.recv(4096)):
        found += data
    return found


def test_the_images_of_this_test_are_what_they_claim():
    assert Image.open(io.BytesIO(HOSTILE["bomb below the limit of sides"])).size == (8000, 8000)
