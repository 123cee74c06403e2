"""Where readings come from, one step after another, resumable: a simulated machine here, a recorded file in ``replay``."""

from typing import Protocol

import msgspec

from wheeltapper.errors import SettingsError
from wheeltapper.messages import UNREADABLE, Value
from wheeltapper_device.machines import Fault, Simulation, Snapshot
from wheeltapper_device.settings import SimulationSettings


class Step(msgspec.Struct, frozen=True):
    """
    One reading to be sent.

    Args:
        values: sensor or attribute → value.
        pause_s: wall seconds until the next step is due.
        time_ms: when it was taken; None for now.
        begun: the faults that begin with it.
    """

    values: dict[str, Value]
    pause_s: float
    time_ms: int | None = None
    begun: tuple[Fault, ...] = ()


class Source(Protocol):
    """A resumable sequence of steps."""

    @property
    def identity(self) -> str:
        """What this is a source of; a position holds for sources of equal identity only."""

    def next(self) -> Step | None:
        """The next step; None at the end."""

    def position(self) -> bytes:
        """The place after the latest step."""

    def restore(self, position: bytes) -> None:
        """Go on at a place."""

    def begin_fault(self, name: str) -> Fault:
        """
        Let a fault begin with the next step.

        Raises:
            SettingsError: this source has no such fault.
        """


class SimulatedSource:
    """A simulated machine, as fast as its settings say."""

    def __init__(self, settings: SimulationSettings, thing: str) -> None:
        self._simulation = Simulation(
            settings.scenario,
            settings.seed,
            fault=settings.fault,
            onset_s=settings.onset_s,
            growth_s=settings.growth_s,
            rate_hz=settings.rate_hz,
        )
        self._pause_s = self._simulation.period_s / settings.time_scale
        self._attributes = self._simulation.machine.attributes(thing)
        self.identity = msgspec.json.encode(msgspec.structs.replace(settings, time_scale=1.0)).decode()

    def next(self) -> Step | None:
        sample = self._simulation.next()
        begun = tuple(self._simulation.planned[name] for name in sample.begun)
        return Step({**self._attributes, **sample.values}, self._pause_s, begun=begun)

    def position(self) -> bytes:
        return msgspec.json.encode(self._simulation.snapshot())

    def restore(self, position: bytes) -> None:
        try:
            self._simulation.restore(msgspec.json.decode(position, type=Snapshot))
        except UNREADABLE as error:
            raise SettingsError(f"simulation: the saved position cannot be read: {error}") from error

    def begin_fault(self, name: str) -> Fault:
        return self._simulation.begin(name)
