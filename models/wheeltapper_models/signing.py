"""
The key that signs models: made once, kept by whoever releases models, its public half given to every gateway.

A room that signs and a room that verifies share this and ``manifest``; neither knows the other.
"""

import os
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from wheeltapper.errors import SettingsError
from wheeltapper.secret_files import check_private


def create_key(path: Path) -> Ed25519PrivateKey:
    """
    Make a key: the private half at ``path``, readable by its owner only, the public half beside it as ``.pub.pem``.

    Raises:
        SettingsError: there is a file already, or none can be written.
    """
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(private)
        public_path(path).write_bytes(public)
    except FileExistsError as error:
        raise SettingsError(
            f"{path}: is there already; a new key would make every gateway refuse new models"
        ) from error
    except OSError as error:
        raise SettingsError(f"{path}: cannot be written: {error.strerror}") from error
    return key


def read_key(path: Path) -> Ed25519PrivateKey:
    """
    The private key of a file.

    Raises:
        SettingsError: it cannot be read, is no ed25519 private key, or others may read it.
    """
    check_private(path, "signing key")
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SettingsError(f"{path}: is no private key without a password: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SettingsError(f"{path}: is no ed25519 key; make one with: wheeltapper model registry key")
    return key


def public_path(path: Path) -> Path:
    """Where the public half of a key lies."""
    return path.with_suffix(".pub.pem")
