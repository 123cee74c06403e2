"""
Models at work and their replacement: which model serves a thing, new versions noticed, verified, warmed, put to work.

``look`` finds and loads on whatever thread calls it, while readings go on being scored; the change itself happens between
two of them, in ``wheeltapper_models.slot``. What cannot be verified is refused once, with the reason, and the old one
serves on.
"""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial

import msgspec

from wheeltapper.clock import Clock
from wheeltapper.errors import ModelError
from wheeltapper_components.settings import ModelSettings, ShadowSettings, WatchSettings
from wheeltapper_components.shadow import Ruling, Trial
from wheeltapper_components.versions import Version, load_version, versions_in
from wheeltapper_models.card import Card
from wheeltapper_models.pace import Pace, pace_of
from wheeltapper_models.serving import Judged, SensorRow, Served
from wheeltapper_models.slot import Slot

log = logging.getLogger(__name__)

Report = Callable[[bool, str], None]


class Memory(msgspec.Struct):
    """What a restart must know of a seat: fingerprints of the version that serves and of those that were reverted."""

    serving: str = ""
    reverted: list[str] = []


Keep = Callable[[str, bytes], None]


class Candidate:
    """A new version that runs beside the live one."""

    def __init__(self, version: Version, slot: Slot, trial: Trial) -> None:
        self.version = version
        self.slot = slot
        self.trial = trial


class Seat:
    """One entry of ``[[models]]``: the slot of the model that serves, and the versions that were refused."""

    def __init__(
        self,
        settings: ModelSettings,
        watch: WatchSettings,
        shadow: ShadowSettings,
        report: Report,
        memory: Memory,
        keep: Callable[[Memory], None],
        learners: int,
    ) -> None:
        self.settings = settings
        self.slot: Slot | None = None
        self.refusal = ""
        self._watch = watch
        self._shadow = shadow
        self._report = report
        self._serving: Version | None = None
        self._candidate: Candidate | None = None
        self._refused: dict[Version, str] = {}
        self._memory = memory
        self._keep = keep
        self._learners = learners if settings.learn else 0
        self._paced: tuple[Card, tuple[Pace | None, Pace | None]] | None = None

    @property
    def label(self) -> str:
        """The model that serves, for people."""
        card = self.slot.card if self.slot is not None else None
        return f"{card.name} {card.version}" if card is not None else f"no model from {self.settings.folder}"

    @property
    def pace(self) -> Pace | None:
        """The pace that readings are brought to; None where every reading is a row."""
        return self._paces()[0]

    @property
    def rhythm(self) -> Pace | None:
        """The pace that readings are expected to keep by themselves; None where nobody looks."""
        return self._paces()[1]

    def _paces(self) -> tuple[Pace | None, Pace | None]:
        slot = self.slot
        if slot is None:
            return None, None
        if self._paced is None or self._paced[0] is not slot.card:
            pace = self._pace_of(slot.card)
            watched = pace is not None or self.settings.period_s is None
            self._paced = slot.card, (pace, (pace or pace_of(slot.card)) if watched else None)
        return self._paced[1]

    def _pace_of(self, card: Card) -> Pace | None:
        match self.settings.period_s:
            case None:
                return pace_of(card) if card.settings.get("rate") else None
            case "card":
                return pace_of(card)
            case period_s:
                return pace_of(card, round(period_s * 1000))

    def look(self) -> bool:
        """Find the best version and take it if it is another one; whether something changed."""
        changed, refusal = False, ""
        for version in self._versions():
            if self._serving is not None and version.fingerprint == self._serving.fingerprint:
                self._candidate = None  # a candidate whose folder is gone
                break
            candidate = self._candidate
            if candidate is not None and version.fingerprint == candidate.version.fingerprint:
                break
            if version in self._refused:
                refusal = refusal or self._refused[version]
                continue
            if version.fingerprint in self._memory.reverted:
                continue
            try:
                self._take(version, load_version(version, self._watch.trusted_keys, learners=self._learners))
            except ModelError as error:
                refusal = refusal or str(error)
                self._refuse(version, str(error), f"model version {version.folder.name} refused")
                continue
            changed = True
            break
        self.refusal = refusal  # what was refused and is there no more is no trouble
        return changed

    def _versions(self) -> list[Version]:
        """Best first; at a start in shadow rollout, the one that served goes before a candidate that was never promoted."""
        found = versions_in(self.settings.folder, self.settings.version)
        if self.slot is None and self.settings.rollout == "shadow":
            found.sort(key=lambda version: version.fingerprint != self._memory.serving)
        return found

    def _take(self, version: Version, session: Served) -> None:
        before, slot = self.label, self.slot
        card = session.card
        if slot is None:
            self.slot = Slot(session, kept_rows=max(self._watch.history, card.warmup_rows))
            self._serve(version)
            self._report(True, f"model {card.name} {card.version} serves {', '.join(self.settings.things)}")
        elif self.settings.rollout == "shadow" and self._pace_of(card) != self.pace:
            raise ModelError(
                f"{version.folder}: judges another pace than {before}, so that the two cannot be compared on the same rows; "
                'put it to work with rollout = "swap"'
            )
        elif self.settings.rollout == "shadow":
            self._candidate = Candidate(version, slot.beside(session), Trial(self._shadow))
            self._report(True, f"model {card.name} {card.version} runs beside {before}")
        else:
            slot.take(session, warm=self._pace_of(card) == self.pace)
            self._serve(version)
            self._report(True, f"model {card.name} {card.version} replaced {before}")

    def _serve(self, version: Version) -> None:
        self._serving = version
        self.refusal = ""
        self._memory.serving = version.fingerprint
        self._keep(self._memory)

    def _refuse(self, version: Version, reason: str, told: str) -> None:
        self.refusal = self._refused[version] = reason
        self._report(False, f"{told}: {reason}; {self.label} serves on")

    def score(self, rows: Sequence[SensorRow], monotonic: Callable[[], float]) -> list[Judged]:
        """Judge rows with the model that serves, and let a candidate judge them too."""
        slot, candidate = self.slot, self._candidate
        if slot is None:
            raise ModelError(f"{self.label}: there is nothing to score with yet")
        if candidate is None:
            return slot.score(rows)
        start = monotonic()
        judged = slot.score(rows)
        middle = monotonic()
        try:
            shadowed = candidate.slot.score(rows)
        except ModelError as error:
            self._end_trial(candidate, Ruling.REVERT, str(error))
            return judged
        candidate.trial.note(judged, shadowed, middle - start, monotonic() - middle)
        self._end_trial(candidate, *candidate.trial.ruling())
        return judged

    def _end_trial(self, candidate: Candidate, ruling: Ruling, facts: str) -> None:
        if ruling is Ruling.RUN_ON or self._candidate is not candidate:
            return
        before, card = self.label, candidate.slot.card
        self._candidate = None
        if ruling is Ruling.REVERT:
            self._memory.reverted = [*self._memory.reverted[-99:], candidate.version.fingerprint]
            self._keep(self._memory)
            self._refuse(candidate.version, facts, f"model {card.name} {card.version} reverted")
            return
        self.slot = candidate.slot
        self._serve(candidate.version)
        self._report(True, f"model {card.name} {card.version} promoted over {before}: {facts}")

    def forget(self, thing: str) -> None:
        """Begin a thing's window anew, in the candidate's as well."""
        for slot in self._slots():
            slot.forget(thing)

    def drop(self, thing: str) -> None:
        """Keep nothing of a thing, for the candidate neither."""
        for slot in self._slots():
            slot.drop(thing)

    def pause(self, thing: str) -> None:
        """Void the rows before a pause of a thing, for the candidate as well."""
        for slot in self._slots():
            slot.pause(thing)

    def _slots(self) -> list[Slot]:
        candidate = self._candidate
        found = (self.slot, candidate.slot if candidate is not None else None)
        return [slot for slot in found if slot is not None]


