"""Versions of models: lineage, promotion, rollback, and files that nobody changes unnoticed."""

import json
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.components.small_models import write_small_model
from wheeltapper import cli
from wheeltapper.clock import ManualClock
from wheeltapper.errors import ModelError, SettingsError
from wheeltapper_cloud.registry_store import Registry
from wheeltapper_models.card import CARD_FILE, read_card
from wheeltapper_models.signing import create_key, public_path, read_key


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry", ManualClock(1_000))


def model(tmp_path: Path, gain: float = 1.0, version: str = "1.0.0", name: str = "motor") -> Path:
    return write_small_model(tmp_path / f"{name}-{version}-{gain}", version, gain=gain, name=name)


def add(registry: Registry, folder: Path, **settings: Any) -> str:
    return registry.add(folder, "ada", key=None, **settings).version


def test_a_version_keeps_its_lineage(registry: Registry, tmp_path: Path) -> None:
    folder = model(tmp_path)

    version = registry.add(folder, "ada", key=None, note="first")

    card = read_card(folder / CARD_FILE)
    assert (version.name, version.version, version.registered_by, version.note) == ("motor", "1.0.0", "ada", "first")
    assert (version.model_sha256, version.data_sha256) == (card.sha256, card.training.sha256)
    assert version.code == card.versions
    assert registry.find("motor") == version
    assert Registry(tmp_path / "registry", ManualClock()).find("motor", "1.0.0") == version


def test_the_same_contents_are_one_version(registry: Registry, tmp_path: Path) -> None:
    folder = model(tmp_path)

    assert add(registry, folder) == add(registry, folder) == "1.0.0"
    assert len(registry.versions("motor")) == 1


def test_other_contents_under_a_known_version_get_the_next_patch(registry: Registry, tmp_path: Path) -> None:
    add(registry, model(tmp_path))

    assert add(registry, model(tmp_path, 2.0)) == "1.0.1"
    assert read_card(registry.files(registry.find("motor", "1.0.1")) / CARD_FILE).version == "1.0.1"
    with pytest.raises(SettingsError, match="registered with other contents"):
        add(registry, model(tmp_path, 3.0), version="1.0.1")


@pytest.mark.parametrize(("given_version", "registered"), [("2", "2.0.0"), ("2.1", "2.1.0"), ("a1b2c3", "1.0.0")])
def test_a_cards_version_is_completed(registry: Registry, tmp_path: Path, given_version: str, registered: str) -> None:
    assert add(registry, model(tmp_path, version=given_version)) == registered


def test_promotions_are_a_journal_and_rollback_goes_one_back(registry: Registry, tmp_path: Path) -> None:
    for number, gain in enumerate((1.0, 2.0, 3.0)):
        add(registry, model(tmp_path, gain), version=f"1.{number}.0")
    for number in range(3):
        registry.promote("motor", f"1.{number}.0", "ada", "better")

    assert registry.roll_back("motor", "bob", "worse").version == "1.1.0"
    assert registry.roll_back("motor", "bob").version == "1.0.0"
    with pytest.raises(SettingsError, match="no version was live before"):
        registry.roll_back("motor", "bob")
    assert registry.live("motor") == "1.0.0"
    assert [(entry.what, entry.version, entry.by) for entry in registry.promotions("motor")][2:4] == [
        ("promote", "1.2.0", "ada"),
        ("rollback", "1.1.0", "bob"),
    ]


def test_a_rollback_that_is_released_has_a_higher_version_and_the_old_contents(
    registry: Registry, tmp_path: Path
) -> None:
    add(registry, model(tmp_path))
    add(registry, model(tmp_path, 2.0), version="1.1.0")
    registry.promote("motor", "1.0.0", "ada")
    registry.promote("motor", "1.1.0", "ada")

    again = registry.release_again(registry.roll_back("motor", "ada"), "ada", key=None)

    assert again.version == registry.live("motor") == "1.1.1"
    assert again.content == registry.find("motor", "1.0.0").content


