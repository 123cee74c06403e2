"""
Store and forward on SQLite: what is put here leaves only when the other side has acknowledged it.

What the other side will not take is set aside in a table of its own, where it waits for an operator (``outbox_commands``).

The device keeps its readings here, the gateway its predictions. One writer thread commits in groups, so that the price of
a disk flush is shared; ``done`` is called after the flush. Named states can be written in the same transaction as entries,
which is how a source and its position, or a scorer and its predictions, survive a power cut together.
"""

import contextlib
import json
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

from wheeltapper.clock import Clock, SystemClock
from wheeltapper.errors import SettingsError, UnavailableError

log = logging.getLogger(__name__)

# So long may removals wait for company, to share a flush of the disk; a crash before that sends again what was acknowledged.
_LINGER_S = 0.1

# A clock that moves by more against the monotonic one was set: what waits has not aged by that.
_SET_MS = 60_000
_WAS_SET = "outbox/clock was set"  # the state that tells when, by that clock

# The year 2000: an earlier stamp is of a clock that nobody had set yet.
_UNSET_MS = 946_684_800_000

# The log of changes is worked in after so many pages, so that on a small or filling disk it does not take the room itself.
_LOG_PAGES = 256

Done = Callable[[UnavailableError | None], None]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entry (
    id INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, payload BLOB NOT NULL, time_ms INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS state (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS refused (
    id INTEGER PRIMARY KEY, topic TEXT NOT NULL, payload BLOB NOT NULL, time_ms INTEGER NOT NULL,
    refused_ms INTEGER NOT NULL, reason TEXT NOT NULL);
"""
_Table = Literal["entry", "refused"]
# The oldest rows up to the first that is young enough: no scan of all that waits, at every commit.
_EXPIRED = "id < coalesce((SELECT id FROM {0} WHERE time_ms >= ? ORDER BY id LIMIT 1), 9223372036854775807)"


class Entry(NamedTuple):
    """A message that waits; ids grow in the order in which entries were put and are never used twice."""

    id: int
    topic: str
    payload: bytes


class Put(NamedTuple):
    """A message to be kept."""

    topic: str
    payload: bytes


class _Request(NamedTuple):
    puts: Sequence[Put] = ()
    states: Mapping[str, bytes] = {}
    removed: Sequence[int] = ()
    refusal: str = ""
    done: Done | None = None


class Outbox:
    """
    A durable first-in, first-out store of messages, bounded by bytes and age.

    Args:
        path: the SQLite file; its folder is made.
        max_bytes: payload bytes kept at the most, with those that were set aside.
        max_age_s: older entries are dropped and counted; None keeps them for ever.
        full: what a put meets when ``max_bytes`` is reached: ``refuse`` fails it, ``drop_oldest`` makes room and counts.
        flush: False trades the last moments before a power cut (not before a process's death) for speed.
        clock: stamps entries.

    Raises:
        SettingsError: the file cannot be opened, or is not an outbox.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_bytes: int = 1 << 30,
        max_age_s: float | None = None,
        full: Literal["refuse", "drop_oldest"] = "refuse",
        flush: bool = True,
        clock: Clock | None = None,
    ) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        self._full = full
        self._clock = clock or SystemClock()
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._removing: set[int] = set()
        self._overdue: Sequence[_Request] = ()
        self._closed = False
        self._bytes = 0
        self._count = self._counted = 0
        self._close_lock = threading.Lock()
        self._version = 0
        self.dropped = 0
        self.refused = 0
        """Entries that were set aside because the other side will not take them."""
        self.grown = threading.Condition()
        """Notified after every commit that added entries."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
            self._reader = self._open(flush)
            self._reader.executescript(_SCHEMA)
            self._writer = self._open(flush)
            self._recount()
            self._counted = self._count
            self._offset_ms = self._clock_offset_ms() - self._set_between_runs_ms()
        except (sqlite3.Error, OSError) as error:
            raise SettingsError(f"outbox {path}: cannot be opened: {error}") from error
        self._reader_lock = threading.Lock()
        was_set = self.state(_WAS_SET)
        self._set_ms = float(was_set) if was_set else float("-inf")
        self._thread = threading.Thread(target=self._write, name=f"outbox-{path.stem}", daemon=True)
        self._thread.start()

    def _open(self, flush: bool) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=30.0)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA wal_autocheckpoint={_LOG_PAGES}")
        connection.execute(f"PRAGMA synchronous={'FULL' if flush else 'NORMAL'}")
        return connection

    def put(self, puts: Sequence[Put], *, states: Mapping[str, bytes] | None = None, done: Done | None = None) -> None:
        """
        Keep messages, and named states with them, in one transaction.

        Args:
            puts: the messages, in order.
            states: name → bytes; each replaces what was kept under its name, and none at all, ``b""``, forgets the name.
            done: called on the writer's thread: with None when all is on disk, with the error when nothing was kept.
        """
        if self._closed:
            raise UnavailableError(f"outbox {self._path.name}: closed")
        self._requests.put(_Request(puts, states or {}, done=done))

    def put_and_wait(self, puts: Sequence[Put], *, states: Mapping[str, bytes] | None = None) -> None:
        """
        Keep messages and return when they are on disk.

        Raises:
            UnavailableError: the disk or the outbox is full; nothing was kept.
        """
        kept = threading.Event()
        errors: list[UnavailableError] = []

        def done(error: UnavailableError | None) -> None:
            if error is not None:
                errors.append(error)
            kept.set()

        self.put(puts, states=states, done=done)
        kept.wait()
        if errors:
            raise errors[0]

    def remove(self, ids: Sequence[int]) -> None:
        """Forget entries that were acknowledged: at once for ``peek``, on disk with the next commit."""
        if ids and not self._closed:
            self._removing.update(ids)
            self._requests.put(_Request(removed=ids))

    def set_aside(self, entry_id: int, reason: str) -> None:
        """Take an entry that the other side will not take out of the way of the others; it is kept, with the reason."""
        if not self._closed:
            self._removing.add(entry_id)
            self._requests.put(_Request(removed=(entry_id,), refusal=reason))

    def peek(self, limit: int, after_id: int = 0) -> list[Entry]:
        """The oldest entries whose id is above ``after_id``, at most ``limit`` of them."""
        # No LIMIT: rows that are hidden count for nothing.
        find = "SELECT id, topic, payload FROM entry WHERE id > ? ORDER BY id"
        with self._reader_lock, contextlib.closing(self._reader.execute(find, (after_id,))) as rows:
            waiting = (Entry(*row) for row in rows if row[0] not in self._removing)
            return list(islice(waiting, limit))

    def state(self, name: str) -> bytes | None:
        """What was last kept under the name."""
        with self._reader_lock:
            row = self._reader.execute("SELECT value FROM state WHERE name = ?", (name,)).fetchone()
        return None if row is None else bytes(row[0])

    def states(self, prefix: str = "") -> dict[str, bytes]:
        """Every state whose name begins with the prefix."""
        with self._reader_lock:
            rows = self._reader.execute(
                "SELECT name, value FROM state WHERE substr(name, 1, ?) = ?", (len(prefix), prefix)
            ).fetchall()
        return {name: bytes(value) for name, value in rows}

    def __len__(self) -> int:
        return max(0, self._counted - len(self._removing))

    def close(self) -> None:
        """Commit what was asked for, then let go of the file; harmless when repeated."""
        with self._close_lock:
            if self._closed:
                return
            self._closed = True
        self._requests.put(None)
        self._thread.join()
        with self._reader_lock:
            self._reader.close()
            self._writer.close()

    def _write(self) -> None:
        going = True
        while going:
            fresh, going = self._gather()
            batch = [*self._overdue, *fresh]
            if not batch:
                continue
            errors = self._commit(batch)
            self._overdue = self._still_to_remove(batch, errors)
            overdue = {entry_id for request in self._overdue for entry_id in request.removed}
            self._removing.difference_update(*(set(request.removed) - overdue for request in batch))
            self._counted = self._count  # only now: what was removed is not to be subtracted twice
            if any(request.puts for request in batch):
                with self.grown:
                    self.grown.notify_all()
            for request, error in zip(batch, errors, strict=True):
                if request.done is not None:
                    try:
                        request.done(error)
                    except Exception:
                        log.exception("outbox %s: a callback failed", self._path.name)

    def _still_to_remove(
        self, batch: Sequence[_Request], errors: Sequence[UnavailableError | None]
    ) -> Sequence[_Request]:
        """
        The removals that could not be written, not even without the puts beside them, which need room that they give.

        They stay hidden: what was acknowledged is not sent again and again while a disk is full.
        """
        removals = [request for request in batch if request.removed]
        failed = any(error is not None for request, error in zip(batch, errors, strict=True) if request.removed)
        return removals if failed and any(self._commit(removals)) else ()

    def _gather(self) -> tuple[list[_Request], bool]:
        """What waits; removals alone wait a little for something that must be on disk soon."""
        batch: list[_Request] = []
        request = self._requests.get()
        linger_s, hurry = _LINGER_S, False
        while request is not None:
            batch.append(request)
            hurry = hurry or not request.removed
            if len(batch) >= 10_000:
                return batch, True
            try:
                request = self._requests.get_nowait() if hurry else self._requests.get(timeout=linger_s)
            except queue.Empty:
                return batch, True
            linger_s /= 2
        return batch, False

    def _commit(self, batch: Sequence[_Request]) -> list[UnavailableError | None]:
        errors: list[UnavailableError | None] = []
        before = self._bytes, self._count, self.refused, self.dropped
        try:
            with self._transaction():
                if self._writer.execute("PRAGMA data_version").fetchone()[0] != self._version:
                    self._recount()  # an operator's command was here
                    before = self._bytes, self._count, self.refused, self.dropped
                for request in batch:
                    errors.append(self._apply(request))
                self._expire()
        except sqlite3.Error as error:
            self._bytes, self._count, self.refused, self.dropped = before
            with contextlib.suppress(sqlite3.Error):  # the log of changes may hold the room that is missing
                self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            reason = UnavailableError(f"outbox {self._path.name}: nothing could be kept: {error}")
            return [reason] * len(batch)
        return errors

    def _recount(self) -> None:
        size, count = self._writer.execute("SELECT coalesce(sum(length(payload)), 0), count(*) FROM entry").fetchone()
        aside, refused = self._writer.execute(
            "SELECT coalesce(sum(length(payload)), 0), count(*) FROM refused"
        ).fetchone()
        self._bytes, self._count, self.refused = size + aside, count, refused
        self._version = self._writer.execute("PRAGMA data_version").fetchone()[0]

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._writer.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._writer.execute("ROLLBACK")
            raise

    def _apply(self, request: _Request) -> UnavailableError | None:
        now = self._clock.time_ms()
        if request.refusal:
            self._move_aside(request.removed[0], request.refusal, now)
        elif request.removed:
            self._delete("entry", "id IN (SELECT value FROM json_each(?))", json.dumps(list(request.removed)))
        size = sum(len(put.payload) for put in request.puts)
        if request.puts and self._bytes + size > self._max_bytes and not self._make_room(size):
            aside = f", {self.refused} messages set aside among them" if self.refused else ""
            return UnavailableError(
                f"outbox {self._path.name}: full ({self._bytes} of {self._max_bytes} bytes{aside}); raise "
                "outbox.max_bytes, or bring the broker back"
            )
        self._writer.executemany(
            "INSERT INTO entry (topic, payload, time_ms) VALUES (?, ?, ?)",
            [(put.topic, put.payload, now) for put in request.puts],
        )
        states = request.states.items()
        self._writer.executemany("INSERT OR REPLACE INTO state VALUES (?, ?)", [pair for pair in states if pair[1]])
        self._writer.executemany("DELETE FROM state WHERE name = ?", [(name,) for name, value in states if not value])
        self._bytes += size
        self._count += len(request.puts)
        return None

    def _move_aside(self, entry_id: int, reason: str, now: int) -> None:
        moved = self._writer.execute(
            "DELETE FROM entry WHERE id = ? RETURNING id, topic, payload, time_ms", (entry_id,)
        ).fetchall()
        self._writer.executemany(
            "INSERT INTO refused VALUES (?, ?, ?, ?, ?, ?)", [(*row, now, reason) for row in moved]
        )
        self._count -= len(moved)
        self.refused += len(moved)

    def _make_room(self, size: int) -> bool:
        """Drop the oldest, first of what was set aside; False where that is not wanted or would not do."""
        if self._full == "refuse" or size > self._max_bytes:
            return False
        tables: tuple[_Table, ...] = ("refused", "entry")
        for table in tables:
            wanted = self._bytes + size - self._max_bytes
            last = 0
            for entry_id, length in self._writer.execute(
                f"SELECT id, length(payload) FROM {table} ORDER BY id"  # noqa: S608 - one of two names above
            ):
                if wanted <= 0:
                    break
                last = entry_id
                wanted -= length
            self.dropped += self._delete(table, "id <= ?", last)
        return True

    def _clock_offset_ms(self) -> float:
        return self._clock.time_ms() - self._clock.monotonic() * 1000.0

    def _set_between_runs_ms(self) -> float:
        """How far the clock was set forward since the last entry was put, where that is certain: from none to one."""
        row = self._writer.execute("SELECT time_ms FROM entry ORDER BY id DESC LIMIT 1").fetchone()
        now = self._clock.time_ms()
        return now - row[0] if row is not None and row[0] < _UNSET_MS <= now else 0

    def _expire(self) -> None:
        """Drop what is too old; for as long after the clock was set forward, nobody knows what is."""
        if self._max_age_s is None:
            return
        now = self._clock.time_ms()
        self._note_set(now)
        oldest = now - int(self._max_age_s * 1000)
        if self._set_ms <= oldest:
            self.dropped += self._delete("entry", _EXPIRED.format("entry"), oldest)
            self.dropped += self._delete("refused", _EXPIRED.format("refused"), oldest)

    def _note_set(self, now: int) -> None:
        """Keep when the clock was set forward, also for the next run."""
        moved_ms = self._clock_offset_ms() - self._offset_ms
        self._offset_ms += moved_ms
        set_ms = now if moved_ms > _SET_MS else min(self._set_ms, now)  # the latter: it has been set back since
        if set_ms != self._set_ms:
            self._set_ms = set_ms
            self._writer.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", (_WAS_SET, b"%d" % now))

    def _delete(self, table: _Table, condition: str, value: int | str) -> int:
        deleted = self._writer.execute(
            f"DELETE FROM {table} WHERE {condition} RETURNING length(payload)",  # noqa: S608 - built from constants above
            (value,),
        ).fetchall()
        self._bytes -= sum(row[0] for row in deleted)
        if table == "entry":
            self._count -= len(deleted)
        else:
            self.refused -= len(deleted)
        return len(deleted)
