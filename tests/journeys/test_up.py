"""``wheeltapper up`` as its users run it: a machine falls ill, an alarm says why; wrong arguments are one line."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.loopback import free_port

UP = (sys.executable, "-m", "wheeltapper.cli", "up")


def up(folder: Path, *arguments: str, timeout_s: float = 110) -> subprocess.CompletedProcess[str]:
    command = [*UP, "--port", str(free_port()), "--data-dir", str(folder / "run"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)


def events_until(folder: Path, holds: Callable[[list[dict[str, Any]]], bool], *arguments: str) -> list[dict[str, Any]]:
    """What a run says until it has said enough; then it is told to end."""
    command = [*UP, "--json", "--port", str(free_port()), "--data-dir", str(folder / "run"), *arguments]
    events: list[dict[str, Any]] = []
    with (folder / "said").open("w+") as said:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True)
        assert process.stdout is not None
        try:
            for line in process.stdout:
                events.append(json.loads(line))
                if holds(events):
                    break
        finally:
            process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=120)
        said.seek(0)
        assert process.returncode == 0, said.read()
    return [*events, *map(json.loads, rest.splitlines())]


def kinds_of(events: list[dict[str, Any]]) -> set[str]:
    return {event["kind"] for event in events}


@pytest.mark.parametrize("scenario", ["motor", "robot", "evaporator"])
def test_a_machine_falls_ill_and_the_alarm_says_which_sensor_which_condition_and_which_values(
    scenario: str, tmp_path: Path
) -> None:
    kinds = {"reading", "prediction", "state", "alarm", "action", "health"}

    events = events_until(
        tmp_path, lambda events: kinds_of(events) == kinds, "--scenario", scenario, "--seed", "3", "--speed", "40"
    )

    fault = next(event for event in events if event.get("process") == "machine")
    alarms = [event for event in events if event["kind"] == "alarm"]
    assert alarms
    assert all(alarm["reading_time_ms"] >= fault["time_ms"] for alarm in alarms)
    first = alarms[0]
    assert max(first["contributions"], key=lambda entry: entry["share"])["sensor"] in fault["sensors"]
    assert sum(entry["share"] for entry in first["contributions"]) == pytest.approx(1.0, abs=1e-5)
    assert first["detector"] and first["state"] and first["event"]
    assert all(reference in first["condition"] for reference in first["values"])
    assert first["score"] > first["values"]["$input.Prediction.limit"]
    assert first["model"]["name"] and first["model"]["version"]
    assert kinds_of(events) == kinds
    assert all(list(event)[:3] == ["time_ms", "kind", "thing"] for event in events)


def test_a_recorded_file_is_learnt_from_its_first_rows_and_alarms_inside_its_labels(
    shared: Path, tmp_path: Path
) -> None:
    recorded = shared / "data" / "skab" / "valve1" / "1.csv"
    rows = recorded.read_text().splitlines()[1:]
    labelled = [row.split(";")[0] for row in rows if row.split(";")[-2] == "1.0"]

    def is_inside(event: dict[str, Any]) -> bool:
        if event["kind"] != "alarm":
            return False
        moment = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(event["reading_time_ms"] / 1000))
        return labelled[0] <= moment <= labelled[-1]

    events = events_until(tmp_path, lambda events: is_inside(events[-1]), "--replay", str(recorded), "--speed", "60")

    assert any(map(is_inside, events))


def test_a_process_that_is_killed_is_started_again_and_the_alarm_still_comes(tmp_path: Path) -> None:
    killed: list[int] = []

    def is_over(events: list[dict[str, Any]]) -> bool:
        if not killed and events[-1]["kind"] == "prediction":
            pids = [each["detail"].removeprefix("pid ") for each in events if is_start_of_the_gateway(each)]
            killed.append(int(pids[-1]))
            os.kill(killed[0], signal.SIGKILL)
        first = next((place for place, event in enumerate(events) if event["kind"] == "alarm"), len(events))
        return sum(event["kind"] == "prediction" for event in events[first:]) > 100

    events = events_until(tmp_path, is_over, "--speed", "36")

    assert [event["status"] for event in events if event["kind"] == "health"].count("restarted") == 1
    assert [event["kind"] for event in events].count("alarm") == 1


def is_start_of_the_gateway(event: dict[str, Any]) -> bool:
    told = (event["kind"], event.get("process"), event.get("status"))
    return told == ("health", "gateway", "starting") and event["detail"].startswith("pid ")


def test_ctrl_c_ends_everything_cleanly(tmp_path: Path) -> None:
    port = free_port()
    process = subprocess.Popen(
        [*UP, "--json", "--port", str(port), "--data-dir", str(tmp_path / "run")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line)["kind"] == "reading":
            break
    process.send_signal(signal.SIGINT)
    remaining, _ = process.communicate(timeout=60)

    assert process.returncode == 0
    assert all(json.loads(line) for line in remaining.splitlines())
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_reader_that_goes_away_ends_the_run_quietly(tmp_path: Path) -> None:
    command = [*UP, "--json", "--port", str(free_port()), "--data-dir", str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()

    told = process.stderr.read()

    assert process.wait(60) == 0
    assert "Traceback" not in told and "Exception" not in told
    process.stderr.close()


def test_a_taken_port_is_one_line_with_the_remedy(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = subprocess.run(
            [*UP, "--port", str(taken.getsockname()[1]), "--data-dir", str(tmp_path)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "--port N" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--broker", "mqtt://127.0.0.1:1"), "cannot be reached"),
        (("--broker", "http://127.0.0.1"), "mqtt://host:port"),
        (("--replay", "missing.csv"), "missing.csv: does not exist"),
        (("--train-rows", "0"), "must be 1 or more"),
    ],
    ids=["unreachable broker", "not a broker", "missing file", "no rows"],
)
def test_wrong_arguments_are_one_line(arguments: tuple[str, ...], told: str, tmp_path: Path) -> None:
    done = up(tmp_path, *arguments, timeout_s=60)

    assert done.returncode in (1, 2)
    assert len(done.stderr.splitlines()) == 1
    assert told in done.stderr


def test_a_data_directory_of_another_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text('{"scenario": "robot", "seed": 9}')

    done = up(tmp_path, "--scenario", "motor", timeout_s=60)

    assert done.returncode == 2
    assert "holds another run (robot, seed 9)" in done.stderr
