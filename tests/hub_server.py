"""A local server with the part of the hub's protocol that downloads use."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """One repository. `requests` records requests; `broken` and `forged` name files that are served wrongly.

    The fields from `etags` on are what a hostile server sends.
    """

    name: str
    folder: Path
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)  # method, path, Range
    broken: dict[str, int] = field(default_factory=dict)  # file -> bytes after which its first response breaks off
    forged: set[str] = field(default_factory=set)  # files whose content does not match their hash
    etags: dict[str, str] = field(default_factory=dict)  # file -> its ETag
    commit: str = COMMIT  # in the header of each file
    sha: str = COMMIT  # in the description of the repository
    listed: list[str] = field(default_factory=list)  # further file names
    redirects: dict[str, str] = field(default_factory=dict)  # file -> where it is redirected to
    others: "list[Hub]" = field(default_factory=list)  # further repositories on the same server
    url: str = ""

    def files(self) -> list[str]:
        paths = sorted(path for path in self.folder.rglob("*") if path.is_file())
        return [path.relative_to(self.folder).as_posix() for path in paths]

    def etag(self, file: str) -> str:
        """SHA-256 of weights, which count as large files; git's hash of other files."""
        if file in self.etags:
            return self.etags[file]
        data = (self.folder / file).read_bytes()
        if file.endswith(".safetensors"):
            return hashlib.sha256(data).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

    def ranges(self, method: str, ending: str) -> list[str | None]:
        """The Range header of each request with this method for a path that ends so."""
        return [r for kind, path, r in self.requests if kind == method and path.endswith(ending)]


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    """Serve a hub within this context."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            path = self.path.partition("?")[0]
            self.hub = next((other for other in hub.others if f"/{other.name}/" in f"{path}/"), hub)
            self.hub.requests.append((self.command, path, self.headers.get("Range")))
            if path == f"/api/models/{self.hub.name}/revision/main" or path == f"/api/models/{self.hub.name}":
                siblings = [{"rfilename": file} for file in self.hub.files() + self.hub.listed]
                return self.send_json(
                    {"_id": "1", "id": self.hub.name, "sha": self.hub.sha, "siblings": siblings, "tags": []}
                )
            if path.startswith(f"/api/models/{self.hub.name}/tree/"):
                more = [{"type": "file", "path": file, "size": 1, "oid": "1" * 40} for file in self.hub.listed]
                return self.send_json([self.entry(file) for file in self.hub.files()] + more)
            found = re.fullmatch(f"/{self.hub.name}/resolve/(?:{COMMIT}|main)/(.+)", path)
            if found is None:
                return self.send_json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
            if found[1] in self.hub.redirects and body:
                return self.send_json({}, 302, {"Location": self.hub.redirects[found[1]]})
            if found[1] not in self.hub.files():
                return self.send_json({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
            self.send_file(found[1], body)

        def entry(self, file: str) -> dict:
            size = (self.hub.folder / file).stat().st_size
            entry = {"type": "file", "path": file, "size": size, "oid": self.hub.etag(file)}
            if file.endswith(".safetensors"):
                entry |= {"oid": "1" * 40, "lfs": {"oid": self.hub.etag(file), "size": size, "pointerSize": 100}}
            return entry

        def send_file(self, file: str, body: bool) -> None:
            data = (self.hub.folder / file).read_bytes()
            if file in self.hub.forged:
                data = data[:-1] + bytes([data[-1] ^ 1])
            start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
            part = data[start:]
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.send_header("Content-Length", str(len(part)))
            self.send_header("ETag", f'"{self.hub.etag(file)}"')
            self.send_header("X-Repo-Commit", self.hub.commit)
            if file.endswith(".safetensors"):
                self.send_header("X-Linked-Etag", f'"{self.hub.etag(file)}"')
                self.send_header("X-Linked-Size", str(len(data)))
            self.end_headers()
            if body and file in self.hub.broken and not start:
                self.wfile.write(part[: self.hub.broken.pop(file)])
                self.close_connection = True
            elif body:
                self.wfile.write(part)

        def send_json(self, value: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
            data = json.dumps(value).encode()
            self.send_response(status)
            for key, text in {"Content-Type": "application/json", **(headers or {})}.items():
                self.send_header(key, text)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
