"""
What the account holds, on SQLite: inputs, versions of models, tags, logging options, analyses.

Bodies are kept as they were given. A change is durable when its method returns. Detectors and messages are not here: the
judge keeps those.
"""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import msgspec

from wheeltapper.clock import Clock
from wheeltapper.errors import UnavailableError

FILE = "account.db"
REMOVAL = "removal"
Kind = Literal["input", "detectorModel", "alarmModel"]

_SCHEMA = """
create table if not exists resources (
    kind text not null, name text not null, version integer not null, body text not null,
    created_ms integer not null, updated_ms integer not null,
    primary key (kind, name, version)
) without rowid;
create table if not exists tags (
    resource text not null, key text not null, value text not null, primary key (resource, key)
) without rowid;
create table if not exists options (name text primary key, body text not null) without rowid;
create table if not exists analyses (
    id text primary key, created_ms integer not null, status text not null, results text not null
) without rowid;
"""
# Tags once belonged to ARNs, and were lost when the settings named another account or region.
_TAGS_OF_ARNS = """
begin;
alter table tags rename column arn to resource;
update or replace tags set resource = substr(resource, length(rtrim(resource, replace(resource, ':', ''))) + 1);
commit;
"""


class Resource(msgspec.Struct, frozen=True):
    """An input or one version of a model; ``body`` is the request that made it, ``latest`` the highest version there is."""

    kind: Kind
    name: str
    version: int
    body: dict[str, Any]
    created_ms: int
    updated_ms: int
    latest: int


class Analysis(msgspec.Struct, frozen=True):
    """A job that analyses a definition, and what it found."""

    id: str
    created_ms: int
    status: Literal["RUNNING", "COMPLETE", "FAILED"]
    results: list[dict[str, Any]]


