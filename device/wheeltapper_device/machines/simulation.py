"""A machine in virtual time: the samples of one seed, one after another, and the place to resume from."""

from random import Random
from typing import TYPE_CHECKING

import msgspec

from wheeltapper.errors import SettingsError

if TYPE_CHECKING:
    from wheeltapper_device.machines.machine import Fault, Machine

NO_FAULT = "none"
# Samples before the first one that is given out, so that the machine has forgotten its initial state.
_WARM_UP = 300


class Sample(msgspec.Struct, frozen=True):
    """One moment of a machine; ``severity`` is that of the worst fault, ``begun`` the faults that begin here."""

    index: int
    time_s: float
    values: dict[str, float]
    severity: float
    begun: tuple[str, ...]


class Snapshot(msgspec.Struct, frozen=True):
    """All that a simulation needs to go on: the next index, the machine's state, when each fault begins."""

    index: int
    state: dict[str, float]
    onsets_s: dict[str, float]


class Simulation:
    """
    The samples of one scenario and seed.

    Args:
        scenario: a name in ``MACHINES``.
        seed: decides noise, duty cycle, the fault and its onset.
        fault: the fault's name, ``NO_FAULT``, or empty for one that the seed chooses.
        onset_s: machine seconds until the fault begins; the seed chooses when it is None.
        growth_s: machine seconds from there to its full effect; the fault's own when it is None.
        rate_hz: samples per machine second; the machine's own when it is None.

    Raises:
        SettingsError: no such scenario or fault, or a rate or growth that is not above zero.
    """

    def __init__(
        self,
        scenario: str,
        seed: int = 0,
        *,
        fault: str = "",
        onset_s: float | None = None,
        growth_s: float | None = None,
        rate_hz: float | None = None,
    ) -> None:
        machine_type = machine_of(scenario)
        self._seed = seed
        self._random = Random()
        self._reseed(-_WARM_UP - 1)
        self.machine: Machine = machine_type(self._random)
        self.period_s = 1.0 / _positive("rate", rate_hz) if rate_hz is not None else machine_type.period_s
        self._growth_s = _positive("growth", growth_s) if growth_s is not None else None
        self._faults = {each.name: each for each in machine_type.faults}
        self._onsets_s = self._plan(fault, onset_s)
        self._index = -_WARM_UP
        self._time_s = 0.0
        while self._index < 0:
            self.next()

    def next(self) -> Sample:
        """The next sample; there is always one."""
        index, self._time_s = self._index, self._index * self.period_s
        self._reseed(index)
        true_values = self.machine.step(self.period_s, self._time_s, self, self._random)
        values = {sensor.name: sensor.read(true_values[sensor.name], self._random) for sensor in self.machine.sensors}
        self._index += 1
        begun = tuple(
            name for name, onset in self._onsets_s.items() if self._time_s - self.period_s < onset <= self._time_s
        )
        severity = max((self.severity(name) for name in self._onsets_s), default=0.0)
        return Sample(index, self._time_s, values, severity, begun)

    def severity(self, fault: str) -> float:
        """How far a fault has grown at the latest sample, in [0, 1]."""
        if fault not in self._onsets_s:
            return 0.0
        return min(1.0, self.age_s(fault) / (self._growth_s or self._faults[fault].growth_s))

    def age_s(self, fault: str) -> float:
        """Machine seconds since a fault began at the latest sample; 0 before."""
        onset = self._onsets_s.get(fault)
        return 0.0 if onset is None else max(0.0, self._time_s - onset)

    def begin(self, fault: str) -> "Fault":
        """
        Let a fault begin with the next sample.

        Raises:
            SettingsError: the machine has no such fault.
        """
        described = self._fault_of(fault)
        self._onsets_s[fault] = self._index * self.period_s
        return described

    def onset_s(self, fault: str) -> float | None:
        """The machine second at which a fault begins; None if it never does."""
        return self._onsets_s.get(fault)

    @property
    def planned(self) -> "dict[str, Fault]":
        """The faults that have begun or will, by name."""
        return {name: self._faults[name] for name in self._onsets_s}

    def snapshot(self) -> Snapshot:
        """Where to resume from."""
        return Snapshot(self._index, dict(self.machine.state), dict(self._onsets_s))

    def restore(self, snapshot: Snapshot) -> None:
        """
        Go on where a snapshot of the same scenario was taken.

        Raises:
            SettingsError: the snapshot is of another scenario.
        """
        if snapshot.state.keys() != self.machine.state.keys() or not snapshot.onsets_s.keys() <= self._faults.keys():
            raise SettingsError(
                f"{self.machine.name}: the saved state is another scenario's; use another data directory"
            )
        self._index = snapshot.index
        self._time_s = (snapshot.index - 1) * self.period_s
        self.machine.state = dict(snapshot.state)
        self._onsets_s = dict(snapshot.onsets_s)

    def _plan(self, fault: str, onset_s: float | None) -> dict[str, float]:
        choice = Random(self._seed)
        chosen = choice.choice(self.machine.faults).name
        drawn_s = choice.uniform(*self.machine.onset_s)
        if fault == NO_FAULT:
            return {}
        if onset_s is not None and not 0.0 <= onset_s < float("inf"):
            raise SettingsError(f"onset: must be zero or more machine seconds, not {onset_s:g}")
        name = self._fault_of(fault).name if fault else chosen
        return {name: drawn_s if onset_s is None else onset_s}

    def _fault_of(self, name: str) -> "Fault":
        if name not in self._faults:
            raise SettingsError(f"{self.machine.name}: no fault {name!r}; it has {', '.join(sorted(self._faults))}")
        return self._faults[name]

    def _reseed(self, index: int) -> None:
        self._random.seed((self._seed << 64) + index + 2**32)


def machine_of(scenario: str) -> "type[Machine]":
    """
    The machine of that name.

    Raises:
        SettingsError: there is none.
    """
    from wheeltapper_device.machines import MACHINES

    if scenario not in MACHINES:
        raise SettingsError(f"scenario {scenario!r}: unknown; there are {', '.join(MACHINES)}")
    return MACHINES[scenario]


def _positive(name: str, value: float) -> float:
    if not 0.0 < value < float("inf"):
        raise SettingsError(f"{name}: must be above zero, not {value:g}")
    return value
