"""New model versions: noticed, verified, warmed, swapped between two readings, or refused with the reason."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import onnx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.components.memory_gateway import MemoryGateway
from tests.components.small_models import write_small_model
from wheeltapper_components.settings import ModelSettings, ShadowSettings, WatchSettings
from wheeltapper_models.card import read_card, sha256_of
from wheeltapper_models.manifest import MANIFEST_FILE, write_manifest


class Versions:
    """A gateway whose model lies in a folder of versions."""

    def __init__(self, tmp_path: Path) -> None:
        self.tmp_path = tmp_path
        self.folder = tmp_path / "com.wheeltapper.Model.motor"
        self.keys = tmp_path / "keys"
        self.keys.mkdir()
        self.key = Ed25519PrivateKey.generate()
        public = self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (self.keys / "factory.pem").write_bytes(public)
        self.gateway: MemoryGateway | None = None

    def add(self, version: str, *, sign: Any = None, manifest: bool = True, **settings: Any) -> Path:
        folder = write_small_model(self.folder / version, version, **settings)
        if manifest:
            write_manifest(folder, settings.get("name", "motor"), version, sign)
        return folder

    def start(self, *, signed: bool = False, **settings: Any) -> MemoryGateway:
        model = ModelSettings(things=["*"], folder=self.folder, rollout=settings.pop("rollout", "swap"))
        watch = WatchSettings(trusted_keys=self.keys if signed else None)
        self.gateway = MemoryGateway(self.tmp_path, models=[model], watch=watch, **settings)
        return self.gateway

    def look(self) -> str:
        """Look once; what the gateway last said of it."""
        assert self.gateway is not None
        self.gateway.inference.shelf.look()
        self.gateway.run()
        told = self.gateway.heard("health")
        return str(told[-1]["detail"]) if told else ""

    def serving(self) -> str:
        assert self.gateway is not None
        slot = self.gateway.inference.shelf.seats[0].slot
        return slot.card.version if slot is not None else ""


@pytest.fixture
def versions(tmp_path: Path) -> Iterator[Versions]:
    versions = Versions(tmp_path)
    yield versions
    if versions.gateway is not None:
        versions.gateway.close()


def test_a_refused_version_is_no_trouble_any_more_once_it_is_taken_away(versions: Versions) -> None:
    versions.add("1.0.0")
    gateway = versions.start()
    bad = versions.add("2.0.0")
    (bad / "model.onnx").write_bytes(b"broken")

    said = versions.look()
    versions.look()
    still = gateway.inference._condition()
    shutil.rmtree(bad)
    versions.look()
    gone = gateway.inference._condition()
    (versions.add("2.0.0") / "model.onnx").write_bytes(b"broken")
    versions.look()
    back = gateway.inference._condition()

    assert "refused" in said
    assert not still[0] and "SHA-256" in still[1]
    assert gone[0] and "SHA-256" not in gone[1]
    assert not back[0] and "SHA-256" in back[1]
    assert versions.serving() == "1.0.0"


def test_the_highest_complete_version_serves(versions: Versions) -> None:
    for version in ("1.9.0", "1.10.0", "1.2.0", "1.10.0-rc.1"):
        versions.add(version)
    (versions.folder / "2.0.0").mkdir()

    versions.start()

    assert versions.serving() == "1.10.0"


def test_a_swap_scores_every_reading_once_and_is_no_cold_start(versions: Versions) -> None:
    versions.add("1.0.0", warmup_rows=3)
    gateway = versions.start()
    gateway.send(*range(10))
    gateway.run()
    versions.add("1.1.0", warmup_rows=3, gain=10.0)

    told = versions.look()
    gateway.send(*range(10, 20))
    gateway.run()

    assert told == "model motor 1.1.0 replaced motor 1.0.0"
    assert gateway.scored() == [f"m{number}" for number in range(3, 20)]
    assert [p["model"]["version"] for p in gateway.heard()] == ["1.0.0"] * 7 + ["1.1.0"] * 10
    scores = [prediction["score"] for prediction in gateway.heard()]
    assert scores[7] == pytest.approx(10 * scores[6], rel=0.2)


@pytest.mark.parametrize("met", ["at the restart", "after it"])
def test_a_swap_is_no_cold_start_even_where_a_restart_came_between(versions: Versions, met: str) -> None:
    versions.add("1.0.0", warmup_rows=3)
    gateway = versions.start()
    gateway.send(*range(10))
    gateway.run()

    gateway.close()
    if met == "at the restart":
        versions.add("1.1.0", warmup_rows=3)
    gateway.open()
    if met == "after it":
        versions.add("1.1.0", warmup_rows=3)
        versions.look()
    gateway.send(10)
    gateway.run()

    assert gateway.scored()[-1] == "m10"
    assert gateway.heard()[-1]["model"]["version"] == "1.1.0"


def test_a_version_whose_files_are_still_coming_is_left_alone(versions: Versions) -> None:
    versions.add("1.0.0")
    versions.start()
    folder = versions.add("1.1.0")
    model = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").unlink()

    assert versions.look() == ""
    (folder / "model.onnx").write_bytes(model)
    versions.look()

    assert versions.serving() == "1.1.0"


def flip_a_byte(folder: Path) -> None:
    data = bytearray((folder / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "model.onnx").write_bytes(data)


def flip_a_byte_without_a_manifest(folder: Path) -> None:
    (folder / MANIFEST_FILE).unlink()
    flip_a_byte(folder)


def change_graph(folder: Path, change: Any) -> None:
    """Alter the model and make card and manifest agree with it: only the runtime can object."""
    model = onnx.load(folder / "model.onnx")
    change(model)
    onnx.save(model, folder / "model.onnx")
    card = read_card(folder / "card.json")
    opset = next(item.version for item in model.opset_import if not item.domain)
    card = msgspec.structs.replace(card, sha256=sha256_of(folder / "model.onnx"), opset=opset)
    (folder / "card.json").write_bytes(msgspec.json.encode(card))
    write_manifest(folder, card.name, card.version)


def demand_a_future_opset(folder: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.opset_import[0].version = 900

    change_graph(folder, change)


def use_an_unknown_operator(folder: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.graph.node[0].op_type = "SplitHairs"

    change_graph(folder, change)


def compute_something_else(folder: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        next(node for node in model.graph.node if node.op_type == "Abs").op_type = "Neg"

    change_graph(folder, change)


def name_another_version(folder: Path) -> None:
    write_manifest(folder, "motor", "9.9.9")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (flip_a_byte, "SHA-256"),
        (flip_a_byte_without_a_manifest, "SHA-256"),
        (demand_a_future_opset, "opset 900"),
        (use_an_unknown_operator, "SplitHairs"),
        (compute_something_else, "self-test"),
        (name_another_version, "9.9.9"),
        (lambda folder: (folder / MANIFEST_FILE).write_text("{"), "manifest"),
        (lambda folder: shutil.copy(folder / "card.json", folder / "model.onnx"), "SHA-256"),
    ],
)
def test_a_bad_version_is_refused_once_with_its_reason_and_the_old_one_serves_on(
    versions: Versions, spoil: Any, reason: str
) -> None:
    versions.add("1.0.0")
    gateway = versions.start()
    gateway.send(0, 1)
    gateway.run()
    spoil(versions.add("1.1.0"))

    told = versions.look()
    versions.look()
    gateway.send(2)
    gateway.run()

    assert "1.1.0" in told
    assert reason in told
    assert told.endswith("motor 1.0.0 serves on")
    assert len(gateway.heard("health")) == 1
    assert gateway.heard()[-1]["model"]["version"] == "1.0.0"


@pytest.mark.parametrize(
    ("by", "reason"), [("nobody", "not signed"), ("a stranger", "not among those trusted"), ("the factory", "")]
)
def test_only_versions_signed_with_a_trusted_key_are_taken(versions: Versions, by: str, reason: str) -> None:
    versions.add("1.0.0", sign=versions.key)
    versions.start(signed=True)
    keys = {"nobody": None, "a stranger": Ed25519PrivateKey.generate(), "the factory": versions.key}
    versions.add("1.1.0", sign=keys[by])

    told = versions.look()

    assert reason in told
    assert versions.serving() == ("1.0.0" if reason else "1.1.0")


def test_a_manifest_changed_after_it_was_signed_is_refused(versions: Versions) -> None:
    versions.add("1.0.0", sign=versions.key)
    versions.start(signed=True)
    folder = versions.add("1.1.0", sign=versions.key)
    flip_a_byte(folder)
    text = (folder / MANIFEST_FILE).read_text()
    manifest = msgspec.json.decode(text)
    manifest["files"]["model.onnx"] = sha256_of(folder / "model.onnx")
    (folder / MANIFEST_FILE).write_bytes(msgspec.json.encode(manifest))

    assert "signature" in versions.look()
    assert versions.serving() == "1.0.0"


def test_a_candidate_that_agrees_is_promoted_after_its_trial(versions: Versions) -> None:
    versions.add("1.0.0")
    gateway = versions.start(rollout="shadow", shadow=ShadowSettings(readings=20, max_slowdown=1e9))
    gateway.send(*range(5))
    gateway.run()
    versions.add("1.1.0", gain=1.001)

    assert versions.look() == "model motor 1.1.0 runs beside motor 1.0.0"
    gateway.send(*range(5, 30))
    gateway.run()

    assert versions.serving() == "1.1.0"
    assert "promoted over motor 1.0.0" in gateway.heard("health")[-1]["detail"]
    assert gateway.scored() == [f"m{number}" for number in range(1, 30)]


def test_a_candidate_that_disagrees_is_reverted_and_stays_so_after_a_restart(versions: Versions) -> None:
    versions.add("1.0.0")
    gateway = versions.start(rollout="shadow", shadow=ShadowSettings(readings=20, max_slowdown=1e9))
    gateway.send(*range(5))
    gateway.run()
    versions.add("1.1.0", gain=100.0)
    versions.look()

    gateway.send(*range(5, 30))
    gateway.run()
    gateway.close()
    gateway.open()
    versions.look()

    assert versions.serving() == "1.0.0"
    assert any("reverted" in health["detail"] for health in gateway.heard("health"))
    assert {prediction["model"]["version"] for prediction in gateway.heard()} == {"1.0.0"}


def test_a_restart_in_the_middle_of_a_trial_promotes_nobody(versions: Versions) -> None:
    versions.add("1.0.0")
    gateway = versions.start(rollout="shadow")
    versions.add("1.1.0")
    versions.look()

    gateway.close()
    gateway.open()

    assert versions.serving() == "1.0.0"


def test_a_version_that_is_named_serves_although_there_is_a_higher_one(versions: Versions) -> None:
    versions.add("1.0.0")
    versions.add("1.1.0")
    gateway = MemoryGateway(
        versions.tmp_path, models=[ModelSettings(things=["*"], folder=versions.folder, version="1.0.0")]
    )
    versions.gateway = gateway

    versions.look()

    assert versions.serving() == "1.0.0"


def test_a_removed_version_gives_way_to_the_one_below(versions: Versions) -> None:
    versions.add("1.0.0")
    newer = versions.add("1.1.0")
    versions.start()

    shutil.rmtree(newer)
    versions.look()

    assert versions.serving() == "1.0.0"
