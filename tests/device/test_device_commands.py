"""The device's commands and settings: what a person types, what a file says, and what is refused."""

import contextlib
import csv
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wheeltapper.cli import main
from wheeltapper.clock import ManualClock
from wheeltapper.errors import SettingsError, UnavailableError
from wheeltapper.health import check_health, write_health
from wheeltapper.messages import Health, encode
from wheeltapper_device.machines import MACHINES, Simulation
from wheeltapper_device.settings import DeviceSettings, load_settings

EXAMPLE = Path(__file__).resolve().parents[2] / "device" / "device.example.toml"


def test_simulate_writes_what_the_simulation_says(tmp_path: Path) -> None:
    out = tmp_path / "m.csv"
    assert (
        main(["device", "simulate", "--scenario", "motor", "--seed", "7", "--duration", "20", "--out", str(out)]) == 0
    )
    with out.open() as stream:
        rows = list(csv.DictReader(stream))

    simulation = Simulation("motor", 7)
    assert len(rows) == 20
    assert rows[0].pop("time") == "2026-01-01T00:00:00.000Z"
    assert {name: float(value) for name, value in rows[0].items()} == simulation.next().values


def test_simulate_labels_the_rows_of_a_fault(tmp_path: Path) -> None:
    out = tmp_path / "r.csv"
    options = ["--scenario", "robot", "--fault", "wear", "--onset", "10", "--growth", "20", "--duration", "40"]
    main(["device", "simulate", *options, "--labels", "--out", str(out)])
    with out.open() as stream:
        rows = list(csv.DictReader(stream))

    assert [row["fault"] for row in rows] == [""] * 10 + ["wear"] * 30
    assert [float(rows[row]["severity"]) for row in (0, 10, 20, 39)] == [0.0, 0.0, 0.5, 1.0]


def test_simulate_samples_at_the_rate_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    main(["device", "simulate", "--scenario", "evaporator", "--rate", "4", "--duration", "2", "--start", "2026-03-01"])

    times = [line.split(",")[0] for line in capsys.readouterr().out.splitlines()[1:]]
    assert times == [
        f"2026-03-01T00:00:0{second}.{part}Z" for second in (0, 1) for part in ("000", "250", "500", "750")
    ]


def test_scenarios_tell_units_ranges_and_the_sensors_faults_touch(capsys: pytest.CaptureFixture[str]) -> None:
    main(["device", "scenarios", "--json"])
    listed = json.loads(capsys.readouterr().out)

    assert [each["scenario"] for each in listed] == list(MACHINES)
    for each in listed:
        names = {sensor["name"] for sensor in each["sensors"]}
        assert all(sensor["unit"] and sensor["low"] < sensor["high"] for sensor in each["sensors"])
        assert all(set(fault["sensors"]) <= names for fault in each["faults"])


def test_the_example_settings_are_valid_and_say_the_defaults() -> None:
    settings = load_settings(EXAMPLE, {}, {})

    defaults = DeviceSettings()
    assert settings.simulation == defaults.simulation
    assert settings.outbox == defaults.outbox
    assert settings.trigger == defaults.trigger
    assert settings.data_dir == EXAMPLE.parent / "../wheeltapper-data/device"


def test_the_environment_goes_over_the_file_and_the_command_line_over_both(tmp_path: Path) -> None:
    path = tmp_path / "d.toml"
    path.write_text('thing = "a"\n[broker]\nurl = "mqtt://a"\nkeep_alive_s = 7\n[simulation]\nseed = 1\n')
    environment = {
        "WHEELTAPPER_DEVICE__THING": "b",
        "WHEELTAPPER_DEVICE__BROKER__URL": "mqtt://b",
        "WHEELTAPPER_DEVICE__SIMULATION__SEED": "2",
        "PATH": "/bin",
    }
    settings = load_settings(path, environment, {("broker", "url"): "mqtt://c", ("thing",): None})

    assert (settings.thing, settings.broker.url, settings.broker.keep_alive_s) == ("b", "mqtt://c", 7)
    assert settings.simulation.seed == 2


