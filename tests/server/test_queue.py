"""The queue: who shares a micro-batch, and what happens to calls that fail, leave, or come too many."""

import asyncio
import threading
import time
import weakref
from types import SimpleNamespace

import pytest
from PIL import Image

from unclip.errors import UnclipError
from unclip.images.result import Result
from unclip.inference.callbacks import Watcher
from unclip.requests.request import Request
from unclip.server.errors import ApiError
from unclip.server.jobs import Finished, Interest, Preview, Step
from unclip.server.memory import Memory
from unclip.server.metrics import Metrics
from unclip.server.queue import MAX_UNREAD, Queue
from unclip.server.settings import ServerSettings
from unclip.server.worker import Worker

STEPS = 4


class FakePipeline:
    """Records its micro-batches. Fails for the prompt "bad", and with more images than `room`."""

    model = SimpleNamespace()

    def __init__(self, room: int = 1000, steps: int = STEPS) -> None:
        self.steps = steps
        self.batches: list[list[str]] = []
        self.room = room
        self.gate = threading.Event()  # each micro-batch waits for it
        self.gate.set()
        self.begun = threading.Event()

    def generate_batch(self, requests, progress=None):
        self.batches.append([request.prompt for request in requests])
        self.begun.set()
        assert self.gate.wait(10)
        if len(requests) > self.room:
            raise MemoryError
        for step in range(self.steps + 1):
            if step and isinstance(progress, Watcher):
                images = [Image.new("RGB", (1, 1), (request.seed, step, 0)) for request in requests]
                progress.see("decoder", images, [request.seed for request in requests])
            progress("decoder", step, self.steps)
        if any(request.prompt == "bad" for request in requests):
            raise UnclipError("bad values")
        return [
            Result(image=Image.new("RGB", (1, 1), (request.seed, 0, 0)), request=request, seed=request.seed, model="m")
            for request in requests
        ]

    def generate_best(self, request, progress=None, batch_size=16):
        candidates = request.candidates()
        results = []
        for i in range(0, len(candidates), batch_size):
            results += self.generate_batch(candidates[i : i + batch_size], progress)
        return results[: request.n]


def run(test, pipe=None, other=None, **settings):
    """Run `await test(queue)` with a queue of a FakePipeline, and return it."""
    pipe = FakePipeline() if pipe is None else pipe

    async def main():
        worker = Worker()
        thread = worker.start_thread()
        models = {"m": pipe, "other": pipe if other is None else other}
        memory = Memory(settings.pop("max_memory", 1 << 20))
        queue = Queue(models, worker, ServerSettings(batch_size=8, **settings), Metrics(), memory)
        queue.start()
        try:
            await asyncio.wait_for(test(queue), 20)
        finally:
            pipe.gate.set()
            await queue.stop()
            worker.stop()
            thread.join(5)

    asyncio.run(main())
    return pipe


def submit(queue, prompt="a", model="m", interest=Interest(), **fields):  # noqa: B008
    return queue.submit(Request(**{"prompt": prompt, "seed": 1, "steps": STEPS, **fields}), model, interest)


async def until(condition):
    while not condition():
        await asyncio.sleep(0.005)


def test_calls_that_arrive_together_share_a_micro_batch():
    async def test(queue):
        jobs = [submit(queue, f"p{i}", n=1 + i % 2, seed=10 * i) for i in range(5)]
        results = await asyncio.gather(*(job.results() for job in jobs))
        assert [[result.seed for result in own] for own in results] == [[0], [10, 11], [20], [30, 31], [40]]

    assert run(test).batches == [["p0", "p1", "p1", "p2", "p3", "p3", "p4"]]


def test_a_call_waits_a_moment_for_others():
    async def test(queue):
        first = submit(queue, "first")
        await asyncio.sleep(0.002)
        second = submit(queue, "second")
        await asyncio.gather(first.results(), second.results())

    assert run(test).batches == [["first", "second"]]


def test_only_compatible_calls_share_a_micro_batch():
    async def test(queue):
        jobs = [
            submit(queue, "1"),
            submit(queue, "2", steps=2),
            submit(queue, "3", model="other"),
            submit(queue, "4", best_of=3, n=2),
            submit(queue, "5"),
        ]
        await asyncio.gather(*(job.results() for job in jobs))

    assert sorted(run(test).batches) == [["1", "5"], ["2"], ["3"], ["4", "4", "4"]]


