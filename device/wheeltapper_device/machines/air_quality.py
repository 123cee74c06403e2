"""
An air-quality station that reports once an hour: fine dust and the weather.

Columns and units are those of the public hourly record of a big northern city: the year and the day swing the temperature,
fronts swing the pressure and the wind, dust gathers in still air and the wind carries it off.
"""

import math
from random import Random

from wheeltapper_device.machines.machine import Fault, Illness, Machine, Sensor, approach, wander

_DAY_S = 86_400.0
_HOUR_S = 3_600.0


class AirQualityStation(Machine):
    """PM2.5, dew point, temperature, pressure, wind direction (1-4), wind speed, hours of snow and of rain."""

    name = "air-quality"
    explanation = "air-quality station: fine dust and weather, one reading an hour"
    period_s = _HOUR_S
    onset_s = (240.0 * _HOUR_S, 330.0 * _HOUR_S)
    sensors = (
        Sensor("pollution", "µg/m³", 0.0, 1000.0, noise=2.0, decimals=1),
        Sensor("dew", "°C", -40.0, 35.0, noise=0.3, decimals=1),
        Sensor("temp", "°C", -40.0, 50.0, noise=0.2, decimals=1),
        Sensor("press", "hPa", 900.0, 1100.0, noise=0.2, decimals=1),
        Sensor("wnd_dir", "sector", 1.0, 4.0, noise=0.0, decimals=0),
        Sensor("wnd_spd", "m/s", 0.0, 60.0, noise=0.1),
        Sensor("snow", "h", 0.0, 100.0, noise=0.0, decimals=0),
        Sensor("rain", "h", 0.0, 100.0, noise=0.0, decimals=0),
    )
    faults = (
        Fault("dust-sensor-drift", "dirt on the optics: the dust reading climbs away", ("pollution",), 160.0 * _HOUR_S),
        Fault(
            "thermometer-contact",
            "a loose contact: the temperature jumps, ever more often",
            ("temp",),
            160.0 * _HOUR_S,
        ),
    )

    def initial_state(self, random: Random) -> dict[str, float]:
        return {
            "dust": 70.0,
            "front": 0.0,
            "gust": 0.0,
            "air": 0.0,
            "moisture": 0.0,
            "wet_h": 0.0,
            "snowing": 0.0,
            "bearing": random.random(),
        }

    def step(self, dt_s: float, time_s: float, illness: Illness, random: Random) -> dict[str, float]:
        state = self.state
        state["front"] = wander(state["front"], dt_s, 40.0 * _HOUR_S, 1.0, random)
        state["gust"] = wander(state["gust"], dt_s, 6.0 * _HOUR_S, 1.0, random)
        state["air"] = wander(state["air"], dt_s, 30.0 * _HOUR_S, 2.0, random)
        state["moisture"] = wander(state["moisture"], dt_s, 5.0 * _HOUR_S, 2.5, random)
        state["bearing"] = (state["bearing"] + random.gauss(0.0, 0.08)) % 1.0
        daylight = math.sin(2.0 * math.pi * (time_s / _DAY_S - 0.375))
        temperature = 12.0 + state["air"] + 5.0 * daylight
        wind = 3.0 * math.exp(0.45 * state["gust"] + 0.35 * state["front"])
        dust_target = 150.0 / (1.0 + 0.35 * wind) * (1.1 - 0.15 * daylight)
        state["dust"] = approach(state["dust"], dust_target, dt_s, 8.0 * _HOUR_S)
        self._weather_hours(dt_s, temperature, random)
        jump = random.gauss(0.0, 18.0) if random.random() < illness.severity("thermometer-contact") else 0.0
        return {
            "pollution": state["dust"] + 640.0 * illness.severity("dust-sensor-drift"),
            "dew": temperature - 9.0 - 2.5 * state["front"] + state["moisture"],
            "temp": temperature + jump,
            "press": 1016.0 + 6.0 * state["front"],
            "wnd_dir": 1.0 + math.floor(4.0 * state["bearing"]),
            "wnd_spd": wind,
            "snow": state["wet_h"] if state["snowing"] else 0.0,
            "rain": 0.0 if state["snowing"] else state["wet_h"],
        }

    def _weather_hours(self, dt_s: float, temperature: float, random: Random) -> None:
        state = self.state
        if state["wet_h"] == 0.0:
            state["snowing"] = float(temperature < 1.0)
        wet = random.random() < (0.8 if state["wet_h"] else 0.02 if state["front"] < 0.0 else 0.002)
        state["wet_h"] = state["wet_h"] + dt_s / _HOUR_S if wet else 0.0
