"""
Access keys, as AWS names them: an id that is public and a secret that signs.

A signature can only be verified with the secret itself, so secrets are not hashed but sealed (AES-256-GCM, the id as
associated data) with a key in a file of its own. Both files are 0600; whoever copies one without the other has nothing.
"""

import base64
import fcntl
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from wheeltapper.clock import Clock
from wheeltapper.errors import SettingsError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEYS_FILE = "keys.json"
SEAL_FILE = "keys.seal"
LOCK_FILE = "keys.lock"
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_NONCE = 12


class AccessKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One access key; ``sealed`` is nonce and ciphertext of the secret, in base64."""

    access_key_id: str
    sealed: str
    name: str
    created_ms: int


class NewKey(msgspec.Struct, frozen=True):
    """A key that was just made; the only time that its secret is shown."""

    access_key_id: str
    secret_access_key: str
    name: str


class KeyStore:
    """The access keys of one data directory; a running server sees what another process creates and revokes."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder = folder
        self._path = str(folder / KEYS_FILE)
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        self._keys: dict[str, AccessKey] = {}
        self._secrets: dict[str, bytes] = {}

    def create(self, name: str = "") -> NewKey:
        """Make a key; ``name`` says whose it is."""
        made = NewKey("WTAK" + "".join(secrets.choice(_ALPHABET) for _ in range(16)), secrets.token_urlsafe(30), name)
        with self._changing():
            self._write([*self._keys.values(), self._sealed(made)])
        return made

    def revoke(self, access_key_id: str) -> None:
        """
        Forget a key; requests signed with it are refused from now on.

        Raises:
            SettingsError: there is no such key.
        """
        with self._changing():
            if access_key_id not in self._keys:
                raise SettingsError(f"key {access_key_id}: not known; `wheeltapper cloud keys list` shows them")
            self._write([key for key in self._keys.values() if key.access_key_id != access_key_id])

    def all(self) -> list[AccessKey]:
        """Every key, oldest first."""
        with self._lock:
            self._refresh()
            return list(self._keys.values())

    def any(self) -> bool:
        """Whether there is a key at all."""
        with self._lock:
            self._refresh()
            return bool(self._keys)

    def secret(self, access_key_id: str) -> bytes | None:
        """The secret of a key; None where it is unknown or revoked."""
        with self._lock:
            self._refresh()
            if access_key_id not in self._keys:
                return None
            if access_key_id not in self._secrets:
                self._secrets[access_key_id] = self._unseal(self._keys[access_key_id])
            return self._secrets[access_key_id]

    def name(self, access_key_id: str) -> str:
        """Whose key it is: its name, or its id where it has none."""
        key = self._keys.get(access_key_id)
        return key.name if key is not None and key.name else access_key_id

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Read, change and write with no other thread or process in between."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._lock, (self._folder / LOCK_FILE).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._refresh()
            yield

    def _sealed(self, made: NewKey) -> AccessKey:
        nonce = os.urandom(_NONCE)
        sealed = nonce + self._cipher().encrypt(nonce, made.secret_access_key.encode(), made.access_key_id.encode())
        return AccessKey(
            access_key_id=made.access_key_id,
            sealed=base64.b64encode(sealed).decode(),
            name=made.name,
            created_ms=self._clock.time_ms(),
        )

    def _unseal(self, key: AccessKey) -> bytes:
        from cryptography.exceptions import InvalidTag

        sealed = base64.b64decode(key.sealed)
        try:
            return self._cipher().decrypt(sealed[:_NONCE], sealed[_NONCE:], key.access_key_id.encode())
        except InvalidTag as error:
            raise SettingsError(
                f"{self._folder / SEAL_FILE}: does not open key {key.access_key_id}; restore the file or make new keys"
            ) from error

    def _refresh(self) -> None:
        path = self._path
        try:
            found = os.stat(path)  # noqa: PTH116 - asked for with every request, and pathlib takes ten times as long
        except FileNotFoundError:
            self._seen, self._keys, self._secrets = None, {}, {}
            return
        seen = (found.st_mtime_ns, found.st_ino, found.st_size)
        if seen == self._seen:
            return
        try:
            keys = msgspec.json.decode(Path(path).read_bytes(), type=list[AccessKey])
        except msgspec.DecodeError as error:
            raise SettingsError(f"{path}: not a list of access keys: {error}") from error
        self._keys = {key.access_key_id: key for key in keys}
        self._secrets, self._seen = {}, seen

    def _write(self, keys: list[AccessKey]) -> None:
        path = self._folder / KEYS_FILE
        beside = path.with_suffix(".new")
        _write_private(beside, msgspec.json.format(msgspec.json.encode(keys)))
        beside.replace(path)
        self._refresh()

    def _cipher(self) -> "AESGCM":
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        path = self._folder / SEAL_FILE
        if not path.exists():
            _write_private(path, os.urandom(32), exclusive=True)
        return AESGCM(path.read_bytes())


def _write_private(path: Path, content: bytes, *, exclusive: bool = False) -> None:
    flags = os.O_WRONLY | os.O_CREAT | (os.O_EXCL if exclusive else os.O_TRUNC)
    with open(os.open(path, flags, 0o600), "wb") as file:  # noqa: PTH123
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
