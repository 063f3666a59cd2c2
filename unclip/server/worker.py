"""The worker: one thread that runs everything that touches a model, one call after the other."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")


class Worker:
    """Runs functions in the thread that calls `run`, in the order in which they were submitted.

    On a CPU the main thread is the best one for it: glibc gives other threads heaps of their own, which
    `system.allocator` cannot make keep freed blocks.
    """

    def __init__(self) -> None:
        self._tasks: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()

    def submit(self, function: Callable[[], T]) -> "Future[T]":
        """The future result of a function. It is not called if the future is cancelled before its turn."""
        future: Future[T] = Future()
        self._tasks.put((future, function))
        return future

    def run(self) -> None:
        """Run the functions until `stop`."""
        while (task := self._tasks.get()) is not None:
            future, function = task
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(function())
            except Exception as error:
                future.set_exception(error)
            del task, future, function  # while it waits, the last call's images must not stay in memory

    def stop(self) -> None:
        """End `run` after the functions that were submitted."""
        self._tasks.put(None)

    def start_thread(self) -> threading.Thread:
        """A started thread that calls `run`."""
        thread = threading.Thread(target=self.run, name="unclip-worker", daemon=True)
        thread.start()
        return thread
