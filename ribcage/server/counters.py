"""Counters: how much was asked and how fast it was answered, as Prometheus reads it; nothing of any image."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
IMAGES = (1, 2, 4, 8, 16, 32)


class Counters:
    """Of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = own = CollectorRegistry()
        self.requests = Counter("ribcage_requests", "Requests answered.", ("route", "status"), registry=own)
        self.seconds = Histogram(
            "ribcage_request_seconds", "From a request's head to its answer.", ("route",), buckets=SECONDS, registry=own
        )
        self.batches = Histogram(
            "ribcage_batch_images", "Images that a model answered at once.", ("model",), buckets=IMAGES,
            registry=own,
        )  # fmt: skip
        self.waiting = Gauge("ribcage_waiting_images", "Images that wait for a model.", registry=own)
        self.working = Gauge("ribcage_requests_at_work", "Requests that are being answered.", registry=own)
        self.unreadable = Counter("ribcage_unreadable_files", "Files that could not be read.", registry=own)

    def text(self) -> bytes:
        """All of them."""
        return generate_latest(self.registry)
