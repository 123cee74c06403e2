"""A gateway's definitions may give a detector model and an alarm model one name."""

import json
from pathlib import Path
from typing import Any

from tests.components.detector_models import hot_motor
from tests.components.memory_gateway import memory_links
from wheeltapper.clock import ManualClock
from wheeltapper.judge import Message
from wheeltapper.transport.memory import MemoryBroker
from wheeltapper_components.detectors import Detectors
from wheeltapper_components.settings import DetectorSettings, GatewaySettings

RULE = {"inputProperty": "$input.Prediction.anomaly", "comparisonOperator": "GREATER", "threshold": "0"}
TWIN: dict[str, Any] = {
    "alarmModelName": "hot_motor",
    "roleArn": "r",
    "key": "thing",
    "alarmRule": {"simpleRule": RULE},
    "alarmCapabilities": {"initializationConfiguration": {"disabledOnInitialization": False}},
}


class Edge:
    """Detectors alone, started again and again on one data directory with other files of definitions."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._clock = ManualClock(1_700_000_000_000)

    def start(self, *bodies: dict[str, Any], parameters: dict[str, str] | None = None) -> None:
        files = [self._folder / f"{number}.json" for number in range(len(bodies))]
        for file, body in zip(files, bodies, strict=True):
            file.write_text(json.dumps(body))
        judged = DetectorSettings(models=files, parameters=parameters or {})
        settings = GatewaySettings(data_dir=self._folder / "data", detectors=judged)
        clients = MemoryBroker().transport(), MemoryBroker().transport()
        self._links = memory_links(settings, self._clock, *clients, self._folder, "detectors")
        self.detectors = Detectors(settings, self._links, self._clock)
        self.detectors.open(thread=False)

    def stop(self) -> None:
        self.detectors.close()
        for link in self._links.all:
            link.sender.close()
            link.outbox.close()

    def states(self) -> tuple[str | None, str | None]:
        """Of the detector and of the alarm."""
        judge = self.detectors.judge
        detector, alarm = judge.detector("hot_motor", "motor-1"), judge.alarm("hot_motor", "motor-1")
        return detector and detector.state, alarm and alarm.state


def test_both_stand_after_a_restart_and_either_goes_alone(tmp_path: Path) -> None:
    edge = Edge(tmp_path)
    edge.start(hot_motor(), TWIN)
    edge.detectors.judge.put([Message("Prediction", b'{"thing": "motor-1", "anomaly": 1}')])
    seen = [edge.states()]

    for bodies in ([hot_motor(), TWIN], [hot_motor(), {**TWIN, "severity": 4}], [TWIN | {"severity": 4}]):
        edge.stop()
        edge.start(*bodies)
        seen.append(edge.states())
    edge.stop()

    assert seen == [("Hot", "ACTIVE")] * 3 + [(None, "ACTIVE")]


def test_a_template_is_judged_with_the_settings_parameters(tmp_path: Path) -> None:
    edge = Edge(tmp_path)
    resource = {"Type": "AWS::IoTEvents::DetectorModel", "Properties": hot_motor() | {"Key": {"Ref": "KeyPath"}}}
    broken_input = {"Type": "AWS::IoTEvents::Input", "Properties": {"InputName": "Prediction"}}
    declared = {"KeyPath": {"Type": "String"}}
    template = {"Parameters": declared, "Resources": {"Motor": resource, "Input": broken_input}}
    edge.start(template, parameters={"KeyPath": "thing"})
    edge.detectors.judge.put([Message("Prediction", b'{"thing": "motor-1", "anomaly": 1}')])
    seen = edge.states()
    edge.stop()

    assert seen == ("Hot", None)
