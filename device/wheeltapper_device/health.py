"""How the device is: told on its health topic, and left in its data directory for ``wheeltapper health``."""

import threading
from typing import Literal

from wheeltapper import topics
from wheeltapper.clock import Clock
from wheeltapper.health import write_health
from wheeltapper.messages import Health, encode
from wheeltapper.outbox import Outbox
from wheeltapper.sender import Sender
from wheeltapper.transport import Transport
from wheeltapper_device.agent import Agent
from wheeltapper_device.settings import DeviceSettings

Status = Literal["starting", "ready", "degraded", "stopping", "stopped"]


class Reporter:
    """Reports every ``health_s`` seconds, and at once when the status changes."""

    def __init__(
        self,
        settings: DeviceSettings,
        agent: Agent,
        outbox: Outbox,
        sender: Sender,
        transport: Transport,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._agent = agent
        self._outbox = outbox
        self._sender = sender
        self._transport = transport
        self._clock = clock
        self._topic = topics.topic_of(settings.topics.health, settings.thing)
        self._told: tuple[str, str] = ("", "")
        self._due = clock.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="health", daemon=True)

    def start(self) -> None:
        """Begin to report."""
        self._thread.start()

    def close(self) -> None:
        """Say good-bye."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._report("stopped", "")

    def report(self) -> None:
        """Report if it is time to, or if there is news."""
        well = self._transport.connected and not self._agent.trouble and not self._refusals()
        status: Status = "ready" if well else "degraded"
        news = (status, self._agent.fault)
        if news != self._told or self._clock.monotonic() >= self._due:
            self._told = news
            self._due = self._clock.monotonic() + self._settings.health_s
            self._report(status, self._detail())

    def _detail(self) -> str:
        parts = [f"{self._agent.sequence} readings, {len(self._outbox)} wait"]
        if self._outbox.dropped:
            parts.append(f"{self._outbox.dropped} dropped")
        if not self._transport.connected:
            parts.append("broker away")
        if self._agent.finished:
            parts.append("source at its end")
        return "; ".join(filter(None, [*parts, self._refusals(), self._agent.trouble, self._agent.fault]))

    def _refusals(self) -> str:
        return "; ".join(filter(None, [self._sender.trouble, self._transport.trouble]))

    def _report(self, status: Status, detail: str) -> None:
        now_ms = self._clock.time_ms()
        health = Health(thing=self._settings.thing, time_ms=now_ms, process="device", status=status, detail=detail)
        payload = encode(health)
        self._transport.publish(self._topic, payload)
        write_health(self._settings.data_dir, payload)

    def _run(self) -> None:
        while not self._stop.is_set():
            self.report()
            self._clock.wait(self._stop, min(0.5, self._settings.health_s))
