"""
The durable log: rows in order, synced before anything is done about them.

One SQLite file in WAL mode holds the rows and whatever else must change in the same transaction. One thread writes; others
read through connections of their own. Checkpoints run beside the writer, so that a commit costs one flush and no more.
"""

import contextlib
import fcntl
import logging
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from wheeltapper.errors import UnavailableError

log = logging.getLogger(__name__)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS journal (
    position INTEGER PRIMARY KEY, now_ms INTEGER NOT NULL, kind TEXT NOT NULL, entries BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
"""

_PAGE_BYTES = 4096
_PREALLOCATED_BYTES = 16 << 20
_RESTART_AT_PAGES = (8 << 20) // _PAGE_BYTES
_PRUNE_ROWS = 64
_BUSY_S = 30


class Row(NamedTuple):
    """One entry of the log; ``now_ms`` is the clock reading with which it was, and always will be, applied."""

    position: int
    now_ms: int
    kind: str
    entries: bytes


class Journal:
    """
    The log and the file it lives in.

    Args:
        path: the SQLite file; its folder is made.
        synchronous: FULL survives a power cut; NORMAL the process's death only.
        max_page_count: quota in pages of 4096 bytes; 0 is none.

    Raises:
        UnavailableError: the file cannot be opened, or another process has it.
    """

    def __init__(self, path: Path, *, synchronous: Literal["FULL", "NORMAL"] = "FULL", max_page_count: int = 0) -> None:
        self.path = path
        self._lock: int | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = _lock(path)
            self._writer = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=_BUSY_S)
            path.chmod(0o600)
            self._writer.execute(f"PRAGMA page_size={_PAGE_BYTES}")
            self._writer.execute("PRAGMA journal_mode=WAL")
            self._writer.execute(f"PRAGMA synchronous={synchronous}")
            self._writer.execute("PRAGMA wal_autocheckpoint=0")
            self._writer.executescript(_SCHEMA)
            if max_page_count:
                self._writer.execute(f"PRAGMA max_page_count={max_page_count}")
            self._synchronous = synchronous
            self._written = False
            self._empty_wal()
            self._keeper = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=_BUSY_S)
            last = self._writer.execute("SELECT max(position) FROM journal").fetchone()[0]
            self.position: int = last if last is not None else int(self.meta("pruned") or 0)
        except (sqlite3.Error, OSError) as error:
            self._unlock()
            raise UnavailableError(f"journal {path}: cannot be opened: {error}") from error

    @property
    def connection(self) -> sqlite3.Connection:
        """The writer's connection; for its thread, within a transaction."""
        return self._writer

    @contextlib.contextmanager
    def transaction(self, *, soon: bool = False) -> Iterator[sqlite3.Connection]:
        """
        Everything written inside is durable when this ends, or nothing is.

        Args:
            soon: for what can be made again from the rows: it is durable with the next transaction that is not ``soon``.

        Raises:
            UnavailableError: the disk or the quota is full, or the disk fails; the file is as it was.
        """
        position = self.position
        try:
            if soon:
                self._writer.execute("PRAGMA synchronous=NORMAL")
            self._writer.execute("BEGIN IMMEDIATE")
            yield self._writer
            self._writer.execute("COMMIT")
            self._written = True
        except BaseException as error:
            self.position = position
            with contextlib.suppress(sqlite3.Error):
                self._writer.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error | OSError):
                raise self._unwritable(error) from error
            raise
        finally:
            if soon:
                self._writer.execute(f"PRAGMA synchronous={self._synchronous}")

    def append(self, now_ms: int, kind: str, entries: bytes) -> Row:
        """Add a row; within a transaction, or as one of its own: then it is durable when this returns."""
        row = Row(self.position + 1, now_ms, kind, entries)
        try:
            self._writer.execute("INSERT INTO journal VALUES (?,?,?,?)", row)
        except (sqlite3.Error, OSError) as error:
            raise self._unwritable(error) from error
        self._written = True
        self.position += 1
        return row

    def _unwritable(self, error: Exception) -> UnavailableError:
        return UnavailableError(f"journal {self.path.name}: cannot be written: {error}; free disk space")

    def rows(self, after: int = 0) -> Iterator[Row]:
        """Rows in order, behind a position."""
        return read_rows(self.path, after)

    def first_position(self) -> int | None:
        """The oldest row still kept."""
        first: int | None = self._writer.execute("SELECT min(position) FROM journal").fetchone()[0]
        return first

    def first_since(self, since_ms: int) -> int | None:
        """The oldest position whose clock reading is not before a time; rows are in order of both."""
        low, high = self._writer.execute("SELECT min(position), max(position) FROM journal").fetchone()
        if low is None:
            return None
        while low <= high:
            middle = (low + high) // 2
            row = self._writer.execute("SELECT now_ms FROM journal WHERE position = ?", (middle,)).fetchone()
            if row[0] < since_ms:
                low = middle + 1
            else:
                high = middle - 1
        return low if low <= self.position else None

    def reader(self) -> sqlite3.Connection:
        """A new connection that sees what is committed and cannot write; the caller closes it."""
        return open_reader(self.path)

    def meta(self, name: str) -> bytes | None:
        """A value kept with ``set_meta``."""
        row = self._writer.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def set_meta(self, name: str, value: bytes) -> None:
        """Keep a value; only within a transaction."""
        self._writer.execute("INSERT OR REPLACE INTO meta VALUES (?,?)", (name, value))

    def size(self) -> int:
        """Bytes in use, without the pages that deleted rows left for reuse."""
        pages, free = (
            self._writer.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count")
        )
        return int(pages - free) * _PAGE_BYTES

    def prune(self, *, before_ms: int, keep_bytes: int, up_to: int) -> int:
        """
        Delete a few of the oldest rows that are too old or too many; only within a transaction.

        Args:
            before_ms: rows older than this go.
            keep_bytes: while the file holds more than this, the oldest go.
            up_to: rows behind this position stay, whatever else.

        Returns:
            How many rows went; call again while it is not 0.
        """
        oversize = self.size() > keep_bytes
        cursor = self._writer.execute(
            "SELECT max(position) FROM (SELECT position, now_ms FROM journal WHERE position <= ? ORDER BY position LIMIT ?)"
            " WHERE now_ms < ? OR ?",
            (up_to, _PRUNE_ROWS, before_ms, oversize),
        )
        last = cursor.fetchone()[0]
        if last is None:
            return 0
        self.set_meta("pruned", str(last).encode())
        return self._writer.execute("DELETE FROM journal WHERE position <= ?", (last,)).rowcount

    def checkpoint(self) -> bool:
        """Move what is committed from the WAL into the file, beside the writer; True when the WAL has grown too long."""
        if not self._written:
            return False
        self._written = False
        try:
            _busy, pages, _moved = self._keeper.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            return int(pages) > _RESTART_AT_PAGES
        except sqlite3.Error as error:
            log.warning("journal %s: checkpoint failed: %s", self.path.name, error)
            return False

    def restart(self) -> None:
        """Have the WAL written from its beginning again, unless somebody reads; for the writer, after a checkpoint."""
        with contextlib.suppress(sqlite3.Error):
            self._writer.execute("PRAGMA busy_timeout=0")  # whoever reads a long history must not hold up the judge
            self._writer.execute("PRAGMA wal_checkpoint(RESTART)")
        with contextlib.suppress(sqlite3.Error):
            self._writer.execute(f"PRAGMA busy_timeout={_BUSY_S * 1000}")

    def _empty_wal(self) -> None:
        """
        Empty the WAL and write zeros where it will be: a flush of a file that does not grow takes half as long.

        SQLite ends its reading of a WAL at the first frame without a valid checksum, so what lies behind is without effect.
        """
        with contextlib.suppress(sqlite3.Error):
            self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        wal = self.path.with_name(self.path.name + "-wal")
        with contextlib.suppress(OSError):  # a full disk: then it grows, as far as it can
            if wal.stat().st_size == 0:
                with wal.open("r+b") as file:
                    file.write(bytes(_PREALLOCATED_BYTES))
                    os.fsync(file.fileno())

    def close(self) -> None:
        """Release the file; harmless when repeated."""
        with contextlib.suppress(sqlite3.Error):
            self._keeper.close()
            self._writer.close()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def open_reader(path: Path) -> sqlite3.Connection:
    """A connection that sees what is committed and cannot write, also beside a running writer."""
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=_BUSY_S)
    connection.execute("PRAGMA query_only=1")
    return connection


def read_rows(path: Path, after: int = 0, until: int | None = None) -> Iterator[Row]:
    """Rows of a journal in order, behind a position and up to another, also beside a running writer."""
    with contextlib.closing(open_reader(path)) as connection:
        for row in connection.execute(
            "SELECT position, now_ms, kind, entries FROM journal WHERE position > ? AND position <= ? ORDER BY position",
            (after, (1 << 62) if until is None else until),
        ):
            yield Row(*row)


def _lock(path: Path) -> int:
    """Take the lock that keeps a second process out; the system releases it with this one's end."""
    descriptor = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise UnavailableError(f"journal {path}: another process has it open; stop that one first") from error
    return descriptor
