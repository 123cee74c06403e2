"""
Machines as physics with noise: what their sensors read, and how their faults begin and grow.

    simulation = Simulation("motor", seed=7)
    sample = simulation.next()          # sample.values["TT01"], sample.time_s, sample.severity

The same scenario, seed and settings give the same samples on every platform. A simulation is resumable: its whole state is a
small ``Snapshot``, because the noise of a sample depends on the seed and the sample's index only.
"""

from wheeltapper_device.machines.air_quality import AirQualityStation
from wheeltapper_device.machines.evaporator import Evaporator
from wheeltapper_device.machines.machine import Fault, Machine, Sensor
from wheeltapper_device.machines.motor import Motor
from wheeltapper_device.machines.robot import WeldingRobot
from wheeltapper_device.machines.simulation import NO_FAULT, Sample, Simulation, Snapshot

MACHINES: dict[str, type[Machine]] = {
    "motor": Motor,
    "robot": WeldingRobot,
    "evaporator": Evaporator,
    "air-quality": AirQualityStation,
}

__all__ = ["MACHINES", "NO_FAULT", "Fault", "Machine", "Sample", "Sensor", "Simulation", "Snapshot"]
