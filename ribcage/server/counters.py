"""Counters: Prometheus metrics of requests, latencies, batches and queues, without data from images."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
IMAGES = (1, 2, 4, 8, 16, 32)


class Counters:
    """Metrics of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = own = CollectorRegistry()
        self.requests = Counter("ribcage_requests", "Requests.", ("route", "status"), registry=own)
        self.seconds = Histogram(
            "ribcage_request_seconds",
            "Time from the head of a request to the end of its response.",
            ("route",),
            buckets=SECONDS,
            registry=own,
        )
        self.batches = Histogram(
            "ribcage_batch_images", "Batch size.", ("model",), buckets=IMAGES,
            registry=own,
        )  # fmt: skip
        self.waiting = Gauge("ribcage_waiting_images", "Images waiting for a model.", registry=own)
        self.working = Gauge("ribcage_requests_at_work", "Requests in progress.", registry=own)
        self.unreadable = Counter("ribcage_unreadable_files", "Unreadable files.", registry=own)

    def text(self) -> bytes:
        """All metrics as text."""
        return generate_latest(self.registry)
