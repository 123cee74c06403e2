"""Two models over the same rows: the figures of each, and where they disagree."""

import msgspec
import numpy as np
from rich.console import Console

from wheeltapper_models.evaluate import Figures, Judged, judge
from wheeltapper_models.ranges import ranges_of
from wheeltapper_models.show import table_of

MOST_ROWS = 15


class Disagreement(msgspec.Struct, frozen=True):
    """Rows that one model calls anomalous and the other does not; ``by`` is ``first`` or ``second``."""

    first_row: int
    last_row: int
    start: str
    end: str
    by: str


class Comparison(msgspec.Struct, frozen=True):
    """Both models' figures, the share of rows on which they agree, the correlation of their scores, and the rest."""

    first: Figures
    second: Figures
    rows: int
    agreement: float
    correlation: float | None
    disagreements: list[Disagreement]


def compare_models(first: Judged, second: Judged) -> Comparison:
    """Lay two models' answers for the same data side by side; rows that only one judged are left out."""
    first, second = judge(first), judge(second)
    _, ours, theirs = np.intersect1d(first.scores.rows, second.scores.rows, return_indices=True)
    one, other = first.scores.anomaly[ours] > 0, second.scores.anomaly[theirs] > 0
    rows, times = first.scores.rows[ours], [first.scores.time[place] for place in ours]
    found = [
        Disagreement(int(rows[start]), int(rows[stop - 1]), times[start], times[stop - 1], by)
        for by, mask in (("first", one & ~other), ("second", other & ~one))
        for start, stop in ranges_of(mask, join=1)
    ]
    found.sort(key=lambda item: item.first_row)
    left, right = first.scores.score[ours], second.scores.score[theirs]
    both = ~np.isnan(left) & ~np.isnan(right)
    varies = bool(both.any()) and bool(np.ptp(left[both]) > 0 and np.ptp(right[both]) > 0)
    return Comparison(
        first.figures,
        second.figures,
        len(ours),
        float(np.mean(one == other)) if len(ours) else 1.0,
        float(np.corrcoef(left[both], right[both])[0, 1]) if varies else None,
        found,
    )


def show_comparison(comparison: Comparison) -> None:
    """The comparison, for people."""
    console = Console()
    one, other = msgspec.to_builtins(comparison.first), msgspec.to_builtins(comparison.second)
    names = [name for name in one if name not in ("events", "alarms") and name in other]
    names += [name for name in other if name not in (*names, "events", "alarms")]
    rows = [(name.replace("_", " "), _cell(one.get(name)), _cell(other.get(name))) for name in names]
    console.print(table_of("", ["", "A", "B"], rows))
    console.print(f"agree on {comparison.agreement:.2%} of {comparison.rows} rows", highlight=False)
    if comparison.disagreements:
        lines = [
            (str(item.first_row), str(item.last_row), item.start, "A" if item.by == "first" else "B")
            for item in comparison.disagreements[:MOST_ROWS]
        ]
        console.print(table_of("only one calls these anomalous", ["first row", "last row", "time", "which"], lines))
    if len(comparison.disagreements) > MOST_ROWS:
        console.print(f"… and {len(comparison.disagreements) - MOST_ROWS} more; --json prints all")


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
