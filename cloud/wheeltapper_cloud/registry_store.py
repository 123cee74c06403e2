"""
Versions of models with their lineage: from which data and code, with which scores, who promoted which when.

Files lie in a folder per version, sealed by a manifest that the release key signs; what is known of them in SQLite. A
version is written once and never changed; promotions are a journal, and the last entry says which version is live.
"""

import hashlib
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from wheeltapper.clock import Clock
from wheeltapper.errors import ModelError, SettingsError
from wheeltapper_models.card import CARD_FILE, MODEL_FILE, Card, encode_card, read_card, sha256_of
from wheeltapper_models.component import VERSION, completed, version_rank
from wheeltapper_models.manifest import (
    MANIFEST_FILE,
    key_id,
    missing_files,
    read_manifest,
    verify_manifest,
    write_manifest,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

DATABASE = "registry.db"
_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS versions (
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    content TEXT NOT NULL,
    model_sha256 TEXT NOT NULL,
    data_sha256 TEXT NOT NULL,
    code TEXT NOT NULL,
    scores TEXT NOT NULL,
    signed_with TEXT NOT NULL,
    registered_ms INTEGER NOT NULL,
    registered_by TEXT NOT NULL,
    note TEXT NOT NULL,
    PRIMARY KEY (name, version)
) STRICT;
CREATE TABLE IF NOT EXISTS promotions (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    what TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    by TEXT NOT NULL,
    note TEXT NOT NULL
) STRICT;
"""


class Version(msgspec.Struct, frozen=True):
    """
    One registered version.

    Args:
        content: SHA-256 of the card without its version and of every other file.
        data_sha256: of the training data.
        code: the releases that trained it, such as ``wheeltapper 0.1.0``.
        scores: as on the card.
        signed_with: the name of the key; empty where nobody signed.
    """

    name: str
    version: str
    content: str
    model_sha256: str
    data_sha256: str
    code: dict[str, str]
    scores: dict[str, float]
    signed_with: str
    registered_ms: int
    registered_by: str
    note: str


class Promotion(NamedTuple):
    """An entry of the journal; ``what`` is promote or rollback."""

    version: str
    what: str
    at_ms: int
    by: str
    note: str


class Registry:
    """
    The registry of one folder; made when it is first used.

    Args:
        folder: holds the database and a folder of files for each version.
    """

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock
        try:
            folder.mkdir(parents=True, exist_ok=True)
            database = folder / DATABASE
            database.touch(mode=0o600)
            with self._open() as connection:
                connection.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise SettingsError(f"{folder}: cannot hold a registry: {error}; choose another with --data-dir") from error

    def add(
        self, source: Path, by: str, *, key: "Ed25519PrivateKey | None", version: str = "", note: str = ""
    ) -> Version:
        """
        Register the model of a folder; the same contents give the version that they have already.

        Args:
            key: signs the manifest.
            version: MAJOR.MINOR.PATCH; by default the card's where it is one, else the next patch.

        Raises:
            ModelError: the model is not whole, or not the one on its card.
            SettingsError: the version exists with other contents, or is none.
        """
        card = read_card(source / CARD_FILE)
        files = _files_of(source, card)
        if not _NAME.fullmatch(card.name):
            raise SettingsError(
                f"{source / CARD_FILE}: the name {card.name!r} must be of the characters A-Z a-z 0-9 . _ -"
            )
        content = _content_of(source, card, files)
        with self._open(write=True) as connection:
            known = {one.version: one for one in self._versions(connection, card.name)}
            same = next((one for one in known.values() if one.content == content), None)
            if same is not None and version in ("", same.version):
                return same
            chosen = version or _next_version(card.version, known)
            if not VERSION.fullmatch(chosen):
                raise SettingsError(f"--model-version {chosen}: must be MAJOR.MINOR.PATCH, such as 1.0.0")
            if chosen in known:
                raise SettingsError(f"{card.name} {chosen}: is registered with other contents; choose another version")
            sealed = msgspec.structs.replace(card, version=chosen)
            self._write_files(source, sealed, files, key)
            found = Version(
                name=card.name,
                version=chosen,
                content=content,
                model_sha256=card.sha256,
                data_sha256=card.training.sha256,
                code=card.versions,
                scores=card.scores,
                signed_with="" if key is None else key_id(key.public_key()),
                registered_ms=self._clock.time_ms(),
                registered_by=by,
                note=note,
            )
            row = msgspec.structs.asdict(found) | {
                name: msgspec.json.encode(getattr(found, name), order="sorted").decode() for name in ("code", "scores")
            }
            connection.execute(
                f"INSERT INTO versions ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})",  # noqa: S608
                list(row.values()),
            )
        return found

    def names(self) -> list[str]:
        """The models that are registered."""
        with self._open() as connection:
            return [name for (name,) in connection.execute("SELECT DISTINCT name FROM versions ORDER BY name")]

    def versions(self, name: str) -> list[Version]:
        """
        The versions of a model, oldest first.

        Raises:
            SettingsError: no model has this name.
        """
        with self._open() as connection:
            found = self._versions(connection, name)
        if not found:
            known = ", ".join(self.names()) or "none yet; register one with: wheeltapper model registry add FOLDER"
            raise SettingsError(f"{name}: is not registered; known models: {known}")
        return sorted(found, key=lambda one: version_rank(one.version))

    def find(self, name: str, version: str = "") -> Version:
        """
        One version; by default the live one, else the newest.

        Raises:
            SettingsError: there is none such.
        """
        versions = self.versions(name)
        wanted = version or self.live(name) or versions[-1].version
        for one in versions:
            if one.version == wanted:
                return one
        known = ", ".join(one.version for one in versions)
        raise SettingsError(f"{name} {wanted}: is not registered; known versions: {known}")

    def files(self, version: Version) -> Path:
        """
        The folder of a version's files, verified against their manifest.

        Raises:
            ModelError: a file was changed or is missing.
        """
        folder = self._place(version.name, version.version)
        manifest = read_manifest(folder)
        if manifest is None:
            raise ModelError(f"{folder}: has lost its {MANIFEST_FILE}")
        if missing := missing_files(folder, manifest):
            raise ModelError(f"{folder}: has lost {', '.join(missing)}")
        verify_manifest(folder, manifest)
        return folder

    def live(self, name: str) -> str:
        """The version that was promoted last; empty where none was."""
        journal = self.promotions(name)
        return journal[-1].version if journal else ""

    def promotions(self, name: str) -> list[Promotion]:
        """Every promotion and rollback of a model, oldest first."""
        with self._open() as connection:
            rows = connection.execute(
                "SELECT version, what, at_ms, by, note FROM promotions WHERE name = ? ORDER BY id", [name]
            )
            return [Promotion(*row) for row in rows]

    def promote(self, name: str, version: str, by: str, note: str = "") -> Version:
        """
        Make a version the live one.

        Raises:
            SettingsError: it is not registered.
            ModelError: its files were changed.
        """
        found = self.find(name, version)
        self.files(found)
        self._record(name, found.version, "promote", by, note)
        return found

    def roll_back(self, name: str, by: str, note: str = "") -> Version:
        """
        Make the version live that was live before the present one.

        Raises:
            SettingsError: none was.
            ModelError: its files were changed.
        """
        history: list[str] = []
        for entry in self.promotions(name):
            if entry.what == "rollback":
                history.pop()
            elif not history or history[-1] != entry.version:
                history.append(entry.version)
        if len(history) < 2:
            self.versions(name)
            raise SettingsError(f"{name}: no version was live before; promote one: wheeltapper model registry promote")
        found = self.find(name, history[-2])
        self.files(found)
        self._record(name, found.version, "rollback", by, note)
        return found

    def release_again(self, version: Version, by: str, *, key: "Ed25519PrivateKey | None") -> Version:
        """
        Register a version's contents under the next number, and promote that: gateways take the highest they have.

        Raises:
            ModelError: the version's files were changed.
        """
        known = {one.version: one for one in self.versions(version.name)}
        note = f"the contents of {version.version} again"
        found = self.add(self.files(version), by, key=key, version=_next_version("", known), note=note)
        self._record(found.name, found.version, "promote", by, note)
        return found

    def _record(self, name: str, version: str, what: str, by: str, note: str) -> None:
        with self._open(write=True) as connection:
            connection.execute(
                "INSERT INTO promotions (name, version, what, at_ms, by, note) VALUES (?, ?, ?, ?, ?, ?)",
                [name, version, what, self._clock.time_ms(), by, note],
            )

    def _place(self, name: str, version: str) -> Path:
        return self._folder / name / version

    def _write_files(self, source: Path, card: Card, files: list[str], key: "Ed25519PrivateKey | None") -> None:
        place = self._place(card.name, card.version)
        unready = place.with_name(f".{place.name}.new")
        shutil.rmtree(unready, ignore_errors=True)
        shutil.rmtree(place, ignore_errors=True)  # left by a run that was killed before it was recorded
        unready.mkdir(parents=True)
        for name in files:
            (unready / name).write_bytes((source / name).read_bytes())
        (unready / CARD_FILE).write_bytes(encode_card(card))
        write_manifest(unready, card.name, card.version, key)
        unready.rename(place)

    def _versions(self, connection: sqlite3.Connection, name: str) -> list[Version]:
        connection.row_factory = sqlite3.Row
        rows = connection.execute("SELECT * FROM versions WHERE name = ?", [name])
        return [_version_of(dict(row)) for row in rows]

    @contextmanager
    def _open(self, *, write: bool = False) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self._folder / DATABASE, timeout=30.0, isolation_level=None)
        try:
            if write:
                connection.execute("BEGIN IMMEDIATE")
            yield connection
            if write:
                connection.execute("COMMIT")
        finally:
            connection.close()


def _version_of(row: dict[str, Any]) -> Version:
    decoded = {name: msgspec.json.decode(row[name]) for name in ("code", "scores")}
    return msgspec.convert(row | decoded, Version)


def _files_of(source: Path, card: Card) -> list[str]:
    """The files besides card and manifest, with the model's own SHA-256 checked."""
    manifest = read_manifest(source)
    if manifest is not None:
        verify_manifest(source, manifest)
        names = list(manifest.files)
    else:
        names = [path.name for path in source.iterdir() if path.is_file() and path.suffix not in (".py", ".new")]
    if MODEL_FILE not in names:
        raise ModelError(f"{source}: has no {MODEL_FILE}")
    if card.sha256 != sha256_of(source / MODEL_FILE):
        raise ModelError(f"{source / MODEL_FILE}: its SHA-256 is not the one on its card; it was changed or cut short")
    return sorted(name for name in names if name not in (CARD_FILE, MANIFEST_FILE))


def _content_of(source: Path, card: Card, files: list[str]) -> str:
    digest = hashlib.sha256(encode_card(msgspec.structs.replace(card, version="")))
    for name in files:
        digest.update(f"{name}\0{sha256_of(source / name)}\0".encode())
    return digest.hexdigest()


def _next_version(wanted: str, known: dict[str, Version]) -> str:
    wanted = completed(wanted)
    if VERSION.fullmatch(wanted) and wanted not in known:
        return wanted
    if not known:
        return "1.0.0"
    numbers, _ = version_rank(max(known, key=version_rank))
    return f"{numbers[0]}.{numbers[1]}.{numbers[2] + 1}"