class Shelf:
    """
    The models of a gateway, and who is served by which.

    Args:
        models: in order of precedence.
        report: told of every change (True) and refusal (False), on the thread that found it.
        kept: what ``keep`` was given before a restart, by name.
        keep: called with a name and bytes that a restart will need.
        learners: machines of one model that may have a forest of their own.
    """

    def __init__(
        self,
        models: Sequence[ModelSettings],
        watch: WatchSettings,
        shadow: ShadowSettings,
        report: Report,
        *,
        kept: Mapping[str, bytes] | None = None,
        keep: Keep | None = None,
        learners: int = 0,
    ) -> None:
        self._watch = watch
        self._of: dict[str, Seat | None] = {}
        self.seats: list[Seat] = []
        for place, settings in enumerate(models):
            name = f"model/{place}/{settings.folder.name}"
            remember = partial(_remember, keep, name)
            memory = _recall((kept or {}).get(name))
            self.seats.append(Seat(settings, watch, shadow, report, memory, remember, learners))

    def load(self) -> None:
        """
        Put the best version of every model to work.

        Raises:
            ModelError: one has no version that can be verified; the others serve.
        """
        self.look()
        for seat in self.seats:
            if seat.slot is None:
                raise ModelError(
                    seat.refusal
                    or f"models.folder {seat.settings.folder}: holds no complete model (model.onnx and card.json)"
                )

    def look(self) -> bool:
        """Look for new versions once; whether something changed."""
        changed = [seat.look() for seat in self.seats]
        return any(changed)

    def watch(self, stop: threading.Event, clock: Clock) -> None:
        """Look for new versions until told to stop."""
        while not clock.wait(stop, self._watch.period_s):
            try:
                self.look()
            except Exception:
                log.exception("looking for new models failed")

    def seat_of(self, thing: str) -> Seat | None:
        """Whose model serves the thing; None where no pattern names it."""
        if thing not in self._of:
            if len(self._of) > 100_000:
                self._of.clear()
            matching = (seat for seat in self.seats if any(fnmatchcase(thing, glob) for glob in seat.settings.things))
            self._of[thing] = next(matching, None)
        return self._of[thing]


def _remember(keep: Keep | None, name: str, memory: Memory) -> None:
    if keep is not None:
        keep(name, msgspec.json.encode(memory))


def _recall(state: bytes | None) -> Memory:
    return msgspec.json.decode(state, type=Memory) if state else Memory()
