"""A batch of messages brought into the order in which detectors take them: key by key, each in its own time."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from wheeltapper.detector.backtest import Runner
from wheeltapper.detector.columns import Batch, Path
from wheeltapper.detector.plan import key_text, payload_path

Rows = npt.NDArray[np.int64]


class Segments:
    """
    The rows of one batch, sorted by key.

    Attributes:
        batch: the columns that the model reads, in the new order; times never go back within a key.
        times, event_times: in ms, as lists: when a row is judged, and what it says itself.
        spans: (key, first row, row after the last).
        segment_of: each row's place in ``spans``; ``segment_ends``: the row after each span's last.
    """

    def __init__(self, runner: Runner, batch: Batch, index: int) -> None:
        self._runner = runner
        self._input = runner.plan.inputs[index]
        self.spans = self._sort(batch)

    def _sort(self, batch: Batch) -> list[tuple[str, int, int]]:
        """Bring the rows of each key together; gives (key, first row, row after the last)."""
        runner = self._runner
        keys, codes = self._codes(batch)
        self._keys = keys
        usable = codes >= 0
        runner.ledger.keyless += int(len(batch) - usable.sum())
        if runner.only is not None:
            usable &= codes == (keys.index(runner.only) if runner.only in keys else -1)
        order = np.flatnonzero(usable)
        order = order[np.argsort(codes[order], kind="stable")]
        sorted_codes = codes[order]
        starts = np.flatnonzero(np.diff(sorted_codes, prepend=-1)).tolist() if len(order) else []
        ends = [*starts[1:], len(order)] if starts else []
        wanted = [tuple(map(str, payload_path(reference))) for reference in self._input.references]
        needed = [path for path in batch.columns if any(_related(path, each) for each in wanted)]
        in_order = len(order) == len(batch) and bool(np.all(order[1:] > order[:-1]))
        columns = {path: batch.columns[path] if in_order else batch.columns[path].take(order) for path in needed}
        times = batch.times_ms if in_order else batch.times_ms[order]
        given = times
        self.event_times: list[int] = times.tolist()
        times = self._forward(times, sorted_codes, starts)
        self.batch = Batch(batch.input_name, times, columns)
        self.times: list[int] = self.event_times if times is given else times.tolist()
        self.segment_of: Rows = np.repeat(
            np.arange(len(starts)), np.diff([*starts, len(order)]) if starts else 0
        ).astype(np.int64)
        self.segment_ends = np.asarray(ends, dtype=np.int64)
        return [(keys[int(sorted_codes[start])], start, end) for start, end in zip(starts, ends, strict=True)]

    def _codes(self, batch: Batch) -> tuple[list[str], npt.NDArray[np.int64]]:
        """Each row's key as a number; negative where it has none."""
        steps = self._runner.plan.key
        if steps is None:
            return [""], np.zeros(len(batch), dtype=np.int64)
        column = batch.columns.get(tuple(steps))
        if column is None:
            return [], np.full(len(batch), -1, dtype=np.int64)
        if column.kind == "text":
            values: list[Any] = list(column.texts)
            codes = column.data.astype(np.int64)
        elif column.kind == "object":
            values = column.cells()
            codes = np.arange(len(values), dtype=np.int64)
        else:
            different, codes = np.unique(column.data, return_inverse=True)
            values = different.tolist()
        names: dict[str, int] = {}
        table = [
            names.setdefault(name, len(names)) if (name := key_text(value)) is not None else -1 for value in values
        ]
        found = np.asarray([*table, -1], dtype=np.int64)[codes]
        if column.missing is not None:
            found = np.where(column.missing, -1, found)
        return list(names), found

    def _forward(self, times: npt.NDArray[np.int64], codes: Rows, starts: Sequence[int]) -> npt.NDArray[np.int64]:
        """Times that never go back within a detector; what was late is counted."""
        if not len(times):
            return times
        backwards = (np.diff(times) < 0) & (np.diff(codes) == 0)
        floors = {start: self._floor(int(codes[start])) for start in starts}
        late_heads = [start for start, floor in floors.items() if times[start] < floor]
        if not late_heads and not backwards.any():
            return times
        times = times.copy()
        ends = [*starts[1:], len(times)]
        for start, end in zip(starts, ends, strict=True):
            before = times[start:end].copy()
            np.maximum.accumulate(before, out=times[start:end])
            np.maximum(times[start:end], floors[start], out=times[start:end])
            self._runner.ledger.late += int((before < times[start:end]).sum())
        return times

    def _floor(self, code: int) -> int:
        """The last time of a detector that an earlier batch left behind, in ms."""
        detector = self._runner.detectors.get(self._keys[code])
        return -(2**62) if detector is None else round(detector.updated * 1000)


def _related(path: Path, wanted: Path) -> bool:
    """Whether a column is, holds or lies within what a reference reads."""
    return path[: len(wanted)] == wanted or wanted[: len(path)] == path
