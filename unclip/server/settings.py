"""The settings of a server."""

from dataclasses import dataclass

from unclip.requests.batching import BATCH

SIZES = ("nearest", "exact")
"""A size that a model does not generate is made from the nearest one that it does, or refused."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """The settings of a server. Sizes are in bytes, times in seconds.

    api_keys       keys, one of which each call must have; none: no key is asked for
    hosts          names in the Host header that are served; None: every name
    origins        other web pages ("https://example.com") whose scripts may call this server
    max_images     images of one call
    max_body       of one call
    max_pixels     of one input image, and of one canvas
    head_timeout   until the head of a call has arrived, since its first byte or the beginning of its connection
    idle_timeout   until a connection without a call is closed, in whole seconds
    body_timeout   until a call has arrived completely
    send_timeout   in which a client must read some of its answer
    batch_size     images that are generated together
    batch_wait     without another call, after which a micro-batch that is not full begins; at most five times as long
    sizes          for sizes that a model does not generate: one of SIZES
    queue_size     images that wait or run; further calls are refused with status 429
    max_memory     of the bodies, decoded images and results of all calls, until they are answered
    keep_time      that a result or an upload can be fetched, since it was last used
    keep_size      of all results and uploads together; the least recently used ones are dropped first
    """

    api_keys: tuple[str, ...] = ()
    hosts: tuple[str, ...] | None = LOOPBACK
    origins: tuple[str, ...] = ()
    max_images: int = 10
    max_body: int = 50 << 20
    max_pixels: int = 1 << 24
    head_timeout: float = 30.0
    idle_timeout: int = 30
    body_timeout: float = 60.0
    send_timeout: float = 60.0
    batch_size: int = BATCH
    batch_wait: float = 0.01
    sizes: str = "nearest"
    queue_size: int = 256
    max_memory: int = 1 << 30
    keep_time: float = 3600.0
    keep_size: int = 256 << 20
