"""``wheeltapper alarms``: what is wrong now, why, whether it happened before, and what is shelved."""

import argparse
import json
import sys
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from wheeltapper.cli import Commands
from wheeltapper.clock import Clock, SystemClock
from wheeltapper.errors import SettingsError, UnavailableError
from wheeltapper_cloud import operators_acts
from wheeltapper_cloud.operators_names import Alarm, add_alarm, alarm_named, model_of, of_machine, twins_among
from wheeltapper_cloud.operators_options import add_common, add_limit, ask
from wheeltapper_cloud.tables import age, moment, printable, short_ids, show, table_of

_WATCH_S = 1.0
_MOST = 1000
_BEFORE_S = 30 * 86_400


def register(alarms: Commands) -> None:
    """Add the commands to their group."""
    listing = alarms.otherwise(
        _list, example="wheeltapper alarms --watch\nwheeltapper alarms --all --json\nwheeltapper alarms show pump-7"
    )
    listing.add_argument("--watch", action="store_true", help="go on until Ctrl-C; with --json a line for each change")
    listing.add_argument("--all", action="store_true", help="those that are over, too")
    detail = alarms.add(
        "show",
        _explain,
        help="why it rings, who took it up, whether it rang before",
        example="wheeltapper alarms show pump-7\nwheeltapper alarms show 3f2a07 --json",
    )
    past = alarms.add(
        "history",
        _history,
        help="every alarm of a machine, the newest first",
        example="wheeltapper alarms history pump-7\nwheeltapper alarms history pump-7 --model Overheat --limit 10",
    )
    past.add_argument("machine", help="the machine, or the detector's key")
    past.add_argument("--model", default="", help="of this detector or alarm model only")
    add_limit(past)
    lying = alarms.add(
        "shelved",
        _shelf,
        help="what is shelved or out of service, until when and by whom, whether it rings or not",
        example="wheeltapper alarms shelved\nwheeltapper alarms shelved --json",
    )
    operators_acts.register(alarms)
    add_alarm(detail)
    for parser in (listing, detail, past, lying):
        add_common(parser)


def _list(options: argparse.Namespace) -> int:
    path = f"/wheeltapper/alarms?limit={_MOST}" + ("&closed=true" if options.all else "")
    if options.watch:
        return _watch_changes(options, path) if options.json else _watch_table(options, path)
    alarms = ask(options.server, "GET", path)["alarms"]
    if options.json:
        _print_lines(alarms)
    else:
        show(*_view(alarms, SystemClock()))
        _say_if_cut(len(alarms), _MOST)
    return 0


def _print_lines(rows: list[Alarm]) -> None:
    for each in rows:
        print(json.dumps(each), flush=True)


def _say_if_cut(count: int, limit: int) -> None:
    if count >= limit:
        print(f"wheeltapper: only the first {limit} are shown", file=sys.stderr)


def _watch_table(options: argparse.Namespace, path: str) -> int:
    if not sys.stdout.isatty():
        raise SettingsError("--watch: needs a terminal; add --json for a line of each change")
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    clock = SystemClock()
    with Live(auto_refresh=False) as live:
        for alarms, silent_s in _polled(options.server, path, clock):
            away = [Text(f"no answer for {age(silent_s)}; trying again", style="bold red")] if silent_s else []
            live.update(Group(*_view(alarms, clock), *away), refresh=True)
    return 0


def _watch_changes(options: argparse.Namespace, path: str) -> int:
    known: dict[str, Alarm] = {}
    for alarms, silent_s in _polled(options.server, path, SystemClock()):
        if silent_s:
            continue
        now = {each["id"]: each for each in alarms}
        try:
            gone = [
                ask(options.server, "GET", f"/wheeltapper/alarms/{quote(each)}") for each in known if each not in now
            ]
        except UnavailableError:
            continue
        _print_lines([*gone, *(each for each in alarms if known.get(each["id"]) != each)])
        known = now
    return 0


def _polled(server: str, path: str, clock: Clock) -> Iterator[tuple[list[Alarm], float]]:
    """
    The alarms again and again, for ever, and how long ago they were told where nobody answers now.

    Raises:
        UnavailableError: nobody answers the first time.
    """
    never = threading.Event()
    alarms, told = ask(server, "GET", path)["alarms"], clock.monotonic()
    yield alarms, 0.0
    while True:
        clock.wait(never, _WATCH_S)
        try:
            alarms, told = ask(server, "GET", path)["alarms"], clock.monotonic()
            yield alarms, 0.0
        except UnavailableError:
            yield alarms, clock.monotonic() - told


