"""
``wheeltapper model export``: a model leaves for gateways and others, sealed by a signed manifest.

It goes to a bucket, into a Greengrass component, or into a ``model.tar.gz`` as SageMaker lays it out; each is the same files
and, from the same version, the same bytes.
"""

import argparse
import base64
import gzip
import hashlib
import io
import json
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from wheeltapper.cli import Commands
from wheeltapper.errors import SettingsError, UnavailableError, WheeltapperError
from wheeltapper_cloud.registry_store import Registry, Version
from wheeltapper_models.component import COMPONENT_PREFIX, artifact_uris, model_recipe, write_recipe
from wheeltapper_models.manifest import MANIFEST_FILE

GROUP_HELP = "train models of a machine's health, score and judge them"


def register(commands: Commands) -> None:
    """Add ``model export``."""
    from wheeltapper_cloud.registry import add_common, add_release

    parser = commands.group("model", GROUP_HELP).add(
        "export",
        _export,
        help="register a model and send it to a bucket, a Greengrass component or a tarball, signed",
        example="wheeltapper model export models/pump --component dist/greengrass\n"
        "wheeltapper model export pump:1.2.0 --to s3://my-models/released --tar model.tar.gz",
    )
    parser.add_argument("model", metavar="MODEL", help="a model's folder, or NAME or NAME:VERSION of a registered one")
    parser.add_argument("--to", metavar="s3://BUCKET/PREFIX", help="upload to PREFIX/NAME/VERSION/")
    parser.add_argument(
        "--component",
        type=Path,
        nargs="?",
        const=Path("dist/greengrass"),
        metavar="DIR",
        help="write recipes/ and artifacts/ of the model's component (DIR by default: dist/greengrass)",
    )
    parser.add_argument("--tar", type=Path, metavar="FILE", help="write a model.tar.gz as SageMaker takes it")
    parser.add_argument("--promote", action="store_true", help="make it the live version as well")
    add_release(parser)
    add_common(parser)


def files_in(folder: Path) -> list[Path]:
    """A version's files, its manifest last, so that whoever has the manifest has them all."""
    return sorted(folder.iterdir(), key=lambda path: (path.name == MANIFEST_FILE, path.name))


def to_component(version: Version, folder: Path, out: Path) -> Path:
    """
    Write the component of a version, as a local deployment and ``component publish`` take it.

    Returns:
        The recipe.

    Raises:
        SettingsError: the folder cannot be written.
    """
    name = COMPONENT_PREFIX + version.name
    artifacts = out / "artifacts" / name / version.version
    files = files_in(folder)
    try:
        artifacts.mkdir(parents=True, exist_ok=True)
        for file in files:
            (artifacts / file.name).write_bytes(file.read_bytes())
        uris = artifact_uris(name, version.version, sorted(file.name for file in files))
        return write_recipe(model_recipe(name, version.version, uris), out)
    except OSError as error:
        raise SettingsError(f"{out}: cannot be written: {error.strerror}") from error


def to_tar(folder: Path, target: Path) -> None:
    """
    Write ``model.tar.gz``: the files side by side, without owners and times, so that equal files give equal bytes.

    Raises:
        SettingsError: the file cannot be written.
    """
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for file in sorted(folder.iterdir()):
            entry = tarfile.TarInfo(file.name)
            content = file.read_bytes()
            entry.size, entry.mode = len(content), 0o644
            tar.addfile(entry, io.BytesIO(content))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(gzip.compress(packed.getvalue(), compresslevel=9, mtime=0))
    except OSError as error:
        raise SettingsError(f"{target}: cannot be written: {error.strerror}") from error


def to_bucket(version: Version, folder: Path, address: str, client: Callable[[str], Any]) -> str:
    """
    Upload a version's files, the manifest last.

    Args:
        address: ``s3://BUCKET`` or ``s3://BUCKET/PREFIX``.
        client: gives the boto3 client of a service.

    Returns:
        The address of the version's folder.

    Raises:
        SettingsError: the address is none, or there are no credentials.
        UnavailableError: S3 cannot be reached.
        WheeltapperError: S3 refuses; says what.
    """
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    parts = urlsplit(address)
    if parts.scheme != "s3" or not parts.netloc:
        raise SettingsError(f"--to {address}: must be s3://BUCKET/PREFIX")
    place = "/".join(filter(None, [parts.path.strip("/"), version.name, version.version]))
    try:
        s3 = client("s3")
        for file in files_in(folder):
            content = file.read_bytes()
            checksum = base64.b64encode(hashlib.sha256(content).digest()).decode()
            s3.put_object(Bucket=parts.netloc, Key=f"{place}/{file.name}", Body=content, ChecksumSHA256=checksum)
    except ClientError as error:
        code, message = (error.response["Error"].get(name, "") for name in ("Code", "Message"))
        raise WheeltapperError(f"{address}: {code}: {message}") from error
    except NoCredentialsError as error:
        raise SettingsError(f"{address}: {error}; see: aws configure") from error
    except BotoCoreError as error:
        raise UnavailableError(f"{address}: {' '.join(str(error).split())}") from error
    return f"s3://{parts.netloc}/{place}/"


def _export(options: argparse.Namespace) -> int:
    from wheeltapper_cloud.registry import add_model, open_registry

    if not (options.to or options.component or options.tar):
        raise SettingsError("model export: where to? give --to s3://BUCKET/PREFIX, --component DIR or --tar FILE")
    registry = open_registry(options)
    version = add_model(registry, options) if Path(options.model).is_dir() else _registered(registry, options.model)
    folder = registry.files(version)
    written: dict[str, str] = {}
    if options.component:
        written["component"] = str(to_component(version, folder, options.component))
    if options.tar:
        to_tar(folder, options.tar)
        written["tar"] = str(options.tar)
    if options.to:
        import boto3

        written["bucket"] = to_bucket(version, folder, options.to, boto3.client)
    if options.promote:
        registry.promote(version.name, version.version, options.by, options.note)
    if options.json:
        print(json.dumps({"name": version.name, "version": version.version, **written}))
        return 0
    if not version.signed_with:
        print("warning: not signed; gateways with trusted keys will refuse it", file=sys.stderr)
    for kind, where in written.items():
        print(f"{version.name} {version.version}: {kind}: {where}")
    return 0


def _registered(registry: Registry, text: str) -> Version:
    name, _, version = text.partition(":")
    if not name or "/" in name:
        raise SettingsError(f"{text}: is neither a folder nor the name of a registered model")
    return registry.find(name, version)
