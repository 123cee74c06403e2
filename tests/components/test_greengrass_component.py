"""A component's behaviour on a nucleus, with the real IPC client, in both profiles."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.components.detector_models import hot_motor
from tests.components.nucleus import Nucleus, Profile
from tests.components.small_models import write_small_model
from wheeltapper.clock import SystemClock
from wheeltapper.messages import Reading, encode
from wheeltapper_components.component import Component

ROOM = Path(__file__).resolve().parents[2] / "components"
MODEL = "com.wheeltapper.Model.motor"
FAST = {"heartbeat_s": 1, "deaf_s": 1.5}


def recipe_of(folder: str, **configuration: Any) -> dict[str, Any]:
    """The shipped recipe with some of its configuration replaced."""
    recipe: dict[str, Any] = json.loads((ROOM / folder / "recipe.json").read_text())
    recipe["ComponentConfiguration"]["DefaultConfiguration"] |= configuration
    return recipe


class Bench:
    """A nucleus, a folder of artifacts with one model, and components as threads of this process."""

    def __init__(self, tmp_path: Path, profile: Profile) -> None:
        self.folder = tmp_path
        self.nucleus = Nucleus(tmp_path, profile)
        self.artifacts = tmp_path / "artifacts"
        self.work = tmp_path / "work"
        self._running: list[tuple[Component, threading.Thread]] = []
        self.statuses: list[int] = []
        write_small_model(self.artifacts / MODEL / "1.0.0")

    def start(self, folder: str = "inference", process: str = "inference", **configuration: Any) -> Component:
        """Deploy a component and run it."""
        token = self.nucleus.install(recipe_of(folder, **configuration)).token
        component = Component(
            process,
            self.work,
            self.artifacts,
            SystemClock(),
            socket_path=str(self.nucleus.socket_path),
            token=token,
        )
        thread = threading.Thread(target=lambda: self.statuses.append(component.run()), daemon=True)
        thread.start()
        self._running.append((component, thread))
        return component

    def started(self, **configuration: Any) -> Component:
        """An inference component that says it is running."""
        component = self.start(**configuration)
        states = self.nucleus.components["com.wheeltapper.Inference"].states
        assert self.nucleus.wait_for(lambda: "RUNNING" in states)
        return component

    def stop(self) -> None:
        for component, thread in self._running:
            component.stop()
            thread.join(90)
            assert not thread.is_alive()
        self._running.clear()

    def ended(self, status: int) -> bool:
        """Whether the last component's run ends with this status."""
        for _, thread in self._running:
            thread.join(90)
        return self.statuses[-1:] == [status]

    def predictions(self, side: str = "local") -> list[dict[str, Any]]:
        heard = self.nucleus.local if side == "local" else self.nucleus.core
        return [json.loads(payload) for topic, payload in list(heard) if topic.endswith("/prediction")]

    def send(self, *numbers: int, **values: Any) -> None:
        for number in numbers:
            self.nucleus.publish_local("wt/motor-1/reading", reading(number, **values))

    def wait(self, condition: Callable[[], bool]) -> bool:
        return self.nucleus.wait_for(condition)