def test_paths_in_a_file_are_relative_to_it(tmp_path: Path) -> None:
    path = tmp_path / "d.toml"
    path.write_text('data_dir = "data"\n[broker]\nca = "certs/ca.crt"\n[replay]\nfile = "/abs/f.csv"\n')
    settings = load_settings(path, {}, {})

    assert settings.data_dir == tmp_path / "data"
    assert settings.broker.ca == tmp_path / "certs/ca.crt"
    assert settings.replay.file == Path("/abs/f.csv")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("thing = 'a b'", "thing"),
        ("things = 'a'", "things"),
        ("[broker]\nport = 1883", "port"),
        ("[simulation]\ntime_scale = 0", "time_scale"),
        ("[outbox]\nfull = 'explode'", "full"),
        ("data_dir = 7", "data_dir"),
        ("broker = 'mqtt://x'", "broker"),
        ("not toml", "TOML"),
    ],
)
def test_a_setting_that_is_not_valid_is_named(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "d.toml"
    path.write_text(text)

    with pytest.raises(SettingsError, match=named):
        load_settings(path, {}, {})


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--config", "gone.toml"],
        ["run", "--broker", "http://x"],
        ["run", "--scenario", "toaster"],
        ["run", "--replay", "gone.csv"],
        ["run", "--scenario", "motor", "--replay", "x.csv"],
        ["run", "--fault", "rust"],
        ["simulate", "--duration", "0"],
        ["simulate", "--start", "soon"],
        ["simulate", "--out", "/proc/nowhere/x.csv", "--duration", "5"],
    ],
    ids=lambda arguments: " ".join(arguments),
)
def test_a_wrong_request_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    assert main(["device", *arguments]) in (1, 2)
    assert len(capsys.readouterr().err.splitlines()) == 1


def report(status: str, time_ms: int) -> bytes:
    return encode(Health(thing="m", time_ms=time_ms, process="device", status=status))  # type: ignore[arg-type]


def test_a_fresh_and_ready_report_is_health(tmp_path: Path) -> None:
    write_health(tmp_path, report("ready", 1_000_000))

    assert check_health(tmp_path, ManualClock(1_030_000)).status == "ready"


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (None, "says nothing"),
        (b"{", "says nothing"),
        (report("ready", 1_000_000).replace(b"device", b"\xff"), "says nothing"),
        (report("ready", 0), "silent"),
        (report("degraded", 1_000_000), "degraded"),
    ],
    ids=["none", "broken", "no utf-8", "old", "degraded"],
)
def test_silence_and_trouble_are_not_health(tmp_path: Path, payload: bytes | None, reason: str) -> None:
    if payload is not None:
        write_health(tmp_path, payload)

    with pytest.raises(UnavailableError, match=reason):
        check_health(tmp_path, ManualClock(1_030_000))


@pytest.mark.mosquitto
@pytest.mark.parametrize("source", [("--replay", "rows.csv"), ("--scenario", "motor", "--fault", "none")])
def test_a_run_told_by_the_command_line_alone_sends_and_reports(
    tmp_path: Path, mosquitto: int, source: tuple[str, ...]
) -> None:
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n3,4\n")
    where = ("--thing", "pump-7", "--broker", f"mqtt://127.0.0.1:{mosquitto}", "--data-dir", "data")
    command = [sys.executable, "-m", "wheeltapper.cli", "device", "run", *source, *where]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 90
    health = ""
    while "ready" not in health and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
        with contextlib.suppress(OSError):
            health = (tmp_path / "data" / "health.json").read_text()
    process.terminate()

    _, said = process.communicate(timeout=90)

    assert (process.returncode, "Traceback" in said) == (0, False), said
    assert '"thing":"pump-7"' in health
    assert '"ready"' in health


def test_the_room_is_slim() -> None:
    modules = ("machines", "recording", "listing", "replay", "triggers", "settings", "sources", "cli")
    script = "import sys\n" + "".join(f"import wheeltapper_device.{name}\n" for name in modules)
    script += "print(sorted({name.split('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout

    for foreign in ("numpy", "onnxruntime", "boto3", "paho", "awscrt", "cryptography", "wheeltapper_models"):
        assert f"'{foreign}'" not in loaded
