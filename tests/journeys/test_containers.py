"""
The containers without an engine: their recipes hold together, their build steps work, and what they run works together.

Build steps are carried out in a scratch root; the composition's own settings, access list and commands are run as processes,
with a real mosquitto that asks for certificates.
"""

import json
import os
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.journeys.dockerfile import ScratchRoot, chain, context_of, copies_of, exec_form, stages_of
from tests.loopback import free_port, wait_for_port, wait_until
from wheeltapper.certs import Authority
from wheeltapper.cli import build_parser, main
from wheeltapper.clock import ManualClock, SystemClock
from wheeltapper.errors import WheeltapperError
from wheeltapper.transport import Transport
from wheeltapper.transport.settings import BrokerSettings, open_transport

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
ROOMS = ("device", "gateway", "cloud")
OURS = ("certs", "keys", *ROOMS)


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    parsed: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    return parsed


# --- the recipes, as data ---


def test_compose_itself_accepts_the_composition() -> None:
    command = shutil.which("docker-compose", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
    if command is None:
        pytest.skip("docker-compose is not installed")
    checked = subprocess.run(
        [command, "-f", str(DOCKER / "compose.yaml"), "config", "--quiet"], capture_output=True, text=True, check=False
    )

    assert (checked.returncode, checked.stderr) == (0, "")


def test_every_service_is_locked_down(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "privileged" not in service, name
        assert service["mem_limit"], name
        assert service["pids_limit"], name
        if name != "certs":
            assert service["user"] == "1883:1883", name
            assert "cap_add" not in service, name


def test_the_one_service_that_is_root_has_no_network_and_two_capabilities(compose: dict[str, Any]) -> None:
    certs = compose["services"]["certs"]

    assert certs["user"] == "0:0"
    assert certs["network_mode"] == "none"
    assert certs["cap_add"] == ["CHOWN", "DAC_OVERRIDE"]


def test_what_runs_for_ever_restarts_and_is_checked(compose: dict[str, Any]) -> None:
    stages = stages_of(DOCKER / "Dockerfile")
    for name in ("broker", *ROOMS):
        service = compose["services"][name]
        assert service["restart"] == "unless-stopped", name
        assert "healthcheck" in service or stages[name].given("HEALTHCHECK"), name
    for name in ("certs", "keys"):
        assert compose["services"][name]["restart"] == "no", name
        assert compose["services"][name]["healthcheck"] == {"disable": True}, name


def test_services_wait_for_what_they_need(compose: dict[str, Any]) -> None:
    services = compose["services"]
    waits = {name: service.get("depends_on", {}) for name, service in services.items()}

    assert all(other in services for each in waits.values() for other in each)
    assert waits["broker"] == {"certs": {"condition": "service_completed_successfully"}}
    assert all(waits[name]["broker"] == {"condition": "service_healthy"} for name in ROOMS)


def test_every_port_is_on_loopback_unless_asked_otherwise(compose: dict[str, Any]) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]

    assert ports
    assert all(port.startswith("${WHEELTAPPER_BIND:-127.0.0.1}:") for port in ports)


def test_each_machine_sees_its_own_keys_alone(compose: dict[str, Any]) -> None:
    seen = {
        name: [each["source"] for each in service["volumes"] if isinstance(each, dict) and "certs" in each["source"]]
        for name, service in compose["services"].items()
    }

    assert seen == {
        "certs": ["../certs"],
        "keys": [],
        "broker": ["../certs/broker"],
        "device": ["../certs/motor-1"],
        "gateway": ["../certs/gateway"],
        "cloud": ["../certs/cloud"],
    }


def test_every_image_of_ours_can_be_built_by_the_service_that_needs_it(compose: dict[str, Any]) -> None:
    targets = stages_of(DOCKER / "Dockerfile")
    for name in OURS:
        service = compose["services"][name]
        assert service["image"] == f"wheeltapper-{service['build']['target']}"
        assert service["build"]["target"] in targets
        assert (DOCKER / service["build"]["context"] / service["build"]["dockerfile"]).is_file()


def test_everything_mounted_or_kept_is_there(compose: dict[str, Any]) -> None:
    kept = set(compose["volumes"])
    for name, service in compose["services"].items():
        for volume in service.get("volumes", []):
            if isinstance(volume, str):
                assert volume.partition(":")[0] in kept, name
            elif "certs" not in volume["source"]:
                assert (DOCKER / volume["source"]).is_file(), name
                assert volume["read_only"] is True, name


def test_every_copy_is_of_something_in_the_build_context() -> None:
    files = {str(path) for path in context_of(ROOT)}
    for stage in stages_of(DOCKER / "Dockerfile").values():
        for sources, _ in copies_of(stage):
            for source in sources:
                assert source in files or any(name.startswith(f"{source}/") for name in files), (stage.name, source)


def test_the_build_context_holds_no_key_no_data_and_no_test() -> None:
    tops = {path.parts[0] for path in context_of(ROOT)}

    assert tops == {
        *("LICENSE", "README.md", "pyproject.toml", "requirements", "docker"),
        *("wheeltapper", "models", "device", "components", "cloud"),
    }


def test_every_dependency_is_verified_by_its_hash() -> None:
    for stage in stages_of(DOCKER / "Dockerfile").values():
        for command in stage.given("RUN"):
            for part in command.split("&&"):
                if "pip" in part and " install " in part:
                    assert "--require-hashes" in part or "--no-index" in part, part


def test_no_image_runs_as_root_and_each_says_how_it_is() -> None:
    stages = stages_of(DOCKER / "Dockerfile")
    for room in ROOMS:
        assert stages[room].given("USER") == ["1883:1883"]
        assert stages[room].given("HEALTHCHECK")


@pytest.mark.parametrize("room", ROOMS)
def test_an_image_starts_a_command_that_exists(room: str) -> None:
    stages = stages_of(DOCKER / "Dockerfile")
    entry = exec_form(stages["base"].given("ENTRYPOINT")[0])

    assert entry == ["wheeltapper"]
    assert callable(build_parser().parse_args(exec_form(stages[room].given("CMD")[0])).run)


def test_the_compositions_commands_exist(compose: dict[str, Any]) -> None:
    assert callable(build_parser().parse_args(compose["services"]["certs"]["command"]).run)
    (script,) = compose["services"]["keys"]["command"]
    words = script.partition("|| wheeltapper ")[2].split()
    assert callable(build_parser().parse_args(words).run)


def test_the_first_access_key_goes_into_a_file_of_its_owner_and_into_no_log(
    compose: dict[str, Any], tmp_path: Path
) -> None:
    (script,) = compose["services"]["keys"]["command"]
    script = script.replace("wheeltapper cloud", f"{sys.executable} -m wheeltapper.cli cloud").replace(
        "/data", str(tmp_path)
    )

    first, again = (subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True) for _ in range(2))

    secret = (tmp_path / "operator.env").read_text().split("AWS_SECRET_ACCESS_KEY=")[1].split()[0]
    assert (tmp_path / "operator.env").stat().st_mode & 0o777 == 0o600
    assert secret not in first.stdout + first.stderr
    assert again.stdout + again.stderr == ""


