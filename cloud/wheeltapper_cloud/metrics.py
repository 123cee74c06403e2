"""What Prometheus scrapes: requests, messages, and how the judge is doing."""

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from wheeltapper.judge import Statistics
from wheeltapper_cloud.ingest import Ingest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

_COUNTERS = {
    "accepted": "messages accepted for an input",
    "repeated": "messages ignored because their id came before",
    "refused": "messages refused",
    "failed": "messages that the engine broke on; the log says why",
    "dropped": "messages that reached no detector for want of a valid key",
}
_INGESTED = {
    "received": "messages that came from the broker for a rule",
    "malformed": "messages from the broker that were dropped: a rule made nothing of them, or the input refused them",
    "passed_over": "messages from the broker for which a rule's WHERE clause did not hold",
}
_GAUGES = {
    "queue_depth": "entries waiting for the judge",
    "detectors": "detectors and alarms held",
    "actions_pending": "actions waiting for delivery",
    "actions_parked": "actions given up until an operator replays them",
    "journal_bytes": "size of the journal",
    "writable": "1 while the journal can be written",
}


class Metrics:
    """The process's metrics; safe from any thread."""

    def __init__(self, statistics: Callable[[], Statistics], why_not_ready: Callable[[], str]) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, which tells when it was first counted
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "wheeltapper_requests", "answers to API requests", ["operation", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "wheeltapper_request_seconds",
            "time from a request's body to its answer",
            ["operation"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._children: dict[tuple[str, int], tuple[Counter, Histogram]] = {}
        self.registry.register(_JudgeCollector(statistics, why_not_ready))

    def answered(self, operation: str, status: int, seconds: float) -> None:
        """Count one answer; ``operation`` is one of the service models' or ``unknown``."""
        if (operation, status) not in self._children:
            children = (self._requests.labels(operation, str(status)), self._seconds.labels(operation))
            self._children[operation, status] = children
        count, time = self._children[operation, status]
        count.inc()
        time.observe(seconds)

    def text(self) -> bytes:
        """All of it, in Prometheus' format."""
        return generate_latest(self.registry)


class _JudgeCollector:
    """Asks the judge when Prometheus asks us."""

    def __init__(self, statistics: Callable[[], Statistics], why_not_ready: Callable[[], str]) -> None:
        self._statistics = statistics
        self._why_not_ready = why_not_ready

    def collect(self) -> Iterator[Metric]:
        found = self._statistics()
        for name, text in _COUNTERS.items():
            yield CounterMetricFamily(f"wheeltapper_messages_{name}", text, value=getattr(found, name))
        for name, text in _GAUGES.items():
            yield GaugeMetricFamily(f"wheeltapper_{name}", text, value=float(getattr(found, name)))
        yield GaugeMetricFamily(
            "wheeltapper_ready", "1 while messages can be taken", value=float(not self._why_not_ready())
        )


class IngestCollector:
    """What has become of messages from the broker."""

    def __init__(self, ingest: Ingest) -> None:
        self._ingest = ingest

    def collect(self) -> Iterator[Metric]:
        for name, text in _INGESTED.items():
            yield CounterMetricFamily(f"wheeltapper_ingest_{name}", text, value=getattr(self._ingest, name))
