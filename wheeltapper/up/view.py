"""
The live view of ``wheeltapper up``: machines, sensors, score, contributions, detector state, last alarms.

``Picture`` gathers events and is drawn by rich; it holds a bounded history of a bounded number of machines, sensors and
processes, the latest heard, however long the run and whoever speaks on the broker.
"""

import datetime
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from wheeltapper.up.monitor import Event

_BARS = "▁▂▃▄▅▆▇█"
_HISTORY = 48
_SENSORS_SHOWN = 14
_ALARMS_SHOWN = 5
_MOST = 50  # machines, processes, sensors of a machine
# Processes that speak under a name of their own; the others speak for a machine.
_ROOMS = ("broker", "cloud", "gateway")
_STYLE_OF_STATUS = {"ready": "green", "starting": "yellow", "restarted": "yellow", "degraded": "yellow"}


T = TypeVar("T")


def _latest(known: "OrderedDict[str, T]", name: str, make: Callable[[], T]) -> T:
    """What is known under a name, made if it is new; the one not asked for the longest makes room."""
    found = known[name] = known[name] if name in known else make()
    known.move_to_end(name)
    if len(known) > _MOST:
        known.popitem(last=False)
    return found


class _Thing:
    """What is known of one machine."""

    def __init__(self) -> None:
        self.sensors: OrderedDict[str, deque[float]] = OrderedDict()
        self.scores: deque[float] = deque(maxlen=_HISTORY)
        self.prediction: Event = {}
        self.state = "–"
        self.readings = 0
        self.fault = ""


class Picture:
    """The events so far, ready to be drawn; ``add`` and ``render`` may be called from different threads."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._lock = threading.Lock()
        self._things: OrderedDict[str, _Thing] = OrderedDict()
        self._alarms: deque[Event] = deque(maxlen=_ALARMS_SHOWN)
        self._actions: dict[str, int] = {}
        self._processes: OrderedDict[str, Event] = OrderedDict()

    def add(self, event: Event) -> None:
        """Take one event in."""
        with self._lock:
            kind = event["kind"]
            if kind == "health":
                self._add_health(event)
                return
            thing = _latest(self._things, str(event["thing"]), _Thing)
            if kind == "reading":
                _add_reading(thing, event)
            elif kind == "prediction":
                thing.prediction = event
                thing.scores.append(float(event.get("score") or 0.0))
            elif kind == "state":
                thing.state = str(event.get("state"))
            elif kind == "alarm":
                self._alarms.appendleft(event)
            elif kind == "action":
                outcome = str(event.get("outcome"))
                self._actions[outcome] = self._actions.get(outcome, 0) + 1

    def _add_health(self, event: Event) -> None:
        if event.get("process") == "machine":
            _latest(self._things, str(event["thing"]), _Thing).fault = str(event.get("detail"))
            return
        room = event["thing"] if event["thing"] in _ROOMS else event.get("process")
        _latest(self._processes, str(room), dict).update(event)

    def render(self) -> RenderableType:
        """What to draw now."""
        with self._lock:
            parts: list[RenderableType] = [self._draw_processes()]
            for name, thing in sorted(self._things.items()):
                parts.append(_draw_thing(name, thing))
            parts.append(self._draw_alarms())
            return Group(*parts)

    def _draw_processes(self) -> RenderableType:
        line = Text(f"{self._title}   ", style="bold")
        for name, event in sorted(self._processes.items()):
            status = str(event.get("status"))
            line.append(f"● {name} ", style=_STYLE_OF_STATUS.get(status, "red"))
            line.append(f"{status}  ", style="dim")
        for outcome, count in sorted(self._actions.items()):
            line.append(f"  {count} actions {outcome}", style="dim")
        line.append("   Ctrl-C stops all", style="dim")
        return line

    def _draw_alarms(self) -> RenderableType:
        if not self._alarms:
            return Panel(Text("none so far", style="dim"), title="alarms", title_align="left")
        return Panel(
            Group(*(_draw_alarm(alarm) for alarm in self._alarms)),
            title="alarms",
            title_align="left",
            border_style="red",
        )


def _add_reading(thing: _Thing, event: Event) -> None:
    thing.readings += 1
    for sensor, value in event.items():
        if sensor in ("time_ms", "kind", "thing", "message_id") or isinstance(value, bool | str | None):
            continue
        _latest(thing.sensors, sensor, lambda: deque(maxlen=_HISTORY)).append(float(value))


def _draw_thing(name: str, thing: _Thing) -> RenderableType:
    shares = {entry["sensor"]: float(entry["share"]) for entry in thing.prediction.get("contributions") or []}
    table = Table(box=None, pad_edge=False, expand=True)
    table.add_column("sensor", no_wrap=True)
    table.add_column("value", justify="right")
    table.add_column("last readings", no_wrap=True)
    table.add_column("share of the anomaly", no_wrap=True)
    anomalous = bool(thing.prediction.get("anomaly"))
    order = sorted(thing.sensors, key=lambda sensor: (-round(shares.get(sensor, 0.0), 2) if anomalous else 0, sensor))
    for sensor in order[:_SENSORS_SHOWN]:
        values = thing.sensors[sensor]
        share = shares.get(sensor, 0.0)
        table.add_row(
            sensor,
            f"{values[-1]:.2f}",
            sparkline(values),
            Text("█" * round(share * 24) + f" {share:4.0%}", style="red" if anomalous and share >= 0.2 else "dim"),
        )
    style = "red" if anomalous else "green"
    return Panel(
        Group(_draw_score(thing, style), table),
        title=f"[bold]{name}[/]  [{style}]{thing.state}[/]  [dim]{thing.readings} readings[/]",
        subtitle=f"[dim]what is simulated: {thing.fault}[/]" if thing.fault else None,
        subtitle_align="right",
        title_align="left",
        border_style=style,
    )


def _draw_score(thing: _Thing, style: str) -> Text:
    score, limit = thing.prediction.get("score"), thing.prediction.get("limit")
    if score is None:
        return Text("score: waiting for the first window", style="dim")
    text = Text(f"score {score:8.3f}", style=style)
    if limit is not None:
        text.append(f"  limit {limit:.3f}", style="dim")
    return text.append(f"  {sparkline(thing.scores)}", style=style)


def _draw_alarm(alarm: Event) -> RenderableType:
    time = datetime.datetime.fromtimestamp(float(alarm.get("time_ms") or 0) / 1000.0).astimezone()
    text = Text()
    text.append(f"{time:%H:%M:%S} {alarm['thing']} ", style="bold red")
    text.append(f"{alarm.get('detector')} → {alarm.get('state')}", style="bold")
    contributions = alarm.get("contributions") or []
    if contributions:
        text.append("  sensors: ")
        text.append(", ".join(f"{entry['sensor']} {entry['share']:.0%}" for entry in contributions[:3]), style="yellow")
    text.append(f"\n  because {alarm.get('condition')}", style="dim")
    values = alarm.get("values") or {}
    text.append("\n  with " + ", ".join(f"{name} = {_brief(value)}" for name, value in values.items()), style="dim")
    return text


def _brief(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def sparkline(values: Sequence[float] | deque[float]) -> str:
    """
    The values as a row of bars, scaled to their own range.

    >>> sparkline([0.0, 1.0, 2.0, 7.0])
    '▁▂▃█'
    """
    if not values:
        return ""
    low, high = min(values), max(values)
    step = (high - low) / (len(_BARS) - 1) or 1.0
    return "".join(_BARS[int((value - low) / step)] for value in values)
