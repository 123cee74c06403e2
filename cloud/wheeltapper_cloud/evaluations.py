"""
What AWS IoT Events logs at DEBUG: one JSON line for each message that a detector evaluated, with every condition's result.

It goes to ``evaluations.jsonl`` in the data directory, which is rotated, for the detectors that PutLoggingOptions names.
"""

import logging
import os
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

import msgspec

from wheeltapper.clock import Clock
from wheeltapper.detector.runtime import Outcome
from wheeltapper.detector.trace import summary
from wheeltapper.judge import Judge
from wheeltapper.times import iso_of

FILE = "evaluations.jsonl"
_BYTES, _FILES = 10 * 1024 * 1024, 5
_OF_ONE_MESSAGE = ("detectorModelName", "keyValue", "messageId")

_encode = msgspec.json.Encoder().encode


class _PrivateFiles(RotatingFileHandler):
    """Writes files that only their owner can read."""

    def _open(self) -> TextIOWrapper:
        descriptor = os.open(self.baseFilename, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        return os.fdopen(descriptor, "a", encoding=self.encoding)


class EvaluationLog:
    """Watches the judge while the logging options want it to."""

    def __init__(self, folder: Path, judge: Judge, clock: Clock) -> None:
        self._path = folder / FILE
        self._judge = judge
        self._clock = clock
        self._handler: RotatingFileHandler | None = None
        self._models: frozenset[str] = frozenset()
        self._detectors: frozenset[tuple[str, str]] = frozenset()
        self._all = False
        self._entered: dict[str, Any] | None = None

    def apply(self, options: dict[str, Any] | None) -> None:
        """Follow logging options; None, or a level above DEBUG, ends the watch."""
        if options is None or not options["enabled"] or options["level"] != "DEBUG":
            self._judge.watch(None)
            return
        named = options.get("detectorDebugOptions", [])
        self._all = not named
        self._models = frozenset(one["detectorModelName"] for one in named if "keyValue" not in one)
        self._detectors = frozenset((one["detectorModelName"], one["keyValue"]) for one in named if "keyValue" in one)
        if self._handler is None:
            self._handler = _PrivateFiles(self._path, maxBytes=_BYTES, backupCount=_FILES, encoding="utf-8")
        self._judge.watch(self._write)

    def close(self) -> None:
        """Let go of the file."""
        if self._handler is not None:
            self._handler.close()

    def _write(self, outcome: Outcome) -> None:
        if outcome.trace is None or self._handler is None:
            return
        wanted = self._all or outcome.model in self._models or (outcome.model, outcome.key) in self._detectors
        if not wanted:
            return
        found = summary(outcome.trace)
        if outcome.created:  # the pass over the same message, which made the detector, comes next
            self._entered = found
            return
        entered, self._entered = self._entered, None
        if entered is not None and all(entered[name] == found[name] for name in _OF_ONE_MESSAGE):
            found = _of_both(entered, found)
        entry = {"timestamp": iso_of(self._clock.time_ms()), **found}
        record = logging.LogRecord(__name__, logging.DEBUG, "", 0, _encode(entry).decode(), None, None)
        self._handler.emit(record)


def _of_both(entered: dict[str, Any], passed: dict[str, Any]) -> dict[str, Any]:
    """One entry for the entry into the first state and the pass that follows with the same message."""
    results = "conditionEvaluationResults"
    before = {name: entered[name] for name in ("initialState", "initialVariables")}
    return {**passed, **before, results: entered[results] + passed[results]}
