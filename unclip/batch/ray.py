"""Generate micro-batches on a Ray cluster: worker processes with a model each, on this machine or on many.

The driver reads and checks the prompt file, deals micro-batches out to whichever worker is free, and writes the images
and the manifest, as a run without Ray does. So both make the same folder, and only the driver needs access to it. The
unit of work is a micro-batch, not a shard: fast workers take more of them, and those of a worker that ends are given to
another.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from unclip.batch.generation import LocalEngine, Outcome, Output, Pipeline, describe_error
from unclip.batch.jobs import Job
from unclip.checkpoints.identity import ModelIdentity
from unclip.errors import InputError, UnclipError

AHEAD = 2
"""Micro-batches that a worker is given at a time: it goes on with the second while the driver writes the first."""
ATTEMPTS = 3
"""Workers that may end over a micro-batch, for lack of memory for instance, before its images count as failed."""
OBJECT_STORE = 512 << 20
"""Bytes of a local cluster's shared memory: results wait in it until the driver has written them."""


@dataclass(frozen=True)
class RayOptions:
    """The workers of a run.

    Attributes:
        workers: Their number; None for one for each GPU, or without GPUs one for each machine.
        gpus_per_worker: GPUs of each, such as 0.5 for two workers on one; None for 1 if there are GPUs.
        address: Of a running cluster, or "auto"; None starts one on this machine for the time of the run.
    """

    workers: int | None = None
    gpus_per_worker: float | None = None
    address: str | None = None


class Worker:
    """A process with a model.

    load: makes its pipeline. folder: the driver's working folder, which relative paths of images and models are from;
    every machine of a cluster must have it where there are such paths.
    """

    def __init__(
        self, load: Callable[[], Pipeline], model: ModelIdentity, output: Output, batch_size: int, folder: str
    ) -> None:
        self._load = load
        self._folder = folder
        self._settings = model, output, batch_size
        self._engine: LocalEngine | None = None
        self._notes: list[str] = []

    def load(self) -> str | None:
        """Load the model. Returns the problem if that fails."""
        if os.path.isdir(self._folder):
            os.chdir(self._folder)
        try:
            self._engine = LocalEngine(self._load(), *self._settings, note=self._notes.append)
        except Exception as error:  # of any kind: it is reported in one line
            return describe_error(error)
        return None

    def generate(self, batch: Sequence[Job]) -> tuple[list[Outcome], list[str]]:
        """The outcomes of a micro-batch, and notes for the user."""
        assert self._engine is not None, "load is called first"
        outcomes = [outcome for part in self._engine.generate(batch) for outcome in part]
        notes, self._notes[:] = list(self._notes), []
        return outcomes, notes


