"""A gateway in one thread and virtual time: memory brokers, a manual clock, links that are driven by hand."""

import json
from pathlib import Path
from typing import Any

from wheeltapper.clock import ManualClock
from wheeltapper.messages import Reading, encode
from wheeltapper.transport.memory import MemoryBroker
from wheeltapper_components.inference import Inference
from wheeltapper_components.links import Link, Links
from wheeltapper_components.settings import GatewaySettings, ModelSettings, StoreSettings

START_MS = 1_700_000_000_000


class MemoryGateway:
    """Inference on a local broker, with a second one for the cloud."""

    def __init__(self, folder: Path, clock: ManualClock | None = None, **settings: Any) -> None:
        self.clock = clock or ManualClock(START_MS)
        self.local = MemoryBroker()
        self.cloud = MemoryBroker()
        self.device = self.local.transport()
        self.device.start()
        self.folder = folder
        settings.setdefault("store", StoreSettings(flush=False))
        settings.setdefault("models", [ModelSettings(things=["motor-*"], folder=folder / "model")])
        self.settings = GatewaySettings(data_dir=folder / "data", **settings)
        self._local_client = self.local.transport()
        self._cloud_client = self.cloud.transport()
        self.open()

    def open(self) -> None:
        """Start, or start again after ``close``, on the same data and sessions."""
        self.links = memory_links(self.settings, self.clock, self._local_client, self._cloud_client, self.folder)
        self.inference = Inference(self.settings, self.links, self.clock)
        self.inference.open()
        for link in self.links.all:
            if not link.transport.connected and not self.cloud.away:
                link.transport.start()
        self._local_client.redeliver()

    def close(self) -> None:
        self.inference.close()
        for link in self.links.all:
            link.sender.close()
            link.outbox.close()

    def send(self, *numbers: int, thing: str = "motor-1", time_ms: int | None = None, **values: Any) -> None:
        """Publish readings m0, m1, … taken at as many seconds."""
        for number in numbers:
            at = 1_000 * number if time_ms is None else time_ms
            reading = Reading(f"m{number}", thing, at, {"TT01": 60.0 + number % 7, "TT02": 1.0, **values})
            self.send_raw(encode(reading), thing)

    def send_raw(self, payload: bytes, thing: str = "motor-1") -> None:
        self.device.publish(f"wt/{thing}/reading", payload)

    def run(self) -> None:
        """Carry everything as far as it goes."""
        for _ in range(50):
            moved = self.local.deliver() + self.cloud.deliver() + self.inference.work()
            moved += self.inference.upkeep()
            moved += sum(link.sender.send_waiting() for link in self.links.all)
            if not moved:
                return

    def heard(self, kind: str = "prediction", broker: str = "local") -> list[dict[str, Any]]:
        published = getattr(self, broker).published
        return [json.loads(payload) for topic, payload in published if topic.endswith("/" + kind)]

    def scored(self) -> list[str]:
        """The ids of the readings for which predictions came, in order."""
        return [prediction["reading_id"] for prediction in self.heard()]


def memory_links(
    settings: GatewaySettings, clock: ManualClock, local: Any, cloud: Any, folder: Path, process: str = "inference"
) -> Links:
    """Two links whose outboxes lie in the folder; neither is started."""
    store = settings.store
    lies = folder / "data" / process
    return Links([Link("local", local, lies, store, clock), Link("cloud", cloud, lies, store, clock, reads=False)])
