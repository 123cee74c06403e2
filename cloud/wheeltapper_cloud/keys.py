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
from collections.abc import Callable, Iterator
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
_SEAL = 32
_DAY_MS = 86_400_000
_NAME = 128


class AccessKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One access key; ``sealed`` is nonce and ciphertext of the secret, in base64; useless from ``expires_ms`` on."""

    access_key_id: str
    sealed: str
    name: str
    created_ms: int
    expires_ms: int | None = None


class NewKey(msgspec.Struct, frozen=True):
    """A key that was just made; the only time that its secret is shown."""

    access_key_id: str
    secret_access_key: str
    name: str


class KeyStore:
    """The access keys of one data directory, ``folder``; a running server sees what another process creates and revokes."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self.folder = folder
        self._path = str(folder / KEYS_FILE)
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        self._keys: dict[str, AccessKey] = {}
        self._secrets: dict[str, bytes] = {}

    def create(self, name: str = "", days: int | None = None, keep: Callable[[NewKey], None] | None = None) -> NewKey:
        """
        Make a key.

        Args:
            name: whose it is, as the audit trail will say.
            days: how long it can be used; for ever where None.
            keep: puts the secret where it is wanted; where that raises, or a crash comes, no key is made.

        Raises:
            SettingsError: the name is no line of at most 128 characters, the seal is damaged, or nothing can be written.
        """
        if len(name) > _NAME or not name.isprintable():
            raise SettingsError(f"name {name[:_NAME]!r}: must be at most {_NAME} characters that can be printed")
        made = NewKey("WTAK" + "".join(secrets.choice(_ALPHABET) for _ in range(16)), secrets.token_urlsafe(30), name)
        with self._changing():
            sealed = self._sealed(made, days)
            if keep is not None:
                keep(made)
            self._write([*self._keys.values(), sealed])
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

    def required(self) -> bool:
        """Whether requests must be signed: from the first key on, even when the last one has been revoked."""
        with self._lock:
            self._refresh()
            return self._seen is not None

    def secret(self, access_key_id: str) -> bytes | None:
        """The secret of a key; None where it is unknown, revoked or expired."""
        with self._lock:
            self._refresh()
            key = self._keys.get(access_key_id)
            if key is None or self.expired(key):
                return None
            if access_key_id not in self._secrets:
                self._secrets[access_key_id] = self._unseal(key)
            return self._secrets[access_key_id]

    def expired(self, key: AccessKey) -> bool:
        """Whether a key's days are over."""
        return key.expires_ms is not None and self._clock.time_ms() >= key.expires_ms

    def name(self, access_key_id: str) -> str:
        """Whose key it is: its name, or its id where it has none."""
        key = self._keys.get(access_key_id)
        return key.name if key is not None and key.name else access_key_id

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Read, change and write with no other thread or process in between."""
        with self._lock, self._locked():
            self._refresh()
            yield

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = (self.folder / LOCK_FILE).open("w")
        except OSError as error:
            raise SettingsError(f"{self.folder}: {error.strerror}") from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _sealed(self, made: NewKey, days: int | None) -> AccessKey:
        if not (self.folder / SEAL_FILE).exists():
            _write_private(self.folder / SEAL_FILE, os.urandom(_SEAL))
        nonce, now_ms = os.urandom(_NONCE), self._clock.time_ms()
        sealed = nonce + self._cipher().encrypt(nonce, made.secret_access_key.encode(), made.access_key_id.encode())
        return AccessKey(
            access_key_id=made.access_key_id,
            sealed=base64.b64encode(sealed).decode(),
            name=made.name,
            created_ms=now_ms,
            expires_ms=None if days is None else now_ms + days * _DAY_MS,
        )

    def _unseal(self, key: AccessKey) -> bytes:
        from cryptography.exceptions import InvalidTag

        sealed = base64.b64decode(key.sealed)
        try:
            return self._cipher().decrypt(sealed[:_NONCE], sealed[_NONCE:], key.access_key_id.encode())
        except InvalidTag as error:
            raise SettingsError(
                f"{self.folder / SEAL_FILE}: does not open key {key.access_key_id}; restore the file or make new keys"
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
        except OSError as error:
            raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
        except msgspec.DecodeError as error:
            raise SettingsError(f"{path}: not a list of access keys: {error}") from error
        self._keys = {key.access_key_id: key for key in keys}
        self._secrets, self._seen = {}, seen

    def _write(self, keys: list[AccessKey]) -> None:
        _write_private(self.folder / KEYS_FILE, msgspec.json.format(msgspec.json.encode(keys)))
        self._refresh()

    def _cipher(self) -> "AESGCM":
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        path = self.folder / SEAL_FILE
        try:
            seal = path.read_bytes()
        except OSError as error:
            raise SettingsError(f"{path}: {error.strerror}; restore the file or make new keys") from error
        if len(seal) != _SEAL:
            raise SettingsError(f"{path}: not a seal; restore the file, or remove it and {KEYS_FILE} and make new keys")
        return AESGCM(seal)


def write_new(path: Path, content: bytes) -> None:
    """
    Write a file that only its owner can read.

    Raises:
        SettingsError: it is there already, or its folder cannot be written.
    """
    try:
        _write(path, content, os.O_EXCL)
    except FileExistsError as error:
        raise SettingsError(f"{path}: exists already; the secret goes to a new file only") from error
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from error


def _write_private(path: Path, content: bytes) -> None:
    """Put a file that only its owner can read in a file's place, whole or not at all."""
    beside = path.with_suffix(".new")
    try:
        _write(beside, content, os.O_TRUNC)
        beside.replace(path)
    except OSError as error:
        raise SettingsError(f"{path}: cannot be written: {error.strerror}") from error


def _write(path: Path, content: bytes, how: int) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | how, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
