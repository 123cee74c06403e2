"""The proof of what is built: installed without an index as a recipe says, started on a nucleus lite, scoring."""

import json
import os
import shutil
import subprocess
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.components.nucleus import Nucleus
from wheeltapper.errors import SettingsError, UnavailableError
from wheeltapper.messages import Reading, encode
from wheeltapper_components.build import ROOM, Built, Plan, build
from wheeltapper_components.build_model import ModelSource
from wheeltapper_components.build_wheels import _own_wheel, gather, this_device
from wheeltapper_models import shipped
from wheeltapper_models.card import CARD_FILE, read_card

# It downloads, builds and installs 50 MB of wheels; a busy machine takes its time.
pytestmark = pytest.mark.timeout(400)
MOTOR = Path(shipped.__file__).parent / "motor"


def copy_checkout(source: Path, target: Path) -> None:
    """What a build reads of a checkout."""
    project = tomllib.loads((source / "pyproject.toml").read_text())
    for folder in [*project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"], "components", "requirements"]:
        shutil.copytree(
            source / folder, target / folder, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True
        )
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        (target / file).write_bytes((source / file).read_bytes())


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkout")
    copy_checkout(ROOM.parent, folder)
    return folder


@pytest.fixture(scope="module")
def plan(checkout: Path) -> Plan:
    return Plan(device=this_device(), models=[ModelSource(MOTOR, ("motor-*",))], room=checkout / "components")


@pytest.fixture(scope="module")
def built(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Built]:
    try:
        found = build(plan, tmp_path_factory.mktemp("built"))
    except UnavailableError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"offline: {error}")
    return {one.name.rpartition(".")[2]: one for one in found}


@pytest.fixture(scope="module")
def wheels(built: dict[str, Built], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    with zipfile.ZipFile(built["Inference"].artifacts / "wheels.zip") as zipped:
        zipped.extractall(folder)
    return folder


@pytest.fixture
def nucleus(tmp_path: Path) -> Iterator[Nucleus]:
    with Nucleus(tmp_path, "lite") as nucleus:
        yield nucleus


def script_of(built: Built, phase: str, root: Path, work: Path) -> str:
    """A phase's script with the variables that a nucleus replaces."""
    script: str = json.loads(built.recipe.read_text())["Manifests"][0]["Lifecycle"][phase]["Script"]
    values = {"artifacts:path": built.artifacts, "work:path": work, "kernel:rootPath": root}
    for name, value in values.items():
        script = script.replace("{" + name + "}", str(value))
    assert "{" not in script
    return script


def motor_reading(number: int) -> bytes:
    middle = {
        column.name: ((column.low or 0.0) + (column.high or 0.0)) / 2 for column in read_card(MOTOR / CARD_FILE).inputs
    }
    return encode(Reading(f"m{number}", "motor-1", 1_000 * number, dict(middle)))


@pytest.mark.timeout(900)
def test_it_installs_without_an_index_and_scores_on_a_nucleus_lite(
    built: dict[str, Built], nucleus: Nucleus, tmp_path: Path
) -> None:
    root, work = tmp_path / "root", tmp_path / "work"
    (root / "packages").mkdir(parents=True)
    work.mkdir()
    inference = built["Inference"]
    (root / "packages" / "artifacts").symlink_to(inference.artifacts.parents[1])
    bare = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "PIP_INDEX_URL": "http://127.0.0.1:9/simple"}
    install = script_of(inference, "install", root, work)

    subprocess.run(["sh", "-c", install], env=bare, cwd=work, check=True, timeout=300)

    venv = work / f"venv-{inference.version}"
    assert (venv / ".ok").exists()
    python = (venv / "bin" / "python").stat().st_mtime_ns
    subprocess.run(["sh", "-c", install], env=bare, cwd=work, check=True, timeout=120)
    assert (venv / "bin" / "python").stat().st_mtime_ns == python
    recipe: dict[str, Any] = json.loads(inference.recipe.read_text())
    component = nucleus.install(recipe)
    told = {
        "AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT": str(nucleus.socket_path),
        "SVCUID": component.token,
        "AWS_IOT_THING_NAME": nucleus.thing,
    }
    with subprocess.Popen(["sh", "-c", script_of(inference, "run", root, work)], env=bare | told, cwd=work) as process:
        try:
            assert nucleus.wait_for(lambda: component.states == ["RUNNING"], 120)
            for number in range(1, 40):
                nucleus.publish_local("wt/motor-1/reading", motor_reading(number))
            assert nucleus.wait_for(lambda: any(topic == "wt/motor-1/prediction" for topic, _ in nucleus.local), 120)
            prediction = json.loads(next(payload for topic, payload in nucleus.local if topic.endswith("/prediction")))
            assert prediction["anomaly"] in (0, 1)
        finally:
            process.terminate()
        assert process.wait(90) == 0


def test_the_same_inputs_give_the_same_bytes(plan: Plan, built: dict[str, Built], wheels: Path, tmp_path: Path) -> None:
    build(msgspec.structs.replace(plan, wheels=wheels), tmp_path)

    first = built["Inference"].recipe.parents[1]
    names = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert [name for name in names if (first / name).read_bytes() != (tmp_path / name).read_bytes()] == []


def test_our_own_wheel_is_built_the_same_from_every_checkout(checkout: Path, wheels: Path, tmp_path: Path) -> None:
    copy_checkout(checkout, tmp_path / "other-name")

    _own_wheel(tmp_path / "other-name", tmp_path, None)

    (made,) = tmp_path.glob("*.whl")
    assert made.read_bytes() == (wheels / made.name).read_bytes()


def test_wheels_from_a_folder_must_be_the_locked_ones(plan: Plan, wheels: Path, tmp_path: Path) -> None:
    forged = tmp_path / "forged"
    forged.mkdir()
    for wheel in wheels.iterdir():
        (forged / wheel.name).write_bytes(wheel.read_bytes() + b"x" * wheel.name.startswith("mdurl"))

    with pytest.raises(SettingsError, match="DO NOT MATCH THE HASHES"):
        gather(ROOM.parent, plan.device, tmp_path, forged)
