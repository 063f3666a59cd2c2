"""The counters of a server, as Prometheus reads them."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)


class Metrics:
    """The counters of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.calls = Counter(
            "unclip_http_requests", "Calls, by path and status.", ["path", "status"], registry=registry
        )
        self.images = Counter(
            "unclip_images", "Images, by model, mode and outcome.", ["model", "mode", "outcome"], registry=registry
        )
        self.waiting = Gauge("unclip_queue_images", "Images that wait or are being generated.", registry=registry)
        self.wait = Histogram(
            "unclip_queue_wait_seconds", "Time that an image waited.", buckets=_SECONDS, registry=registry
        )
        self.batch_size = Histogram(
            "unclip_batch_images", "Images of a micro-batch.", buckets=(1, 2, 4, 8, 16, 32, 64), registry=registry
        )
        self.batch_seconds = Histogram(
            "unclip_batch_seconds", "Time to generate a micro-batch.", buckets=_SECONDS, registry=registry
        )
        self.out_of_memory = Counter(
            "unclip_out_of_memory", "Micro-batches that memory had no room for.", registry=registry
        )
        self.held = Gauge(
            "unclip_call_bytes", "Bodies, images and results of calls that are not answered.", registry=registry
        )
        self.stored = Gauge("unclip_stored_bytes", "Results and uploads that are kept.", registry=registry)

    def text(self) -> bytes:
        """All counters in Prometheus's text format."""
        return generate_latest(self.registry)