def _view(alarms: list[Alarm], clock: Clock) -> Iterator[Any]:
    """How many there are, and the table of them."""
    opened = [each for each in alarms if each["cleared_ms"] is None]
    if opened and sys.stdout.isatty():
        silent = sum(each["suppressed"] is not None for each in opened)
        waiting = sum(each["acknowledged_ms"] is None and each["suppressed"] is None for each in opened)
        yield f"{len(opened)} open, {waiting} not taken up" + (
            f", {silent} shelved or out of service" if silent else ""
        )
    yield _table(
        alarms,
        clock,
        "no alarm is open; wheeltapper alarms --all shows past ones, wheeltapper detectors list what is watched",
    )


def _table(alarms: list[Alarm], clock: Clock, empty: str) -> Any:
    ids, now_ms = short_ids([each["id"] for each in alarms]), clock.time_ms()
    twins = twins_among(alarms)
    rows = [
        (
            ids[each["id"]],
            age((now_ms - each["raised_ms"]) / 1000),
            "" if each["severity"] is None else str(each["severity"]),
            _machine(each),
            model_of(each, twins),
            _state(each, now_ms),
            _who(each),
            _reason(each["alarm"]),
        )
        for each in alarms
    ]
    return table_of(("id", "age", "severity", "machine", "model", "state", "by", "why"), rows, empty)


def _who(alarm: Alarm) -> str:
    """Who did what the state says: shelved it, else took it up."""
    return str(alarm["shelved_by"] if alarm["suppressed"] else alarm["acknowledged_by"])


def _machine(alarm: Alarm) -> str:
    thing, key = alarm["alarm"]["thing"], alarm["key"]
    return thing if key in ("", thing) else f"{thing} ({key})"


def _state(alarm: Alarm, now_ms: int) -> str:
    if alarm["cleared_ms"] is not None:
        return f"over after {age((alarm['cleared_ms'] - alarm['raised_ms']) / 1000)}"
    if not alarm["suppressed"]:
        return str(alarm["state"])
    lies = _lies(alarm, now_ms)
    return f"{alarm['state']}, {lies}" if alarm["kind"] == "detector" else lies


def _lies(alarm: Alarm, now_ms: int) -> str:
    """How long an alarm is kept away."""
    if alarm["suppressed"] == "out_of_service":
        return "out of service"
    until_ms = alarm["shelved_until_ms"]
    return "shelved" if until_ms is None else f"shelved for {age((until_ms - now_ms) / 1000)}"


def _reason(alarm: Alarm) -> str:
    """The sensors to blame with their shares; where no model says, the condition and the values in it."""
    if alarm["contributions"]:
        first = sorted(alarm["contributions"], key=lambda each: -each["share"])[:2]
        return ", ".join(f"{each['sensor']} {each['share']:.0%}" for each in first)
    values = ", ".join(f"{_name(name)} {json.dumps(value)}" for name, value in alarm["values"].items())
    condition = alarm["condition"]
    for name in sorted(alarm["values"], key=len, reverse=True):
        condition = condition.replace(name, _name(name))
    return f"{condition}: {values}" if values else condition


def _name(reference: str) -> str:
    """
    The last part of a reference, which is what people call it.

    >>> _name("$input.Pump.TT01"), _name("$variable.count")
    ('TT01', 'count')
    """
    return (
        reference.removeprefix("$variable.").removeprefix("$input.").partition(".")[2] or reference.rpartition(".")[2]
    )


def _explain(options: argparse.Namespace) -> int:
    alarm = alarm_named(options.server, options.alarm)
    past = of_machine(options.server, alarm["key"], alarm["model"])
    before = [each for each in past if each["id"] != alarm["id"] and each["kind"] == alarm["kind"]]
    if options.json:
        print(
            json.dumps(
                {
                    **alarm,
                    "before": [{name: each[name] for name in ("id", "raised_ms", "cleared_ms")} for each in before],
                }
            )
        )
        return 0
    clock = SystemClock()
    show(*(printable(line) for line in _explained(alarm, before, clock.time_ms())))
    return 0


