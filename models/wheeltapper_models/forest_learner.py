"""
A forest that goes on learning while it serves: each machine has one of its own, grown on from where training stopped.

A forest takes a few megabytes, so that only so many machines have one; further ones are judged by the frozen form, which
shares its trees among all.
"""

import contextlib
import copy
from collections.abc import Sequence
from typing import Any

import numpy as np

from wheeltapper.errors import ModelError
from wheeltapper_models.card import Card
from wheeltapper_models.forest_watch import ForestWatch
from wheeltapper_models.serving import Judged, SensorRow
from wheeltapper_models.session import Session

MOST = 100
_LEARNING, _FROZEN = b"~", b"="


class LearningForest:
    """
    A ``Served`` model for a folder of ``model.onnx``, ``card.json`` and ``stream.npz``.

    Args:
        session: the frozen form, verified.
        stream: the contents of ``stream.npz``.
        most: machines that have a forest of their own.

    Raises:
        ModelError: the stream is damaged, or of another model.
    """

    def __init__(self, session: Session, stream: bytes, *, most: int = MOST) -> None:
        self._session = session
        self._stream = stream
        self._most = most
        watch = self._grown(stream)
        if watch.shingle.length != session.card.settings.get("shingle", watch.shingle.length):
            raise ModelError(
                f"{session.card.name}: its stream joins {watch.shingle.length} rows, its card says otherwise"
            )

    @property
    def card(self) -> Card:
        """The card of both forms."""
        return self._session.card

    @property
    def sensors(self) -> list[str]:
        """The names of the inputs, in order."""
        return self._session.sensors

    def judge(self, rows: Sequence[SensorRow], states: dict[str, Any]) -> list[Judged]:
        """Judge one row of each of some machines by the rows before it, and learn it."""
        learning = (
            sum(isinstance(state, ForestWatch) for state in states.values()) if len(states) < self._most else None
        )
        found: dict[str, Judged] = {}
        frozen: list[SensorRow] = []
        for row in rows:
            watch = states.get(row.thing)
            if watch is None and learning is not None and learning < self._most:
                watch = states[row.thing] = self._start()
                learning += 1
            if isinstance(watch, ForestWatch):
                found[row.thing] = self._step(watch, row)
            else:
                frozen.append(row)
        if frozen:
            judged = self._session.judge(frozen, states)
            found.update({row.thing: word for row, word in zip(frozen, judged, strict=True)})
        return [found[row.thing] for row in rows]

    def _step(self, watch: ForestWatch, row: SensorRow) -> Judged:
        verdict = watch.step(self._session.row(row.values, row.time_ms))
        shares = dict(zip(self.sensors, verdict.contributions.tolist(), strict=True))
        limit = verdict.limit if np.isfinite(verdict.limit) else None
        return Judged(verdict.score, verdict.anomaly, shares, self.card, limit, verdict.alert)

    def restart(self, thing: str, states: dict[str, Any]) -> None:
        """Begin the machine's window anew; what its forest has learnt stays."""
        state = states.get(thing)
        if isinstance(state, ForestWatch):
            state.new_stretch()
        else:
            states.pop(thing, None)

    def pause(self, thing: str, states: dict[str, Any]) -> None:
        """Begin the machine's window anew; what was learnt stays, in either form."""
        state = states.get(thing)
        if isinstance(state, ForestWatch):
            state.new_stretch()
        else:
            self._session.pause(thing, states)

    def pack(self, state: Any) -> bytes:
        """The window, the run of anomalies and the cutoff."""
        if isinstance(state, ForestWatch):
            return _LEARNING + state.moment()
        return _FROZEN + self._session.pack(state)

    def unpack(self, thing: str, payload: bytes, states: dict[str, Any]) -> None:
        """Go on where ``pack`` was called, with the forest that was taken before, or as training left it."""
        if payload.startswith(_FROZEN):
            self._session.unpack(thing, payload[1:], states)
        elif payload.startswith(_LEARNING):
            watch = states.get(thing) or self._start()
            with contextlib.suppress(ModelError):  # else its window fills again
                watch.resume(payload[1:])
            states[thing] = watch

    def learnt(self, state: Any) -> ForestWatch | None:
        """A copy of the machine's forest."""
        return copy.deepcopy(state) if isinstance(state, ForestWatch) else None

    def relearn(self, thing: str, payload: bytes, states: dict[str, Any]) -> None:
        """
        Take a forest that was kept.

        Raises:
            ModelError: it is damaged, or of another model.
        """
        states[thing] = self._grown(payload)

    def _start(self) -> ForestWatch:
        watch = self._grown(self._stream)
        watch.new_stretch()
        return watch

    def _grown(self, payload: bytes) -> ForestWatch:
        watch = ForestWatch.from_bytes(payload)
        if watch.shingle.sensors != len(self.sensors):
            raise ModelError(
                f"{self.card.name}: its stream reads {watch.shingle.sensors} sensors, its card names {len(self.sensors)}"
            )
        return watch