def test_long_calls_take_turns_with_others():
    async def test(queue):
        pipe.gate.clear()
        long = submit(queue, "long", n=24)
        await until(pipe.begun.is_set)
        short = submit(queue, "short", steps=2)
        pipe.gate.set()
        await asyncio.gather(long.results(), short.results())

    pipe = FakePipeline()
    run(test, pipe)
    assert pipe.batches == [["long"] * 8, ["short"], ["long"] * 8, ["long"] * 8]


def test_one_bad_image_fails_its_own_call_only():
    async def test(queue):
        jobs = [submit(queue, prompt) for prompt in ("a", "b", "bad", "c")]
        found = await asyncio.gather(*(job.results() for job in jobs), return_exceptions=True)
        assert [len(one) if isinstance(one, list) else str(one) for one in found] == [1, 1, "bad values", 1]
        assert queue.images == 0

    run(test)


def test_out_of_memory_halves_the_micro_batch_and_later_ones():
    async def test(queue):
        jobs = [submit(queue, str(i)) for i in range(8)]
        await asyncio.gather(*(job.results() for job in jobs))
        later = [submit(queue, "later") for _ in range(4)]
        await asyncio.gather(*(job.results() for job in later))

    assert [len(batch) for batch in run(test, FakePipeline(room=3)).batches] == [8, 4, 2, 2, 2, 2, 2, 2]


def test_out_of_memory_with_one_image_is_an_error_that_clients_do_not_repeat():
    async def test(queue):
        with pytest.raises(MemoryError):
            await submit(queue).results()
        with pytest.raises(MemoryError):
            await submit(queue, best_of=3).results()

    run(test, FakePipeline(room=0))


def test_candidates_are_generated_in_the_batches_that_fit():
    async def test(queue):
        assert [result.seed for result in await submit(queue, best_of=5, n=2).results()] == [1, 2]

    assert [len(batch) for batch in run(test, FakePipeline(room=2)).batches] == [5, 3, 2, 2, 1]


def test_a_call_that_left_is_not_generated():
    async def test(queue):
        pipe.gate.clear()
        running = submit(queue, "running")
        await until(pipe.begun.is_set)
        gone = submit(queue, "gone", n=3)
        stays = submit(queue, "stays")
        queue.cancel(gone)
        pipe.gate.set()
        await asyncio.gather(running.results(), stays.results())
        assert queue.images == 0

    pipe = FakePipeline()
    run(test, pipe)
    assert pipe.batches == [["running"], ["stays"]]


def test_a_running_micro_batch_stops_if_all_its_calls_left():
    steps = []

    class Slow(FakePipeline):
        def generate_batch(self, requests, progress=None):
            self.batches.append([request.prompt for request in requests])
            for step in range(1000):
                steps.append(step)
                self.begun.set()
                time.sleep(0.005)
                progress("decoder", step, 1000)
            raise AssertionError("it went on")

    async def test(queue):
        one, other = submit(queue, "one"), submit(queue, "other")
        await until(pipe.begun.is_set)
        queue.cancel(one)
        await asyncio.sleep(0.05)
        count = len(steps)
        await asyncio.sleep(0.05)
        assert len(steps) > count, "one client is still there"
        queue.cancel(other)
        await queue.stop()
        assert len(steps) < 900

    pipe = Slow()
    run(test, pipe)


def test_a_full_queue_refuses_calls_and_says_when_to_come_back():
    async def test(queue):
        pipe.gate.clear()
        jobs = [submit(queue, n=3)]
        await until(pipe.begun.is_set)
        jobs.append(submit(queue, n=2))
        for call in (lambda: submit(queue, n=2), lambda: submit(queue, best_of=2)):
            with pytest.raises(ApiError) as error:
                call()
            assert error.value.status == 429
            assert 1 <= int(error.value.headers["retry-after"]) <= 120
        jobs.append(submit(queue, n=1))
        with pytest.raises(ApiError):
            queue.check_room()
        pipe.gate.set()
        await asyncio.gather(*(job.results() for job in jobs))
        queue.check_room()
        await submit(queue, n=6).results()

    pipe = FakePipeline()
    run(test, pipe, queue_size=6)


def test_input_images_that_wait_take_a_bounded_amount_of_memory():
    async def test(queue):
        request = Request(prompt="a", seed=1)
        queue.submit(request, "m", Interest(), memory=90)
        with pytest.raises(ApiError):
            queue.submit(request, "m", Interest(), memory=20)
        queue.submit(request, "m", Interest(), memory=10)

    run(test, max_memory=100)


