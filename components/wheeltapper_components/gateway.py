"""
The gateway as one process: its links, inference, and detectors where they are configured, from start to stop.
"""

import logging
import signal
import threading
from types import FrameType
from typing import Protocol

import msgspec

from wheeltapper.clock import Clock
from wheeltapper.errors import SettingsError, WheeltapperError
from wheeltapper.health import forget_health
from wheeltapper.transport.patient import PatientTransport
from wheeltapper.transport.settings import BrokerSettings, open_transport
from wheeltapper_components.health import Pulse
from wheeltapper_components.links import Link, Links
from wheeltapper_components.settings import GatewaySettings
from wheeltapper_components.threads import hand_over_quickly

log = logging.getLogger(__name__)

_CONNECT_S = 3.0


def broker_links(settings: GatewaySettings, process: str, clock: Clock) -> Links:
    """The links of one process through brokers: the local one, and the cloud's where it is set."""
    links = [_broker_link("broker", settings, settings.broker, process, clock)]
    if settings.cloud is not None:
        links.append(_broker_link("cloud", settings, settings.cloud, process, clock))
    return Links(links)


def _broker_link(name: str, settings: GatewaySettings, broker: BrokerSettings, process: str, clock: Clock) -> Link:
    broker.host_and_port()
    broker.check_files()
    named = msgspec.structs.replace(broker, client_id=f"{broker.client_id or settings.thing}-{process}")
    transport = PatientTransport(lambda: open_transport(named, client="bulk"), clock)
    return Link(name, transport, settings.data_dir / process, settings.store, clock, reads=name == "broker")


class Service(Protocol):
    """What runs on links: ``Inference`` or ``Detectors``."""

    pulse: Pulse

    def open(self) -> None: ...

    def start(self) -> None: ...

    def close(self) -> None: ...


class Gateway:
    """
    Inference where models are configured, and detectors where they are.

    Args:
        settings: all of them.
        clock: for everything inside.

    Raises:
        SettingsError: neither is configured, or a broker's address or credentials cannot be.
    """

    def __init__(self, settings: GatewaySettings, clock: Clock) -> None:
        if not settings.models and not settings.detectors.models:
            raise SettingsError("gateway: there is nothing to do; name a model under [[models]] or in detectors.models")
        self._data_dir = settings.data_dir
        self._clock = clock
        self._stopping = threading.Event()
        self._services: list[tuple[Service, Links]] = []
        try:
            for wanted, name, kind in (
                (settings.models, "inference", _inference),
                (settings.detectors.models, "detectors", _detectors),
            ):
                if wanted:
                    links = broker_links(settings, name, clock)
                    self._services.append((kind(settings, links, clock), links))
        except WheeltapperError:
            self.close()
            raise

    def start(self) -> None:
        """
        Load, connect, serve; a broker that is away is waited for while everything else goes on.

        Raises:
            ModelError: a model cannot be loaded.
            DefinitionError: a detector model is not valid.
        """
        forget_health(self._data_dir)
        for service, links in self._services:
            service.open()
            links.start()
        deadline = self._clock.monotonic() + _CONNECT_S
        for service, links in self._services:
            while not links.first.transport.connected and self._clock.monotonic() < deadline:
                self._clock.wait(self._stopping, 0.02)
            service.start()

    def close(self) -> None:
        """Stop taking work, flush, disconnect; harmless when repeated."""
        self._stopping.set()
        services, self._services = self._services, []
        for service, links in services:
            service.close()
            service.pulse.tell("stopped", "")
            links.close()


def _inference(settings: GatewaySettings, links: Links, clock: Clock) -> Service:
    from wheeltapper_components.inference import Inference

    return Inference(settings, links, clock)


def _detectors(settings: GatewaySettings, links: Links, clock: Clock) -> Service:
    from wheeltapper_components.detectors import Detectors

    return Detectors(settings, links, clock)


def run_until_told(gateway: Gateway, stop: threading.Event | None = None) -> None:
    """Run until SIGTERM or SIGINT, or until ``stop`` is set."""
    told = stop or threading.Event()

    def tell(_signal: int, _frame: FrameType | None) -> None:
        told.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, tell)
    hand_over_quickly()
    try:
        gateway.start()
        told.wait()
        log.info("stopping")
    finally:
        gateway.close()
