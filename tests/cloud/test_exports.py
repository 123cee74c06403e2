"""A model on its way out: bucket, component, tarball; and the gateway's own check at the other end."""

import json
import tarfile
from pathlib import Path

import boto3
import pytest
from botocore.stub import Stubber

from tests.components.small_models import write_small_model
from wheeltapper import cli
from wheeltapper.clock import ManualClock
from wheeltapper.errors import ModelError, SettingsError, WheeltapperError
from wheeltapper_cloud.exports import files_in, to_bucket, to_component, to_tar
from wheeltapper_cloud.registry_store import Registry, Version
from wheeltapper_components.recipe_lint import lint
from wheeltapper_components.versions import load_version, versions_in
from wheeltapper_models.card import sha256_of
from wheeltapper_models.manifest import MANIFEST_FILE
from wheeltapper_models.signing import create_key, public_path

COMPONENT = "com.wheeltapper.Model.motor"


class Bench:
    """A registry with one signed version, its component as a nucleus lays it down, and a gateway's trusted keys."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        key = create_key(folder / "release.pem")
        registry = Registry(folder / "registry", ManualClock())
        self.version: Version = registry.add(write_small_model(folder / "motor"), "ada", key=key)
        self.files = registry.files(self.version)
        self.trusted = folder / "trusted"
        self.trusted.mkdir()
        (self.trusted / "release.pem").write_bytes(public_path(folder / "release.pem").read_bytes())
        self.recipe = to_component(self.version, self.files, folder / "out")
        self.deployed = folder / "out" / "artifacts" / COMPONENT / "1.0.0"

    def gateway_loads(self) -> str:
        (version,) = versions_in(self.deployed.parent)
        return load_version(version, self.trusted).card.version


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_gateway_takes_what_was_exported(bench: Bench) -> None:
    assert bench.gateway_loads() == "1.0.0"
    assert lint([bench.recipe]) == []
    uris = [artifact["Uri"] for artifact in json.loads(bench.recipe.read_text())["Manifests"][0]["Artifacts"]]
    assert {uri.rsplit("/", 1)[-1] for uri in uris} == {file.name for file in bench.deployed.iterdir()}


@pytest.mark.parametrize("name", ["model.onnx", "card.json", MANIFEST_FILE])
def test_a_flipped_byte_is_refused(bench: Bench, name: str) -> None:
    content = bytearray((bench.deployed / name).read_bytes())
    place = content.index(b"1.0.0") if name == MANIFEST_FILE else len(content) // 2
    content[place] ^= 1
    (bench.deployed / name).write_bytes(content)

    with pytest.raises(ModelError, match=name.replace(".", r"\.")):
        bench.gateway_loads()


def test_a_file_and_its_hash_changed_together_are_refused(bench: Bench) -> None:
    (bench.deployed / "card.json").write_bytes((bench.deployed / "card.json").read_bytes() + b"\n")
    manifest = json.loads((bench.deployed / MANIFEST_FILE).read_text())
    manifest["files"]["card.json"] = sha256_of(bench.deployed / "card.json")
    (bench.deployed / MANIFEST_FILE).write_text(json.dumps(manifest))

    with pytest.raises(ModelError, match="its signature does not fit"):
        bench.gateway_loads()


def test_the_key_of_somebody_else_is_refused(bench: Bench) -> None:
    create_key(bench.folder / "other.pem")
    (bench.trusted / "release.pem").write_bytes(public_path(bench.folder / "other.pem").read_bytes())

    with pytest.raises(ModelError, match="not among those trusted"):
        bench.gateway_loads()


def test_an_unsigned_model_is_refused_where_keys_are_trusted(bench: Bench) -> None:
    manifest = json.loads((bench.deployed / MANIFEST_FILE).read_text())
    del manifest["signature"]
    (bench.deployed / MANIFEST_FILE).write_text(json.dumps(manifest))

    with pytest.raises(ModelError, match="is not signed"):
        bench.gateway_loads()


def test_a_tarball_is_flat_and_the_same_every_time(bench: Bench) -> None:
    for name in ("a.tar.gz", "b.tar.gz"):
        to_tar(bench.files, bench.folder / name)

    assert (bench.folder / "a.tar.gz").read_bytes() == (bench.folder / "b.tar.gz").read_bytes()
    with tarfile.open(bench.folder / "a.tar.gz") as tar:
        assert tar.getnames() == ["card.json", "manifest.json", "model.onnx"]
        tar.extractall(bench.folder / "unpacked", filter="data")
    (version,) = versions_in(bench.folder / "unpacked")
    assert load_version(version, bench.trusted).card.name == "motor"


def test_a_bucket_gets_every_file_with_its_checksum_the_manifest_last(bench: Bench) -> None:
    client = boto3.client("s3", region_name="eu-central-1", aws_access_key_id="x", aws_secret_access_key="y")
    sent: list[str] = []
    client.meta.events.register("provide-client-params.s3.PutObject", lambda params, **_: sent.append(params["Key"]))
    with Stubber(client) as stub:
        for _ in range(3):
            stub.add_response("put_object", {})

        place = to_bucket(bench.version, bench.files, "s3://models/released/", lambda _service: client)

    assert place == "s3://models/released/motor/1.0.0/"
    assert sent == [f"released/motor/1.0.0/{name}" for name in ("card.json", "model.onnx", MANIFEST_FILE)]


def test_a_bucket_that_refuses_is_told_in_its_words(bench: Bench) -> None:
    client = boto3.client("s3", region_name="eu-central-1", aws_access_key_id="x", aws_secret_access_key="y")
    with Stubber(client) as stub:
        stub.add_client_error("put_object", "AccessDenied", "no")
        with pytest.raises(WheeltapperError, match="s3://models: AccessDenied: no"):
            to_bucket(bench.version, bench.files, "s3://models", lambda _service: client)
    with pytest.raises(SettingsError, match="must be s3://BUCKET/PREFIX"):
        to_bucket(bench.version, bench.files, "https://models", lambda _service: client)


def test_the_manifest_comes_last(bench: Bench) -> None:
    assert [file.name for file in files_in(bench.files)] == ["card.json", "model.onnx", "manifest.json"]


def test_the_command_registers_signs_and_writes(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, tar = tmp_path / "exported", tmp_path / "model.tar.gz"
    words = ["--data-dir", str(tmp_path / "data"), "--component", str(out), "--tar", str(tar)]
    folder = str(tmp_path / "motor")

    assert cli.main(["model", "export", folder, *words]) == 2
    assert "wheeltapper model registry key" in capsys.readouterr().err
    assert cli.main(["model", "export", folder, *words, "--key", str(tmp_path / "release.pem"), "--promote"]) == 0
    capsys.readouterr()
    assert cli.main(["model", "export", "motor", *words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "name": "motor",
        "version": "1.0.0",
        "component": str(out / "recipes" / f"{COMPONENT}-1.0.0.json"),
        "tar": str(tar),
    }
    assert load_version(versions_in(out / "artifacts" / COMPONENT)[0], bench.trusted).card.version == "1.0.0"
    assert cli.main(["model", "export", "motor", "--data-dir", str(tmp_path / "data")]) == 2
    assert cli.main(["model", "export", "no/folder", *words]) == 2
