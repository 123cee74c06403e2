"""
The gateway as one process: its links, inference, and detectors where they are configured, from start to stop.
"""

import logging
import signal
import threading
from types import FrameType

from wheeltapper.clock import Clock
from wheeltapper.transport.settings import BrokerSettings, open_transport
from wheeltapper_components.inference import Inference
from wheeltapper_components.links import Link, Links
from wheeltapper_components.settings import GatewaySettings

log = logging.getLogger(__name__)


def broker_links(settings: GatewaySettings, process: str, clock: Clock) -> Links:
    """The links of one process through brokers: the local one, and the cloud's where it is set."""
    folder = settings.data_dir / process
    links = [_broker_link("broker", settings, settings.broker, process, clock)]
    if settings.cloud is not None:
        links.append(_broker_link("cloud", settings, settings.cloud, process, clock))
    log.debug("%s keeps its data in %s", process, folder)
    return Links(links)


def _broker_link(name: str, settings: GatewaySettings, broker: BrokerSettings, process: str, clock: Clock) -> Link:
    transport = open_transport(broker, client_id=f"{settings.thing}-{process}")
    return Link(name, transport, settings.data_dir / process, settings.store, clock)


class Gateway:
    """
    Inference, and detectors where they are configured.

    Args:
        settings: all of them.
        clock: for everything inside.
    """

    def __init__(self, settings: GatewaySettings, clock: Clock) -> None:
        self.inference_links = broker_links(settings, "inference", clock)
        self.inference = Inference(settings, self.inference_links, clock)

    def start(self) -> None:
        """
        Load, connect, serve.

        Raises:
            ModelError: a model cannot be loaded.
            UnavailableError: the broker is away.
        """
        self.inference.open()
        self.inference_links.start()
        self.inference.start()

    def close(self) -> None:
        """Stop taking work, flush, disconnect."""
        self.inference.close()
        self.inference.pulse.tell("stopped", "")
        self.inference_links.close()


def run_until_told(start: "Gateway", stop: threading.Event | None = None) -> None:
    """Run until SIGTERM or SIGINT, or until ``stop`` is set."""
    told = stop or threading.Event()

    def tell(_signal: int, _frame: FrameType | None) -> None:
        told.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, tell)
    try:
        start.start()
        told.wait()
        log.info("stopping")
    finally:
        start.close()