def _explained(alarm: Alarm, before: list[Alarm], now_ms: int) -> Iterator[str]:
    told = alarm["alarm"]
    yield f"{_machine(alarm)}: {alarm['model']} is {_state(alarm, now_ms)}"
    ago = age((now_ms - alarm["raised_ms"]) / 1000)
    yield f"  raised    {moment(alarm['raised_ms'])}, {ago} ago, on entering {told['state']}"
    yield f"  because   {told['condition'] or told['event']}"
    for name, value in told["values"].items():
        yield f"            {name} was {json.dumps(value)}"
    if told["score"] is not None:
        model = told["model"] or {}
        yield f"  score     {told['score']:g} by {model.get('name', 'a model')} {model.get('version', '')}".rstrip()
    for each in sorted(told["contributions"], key=lambda each: -each["share"])[:5]:
        yield f"            {each['sensor']} {each['share']:.0%}"
    if alarm["severity"] is not None:
        yield f"  severity  {alarm['severity']}"
    yield f"  taken up  {_taken_up(alarm, now_ms)}"
    if alarm["suppressed"]:
        yield f"  {laid_aside(alarm, 9)}"
    yield f"  before    {_before(before, now_ms)}"
    yield f"  id        {alarm['id']}"


def _taken_up(alarm: Alarm, now_ms: int) -> str:
    if alarm["acknowledged_ms"] is None:
        return "by nobody"
    since = age((now_ms - alarm["acknowledged_ms"]) / 1000)
    return f"by {alarm['acknowledged_by'] or 'somebody'} {since} ago{_reasoned(alarm['acknowledged_note'])}"


def laid_aside(alarm: Alarm, width: int = 0) -> str:
    """
    By whom an alarm is kept away, and until when, as far as is known.

    >>> laid_aside({"suppressed": "shelved", "shelved_by": "ada", "shelved_until_ms": 1500, "shelved_note": "cleaning"})
    'shelved by ada until 1970-01-01 00:00:01Z: cleaning'
    """
    word = str(alarm["suppressed"]).replace("_", " ").ljust(width)
    by = f" by {alarm['shelved_by']}" if alarm["shelved_by"] else ""
    until = "" if alarm["shelved_until_ms"] is None else f" until {moment(alarm['shelved_until_ms'])}"
    return f"{word}{by}{until}{_reasoned(alarm['shelved_note'])}"


def _reasoned(note: str) -> str:
    return f": {note}" if note else ""


def _before(before: list[Alarm], now_ms: int) -> str:
    if not before:
        return "never, as far as is remembered"
    last = max(before, key=lambda each: int(each["raised_ms"]))
    recent = sum(now_ms - each["raised_ms"] <= _BEFORE_S * 1000 for each in before)
    times = "once" if recent == 1 else f"{recent} times"
    lasted = "" if last["cleared_ms"] is None else f" for {age((last['cleared_ms'] - last['raised_ms']) / 1000)}"
    return f"{times} in 30 days, last {age((now_ms - last['raised_ms']) / 1000)} ago{lasted}"


def _history(options: argparse.Namespace) -> int:
    alarms = of_machine(options.server, options.machine, options.model, options.limit)
    if options.json:
        _print_lines(alarms)
        return 0
    empty = f"no alarm of {options.machine} is remembered; wheeltapper alarms --all shows every machine's"
    show(_table(alarms, SystemClock(), printable(empty)))
    _say_if_cut(len(alarms), options.limit)
    return 0


def _shelf(options: argparse.Namespace) -> int:
    lying = ask(options.server, "GET", "/wheeltapper/shelf")["shelf"]
    if options.json:
        _print_lines(lying)
    else:
        show(_shelf_table(lying, SystemClock().time_ms()))
    return 0


def _shelf_table(lying: list[Alarm], now_ms: int) -> Any:
    rows = [
        (
            each["key"],
            each["kind"],
            each["model"],
            each["state"] or ("every alarm" if each["kind"] == "detector" else ""),
            _lies(each, now_ms),
            "" if each["shelved_until_ms"] is None else moment(each["shelved_until_ms"]),
            age((now_ms - each["shelved_ms"]) / 1000),
            each["shelved_by"],
            each["shelved_note"],
        )
        for each in lying
    ]
    empty = "nothing is shelved or out of service; wheeltapper alarms shelve and disable lay an alarm aside"
    return table_of(("key", "kind", "model", "alarm", "state", "until", "age", "by", "note"), rows, empty)
