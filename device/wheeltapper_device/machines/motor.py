"""
A pump driven by an electric motor: ten temperatures, pressure and flow.

Three windings heat with the square of the load, the bearings with speed, the air that cools the motor carries the heat off;
the pump's curve ties pressure to flow. The load steps between levels and the shop's temperature wanders.
"""

from random import Random

from wheeltapper_device.machines.machine import Fault, Illness, Machine, Sensor, approach, wander

_LEVELS = (0.55, 0.65, 0.75, 0.85, 0.95)

# sensor: (°C above ambient at no load, further °C at full load, exponent of the load, time constant in s)
_HEATING = {
    "TT01": (6.0, 52.0, 2.0, 40.0),
    "TT02": (6.0, 54.0, 2.0, 40.0),
    "TT03": (6.0, 51.0, 2.0, 40.0),
    "TT04": (14.0, 22.0, 1.0, 50.0),
    "TT05": (12.0, 20.0, 1.0, 50.0),
    "TT06": (6.0, 26.0, 2.0, 70.0),
    "TT07": (1.0, 0.5, 1.0, 15.0),
    "TT08": (4.0, 14.0, 2.0, 20.0),
    "TT09": (10.0, 16.0, 1.0, 50.0),
    "TT10": (3.0, 7.0, 1.0, 60.0),
}
# fault: what it adds to each sensor's target at full effect
_FAULT_HEATING = {
    "bearing-wear": {"TT04": 48.0, "TT06": 9.0},
    "cooling-loss": {"TT01": 34.0, "TT02": 35.0, "TT03": 33.0, "TT06": 22.0, "TT08": 26.0},
    "winding-short": {"TT02": 46.0},
}


def _temperature(name: str) -> Sensor:
    return Sensor(name, "°C", -20.0, 180.0, noise=0.25)


class Motor(Machine):
    """Seed for attributes: TT01-TT03 windings, TT04/TT05 bearings, TT06 housing, TT07/TT08 air, TT09/TT10 pump."""

    name = "motor"
    explanation = "pump motor: ten temperatures, pressure, flow"
    sensors = (
        *(_temperature(f"TT{number:02d}") for number in range(1, 11)),
        Sensor("PT01", "bar", 0.0, 16.0, noise=0.04, decimals=3),
        Sensor("FT01", "m³/h", 0.0, 320.0, noise=1.0),
    )
    faults = (
        Fault("bearing-wear", "the drive-end bearing runs dry and heats the housing", ("TT04", "TT06"), 160.0),
        Fault(
            "cooling-loss",
            "the motor's fan moves less air: windings, housing and leaving air heat up",
            ("TT01", "TT02", "TT03", "TT06", "TT08"),
            160.0,
        ),
        Fault("winding-short", "shorted turns heat the winding of one phase", ("TT02",), 160.0),
        Fault("leak", "the discharge leaks: pressure falls and flow rises", ("PT01", "FT01"), 160.0),
    )

    def initial_state(self, random: Random) -> dict[str, float]:
        load = random.choice(_LEVELS)
        state = {"load": load, "load_target": load, "dwell_s": 0.0, "ambient": 0.0, "friction": 0.0}
        for sensor, (rest, rise, exponent, _) in _HEATING.items():
            state[sensor] = 23.0 + rest + rise * load**exponent
        return state

    def step(self, dt_s: float, time_s: float, illness: Illness, random: Random) -> dict[str, float]:
        state = self.state
        self._follow_duty(dt_s, random)
        state["ambient"] = wander(state["ambient"], dt_s, 900.0, 1.2, random)
        state["friction"] = wander(state["friction"], dt_s, 6.0, 1.0, random)
        load, true_values = state["load"], {}
        for sensor, (rest, rise, exponent, time_constant_s) in _HEATING.items():
            target = 23.0 + state["ambient"] + rest + rise * load**exponent
            for fault, heating in _FAULT_HEATING.items():
                if sensor in heating:
                    roughness = 1.0 + (0.25 * state["friction"] if fault == "bearing-wear" else 0.0)
                    target += heating[sensor] * illness.severity(fault) * roughness
            state[sensor] = true_values[sensor] = approach(state[sensor], target, dt_s, time_constant_s)
        leak = 0.05 * (illness.age_s("leak") > 0.0) + 0.95 * illness.severity("leak")
        flow = 55.0 + 128.0 * load
        true_values["PT01"] = (8.6 - 3.4 * (flow / 190.0) ** 2) * (1.0 - 0.42 * leak)
        true_values["FT01"] = flow + 62.0 * leak
        return true_values

    def attributes(self, thing: str) -> dict[str, str]:
        return {"motorID": thing, "motorType": "pump"}

    def _follow_duty(self, dt_s: float, random: Random) -> None:
        state = self.state
        state["dwell_s"] -= dt_s
        if state["dwell_s"] <= 0.0:
            state["dwell_s"] = random.uniform(30.0, 80.0)
            state["load_target"] = random.choice(_LEVELS)
        state["load"] = approach(state["load"], state["load_target"], dt_s, 12.0)