def test_a_changed_file_is_never_promoted_or_given_away(registry: Registry, tmp_path: Path) -> None:
    add(registry, model(tmp_path))
    file = registry.files(registry.find("motor")) / "model.onnx"
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.write_bytes(content)

    with pytest.raises(ModelError, match="was changed or cut short"):
        registry.promote("motor", "1.0.0", "ada")
    assert registry.live("motor") == ""


def test_a_model_that_is_not_the_one_on_its_card_is_not_registered(registry: Registry, tmp_path: Path) -> None:
    folder = model(tmp_path)
    (folder / "model.onnx").write_bytes(b"another")

    with pytest.raises(ModelError, match="not the one on its card"):
        add(registry, folder)


def test_what_is_not_registered_is_named_with_what_is(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="none yet"):
        registry.find("motor")
    add(registry, model(tmp_path))
    with pytest.raises(SettingsError, match=r"known versions: 1\.0\.0"):
        registry.find("motor", "9.0.0")


def test_a_key_is_secret_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "release.pem"

    create_key(path)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert public_path(path).read_text().startswith("-----BEGIN PUBLIC KEY-----")
    with pytest.raises(SettingsError, match="is there already"):
        create_key(path)
    path.chmod(0o644)
    with pytest.raises(SettingsError, match="others may read"):
        read_key(path)
    with pytest.raises(SettingsError, match="cannot be read"):
        read_key(tmp_path / "none.pem")


def test_the_commands_register_promote_and_roll_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ["--data-dir", str(tmp_path / "data")]

    def run(*words: str) -> tuple[int, str]:
        status = cli.main(["model", "registry", *words, *data])
        return status, capsys.readouterr().out

    first, second = str(model(tmp_path)), str(model(tmp_path, 2.0, "1.1.0"))
    assert run("add", first)[0] == 2
    assert run("key")[0] == 0
    assert run("add", first, "--as", "ada")[0] == run("add", second)[0] == 0
    assert run("promote", "motor", "1.0.0")[0] == run("promote", "motor", "1.1.0", "--note", "good")[0] == 0
    status, printed = run("rollback", "motor", "--release", "--as", "bob", "--json")
    assert (status, json.loads(printed)["version"]) == (0, "1.1.1")
    listed = json.loads(run("list", "--json")[1])
    assert [(row["version"], row["live"]) for row in listed] == [("1.0.0", False), ("1.1.0", False), ("1.1.1", True)]
    assert all(row["signed_with"] for row in listed)
    shown = json.loads(run("show", "motor", "--json")[1])
    assert [entry["by"] for entry in shown["promotions"]][-1] == "bob"
    assert run("list")[0] == run("show", "motor:1.0.0")[0] == 0
    assert run("show", "pump")[0] == 2


@settings(max_examples=30, deadline=None)
@given(steps=st.lists(st.sampled_from(["1.0.0", "1.1.0", "1.2.0", "back"]), max_size=12))
def test_rolling_back_undoes_promotions_like_a_stack(
    steps: list[str], tmp_path_factory: pytest.TempPathFactory, three_versions: Path
) -> None:
    folder = tmp_path_factory.mktemp("registry") / "copy"
    shutil.copytree(three_versions, folder)
    registry = Registry(folder, ManualClock())
    expected: list[str] = []
    for step in steps:
        if step != "back":
            registry.promote("motor", step, "ada")
            expected += [step] if expected[-1:] != [step] else []
        elif len(expected) > 1:
            expected.pop()
            assert registry.roll_back("motor", "ada").version == expected[-1]

    assert registry.live("motor") == (expected[-1] if expected else "")


@pytest.fixture(scope="module")
def three_versions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("three")
    registry = Registry(folder / "registry", ManualClock())
    for number, gain in enumerate((1.0, 2.0, 3.0)):
        add(registry, model(folder, gain), version=f"1.{number}.0")
    return folder / "registry"