def test_every_service_has_a_certificate_and_every_client_its_rights(compose: dict[str, Any]) -> None:
    command = compose["services"]["certs"]["command"]
    things = [command[place + 1] for place, word in enumerate(command) if word == "--thing"]
    users = [line.split()[1] for line in (DOCKER / "acl.conf").read_text().splitlines() if line.startswith("user ")]

    assert things == ["motor-1", "gateway", "cloud", "operator"]
    assert set(users) == set(things) - {"motor-1"}


# --- the build steps, carried out ---


# What a room's image must not hold: the other rooms, and what only they need.
ABSENT = {
    "device": (
        "wheeltapper_components",
        "wheeltapper_cloud",
        "wheeltapper_models",
        "onnxruntime",
        "boto3",
        "numpy",
        "cryptography",
    ),
    "gateway": ("wheeltapper_device", "wheeltapper_cloud", "boto3", "starlette", "lightgbm", "onnx"),
    "cloud": ("wheeltapper_device", "wheeltapper_components", "onnxruntime", "numpy"),
}
COMMANDS = {"device": {"device"}, "gateway": {"gateway", "model"}, "cloud": {"cloud"}}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("room", ROOMS if os.environ.get("WHEELTAPPER_LONG") else ROOMS[:1])
def test_an_image_builds_and_holds_its_room_alone(tmp_path: Path, room: str) -> None:
    image = ScratchRoot(tmp_path, ROOT)
    try:
        image.build(chain(stages_of(DOCKER / "Dockerfile"), f"build-{room}"))
    except subprocess.CalledProcessError as error:
        if "No matching distribution" in error.stderr and os.environ.get("CI") != "true":
            pytest.skip("the package index cannot be reached")
        raise AssertionError(f"{error}: {error.stderr}") from error
    probe = f"import importlib.util as u; print([n for n in {ABSENT[room]!r} if u.find_spec(n)])"

    shown = image.run(["wheeltapper", "--help"]).stdout
    commands = {line.split()[0] for line in shown.splitlines() if line.startswith("    ") and line[4] != " "}
    assert image.run([str(image.venv / "bin" / "python"), "-I", "-c", probe]).stdout.strip() == "[]"
    assert COMMANDS[room] <= commands
    assert not commands & set().union(*(COMMANDS[other] for other in ROOMS if other != room))
    if room == "device":
        rows = image.run(["wheeltapper", "device", "simulate", "--duration", "3"]).stdout.splitlines()
        assert len(rows) == 4


