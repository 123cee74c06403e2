"""What somebody has to see to, for Prometheus: alarms, actions that did not arrive, a broker away, a disk filling up."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily, Metric

from wheeltapper.clock import Clock
from wheeltapper.errors import WheeltapperError
from wheeltapper.judge import Statistics
from wheeltapper.transport import Transport
from wheeltapper_cloud.records import Records


class Upkeep:
    """A collector for a Prometheus registry; what cannot be found out now is left out."""

    def __init__(
        self,
        statistics: Callable[[], Statistics],
        records: Records,
        data_dir: Path,
        clock: Clock,
        transport: Transport | None = None,
    ) -> None:
        self._statistics = statistics
        self._records = records
        self._data_dir = data_dir
        self._clock = clock
        self._transport = transport

    def describe(self) -> list[Metric]:
        """Nothing ahead of time: the judge has not started when a registry asks."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Each number with its name and meaning."""
        for name, meaning, value in self._numbers():
            yield GaugeMetricFamily(f"wheeltapper_{name}", meaning, value=value)

    def _numbers(self) -> Iterator[tuple[str, str, float]]:
        if self._transport is not None:
            yield "broker_connected", "1 while the broker is connected", float(self._transport.connected)
        with suppress(OSError):
            free = float(shutil.disk_usage(self._data_dir).free)
            yield "disk_free_bytes", "room on the data directory's disk", free
        try:
            found, counts = self._statistics(), self._records.counts()
        except WheeltapperError:
            return
        behind = found.applied_position - found.snapshot_position
        yield "journal_rows_to_replay", "rows that a restart would apply again", float(behind)
        yield "last_commit_timestamp_seconds", "when something was last written", found.last_commit_ms / 1000
        yield "alarms_open", "alarms that ring", float(counts.open)
        yield "alarms_unacknowledged", "alarms that ring and that nobody has taken up", float(counts.unacknowledged)
        yield "actions_failed", "actions that their target refused, until somebody replays them", float(counts.failed)
        yield "actions_undelivered", "actions that nothing is mapped to", float(counts.undelivered)
        oldest = counts.oldest_pending_ms
        waits_s = 0.0 if oldest is None else (self._clock.time_ms() - oldest) / 1000
        yield "actions_oldest_pending_seconds", "how long the oldest pending action has waited", max(0.0, waits_s)