class Store:
    """One account's resources; safe from any thread."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            (folder / FILE).touch(mode=0o600)
            self._database = sqlite3.connect(folder / FILE, check_same_thread=False, isolation_level=None)
            self._database.execute("pragma busy_timeout = 5000")
            self._database.execute("pragma journal_mode = wal")
            self._database.execute("pragma synchronous = full")
            self._database.executescript(_SCHEMA)
            if any(column == "arn" for _, column, *_ in self._database.execute("pragma table_info(tags)")):
                self._database.executescript(_TAGS_OF_ARNS)
        except (OSError, sqlite3.Error) as error:
            raise UnavailableError(f"{folder / FILE}: cannot be opened: {error}") from error

    def close(self) -> None:
        """Let go of the file; harmless when repeated."""
        self._database.close()

    # --- resources ---------------------------------------------------------------------------------------------------

    def add(
        self, kind: Kind, name: str, body: dict[str, Any], tags: dict[str, str], *, migrate: bool = False
    ) -> Resource:
        """Keep a new input or a further version of a model, its tags, and whether it is to take over the detectors."""
        now = self._clock.time_ms()
        with self._change():
            version = 1 + self._number("select max(version) from resources where kind = ? and name = ?", kind, name)
            self._database.execute(
                "insert into resources values (?, ?, ?, ?, ?, ?)", (kind, name, version, _json(body), now, now)
            )
            self._tag(kind, name, tags)
            if migrate:
                self._put_option(_migration(kind, name), {"version": version})
        return Resource(kind, name, version, body, now, now, version)

    def migrates(self, found: Resource) -> bool:
        """Whether a version is to take over the detectors of the one before it."""
        return self.option(_migration(found.kind, found.name)) == {"version": found.version}

    def replace(self, kind: Kind, name: str, body: dict[str, Any]) -> Resource:
        """Change the body of an input in place."""
        with self._change():
            self._database.execute(
                "update resources set body = ?, updated_ms = ? where kind = ? and name = ?",
                (_json(body), self._clock.time_ms(), kind, name),
            )
        found = self.get(kind, name)
        assert found is not None  # noqa: S101 - the caller has looked, and holds the account's lock
        return found

    def remove(self, kind: Kind, name: str) -> None:
        """Forget every version, and the tags."""
        with self._change():
            self._database.execute("delete from resources where kind = ? and name = ?", (kind, name))
            self._database.execute("delete from tags where resource = ?", (f"{kind}/{name}",))
            self._drop_options(_migration(kind, name), REMOVAL)

    def begin_removal(self, kind: Kind, name: str) -> None:
        """Note what is about to be removed, until it is or ``cancel_removal`` is called."""
        self.set_option(REMOVAL, {"kind": kind, "name": name})

    def cancel_removal(self) -> None:
        """What was about to be removed stays."""
        with self._change():
            self._drop_options(REMOVAL)

    def _drop_options(self, *names: str) -> None:
        self._database.executemany("delete from options where name = ?", [(name,) for name in names])

    def remove_version(self, kind: Kind, name: str, version: int) -> None:
        """Forget one version: it could not be put in force."""
        with self._change():
            self._database.execute(
                "delete from resources where kind = ? and name = ? and version = ?", (kind, name, version)
            )

    def get(self, kind: Kind, name: str, version: int | None = None) -> Resource | None:
        """One version, by default the latest."""
        row = self._row(
            f"{_SELECT} where kind = ?1 and name = ?2 and version = coalesce(?3, ({_LATEST}))", kind, name, version
        )
        return None if row is None else _resource(row)

    def page(self, kind: Kind, after: str, limit: int) -> list[Resource]:
        """The latest version of each without its definition, in order of names, beginning after one."""
        return self._resources(
            f"{_HEADS} where kind = ?1 and (name, version) in ({_NEWEST}) order by name", kind, after, limit
        )

    def versions(self, kind: Kind, name: str, before: int, limit: int) -> list[Resource]:
        """Versions of one model without their definitions, the latest first, beginning below ``before``."""
        return self._resources(
            f"{_HEADS} where kind = ?1 and name = ?2 and version < ?3 order by version desc limit ?4",
            kind, name, before, limit,
        )  # fmt: skip

    def latest(self, kind: Kind) -> list[Resource]:
        """The latest version of each."""
        return self._resources(
            f"{_SELECT} where kind = ?1 and (name, version) in ({_NEWEST}) order by name", kind, "", -1
        )

    def created_ms(self, kind: Kind, name: str) -> int:
        """When the first version still held was made."""
        return self._number("select min(created_ms) from resources where kind = ? and name = ?", kind, name)

    def count(self, kind: Kind) -> int:
        """How many there are, versions aside."""
        return self._number("select count(distinct name) from resources where kind = ?", kind)

    # --- tags --------------------------------------------------------------------------------------------------------

    def tags(self, kind: Kind, name: str) -> dict[str, str]:
        """A resource's tags, by key."""
        query = "select key, value from tags where resource = ? order by key"
        with self._lock:
            return dict(self._database.execute(query, (f"{kind}/{name}",)))

    def tag(self, kind: Kind, name: str, tags: dict[str, str]) -> None:
        """Add tags, replacing those of the same keys."""
        with self._change():
            self._tag(kind, name, tags)

    def untag(self, kind: Kind, name: str, keys: list[str]) -> None:
        """Take tags away; those that are not there do not matter."""
        rows = [(f"{kind}/{name}", key) for key in keys]
        with self._change():
            self._database.executemany("delete from tags where resource = ? and key = ?", rows)

    def _tag(self, kind: Kind, name: str, tags: dict[str, str]) -> None:
        rows = [(f"{kind}/{name}", key, value) for key, value in tags.items()]
        self._database.executemany("insert or replace into tags values (?, ?, ?)", rows)

    # --- options and analyses ----------------------------------------------------------------------------------------

    def option(self, name: str) -> dict[str, Any] | None:
        """A setting of the account."""
        row = self._row("select body from options where name = ?", name)
        return None if row is None else msgspec.json.decode(row[0])

    def set_option(self, name: str, body: dict[str, Any]) -> None:
        """Keep a setting of the account."""
        with self._change():
            self._put_option(name, body)

    def _put_option(self, name: str, body: dict[str, Any]) -> None:
        self._database.execute("insert or replace into options values (?, ?)", (name, _json(body)))

    def put_analysis(self, analysis: Analysis, *, forget_before_ms: int) -> None:
        """Keep an analysis as it now stands; those made before an instant go."""
        with self._change():
            self._database.execute("delete from analyses where created_ms < ?", (forget_before_ms,))
            self._database.execute(
                "insert or replace into analyses values (?, ?, ?, ?)",
                (analysis.id, analysis.created_ms, analysis.status, _json(analysis.results)),
            )

    def analysis(self, analysis_id: str) -> Analysis | None:
        """One analysis."""
        row = self._row("select id, created_ms, status, results from analyses where id = ?", analysis_id)
        return None if row is None else Analysis(row[0], row[1], row[2], msgspec.json.decode(row[3]))

    # --- SQLite ------------------------------------------------------------------------------------------------------

    def _number(self, query: str, *values: Any) -> int:
        row = self._row(query, *values)
        return 0 if row is None or row[0] is None else int(row[0])

    def _row(self, query: str, *values: Any) -> tuple[Any, ...] | None:
        with self._lock:
            row: tuple[Any, ...] | None = self._database.execute(query, values).fetchone()
            return row

    def _resources(self, query: str, *values: Any) -> list[Resource]:
        with self._lock:
            return [_resource(row) for row in self._database.execute(query, values)]

    @contextmanager
    def _change(self) -> Iterator[None]:
        with self._lock:
            self._database.execute("begin immediate")
            try:
                yield
                self._database.execute("commit")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("rollback")
                raise


_LATEST = "select max(version) from resources as each where each.kind = held.kind and each.name = held.name"
_NEWEST = "select name, max(version) from resources where kind = ?1 and name > ?2 group by name order by name limit ?3"
_SELECT = (
    f"select kind, name, version, body, created_ms, updated_ms, ({_LATEST}) as latest"  # noqa: S608 - constants
    " from resources as held"
)

# A definition may be as large as a request; a list of hundreds needs none of them.
_HEADS = _SELECT.replace("body", "json_remove(body, '$.detectorModelDefinition')", 1)


def _resource(row: tuple[Any, ...]) -> Resource:
    kind, name, version, body, created_ms, updated_ms, latest = row
    return Resource(kind, name, version, msgspec.json.decode(body), created_ms, updated_ms, latest)


def _migration(kind: Kind, name: str) -> str:
    return f"migration of {kind}/{name}"


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
