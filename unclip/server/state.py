"""What the routes of one server share."""

from dataclasses import dataclass

from starlette.requests import Request as HttpRequest

from unclip.server.memory import Memory
from unclip.server.metrics import Metrics
from unclip.server.openai import Models, Protocol
from unclip.server.queue import Queue
from unclip.server.settings import ServerSettings
from unclip.server.store import Store


@dataclass(frozen=True)
class State:
    """The parts of one server. started: seconds since the epoch."""

    settings: ServerSettings
    models: Models
    protocol: Protocol
    queue: Queue
    store: Store
    metrics: Metrics
    memory: Memory
    started: int


def state_of(http: HttpRequest) -> State:
    """The state of the server that a call came to."""
    return http.app.state.server
