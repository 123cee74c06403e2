"""Cards and scores as tables for people."""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

from wheeltapper_models.card import Card
from wheeltapper_models.pace import pace_of
from wheeltapper_models.ranges import ranges_of
from wheeltapper_models.score import Scores

MOST_RANGES = 20


def table_of(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table; columns after the first are right-aligned where all their cells look like numbers."""
    found = Table(title=title, title_justify="left", header_style="bold")
    lines = [list(row) for row in rows]
    for place, column in enumerate(columns):
        numeric = place > 0 and all(_looks_numeric(line[place]) for line in lines)
        found.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for line in lines:
        found.add_row(*line)
    return found


def show_card(card: Card) -> None:
    """What a card says, for people."""
    console = Console()
    facts = [
        ("model", f"{card.name} {card.version} ({card.kind})"),
        ("trained on", f"{card.training.rows} rows {card.training.start} … {card.training.end}".rstrip(" …")),
        ("file", f"{card.size_bytes} bytes, opset {card.opset}, IR {card.ir_version}, sha256 {card.sha256[:12]}…"),
    ]
    pace = pace_of(card)
    if pace is not None:
        of = ", the mean of what came since the last" if pace.mean else ""
        facts.append(("pace", f"a row every {pace.period_ms / 1000:g} s{of}"))
    if card.limit is not None:
        facts.append(("limit", f"{card.limit:.4g}: {card.limit_rule}"))
    facts += [(name.replace("_", " "), f"{value:g}") for name, value in card.scores.items()]
    facts += [("off while", text) for text in card.off_conditions]
    facts += [("note", text) for text in card.notes]
    console.print(table_of("", ["", ""], facts))
    inputs = [
        (item.name, item.unit, _number(item.low), _number(item.high), item.grade, "; ".join(item.remarks))
        for item in card.inputs
    ]
    console.print(table_of("inputs", ["sensor", "unit", "lowest", "highest", "grade", "remarks"], inputs))


def show_scores(scores: Scores) -> None:
    """A summary of scored rows: how many, and the ranges that are anomalous with their first sensors."""
    console = Console()
    console.print(
        f"{scores.card.name} {scores.card.version} ({scores.card.kind}): {len(scores.rows)} rows", highlight=False
    )
    ranges = ranges_of(scores.anomaly > 0)
    lines = []
    for start, stop in ranges[:MOST_RANGES]:
        shares = scores.contributions[start:stop].mean(axis=0)
        order = shares.argsort()[::-1][:3]
        blame = ", ".join(f"{scores.card.sensors[place]} {shares[place]:.0%}" for place in order if shares[place] > 0)
        peak = scores.score[start:stop].max()
        lines.append((str(scores.rows[start]), str(scores.rows[stop - 1]), scores.time[start], f"{peak:.3g}", blame))
    if lines:
        console.print(table_of("anomalies", ["first row", "last row", "time", "highest score", "sensors"], lines))
    if len(ranges) > MOST_RANGES:
        console.print(f"… and {len(ranges) - MOST_RANGES} more ranges; --json prints every row")
    console.print(f"{int(scores.anomaly.sum())} rows are anomalous, in {len(ranges)} ranges", highlight=False)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _looks_numeric(cell: str) -> bool:
    try:
        float(cell.rstrip("%") or 0)
    except ValueError:
        return False
    return True
