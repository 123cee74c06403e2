"""A process speaking of itself: at once when something changes, and every few seconds so that silence means trouble."""

from collections.abc import Callable
from typing import Literal

from wheeltapper.clock import Clock
from wheeltapper.health import write_health
from wheeltapper.messages import Health, encode
from wheeltapper.topics import topic_of
from wheeltapper_components.links import Links
from wheeltapper_components.settings import GatewaySettings

Status = Literal["starting", "ready", "degraded", "stopping", "stopped"]
_DETAIL = 1_500


class Pulse:
    """
    Publishes ``messages.Health`` on the gateway's own topic, now or never: stale health is worse than none.

    The latest is also left in the data directory, for ``wheeltapper health``.

    Args:
        process: whose health it is.
        condition: whether all is well, and what is to be said.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        process: str,
        links: Links,
        clock: Clock,
        condition: Callable[[], tuple[bool, str]],
    ) -> None:
        self._thing = settings.thing
        self._data_dir = settings.data_dir
        self._topic = topic_of(settings.topics.health, settings.thing)
        self._period_s = settings.health_s
        self._process = process
        self._links = links
        self._clock = clock
        self._condition = condition
        self._due = clock.monotonic()
        self._connected = False

    def beat_when_due(self) -> None:
        """Say how things stand, if it is time or the broker came or went."""
        if self._clock.monotonic() >= self._due or self._connected != self._links.first.transport.connected:
            self.beat()

    def beat(self, status: Status | None = None) -> None:
        """Say how things stand now; the status follows from the condition where none is given."""
        self._due = self._clock.monotonic() + self._period_s
        well, detail = self._condition()
        self._connected = self._links.first.transport.connected
        if not self._connected:
            well, detail = False, f"{self._links.first.name}: not connected; {detail}"
        self.tell(status if status is not None and well else ("ready" if well else "degraded"), detail)

    def tell(self, status: Status, detail: str) -> None:
        """Say one thing."""
        health = Health(
            thing=self._thing,
            time_ms=self._clock.time_ms(),
            process=self._process,
            status=status,
            detail=detail[:_DETAIL],
        )
        payload = encode(health)
        self._links.tell(self._topic, payload)
        write_health(self._data_dir, payload, self._process)
