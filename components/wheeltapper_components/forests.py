"""
What forests have learnt, on disk: a file for each thing, replaced as a whole, so that a restart does not begin at training.

The window, the run of anomalies and the cutoff are kept with every reading; the trees, some megabytes, only every ``save_s``
and at the end. A kill costs what the trees learnt in between.
"""

import contextlib
import logging
import os
from pathlib import Path

import msgspec

from wheeltapper.clock import Clock
from wheeltapper.errors import ModelError
from wheeltapper.messages import UNREADABLE
from wheeltapper_models.slot import Slot

log = logging.getLogger(__name__)

_LAST_S = 4.0  # for all forests at the end; a process has ten seconds to stop


class _File(msgspec.Struct, array_like=True, frozen=True):
    sha256: str
    forest: bytes


class ForestFiles:
    """
    Args:
        folder: made when it is first needed.
        save_s: how often a forest is kept.
        clock: paces that.
    """

    def __init__(self, folder: Path, save_s: float, clock: Clock) -> None:
        self._folder = folder
        self._save_s = save_s
        self._clock = clock
        self._due: dict[str, float] = {}
        self._points: dict[str, int] = {}

    def restore(self, slot: Slot, thing: str) -> None:
        """Give a slot what was learnt of a thing; what is damaged or of another model is left."""
        try:
            found = msgspec.msgpack.decode(self._path(thing).read_bytes(), type=_File)
            if found.sha256 == slot.card.sha256:
                slot.relearn(thing, found.forest)
        except FileNotFoundError:
            return
        except (OSError, *UNREADABLE, ModelError) as error:
            log.error("%s: the forest of %s begins where training ended: %s", self._path(thing), thing, error)

    def save_one(self, slot: Slot) -> bool:
        """Keep the first forest that is due; whether there was one. One at a time, since each takes a tenth of a second."""
        now = self._clock.monotonic()
        for thing in slot.learners():
            if self._due.setdefault(thing, now + self._save_s) <= now:
                self._due[thing] = now + self._save_s
                return self._save(slot, thing, compress=True)
        return False

    def save_all(self, slot: Slot) -> None:
        """Keep every forest that has learnt something, as far as the time for an orderly end allows."""
        deadline = self._clock.monotonic() + _LAST_S
        for thing in slot.learners():
            if self._clock.monotonic() > deadline:
                log.warning("no time to keep what the other forests learnt lately")
                return
            self._save(slot, thing, compress=False)

    def drop(self, thing: str) -> None:
        """Keep nothing of a thing."""
        self._due.pop(thing, None)
        self._points.pop(thing, None)
        with contextlib.suppress(OSError):
            self._path(thing).unlink(missing_ok=True)

    def _save(self, slot: Slot, thing: str, *, compress: bool) -> bool:
        learnt = slot.learnt(thing)
        if learnt is None or self._points.get(thing) == learnt[1].forest.points_seen:
            return False
        card, watch = learnt
        try:
            self._write(
                self._path(thing), msgspec.msgpack.encode(_File(card.sha256, watch.to_bytes(compress=compress)))
            )
        except OSError as error:
            log.error("%s: what the forest of %s has learnt is not kept: %s", self._path(thing), thing, error)
            return False
        self._points[thing] = watch.forest.points_seen
        return True

    def _write(self, path: Path, payload: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(path.name + ".new")
        with fresh.open("wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)

    def _path(self, thing: str) -> Path:
        return self._folder / f"{thing}.forest"
