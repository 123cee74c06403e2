"""The common models are valid, clean and do what they say."""

import pytest

from wheeltapper.detector import templates
from wheeltapper.detector.action import Message
from wheeltapper.detector.backtest import Runner
from wheeltapper.detector.lint import lint
from wheeltapper.detector.templates import Made, Shape
from wheeltapper.errors import SettingsError

SHAPE = Shape(name="m", input_name="Pump", key="thing", topic="alarms/m")


def _alarms(made: Made, readings: list[tuple[float, dict]]) -> list[float]:
    runner = Runner(made.model)
    runner.feed(Message("Pump", {"thing": "a", **payload}, "", int(t * 1000)) for t, payload in readings)
    report = runner.finish()
    return [alarm.time_ms / 1000 for alarm in report.keys["a"].alarms]


def _temperatures(*values: float) -> list[tuple[float, dict]]:
    return [(10.0 * place, {"t": value}) for place, value in enumerate(values)]


MADE = {
    "heartbeat": templates.heartbeat(SHAPE, seconds=300),
    "threshold": templates.threshold(SHAPE, attribute="t", above=80, clear=75),
    "lasting": templates.threshold(SHAPE, attribute="t", below=5, seconds=60),
    "rate": templates.rate_of_change(SHAPE, attribute="t", change=5),
    "deviation": templates.deviation(SHAPE, attribute="t", reference="set point", tolerance=2, seconds=60),
    "keyless": templates.heartbeat(Shape(name="m", input_name="Pump", sns="arn:aws:sns:x:1:t"), seconds=60),
}


@pytest.mark.parametrize("made", MADE.values(), ids=MADE)
def test_a_common_model_is_clean(made: Made):
    inputs = {"Pump": [each["jsonPath"] for each in made.input["inputDefinition"]["attributes"]]}

    found = lint(made.model, inputs)

    assert not [each for each in found if each.level != "INFO"]


def test_a_silent_machine_raises_one_alarm():
    beats = [(t, {}) for t in (0, 100, 200, 300, 700, 800)]

    assert _alarms(MADE["heartbeat"], beats) == [600]


def test_a_threshold_has_hysteresis():
    assert _alarms(MADE["threshold"], _temperatures(70, 81, 79, 82, 74, 85)) == [10, 50]


def test_a_lasting_threshold_forgives_a_short_breach():
    assert _alarms(MADE["lasting"], _temperatures(9, 4, 4, 6, 4, 4, 4, 4, 4, 4, 4, 4)) == [100]


def test_a_jump_between_two_messages_raises_an_alarm():
    assert _alarms(MADE["rate"], _temperatures(20, 22, 30, 31, 24)) == [20, 40]


def test_a_distance_from_the_set_point_raises_an_alarm():
    readings = [(t, {"t": 20.0 if t < 100 else 25.0, "set point": 20}) for t in range(0, 300, 10)]

    assert _alarms(MADE["deviation"], readings) == [160]


@pytest.mark.parametrize(
    "make",
    [
        lambda: templates.threshold(SHAPE, attribute="t"),
        lambda: templates.threshold(SHAPE, attribute="t", above=5, clear=9),
        lambda: templates.threshold(SHAPE, attribute="t' || 'x", above=5),
        lambda: templates.heartbeat(Shape(name="m", input_name="bad name", topic="x"), seconds=60),
        lambda: templates.heartbeat(Shape(name="m", input_name="Pump"), seconds=60),
        lambda: templates.heartbeat(SHAPE, seconds=0),
        lambda: templates.rate_of_change(SHAPE, attribute="t", change=0),
    ],
    ids=["limit", "clear", "injection", "input", "target", "seconds", "change"],
)
def test_what_makes_no_sense_is_refused(make):
    with pytest.raises(SettingsError):
        make()
