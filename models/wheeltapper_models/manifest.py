"""
The list of a model version's files with their SHA-256, signed or not: what a gateway checks before it opens any of them.

``manifest.json`` is written last, so that a folder with one whose files are all there is whole. The signature is ed25519
over the canonical JSON of the manifest without it; the key is named by the first 16 hexadecimal digits of the SHA-256 of
its 32 public bytes.
"""

import base64
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from wheeltapper.errors import ModelError
from wheeltapper.messages import UNREADABLE
from wheeltapper_models.card import sha256_of

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

MANIFEST_FILE = "manifest.json"


class Signature(msgspec.Struct, frozen=True):
    """Who signed, and the signature in base64."""

    key: str
    ed25519: str


class Manifest(msgspec.Struct, frozen=True, omit_defaults=True):
    """A version's files: relative path → SHA-256 in hexadecimal."""

    name: str
    version: str
    files: dict[str, str]
    signature: Signature | None = None
    format: int = 1

    def signed_bytes(self) -> bytes:
        """What a signature is over."""
        content = {"files": self.files, "format": self.format, "name": self.name, "version": self.version}
        return msgspec.json.encode(content, order="sorted")


def write_manifest(folder: Path, name: str, version: str, key: "Ed25519PrivateKey | None" = None) -> Manifest:
    """List every file of the folder, sign the list where a key is given, and write it."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST_FILE)
    manifest = Manifest(name, version, {path.relative_to(folder).as_posix(): sha256_of(path) for path in paths})
    if key is not None:
        signature = base64.b64encode(key.sign(manifest.signed_bytes())).decode()
        manifest = msgspec.structs.replace(manifest, signature=Signature(key_id(key.public_key()), signature))
    unready = folder / (MANIFEST_FILE + ".new")
    unready.write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
    unready.replace(folder / MANIFEST_FILE)
    return manifest


def read_manifest(folder: Path) -> Manifest | None:
    """
    The manifest of a folder; None where there is none.

    Raises:
        ModelError: it is there and cannot be read as one, or names files outside of the folder.
    """
    path = folder / MANIFEST_FILE
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except FileNotFoundError:
        return None
    except (OSError, *UNREADABLE) as error:
        raise ModelError(f"{path}: cannot be read as a manifest: {error}") from error
    if manifest.format != 1:
        raise ModelError(
            f"{path}: format {manifest.format} is newer than this version of wheeltapper reads; upgrade it"
        )
    for name in manifest.files:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ModelError(f"{path}: lists {name!r}, which is outside of its folder")
    return manifest


def missing_files(folder: Path, manifest: Manifest) -> list[str]:
    """Files that the manifest lists and the folder does not hold: it is not complete yet."""
    return [name for name in manifest.files if not (folder / name).is_file()]


def verify_manifest(folder: Path, manifest: Manifest, keys: "dict[str, Ed25519PublicKey] | None" = None) -> None:
    """
    Check the signature where keys are given, then the SHA-256 of every file.

    Args:
        keys: key id → key that is trusted; None asks for no signature.

    Raises:
        ModelError: names the file or the key, and what is wrong with it.
    """
    if keys is not None:
        _verify_signature(folder, manifest, keys)
    for name, sha256 in manifest.files.items():
        try:
            found = sha256_of(folder / name)
        except OSError as error:
            raise ModelError(f"{folder / name}: cannot be read: {error.strerror}") from error
        if found != sha256:
            raise ModelError(
                f"{folder / name}: its SHA-256 is not the one in the manifest; it was changed or cut short"
            )


def key_id(key: "Ed25519PublicKey") -> str:
    """The name of a key in signatures."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def trusted_keys(folder: Path) -> "dict[str, Ed25519PublicKey]":
    """
    The public keys (``*.pem``) of a folder, by their names in signatures.

    Raises:
        ModelError: a file is no ed25519 public key, or there is none at all.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    keys: dict[str, Ed25519PublicKey] = {}
    for path in sorted(folder.glob("*.pem")):
        try:
            key = load_pem_public_key(path.read_bytes())
        except (OSError, ValueError, UnsupportedAlgorithm) as error:
            raise ModelError(f"{path}: is no public key: {error}") from error
        if not isinstance(key, Ed25519PublicKey):
            raise ModelError(f"{path}: is no ed25519 key")
        keys[key_id(key)] = key
    if not keys:
        raise ModelError(f"{folder}: holds no public key (*.pem), so no model can be trusted")
    return keys


def _verify_signature(folder: Path, manifest: Manifest, keys: "dict[str, Ed25519PublicKey]") -> None:
    from cryptography.exceptions import InvalidSignature

    where = folder / MANIFEST_FILE
    signature = manifest.signature
    if signature is None:
        raise ModelError(f"{where}: is not signed, and only signed models are trusted here")
    if signature.key not in keys:
        raise ModelError(f"{where}: signed with the key {signature.key}, which is not among those trusted here")
    try:
        keys[signature.key].verify(base64.b64decode(signature.ed25519), manifest.signed_bytes())
    except (InvalidSignature, ValueError) as error:
        raise ModelError(f"{where}: its signature does not fit its contents; the manifest was changed") from error
