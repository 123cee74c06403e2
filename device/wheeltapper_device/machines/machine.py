"""
What every simulated machine is made of: sensors, faults, and the two laws they share.

A machine knows its true state; the sensor adds noise, saturates at its range and rounds. Faults act on the physics, so that
their effects reach the sensors through the same thermal masses and couplings as load and weather do.
"""

import math
from abc import ABC, abstractmethod
from random import Random
from typing import ClassVar, Protocol

import msgspec


class Sensor(msgspec.Struct, frozen=True):
    """A measuring point; ``noise`` is the standard deviation of one measurement, in its unit."""

    name: str
    unit: str
    low: float
    high: float
    noise: float
    decimals: int = 2

    def read(self, true_value: float, random: Random) -> float:
        """One noisy measurement, saturated at the range's ends and rounded."""
        measured = random.gauss(true_value, self.noise) if self.noise else true_value
        return round(min(max(measured, self.low), self.high), self.decimals)


class Fault(msgspec.Struct, frozen=True):
    """A way to fall ill: the sensors it touches, and the machine seconds from its first sign to its full effect."""

    name: str
    explanation: str
    sensors: tuple[str, ...]
    growth_s: float


class Illness(Protocol):
    """What a machine asks about its faults at the present moment."""

    def severity(self, fault: str) -> float:
        """0 before the fault begins, growing to 1."""

    def age_s(self, fault: str) -> float:
        """Machine seconds since the fault began; 0 before."""


class Machine(ABC):
    """
    One machine; all that changes is in ``state``.

    Attributes:
        period_s: machine seconds between two readings unless told otherwise.
        onset_s: the range of machine seconds from which a seed draws the beginning of its fault.
    """

    name: ClassVar[str]
    explanation: ClassVar[str]
    period_s: ClassVar[float] = 1.0
    onset_s: ClassVar[tuple[float, float]] = (240.0, 330.0)
    sensors: ClassVar[tuple[Sensor, ...]]
    faults: ClassVar[tuple[Fault, ...]]

    def __init__(self, random: Random) -> None:
        self.state = self.initial_state(random)

    @abstractmethod
    def initial_state(self, random: Random) -> dict[str, float]:
        """A state in or near equilibrium."""

    @abstractmethod
    def step(self, dt_s: float, time_s: float, illness: Illness, random: Random) -> dict[str, float]:
        """Move ``dt_s`` on, to ``time_s``; the true value at every sensor."""

    def attributes(self, thing: str) -> dict[str, str]:
        """What a reading says of the machine besides its sensors."""
        del thing
        return {}


def approach(value: float, target: float, dt_s: float, time_constant_s: float) -> float:
    """
    First-order response to a constant target, exact for any step.

    >>> round(approach(20.0, 80.0, dt_s=60.0, time_constant_s=60.0), 1)
    57.9
    """
    return target + (value - target) * math.exp(-dt_s / time_constant_s)


def wander(value: float, dt_s: float, time_constant_s: float, spread: float, random: Random) -> float:
    """Ornstein-Uhlenbeck noise around zero with that standard deviation in the long run, exact for any step."""
    keep = math.exp(-dt_s / time_constant_s)
    return value * keep + random.gauss(0.0, spread * math.sqrt(1.0 - keep * keep))