class RayEngine:
    """An `Engine` whose workers are actors of a Ray cluster. load: called in each worker; it must be picklable."""

    def __init__(
        self,
        options: RayOptions,
        load: Callable[[], Pipeline],
        model: ModelIdentity,
        output: Output,
        batch_size: int,
        note: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._options = options
        self._arguments = load, model, output, batch_size, os.getcwd()
        self._note = note

    def run(self, batches: Iterable[Sequence[Job]]) -> Iterator[list[Outcome]]:
        """The outcomes, in the order in which workers finish.

        Raises InputError for workers that the cluster has no room for, UnclipError if no worker can load the model.
        """
        ray = import_ray()
        with _cluster(ray, self._options.address):
            count, resources = self._resources(ray)
            actor = ray.remote(**resources)(Worker)
            yield from _Pool(ray, lambda: actor.remote(*self._arguments), count, self._note).run(batches)

    def _resources(self, ray: Any) -> tuple[int, dict[str, float]]:
        """The number of workers, and what each takes of the cluster."""
        there = ray.cluster_resources()
        cpus, gpus = int(there.get("CPU", 1)), there.get("GPU", 0)
        each = self._options.gpus_per_worker
        each = float(gpus > 0) if each is None else each
        default = int(gpus / each) if each else sum(node["Alive"] for node in ray.nodes())
        count = max(1, default) if self._options.workers is None else self._options.workers
        if each * count > gpus:
            raise InputError(f"{count} workers with {each:g} GPUs each need {each * count:g}; the cluster has {gpus:g}")
        if count > cpus:
            raise InputError(f"--workers {count}: the cluster has {cpus} CPU cores; use at most as many workers")
        # A worker lives on one machine, so it takes no more cores than the smallest has.
        cores = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
        smallest = min(filter(None, cores), default=1)  # a head node may offer none
        return count, {"num_cpus": 1 if each else max(1, min(cpus // count, smallest)), "num_gpus": each}


class _Pool:
    """Workers, and the micro-batches that each is busy with."""

    def __init__(self, ray: Any, start: Callable[[], Any], count: int, note: Callable[[str], None]) -> None:
        self._ray = ray
        self._start = start
        self._note = note
        self._loading: dict[Any, Any] = {}  # the call that loads a worker's model -> the worker
        self._busy: dict[Any, tuple[Any, Sequence[Job], int]] = {}  # call -> worker, micro-batch, attempt
        self._room: deque[Any] = deque()  # workers, once for each micro-batch that they can take
        self._ended: list[Any] = []  # workers that ended while they generated
        self._lost = 0  # workers that ended before they had loaded the model, in a row
        for _ in range(count):
            self._add_worker()

    def run(self, batches: Iterable[Sequence[Job]]) -> Iterator[list[Outcome]]:
        """The outcomes, in the order in which workers finish."""
        source = iter(batches)
        again: deque[tuple[Sequence[Job], int]] = deque()
        exhausted = False
        while True:
            while self._room and (again or not exhausted):
                batch, attempt = again.popleft() if again else (next(source, None), 1)
                if batch is None:
                    exhausted = True
                    break
                worker = self._room.popleft()
                self._busy[worker.generate.remote(batch)] = worker, batch, attempt
            if exhausted and not again and not self._busy:
                return
            # With a time limit, so that Python sees a Ctrl-C.
            calls = [*self._busy, *self._loading]
            if not self._ray.wait(calls, num_returns=1, timeout=1)[0]:
                continue
            # All that is there, so that many images are written at once: to a store behind a URL, that is faster.
            found: list[Outcome] = []
            for call in self._ray.wait(calls, num_returns=len(calls), timeout=0)[0]:
                if call in self._loading:
                    self._take_loaded(call)
                    continue
                worker, batch, attempt = self._busy.pop(call)
                try:
                    outcomes, notes = self._ray.get(call)
                except self._ray.exceptions.RayActorError:
                    self._replace(worker)
                    if attempt < ATTEMPTS:
                        again.append((batch, attempt + 1))
                    else:
                        found += [(job, f"{ATTEMPTS} workers ended while they generated it") for job in batch]
                    continue
                self._room.append(worker)
                for note in notes:
                    self._note(note)
                found += outcomes
            if found:
                yield found

    def _add_worker(self) -> None:
        worker = self._start()
        self._loading[worker.load.remote()] = worker

    def _take_loaded(self, call: Any) -> None:
        """Use a worker whose model is loaded. Raises UnclipError if it could not be."""
        worker = self._loading.pop(call)
        try:
            problem = self._ray.get(call)
        except self._ray.exceptions.RayActorError as error:
            self._lost += 1
            if self._lost >= ATTEMPTS:
                raise UnclipError(
                    f"{ATTEMPTS} workers ended while they loaded the model: give them more memory, or fewer --workers"
                ) from error
            self._add_worker()
            return
        if problem is not None:
            raise UnclipError(f"a worker cannot load the model: {problem}")
        self._lost = 0
        self._room.extend([worker] * AHEAD)

    def _replace(self, worker: Any) -> None:
        """Start another worker in the place of one that ended. Each of its calls fails; only the first counts."""
        if any(other is worker for other in self._ended):
            return
        self._ended.append(worker)
        self._room = deque(other for other in self._room if other is not worker)
        self._note("a worker ended; others generate its images")
        self._add_worker()


def import_ray() -> Any:
    """The module. Raises InputError if the extra is not installed."""
    # Nothing about the run leaves this machine, and a worker keeps the CUDA devices that it sees.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise InputError("--engine ray needs Ray: pip install 'unclip[ray]'") from None
    return ray


@contextmanager
def _cluster(ray: Any, address: str | None) -> Iterator[None]:
    """A connection to a cluster; without an address, a cluster of this machine that ends with the context."""
    if ray.is_initialized():
        yield
        return
    logging.getLogger("ray").setLevel(logging.ERROR)
    settings: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
    if address is None:
        settings |= {"include_dashboard": False, "object_store_memory": OBJECT_STORE, "address": "local"}
    else:
        _check_reachable(address)
        settings["address"] = address
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(**settings)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise InputError(f"no Ray cluster at {address!r}: {str(error).splitlines()[0]}") from error
    finally:
        # Ray's own handler would end the process at once, and the images that are under way would be lost.
        with suppress(ValueError, TypeError):  # not the main thread, or a handler that is not Python's
            signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Raise InputError if nobody listens at "host:port": Ray itself would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:  # "auto"
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        raise InputError(f"no Ray cluster at {address!r}: {error}") from None
