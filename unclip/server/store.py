"""Results and uploads, held in memory under ids that cannot be guessed, until they expire."""

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

PREFIX = "file-"
MEDIA_TYPES = {"png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "webp": "image/webp", "gif": "image/gif"}


@dataclass(frozen=True)
class StoredFile:
    """An image file in memory.

    name: for people who download it. format: a key of MEDIA_TYPES. size: (width, height) in pixels.
    created: seconds since the epoch.
    """

    id: str
    name: str
    data: bytes
    format: str
    size: tuple[int, int]
    purpose: str
    created: int

    @property
    def media_type(self) -> str:
        return MEDIA_TYPES[self.format]

    @property
    def path(self) -> str:
        """The path of its url. Whoever knows it may fetch it."""
        return f"/files/{self.id}.{self.format}"


class Store:
    """Files by id. Each is dropped `keep_time` seconds after its last use.

    All take up at most `keep_size` bytes, except that the newest is kept whatever its size.
    """

    def __init__(self, keep_time: float, keep_size: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.keep_time = keep_time
        self.keep_size = keep_size
        self._clock = clock
        self._files: OrderedDict[str, tuple[float, StoredFile]] = OrderedDict()  # least recently used first
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._files)

    def add(
        self, data: bytes, format: str, size: tuple[int, int], name: str = "", purpose: str = "result"
    ) -> StoredFile:
        """Keep a file under a new id."""
        id = PREFIX + secrets.token_urlsafe(24)
        file = StoredFile(id, name or f"{id}.{format}", data, format, size, purpose, int(time.time()))
        self._files[id] = self._clock(), file
        self.bytes += len(data)
        self.drop_expired()
        while self.bytes > self.keep_size and len(self) > 1:
            self.remove(next(iter(self._files)))
        return file

    def get(self, id: str) -> StoredFile | None:
        """A file, which counts as a use; None if there is none of this id any more."""
        self.drop_expired()
        if id not in self._files:
            return None
        _, file = self._files[id]
        self._files[id] = self._clock(), file
        self._files.move_to_end(id)
        return file

    def remove(self, id: str) -> bool:
        """Drop a file; False if there is none of this id."""
        found = self._files.pop(id, None)
        if found is not None:
            self.bytes -= len(found[1].data)
        return found is not None

    def drop_expired(self) -> None:
        """Drop the files whose time is over."""
        oldest = self._clock() - self.keep_time
        while self._files and (id := next(iter(self._files))) and self._files[id][0] < oldest:
            self.remove(id)