def test_memory_is_held_until_a_job_is_released():
    async def test(queue):
        job = queue.submit(Request(prompt="a", seed=1), "m", Interest(), memory=90)
        await job.results()
        with pytest.raises(ApiError):
            queue.submit(Request(prompt="a", seed=1), "m", Interest(), memory=20)
        queue.release(job)
        queue.release(job)
        await queue.submit(Request(prompt="a", seed=1), "m", Interest(), memory=100).results()

    run(test, max_memory=100)


def test_a_client_that_reads_slowly_misses_steps_and_no_images():
    async def test(queue):
        jobs = [submit(queue, "a", n=8, interest=Interest(steps=True, previews=10)) for _ in range(1)]
        await until(lambda: not queue.images)
        events = [event async for event in jobs[0]]
        assert len(events) <= MAX_UNREAD + 8
        assert sum(isinstance(event, Finished) for event in events) == 8

    run(test, FakePipeline(steps=200))


def test_memory_of_a_failed_micro_batch_is_free_before_a_smaller_one():
    class Tensor:
        pass

    class Pipeline(FakePipeline):
        alive: list[weakref.ref] = []
        left: list[int] = []

        def generate_batch(self, requests, progress=None):
            self.left.append(sum(one() is not None for one in self.alive))
            held = Tensor()
            self.alive.append(weakref.ref(held))
            return super().generate_batch(requests, progress)

    async def test(queue):
        await submit(queue, n=8).results()

    assert run(test, Pipeline(room=2)).left == [0] * 6  # batches of 8, 4, 2, 2, 2 and 2


def test_a_queue_that_fails_refuses_calls_instead_of_letting_them_wait(monkeypatch):
    def fail(*_):
        raise RuntimeError("a bug")

    monkeypatch.setattr("unclip.server.queue.micro_batch", fail)

    async def test(queue):
        assert queue.runs
        with pytest.raises(ApiError) as error:
            await submit(queue).results()
        assert error.value.status == 503 and not queue.runs

    run(test)


def test_closing_finishes_what_runs_and_refuses_the_rest():
    async def test(queue):
        pipe.gate.clear()
        running = submit(queue, "running")
        await until(pipe.begun.is_set)
        waiting = submit(queue, "waiting", steps=2)
        queue.close()
        for call in (waiting.results(), asyncio.to_thread(queue.check_room)):
            with pytest.raises(ApiError) as error:
                await call
            assert error.value.status == 503
        pipe.gate.set()
        assert len(await running.results()) == 1

    pipe = FakePipeline()
    run(test, pipe)
    assert pipe.batches == [["running"]]


def test_events_come_to_those_who_want_them():
    async def test(queue):
        plain = submit(queue, "plain", seed=1)
        watched = submit(queue, "watched", seed=2, n=2, interest=Interest(steps=True, previews=2))
        kinds = [type(event) async for event in plain]
        assert kinds == [Finished]
        events = [event async for event in watched]
        assert [event.done for event in events if isinstance(event, Step)] == list(range(STEPS + 1))
        previews = [event for event in events if isinstance(event, Preview)]
        assert sorted((one.index, one.number) for one in previews) == [(0, 0), (0, 1), (1, 0), (1, 1)]
        assert all(one.image.getpixel((0, 0))[0] == 2 + one.index for one in previews)

    run(test)


def test_previews_of_equal_seeds_never_share_a_micro_batch():
    async def test(queue):
        jobs = [
            submit(queue, "1", interest=Interest(previews=1)),
            submit(queue, "2"),
            submit(queue, "3", seed=2),
        ]
        await asyncio.gather(*(job.results() for job in jobs))

    assert run(test).batches == [["1", "3"], ["2"]]


def test_an_unexpected_error_does_not_stop_the_queue():
    class Broken(FakePipeline):
        def generate_batch(self, requests, progress=None):
            if requests[0].prompt == "broken":
                raise KeyError("a bug")
            return super().generate_batch(requests, progress)[: 0 if requests[0].prompt == "short" else None]

    async def test(queue):
        for prompt in ("broken", "short"):
            with pytest.raises((KeyError, ValueError)):
                await submit(queue, prompt).results()
        assert len(await submit(queue, "fine").results()) == 1

    run(test, Broken())
