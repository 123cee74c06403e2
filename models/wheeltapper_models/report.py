"""Evaluations for people: tables on the terminal, and a report of HTML and PNG that needs no network."""

import base64
from html import escape
from pathlib import Path

import msgspec
from rich.console import Console

from wheeltapper.errors import DataError
from wheeltapper_models.evaluate import Alarmed, Event, Figures, Judged
from wheeltapper_models.show import table_of

MOST_LINES = 20
_PERCENT = ("precision", "recall", "f1", "far", "mar", "mean_lead_share")
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #1b1f24 }
table { border-collapse: collapse; margin: 1rem 0 }
th, td { border-bottom: 1px solid #d0d7de; padding: .3rem .8rem; text-align: left }
img { max-width: 100% } h2 { margin-top: 2.5rem }
"""


def show_evaluation(judged: Judged) -> None:
    """The figures, the labelled ranges and the alarms, on the terminal."""
    console = Console()
    figures = judged.figures
    console.print(table_of(f"{figures.model} {figures.version}", ["", ""], figure_rows(figures)))
    if figures.events:
        lines = event_rows(figures.events[:MOST_LINES])
        console.print(table_of("labelled ranges", _EVENT_COLUMNS, lines))
    if figures.alarms:
        lines = alarm_rows(figures.alarms[:MOST_LINES])
        console.print(table_of("alarms", _ALARM_COLUMNS, lines))
    if len(figures.alarms) > MOST_LINES or len(figures.events) > MOST_LINES:
        console.print("… and more: --json prints all")


def write_report(judged: Judged, folder: Path) -> None:
    """
    Write ``report.html``, ``figures.json`` and the pictures.

    Raises:
        DataError: the folder cannot be written.
    """
    from wheeltapper_models.pictures import draw_pictures

    pictures = draw_pictures(judged)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, payload in pictures.items():
            (folder / f"{name}.png").write_bytes(payload)
        figures = msgspec.json.format(msgspec.json.encode(judged.figures), indent=2)
        (folder / "figures.json").write_bytes(figures + b"\n")
        (folder / "report.html").write_text(_html(judged, pictures), encoding="utf-8")
    except OSError as error:
        raise DataError(f"{folder}: cannot be written: {error.strerror}") from error


_EVENT_COLUMNS = ["first row", "last row", "start", "found", "delay", "lead", "sensors"]
_ALARM_COLUMNS = ["first row", "last row", "start", "highest score", "false", "sensors"]


def figure_rows(figures: Figures) -> list[tuple[str, str]]:
    """The figures that there are, as name and text."""
    rows = []
    for name, value in msgspec.to_builtins(figures).items():
        if name in ("events", "alarms", "model", "version") or value is None:
            continue
        rows.append((name.replace("_", " "), _figure(name, value)))
    return rows


def event_rows(events: list[Event]) -> list[tuple[str, ...]]:
    """Labelled ranges as text."""
    return [
        (
            str(event.first_row),
            str(event.last_row),
            event.start,
            "yes" if event.found else "MISSED",
            "" if event.delay is None else f"{event.delay:g}",
            "" if event.lead is None else f"{event.lead:g}",
            _blame(event.sensors),
        )
        for event in events
    ]


def alarm_rows(alarms: list[Alarmed]) -> list[tuple[str, ...]]:
    """Ranges of anomalous rows as text."""
    return [
        (
            str(alarm.first_row),
            str(alarm.last_row),
            alarm.start,
            f"{alarm.highest_score:.3g}",
            "false" if alarm.false else "",
            _blame(alarm.sensors),
        )
        for alarm in alarms
    ]


def _figure(name: str, value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.1%}" if name in _PERCENT else f"{value:.4g}"


def _blame(sensors: dict[str, float]) -> str:
    return ", ".join(f"{name} {share:.0%}" for name, share in list(sensors.items())[:3])


def _html(judged: Judged, pictures: dict[str, bytes]) -> str:
    figures, card = judged.figures, judged.scores.card
    title = escape(f"{figures.model} {figures.version}")
    images = "".join(
        f'<img alt="{escape(name)}" src="data:image/png;base64,{base64.b64encode(payload).decode()}">'
        for name, payload in pictures.items()
    )
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{_STYLE}</style>",
        f"<h1>{title}</h1><p>{escape(card.kind)}, trained on {card.training.rows} rows; {escape(card.limit_rule)}</p>",
        _html_table(["", ""], figure_rows(figures)),
        images,
    ]
    if figures.events:
        parts.append("<h2>Labelled ranges</h2>" + _html_table(_EVENT_COLUMNS, event_rows(figures.events)))
    if figures.alarms:
        parts.append("<h2>Alarms</h2>" + _html_table(_ALARM_COLUMNS, alarm_rows(figures.alarms)))
    return "".join(parts) + "</html>\n"


def _html_table(columns: list[str], rows: list[tuple[str, ...]] | list[tuple[str, str]]) -> str:
    head = "".join(f"<th>{escape(column)}" for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}" for cell in row) for row in rows)
    return f"<table><tr>{head}{body}</table>"
