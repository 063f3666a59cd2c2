"""The memory that all calls together may hold."""

from unclip.server.errors import too_busy


class Memory:
    """Bytes that calls hold: bodies, decoded images and results, until the last byte of an answer is sent."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.used = 0

    def take(self, count: int, always: bool = False) -> None:
        """Hold more bytes. Raises ApiError if there is no room for them, unless `always`, or if nothing else is held.

        Without these exceptions, the server would refuse a call that needs more than the limit each time it comes.
        """
        if self.used and self.used + count > self._limit and not always:
            raise too_busy("the calls that wait or run hold all memory; try again later", 5.0)
        self.used += count

    def give(self, count: int) -> None:
        """Hold fewer bytes."""
        self.used -= count
