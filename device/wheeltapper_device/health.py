"""How the device is: told on its health topic, and left in a file for the container's health check."""

import json
import threading
from pathlib import Path
from typing import Literal

from wheeltapper import topics
from wheeltapper.clock import Clock
from wheeltapper.errors import UnavailableError
from wheeltapper.messages import Health, encode
from wheeltapper.outbox import Outbox
from wheeltapper.transport import Transport
from wheeltapper_device.agent import Agent
from wheeltapper_device.settings import DeviceSettings

_FILE = "health.json"
_STALE_REPORTS = 6
Status = Literal["starting", "ready", "degraded", "stopping", "stopped"]


class Reporter:
    """Reports every ``health_s`` seconds, and at once when the status changes."""

    def __init__(
        self, settings: DeviceSettings, agent: Agent, outbox: Outbox, transport: Transport, clock: Clock
    ) -> None:
        self._settings = settings
        self._agent = agent
        self._outbox = outbox
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
        status: Status = "ready" if self._transport.connected and not self._agent.trouble else "degraded"
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
        return "; ".join(filter(None, [*parts, self._agent.trouble, self._agent.fault]))

    def _report(self, status: Status, detail: str) -> None:
        now_ms = self._clock.time_ms()
        health = Health(thing=self._settings.thing, time_ms=now_ms, process="device", status=status, detail=detail)
        payload = encode(health)
        self._transport.publish(self._topic, payload)
        _write(self._settings.data_dir / _FILE, payload)

    def _run(self) -> None:
        while not self._stop.is_set():
            self.report()
            self._clock.wait(self._stop, min(0.5, self._settings.health_s))


def check_health(settings: DeviceSettings, clock: Clock) -> str:
    """
    What the running agent last said of itself.

    Raises:
        UnavailableError: nothing, nothing lately, or that it is not well.
    """
    path = settings.data_dir / _FILE
    try:
        health = json.loads(path.read_text(encoding="utf-8"))
        age_s = (clock.time_ms() - health["time_ms"]) / 1000.0
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnavailableError(f"{path}: says nothing; is wheeltapper device run at work?") from error
    if abs(age_s) > _STALE_REPORTS * settings.health_s:
        raise UnavailableError(f"{path}: is {age_s:.0f} s old; the agent no longer reports")
    if health.get("status") != "ready":
        raise UnavailableError(f"device {health.get('thing')}: {health.get('status')}: {health.get('detail')}")
    return f"{health['status']}: {health['detail']}"


def _write(path: Path, payload: bytes) -> None:
    fresh = path.with_suffix(".new")
    try:
        fresh.write_bytes(payload)
        fresh.replace(path)
    except OSError:
        return  # a full disk: the check sees that the file gets old