@pytest.fixture(params=["classic", "lite"])
def bench(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setenv("AWS_IOT_THING_NAME", "core-1")
    bench = Bench(tmp_path, request.param)
    with bench.nucleus:
        yield bench
        bench.stop()


def reading(number: int, **values: Any) -> bytes:
    return encode(Reading(f"m{number}", "motor-1", 1_000 * number, {"TT01": 50.0 + number, **values}))


def ids(predictions: list[dict[str, Any]]) -> list[str]:
    return [prediction["reading_id"] for prediction in predictions]


def test_two_hundred_readings_are_scored_in_the_order_in_which_they_came(bench: Bench) -> None:
    bench.started()

    bench.send(*range(201))

    assert bench.wait(lambda: len(bench.predictions()) == 200)
    assert ids(bench.predictions()) == [f"m{number}" for number in range(1, 201)]
    assert bench.wait(lambda: len(bench.predictions("core")) == 200)
    assert ids(bench.predictions("core")) == ids(bench.predictions())


def test_a_dropped_connection_is_mended_and_everything_subscribed_again(bench: Bench) -> None:
    bench.started()
    bench.send(0, 1)
    assert bench.wait(lambda: len(bench.predictions()) == 1)
    before = sorted(bench.nucleus.subscribed)

    bench.nucleus.drop_connections()

    assert bench.wait(lambda: bench.nucleus.connections >= 2 and sorted(bench.nucleus.subscribed) == before)
    bench.send(2)
    assert bench.wait(lambda: "m2" in ids(bench.predictions()))


def test_a_refused_token_ends_the_process_with_status_1(bench: Bench) -> None:
    bench.started()

    bench.nucleus.forget_tokens()
    bench.nucleus.drop_connections()

    assert bench.ended(1)


def test_the_third_exit_within_an_hour_is_waited_out_inside(bench: Bench) -> None:
    for _ in range(2):
        bench.started()
        bench.nucleus.forget_tokens()
        bench.nucleus.drop_connections()
        assert bench.ended(1)
    component = bench.started()
    connections = bench.nucleus.connections

    bench.nucleus.forget_tokens()
    bench.nucleus.drop_connections()

    assert bench.wait(lambda: bench.nucleus.connections >= connections + 4)
    assert len(bench.statuses) == 2
    assert component.service is not None


@pytest.mark.parametrize("side", ["local", "core"])
def test_a_stream_that_went_deaf_is_subscribed_to_again(bench: Bench, side: Any) -> None:
    bench.started(greengrass=FAST)
    before = sorted(bench.nucleus.subscribed)

    bench.nucleus.deafen(side)

    assert bench.wait(lambda: sorted(bench.nucleus.subscribed) == before)


def test_a_stream_that_stays_deaf_ends_the_process_with_status_1(bench: Bench) -> None:
    bench.started(greengrass=FAST)

    bench.nucleus.stays_deaf = "local"
    bench.nucleus.deafen("local")

    assert bench.ended(1)


def test_predictions_wait_on_disk_while_the_link_is_away_and_leave_in_order(bench: Bench) -> None:
    bench.started()
    bench.nucleus.broker_away = True
    bench.send(*range(31))
    assert bench.wait(lambda: len(bench.predictions()) == 30)

    bench.nucleus.broker_away = False

    assert bench.wait(lambda: len(set(ids(bench.predictions("core")))) == 30)
    seen = list(dict.fromkeys(ids(bench.predictions("core"))))
    assert seen == [f"m{number}" for number in range(1, 31)]


def test_a_prediction_of_a_wide_reading_stays_below_4000_bytes(bench: Bench) -> None:
    sensors = [f"temperature_of_bearing_number_{number:03d}" for number in range(120)]
    write_small_model(bench.artifacts / MODEL / "1.1.0", "1.1.0", sensors=sensors)
    bench.started(output={"top": 200})
    values = {sensor: float(place) for place, sensor in enumerate(sensors)}

    bench.send(0, 1, **values)

    assert bench.wait(lambda: len(bench.predictions("core")) == 1)
    payload = next(payload for topic, payload in bench.nucleus.core if topic.endswith("/prediction"))
    shares = [item["share"] for item in json.loads(payload)["contributions"]]
    assert len(payload) <= 4_000
    assert sum(shares) == pytest.approx(1.0, abs=1e-4)
    assert bench.nucleus.connections == 1


def test_configuration_given_as_strings_is_coerced_and_a_bad_member_keeps_its_default(bench: Bench) -> None:
    component = bench.started(max_batch="32", health_s="often", output={"top": "3"})

    assert component.service is not None
    settings = component.service.settings
    assert (settings.max_batch, settings.health_s, settings.output.top) == (32, 5.0, 3)


def test_a_merged_configuration_takes_effect_without_a_restart_and_a_bad_one_does_not(bench: Bench) -> None:
    bench.started()
    bench.send(0, 1)
    assert bench.wait(lambda: len(bench.predictions()) == 1)

    bench.nucleus.configure(
        "com.wheeltapper.Inference", {"output": {"fields": {"prediction": "score"}, "top": "none"}, "max_batch": "16"}
    )

    def answered() -> bool:
        bench.send(len(bench.nucleus.local) + 10)
        return bool(bench.predictions()) and "prediction" in bench.predictions()[-1]

    deadline = time.monotonic() + 90
    while not answered() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert answered()
    assert bench.nucleus.connections == 1


def test_optional_operations_are_asked_for_once(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    bench.started()
    bench.send(0, 1)
    assert bench.wait(lambda: len(bench.predictions()) == 1)

    operations = bench.nucleus.operations

    assert operations.count("SubscribeToComponentUpdates") == 1
    assert operations.count("SubscribeToIoTCoreConnectionStatus") == 1
    assert operations.count("UpdateThingShadow") <= 1
    missing = [record.message for record in caplog.records if "not offered by this nucleus" in record.message]
    assert len(missing) == (0 if bench.nucleus.profile == "classic" else 3)
    assert all("ServiceError" in line for line in missing)  # lite sends no message with it


def test_the_state_is_running_only_with_a_model_and_errored_where_none_can_be_loaded(bench: Bench) -> None:
    (bench.artifacts / MODEL / "1.0.0" / "model.onnx").write_bytes(b"no model")

    bench.start()

    states = bench.nucleus.components["com.wheeltapper.Inference"].states
    assert bench.wait(lambda: states == ["ERRORED"])
    write_small_model(bench.artifacts / MODEL / "1.1.0", "1.1.0")
    assert bench.wait(lambda: states == ["ERRORED", "RUNNING"])


def test_a_message_that_is_no_reading_harms_nobody(bench: Bench) -> None:
    bench.started()

    bench.nucleus.publish_local("wt/motor-1/reading", b"\xff not JSON")
    bench.nucleus.publish_local("wt/motor-1/reading", reading(0), as_json=True)
    bench.send(1)

    assert bench.wait(lambda: ids(bench.predictions()) == ["m1"])


def test_an_operator_in_the_cloud_gets_an_answer(bench: Bench) -> None:
    bench.started()
    bench.send(0, 1, 2)
    assert bench.wait(lambda: len(bench.predictions()) == 2)

    bench.nucleus.from_cloud("wt/motor-1/trigger/infer", b'{"request_id": "r1"}')

    def replies() -> list[dict[str, Any]]:
        topic = "wt/motor-1/trigger/infer/reply"
        return [json.loads(payload) for heard, payload in bench.nucleus.core if heard == topic]

    assert bench.wait(lambda: len(replies()) == 1)
    assert replies()[0]["status"] == "done"
    assert replies()[0]["request_id"] == "r1"


def test_an_alarm_rings_locally_while_the_link_is_away_and_in_the_cloud_afterwards(bench: Bench) -> None:
    (bench.artifacts / "hot.json").write_text(json.dumps(hot_motor()))
    detectors = bench.start("detector", "detectors", detectors={"models": ["hot.json"]})
    states = bench.nucleus.components["com.wheeltapper.Detectors"].states
    assert bench.wait(lambda: states == ["RUNNING"])
    bench.nucleus.broker_away = True

    for number, anomaly in enumerate((0, 1, 1)):
        message = {"message_id": f"p{number}", "thing": "motor-1", "anomaly": anomaly}
        bench.nucleus.publish_local("wt/motor-1/prediction", json.dumps(message).encode())

    def alarms(heard: list[tuple[str, bytes]]) -> list[dict[str, Any]]:
        return [json.loads(payload) for topic, payload in list(heard) if topic == "wt/motor-1/alarm"]

    assert bench.wait(lambda: len(alarms(bench.nucleus.local)) == 1)
    assert alarms(bench.nucleus.core) == []
    bench.nucleus.broker_away = False
    assert bench.wait(lambda: len(alarms(bench.nucleus.core)) >= 1)
    assert alarms(bench.nucleus.core)[0] == alarms(bench.nucleus.local)[0]
    assert detectors.service is not None


def test_a_definition_that_is_not_valid_is_told_and_waited_out(bench: Bench) -> None:
    (bench.artifacts / "hot.json").write_text("{}")
    bench.start("detector", "detectors", detectors={"models": ["hot.json"]})
    states = bench.nucleus.components["com.wheeltapper.Detectors"].states
    assert bench.wait(lambda: states == ["ERRORED"])

    (bench.artifacts / "good.json").write_text(json.dumps(hot_motor()))
    bench.nucleus.configure("com.wheeltapper.Detectors", {"detectors": {"models": ["good.json"]}})

    assert bench.wait(lambda: states == ["ERRORED", "RUNNING"])
    assert bench.statuses == []


def test_a_topic_that_the_recipe_does_not_allow_is_refused(bench: Bench) -> None:
    bench.start(topics={"reading": "other/{thing}/data"})

    states = bench.nucleus.components["com.wheeltapper.Inference"].states

    assert bench.wait(lambda: states == ["ERRORED"])


def test_sigterm_ends_the_process_within_ten_seconds_with_status_0(bench: Bench, tmp_path: Path) -> None:
    component = bench.nucleus.install(recipe_of("inference"))
    environment = {
        **os.environ,
        "AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT": str(bench.nucleus.socket_path),
        "SVCUID": component.token,
        "AWS_IOT_THING_NAME": "core-1",
    }
    process = subprocess.Popen(
        [sys.executable, "-u", str(ROOM / "inference" / "main.py"), str(bench.work), str(bench.artifacts)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert bench.wait(lambda: component.states == ["RUNNING"])
    bench.send(0, 1)
    assert bench.wait(lambda: len(bench.predictions()) == 1)

    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)

    assert process.returncode == 0
    assert all(line.startswith("20") for line in output.splitlines())
