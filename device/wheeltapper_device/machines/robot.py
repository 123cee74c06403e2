"""
A welding robot of six joints: the temperature and the current of each.

Every cycle the arm approaches, welds, and returns; each joint works at its own part of the cycle. A joint's current follows
its torque, its temperature the square of its current through the motor's thermal mass.
"""

import math
from random import Random

from wheeltapper_device.machines.machine import Fault, Illness, Machine, Sensor, approach, wander

# joint: (current at rest in A, amplitude in A, phase of its work in the cycle, °C a squared A)
_JOINTS = {
    1: (2.4, 1.1, 0.00, 1.30),
    2: (3.6, 1.6, 0.12, 0.95),
    3: (3.0, 1.3, 0.25, 1.05),
    4: (1.6, 0.6, 0.45, 2.60),
    5: (1.5, 0.6, 0.60, 2.80),
    6: (1.1, 0.4, 0.80, 3.60),
}
_THERMAL_S = 60.0
_CYCLE_S = 24.0


class WeldingRobot(Machine):
    """Six joints, J1 at the base to J6 at the torch."""

    name = "robot"
    explanation = "welding robot: temperature and current of six joints"
    sensors = tuple(
        sensor
        for joint in _JOINTS
        for sensor in (
            Sensor(f"J{joint}_temperature", "°C", -10.0, 130.0, noise=0.25),
            Sensor(f"J{joint}_current", "A", 0.0, 25.0, noise=0.08, decimals=3),
        )
    )
    faults = (
        Fault(
            "insufficient-lubrication",
            "joint 2 turns with ever more friction: it draws more current and heats up",
            ("J2_temperature", "J2_current"),
            160.0,
        ),
        Fault(
            "wear",
            "backlash in the gear of joint 3: its current ripples and it heats up",
            ("J3_temperature", "J3_current"),
            160.0,
        ),
        Fault(
            "contact-fault",
            "a loose connector of joint 5: its current drops out, ever more often, and surges back",
            ("J5_temperature", "J5_current"),
            160.0,
        ),
    )

    def initial_state(self, random: Random) -> dict[str, float]:
        state = {"phase": random.random(), "pace": 0.0, "ambient": 0.0, "payload": 0.0}
        for joint, (rest, amplitude, _, heat) in _JOINTS.items():
            state[f"heat_{joint}"] = heat * (rest**2 + amplitude**2 / 2)
        return state

    def step(self, dt_s: float, time_s: float, illness: Illness, random: Random) -> dict[str, float]:
        state = self.state
        state["pace"] = wander(state["pace"], dt_s, 120.0, 0.03, random)
        state["phase"] = (state["phase"] + dt_s / _CYCLE_S * (1.0 + state["pace"])) % 1.0
        state["ambient"] = wander(state["ambient"], dt_s, 900.0, 1.0, random)
        state["payload"] = wander(state["payload"], dt_s, 60.0, 0.04, random)
        true_values = {}
        for joint, (rest, amplitude, place, heat) in _JOINTS.items():
            swing = math.sin(2.0 * math.pi * (state["phase"] - place))
            healthy = (rest + amplitude * swing) * (1.0 + state["payload"])
            current = self._sick_current(joint, healthy, illness, random)
            state[f"heat_{joint}"] = approach(state[f"heat_{joint}"], heat * current**2, dt_s, _THERMAL_S)
            true_values[f"J{joint}_current"] = current
            true_values[f"J{joint}_temperature"] = 26.0 + state["ambient"] + state[f"heat_{joint}"]
        return true_values

    def _sick_current(self, joint: int, healthy: float, illness: Illness, random: Random) -> float:
        if joint == 2:
            return healthy * (1.0 + 0.8 * illness.severity("insufficient-lubrication"))
        if joint == 3:
            worn = illness.severity("wear")
            return healthy * (1.0 + 0.35 * worn) + random.gauss(0.0, 1.2 * worn)
        if joint == 5:
            loose = illness.severity("contact-fault")
            if random.random() < 0.5 * loose:
                return healthy * random.uniform(0.0, 0.4)
            return healthy * (1.0 + 1.1 * loose)
        return healthy