# --- what the containers run, run together ---


@dataclass
class Plant:
    """The composition as processes: its settings and access list, its certificates, its broker."""

    folder: Path
    port: int
    health_port: int
    cloud_port: int = field(default_factory=free_port)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def certs(self) -> Path:
        return self.folder / "certs"

    def settings(self, name: str, client: str) -> Path:
        """One of the composition's settings files, with this plant's paths and ports."""
        text = (DOCKER / name).read_text()
        for old, new in {
            "/certs/": f"{self.certs / client}/",
            "/mosquitto/config/": f"{self.folder}/",
            "/mosquitto/data/": f"{self.folder}/broker-data/",
            '"/data"': f'"{self.folder / client}"',
            "/models/": f"{ROOT}/models/wheeltapper_models/shipped/",
            "broker:8883": f"localhost:{self.port}",
            "listener 8883": f"listener {self.port} 127.0.0.1",
            "listener 1883": f"listener {self.health_port}",
            "port = 8600": f"port = {self.cloud_port}",
            '"0.0.0.0"': '"127.0.0.1"',
            '"machine_health.json"': f'"{ROOT}/wheeltapper/up/machine_health.json"',
        }.items():
            text = text.replace(old, new)
        path = self.folder / name
        path.write_text(text)
        return path

    def start(self, *words: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start a command; it ends with the test."""
        log = (self.folder / f"{Path(words[0]).name}.log").open("ab")
        program = [sys.executable, "-m", "wheeltapper.cli", *words] if words[0] in (*OURS, "device") else [*words]
        process = subprocess.Popen(program, stdout=log, stderr=log, env={**os.environ, **environment})
        log.close()
        self.processes.append(process)
        return process

    def client(self, name: str, folder: Path | None = None, port: int = 0) -> Transport:
        """A connection under a certificate."""
        files = (folder or self.certs) / name
        return open_transport(
            BrokerSettings(
                url=f"mqtts://localhost:{port or self.port}",
                ca=self.certs / "ca" / "ca.crt",
                certificate=files / f"{name}.crt",
                key=files / f"{name}.key",
            )
        )


@pytest.fixture
def plant(tmp_path: Path, mosquitto_path: str, compose: dict[str, Any]) -> Iterator[Plant]:
    plant = Plant(tmp_path, free_port(), free_port())
    made = compose["services"]["certs"]["command"]
    owner = made.index("--owner")
    words = [*made[:owner], *made[owner + 2 :]]
    words[words.index("/certs")] = str(plant.certs)
    assert main(words) == 0
    for name in ("acl.conf", "acl-health.conf"):
        shutil.copyfile(DOCKER / name, tmp_path / name)
        (tmp_path / name).chmod(0o600)
    (tmp_path / "broker-data").mkdir()
    conf = plant.settings("mosquitto.conf", "broker")
    if os.geteuid() == 0:
        conf.write_text(conf.read_text() + "\nuser root\n")
    plant.start(mosquitto_path, "-c", str(conf))
    try:
        for port in (plant.port, plant.health_port):
            wait_for_port(port)
        yield plant
    finally:
        for process in reversed(plant.processes):
            process.terminate()
            process.wait(90)


def heard_by(transport: Transport, topic_filter: str) -> list[tuple[str, dict[str, Any]]]:
    """A list that fills with what a started client hears."""
    heard: list[tuple[str, dict[str, Any]]] = []

    def take(delivery: Any) -> None:
        heard.append((delivery.topic, json.loads(delivery.payload or b"{}")))
        delivery.acknowledge()

    transport.subscribe(topic_filter, take)
    transport.start()
    return heard


def say(transport: Transport, topic: str) -> bool:
    """Publish once while connected; whether it was acknowledged. A broker may hang up on what it does not allow."""
    answers: list[bool] = []
    wait_until(lambda: transport.connected)
    transport.publish(topic, b"{}", answers.append)
    wait_until(lambda: bool(answers))
    return answers[0]


@pytest.mark.mosquitto
def test_the_composition_raises_an_alarm_over_certificates(plant: Plant) -> None:
    operator = plant.client("operator")
    heard = heard_by(operator, "wt/#")
    keys = plant.start("cloud", "keys", "create", "operator", "--data-dir", str(plant.folder / "cloud"))
    assert keys.wait(60) == 0
    cloud_settings = plant.settings("cloud.toml", "cloud")
    plant.start("cloud", "serve", "--config", str(cloud_settings), "--data-dir", str(plant.folder / "cloud"))
    plant.start("gateway", "run", "--config", str(plant.settings("gateway.toml", "gateway")))
    ready = {"wt/cloud/health", "wt/gateway/health"}
    wait_until(lambda: ready <= {topic for topic, body in heard if body.get("status") == "ready"})
    sooner = {"WHEELTAPPER_DEVICE__SIMULATION__ONSET_S": "60", "WHEELTAPPER_DEVICE__SIMULATION__TIME_SCALE": "20"}
    plant.start("device", "run", "--config", str(plant.settings("device.toml", "motor-1")), **sooner)
    wait_until(lambda: {"wt/motor-1/alarm", "wt/motor-1/action"} <= {topic for topic, _ in heard})
    operator.close()

    (fault,) = {body["reading_id"]: body for topic, body in heard if topic == "wt/motor-1/fault"}.values()
    alarm = next(body for topic, body in heard if topic == "wt/motor-1/alarm")
    assert alarm["contributions"][0]["sensor"] in fault["sensors"]
    assert alarm["reading_time_ms"] >= fault["time_ms"]
    for room in ROOMS:  # the broker hangs up on what its access list does not grant
        assert "connection lost" not in (plant.folder / f"{room}.log").read_text()
    for room in ("motor-1", "gateway"):
        assert main(["health", str(plant.folder / room)]) == 0


@pytest.mark.mosquitto
def test_a_machine_may_speak_for_itself_alone(plant: Plant) -> None:
    operator, machine = plant.client("operator"), plant.client("motor-1")
    heard = heard_by(operator, "wt/#")
    overheard = heard_by(machine, "wt/+/trigger/ingest")
    for topic in ("wt/motor-2/reading", "wt/motor-1/alarm", "wt/motor-2/trigger/ingest"):
        say(machine, topic)
    wait_until(lambda: say(machine, "wt/motor-1/reading"))
    for topic in ("wt/motor-2/trigger/ingest", "wt/motor-1/trigger/ingest"):
        assert say(operator, topic)
    wait_until(lambda: len(overheard) >= 1 and len(heard) >= 3)
    machine.close()
    operator.close()

    topics = [topic for topic, _ in heard]
    assert topics == ["wt/motor-1/reading", "wt/motor-2/trigger/ingest", "wt/motor-1/trigger/ingest"]
    assert [topic for topic, _ in overheard] == ["wt/motor-1/trigger/ingest"]


@pytest.mark.mosquitto
def test_nobody_gets_in_without_a_certificate_of_this_authority(plant: Plant, tmp_path: Path) -> None:
    stranger = Authority(tmp_path / "theirs", SystemClock())
    stranger.create()
    stranger.issue("operator")
    bare = BrokerSettings(url=f"mqtts://localhost:{plant.port}", ca=plant.certs / "ca" / "ca.crt")

    for transport in (plant.client("operator", tmp_path / "theirs"), open_transport(bare)):
        with pytest.raises((WheeltapperError, ssl.SSLError)):
            transport.start()
        transport.close()


@pytest.mark.mosquitto
def test_the_health_listener_tells_the_uptime_and_nothing_else(plant: Plant) -> None:
    check, operator = (
        open_transport(BrokerSettings(url=f"mqtt://127.0.0.1:{plant.health_port}")),
        plant.client("operator"),
    )
    told: list[str] = []
    for topic_filter in ("wt/#", "$SYS/#"):
        check.subscribe(topic_filter, lambda delivery: told.append(delivery.topic))
    check.start()
    operator.start()
    assert say(operator, "wt/motor-1/trigger/ingest")
    wait_until(lambda: bool(told))
    operator.close()
    check.close()

    assert set(told) == {"$SYS/broker/uptime"}


@pytest.mark.mosquitto
def test_a_machine_whose_certificate_has_expired_says_so_and_goes_on_measuring(plant: Plant) -> None:
    past = Authority(plant.certs, ManualClock(SystemClock().time_ms() - 3 * 86_400_000))
    past.issue("motor-1", days=1, force=True)
    device = plant.start("device", "run", "--config", str(plant.settings("device.toml", "motor-1")))
    log = plant.folder / "device.log"
    wait_until(lambda: "trying again" in log.read_text())
    measured = plant.folder / "motor-1" / "health.json"
    wait_until(lambda: measured.exists() and not json.loads(measured.read_text())["detail"].startswith("0 readings"))
    operator = plant.client("operator")
    heard = heard_by(operator, "wt/motor-1/reading")
    Authority(plant.certs, SystemClock()).rotate("motor-1")
    wait_until(lambda: len(heard) > 5)
    operator.close()

    assert device.poll() is None
    assert "Traceback" not in log.read_text()
    assert "certs show" in log.read_text() or "expired" in log.read_text()
    first = [int(body["message_id"].rpartition("-")[2]) for _, body in heard[:5]]
    assert first == [1, 2, 3, 4, 5]
