"""
The evaporator of an air conditioner: cold coil, moving air, a compressor whose speed follows the heat load.

The coil's temperature sets the pressure of the refrigerant and the supplied air's temperature; the controller speeds the
compressor up when the returning air is warm. Faults end in what the field sees: coil temperatures that leave their band for
minutes at a time.
"""

import math
from random import Random

from wheeltapper_device.machines.machine import Fault, Illness, Machine, Sensor, approach, wander

_SPIKE_S = 150.0
_SPIKE_EVERY_S = 240.0


class Evaporator(Machine):
    """One coil with its fan and compressor."""

    name = "evaporator"
    explanation = (
        "HVAC evaporator: coil and air temperatures, refrigerant pressure, air flow, fan and compressor current"
    )
    sensors = (
        Sensor("evaporator_temperature", "°C", -30.0, 60.0, noise=0.15),
        Sensor("supply_air_temperature", "°C", -30.0, 60.0, noise=0.15),
        Sensor("return_air_temperature", "°C", -30.0, 60.0, noise=0.15),
        Sensor("suction_pressure", "bar", 0.0, 20.0, noise=0.03, decimals=3),
        Sensor("air_flow", "m³/h", 0.0, 6000.0, noise=20.0, decimals=1),
        Sensor("fan_current", "A", 0.0, 15.0, noise=0.04, decimals=3),
        Sensor("compressor_current", "A", 0.0, 40.0, noise=0.12, decimals=3),
    )
    faults = (
        Fault(
            "valve-sticking",
            "the expansion valve sticks shut for minutes at a time: the coil warms in spikes that grow",
            ("evaporator_temperature", "supply_air_temperature", "suction_pressure"),
            300.0,
        ),
        Fault(
            "fan-wear",
            "the fan slows down and draws more current: less air passes, the coil gets colder",
            ("air_flow", "fan_current", "evaporator_temperature", "supply_air_temperature", "suction_pressure"),
            160.0,
        ),
        Fault(
            "refrigerant-loss",
            "refrigerant leaks out: pressure falls, the coil warms, the compressor runs light",
            ("suction_pressure", "evaporator_temperature", "supply_air_temperature", "compressor_current"),
            160.0,
        ),
    )

    def initial_state(self, random: Random) -> dict[str, float]:
        return {"weather": 0.0, "people": 0.0, "coil": 6.0, "supply": 12.0, "return": 24.0, "damper": 0.0}

    def step(self, dt_s: float, time_s: float, illness: Illness, random: Random) -> dict[str, float]:
        state = self.state
        stuck, worn, lost = self._sickness(illness)
        state["weather"] = wander(state["weather"], dt_s, 1800.0, 0.8, random)
        state["people"] = wander(state["people"], dt_s, 90.0, 0.5, random)
        state["damper"] = wander(state["damper"], dt_s, 40.0, 0.03, random)
        warmth = state["weather"] + state["people"]
        air_flow = 2600.0 * (1.0 + state["damper"]) * (1.0 - 0.45 * worn)
        speed = 0.62 + 0.07 * warmth
        coil_target = 6.0 - 1.1 * warmth + 14.0 * (stuck + 0.9 * lost) + (air_flow / 2600.0 - 1.0) * 9.0
        state["coil"] = approach(state["coil"], coil_target, dt_s, 18.0)
        state["return"] = approach(state["return"], 24.0 + warmth, dt_s, 40.0)
        supply_target = state["coil"] + 0.32 * (state["return"] - state["coil"])
        state["supply"] = approach(state["supply"], supply_target, dt_s, 10.0)
        saturation = 5.2 * math.exp(0.031 * (state["coil"] - 14.0 * (stuck + 0.9 * lost)))
        return {
            "evaporator_temperature": state["coil"],
            "supply_air_temperature": state["supply"],
            "return_air_temperature": state["return"],
            "suction_pressure": saturation * (1.0 - 0.35 * lost - 0.25 * stuck),
            "air_flow": air_flow,
            "fan_current": 3.4 * (1.0 + 0.8 * state["damper"]) * (1.0 + 0.45 * worn),
            "compressor_current": (6.0 + 16.0 * speed) * (1.0 - 0.3 * lost),
        }

    def _sickness(self, illness: Illness) -> tuple[float, float, float]:
        in_spike = illness.age_s("valve-sticking") % _SPIKE_EVERY_S < _SPIKE_S
        stuck = (
            0.45 + 0.55 * illness.severity("valve-sticking") if illness.age_s("valve-sticking") and in_spike else 0.0
        )
        return stuck, illness.severity("fan-wear"), illness.severity("refrigerant-loss")
