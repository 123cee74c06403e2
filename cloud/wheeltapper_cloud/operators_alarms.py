"""``wheeltapper alarms``: what is wrong now, why, whether it happened before, and what operators do about it."""

import argparse
import json
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

from wheeltapper.cli import Commands
from wheeltapper.clock import Clock, SystemClock
from wheeltapper.errors import DataError, SettingsError, UnavailableError
from wheeltapper_cloud.operators_options import add_common, add_limit, add_who, ask, seconds_of
from wheeltapper_cloud.tables import age, moment, printable, short_ids, show, table_of

_WATCH_S = 1.0
_MOST = 1000
_SHELVED = "SNOOZE_DISABLED"
_BEFORE_S = 30 * 86_400

_ACTS = {
    "ack": "take up an alarm",
    "snooze": "shelve an alarm of an alarm model for a while",
    "disable": "take an alarm of an alarm model out of service",
    "enable": "put an alarm of an alarm model back into service",
    "reset": "put an alarm of an alarm model back to normal",
}

Alarm = dict[str, Any]


class _UnknownError(DataError):
    """No alarm that has ever been raised."""


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
    for word, what in _ACTS.items():
        act = alarms.add(word, _act, help=what, example=_example(word))
        act.set_defaults(operation=word)
        act.add_argument("--note", default="", help="why; kept in the audit trail")
        add_who(act)
        if word == "snooze":
            act.add_argument(
                "--for",
                dest="snooze_s",
                type=seconds_of,
                default="1h",
                metavar="TIME",
                help="15m, 1h, 8h … (default: 1h)",
            )
        _add_alarm(act)
        add_common(act)
    _add_alarm(detail)
    for parser in (listing, detail, past):
        add_common(parser)


def _example(word: str) -> str:
    first = f'wheeltapper alarms {word} pump-7 --note "bearing ordered" --as ada' + (
        " --for 8h" if word == "snooze" else ""
    )
    return f"{first}\nwheeltapper alarms {word} {'3f2a07' if word == 'ack' else 'Overheat/pump-7'} --as ada"


def _add_alarm(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "alarm", help="its id, or the end that the list shows; or its machine, or MODEL/KEY, where only one rings"
    )


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
        waiting = sum(each["acknowledged_ms"] is None and each["state"] != _SHELVED for each in opened)
        yield f"{len(opened)} open, {waiting} not taken up"
    yield _table(
        alarms,
        clock,
        "no alarm is open; wheeltapper alarms --all shows past ones, wheeltapper detectors list what is watched",
    )


def _table(alarms: list[Alarm], clock: Clock, empty: str) -> Any:
    ids, now_ms = short_ids([each["id"] for each in alarms]), clock.time_ms()
    twins = _twins(alarms)
    rows = [
        (
            ids[each["id"]],
            age((now_ms - each["raised_ms"]) / 1000),
            "" if each["severity"] is None else str(each["severity"]),
            _machine(each),
            _model(each, twins),
            _state(each, now_ms),
            each["acknowledged_by"] or each["shelved_by"],
            _reason(each["alarm"]),
        )
        for each in alarms
    ]
    return table_of(("id", "age", "severity", "machine", "model", "state", "by", "why"), rows, empty)


def _twins(alarms: list[Alarm]) -> set[str]:
    """The names among the alarms that a detector model and an alarm model share."""
    names = {(each["model"], each["kind"]) for each in alarms}
    return {name for name, kind in names if kind == "alarm" and (name, "detector") in names}


def _model(alarm: Alarm, twins: set[str]) -> str:
    return f"{alarm['model']} ({alarm['kind']})" if alarm["model"] in twins else str(alarm["model"])


def _machine(alarm: Alarm) -> str:
    thing, key = alarm["alarm"]["thing"], alarm["key"]
    return thing if key in ("", thing) else f"{thing} ({key})"


def _state(alarm: Alarm, now_ms: int) -> str:
    if alarm["cleared_ms"] is not None:
        return f"over after {age((alarm['cleared_ms'] - alarm['raised_ms']) / 1000)}"
    if alarm["state"] == _SHELVED:
        until_ms = alarm["shelved_until_ms"]
        return "shelved" if until_ms is None else f"shelved for {age((until_ms - now_ms) / 1000)}"
    return str(alarm["state"])


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
    alarm = _found(options.server, options.alarm)
    past = _of_machine(options.server, alarm["key"], alarm["model"])
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


def _of_machine(server: str, machine: str, model: str, limit: int = _MOST) -> list[Alarm]:
    query = urlencode({"model": model, "limit": limit})
    found: list[Alarm] = ask(server, "GET", f"/wheeltapper/history/{quote(machine, safe='')}?{query}")["alarms"]
    return found


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
    if alarm["shelved_by"]:
        yield f"  shelved   by {alarm['shelved_by']} until {moment(alarm['shelved_until_ms'])}{_note(alarm)}"
    yield f"  before    {_before(before, now_ms)}"
    yield f"  id        {alarm['id']}"


def _taken_up(alarm: Alarm, now_ms: int) -> str:
    if alarm["acknowledged_ms"] is None:
        return "by nobody"
    since = age((now_ms - alarm["acknowledged_ms"]) / 1000)
    return f"by {alarm['acknowledged_by'] or 'somebody'} {since} ago{'' if alarm['shelved_by'] else _note(alarm)}"


def _note(alarm: Alarm) -> str:
    return f": {alarm['note']}" if alarm["note"] else ""


def _before(before: list[Alarm], now_ms: int) -> str:
    if not before:
        return "never, as far as is remembered"
    last = max(before, key=lambda each: int(each["raised_ms"]))
    recent = sum(now_ms - each["raised_ms"] <= _BEFORE_S * 1000 for each in before)
    times = "once" if recent == 1 else f"{recent} times"
    lasted = "" if last["cleared_ms"] is None else f" for {age((last['cleared_ms'] - last['raised_ms']) / 1000)}"
    return f"{times} in 30 days, last {age((now_ms - last['raised_ms']) / 1000)} ago{lasted}"


def _history(options: argparse.Namespace) -> int:
    alarms = _of_machine(options.server, options.machine, options.model, options.limit)
    if options.json:
        _print_lines(alarms)
        return 0
    empty = f"no alarm of {options.machine} is remembered; wheeltapper alarms --all shows every machine's"
    show(_table(alarms, SystemClock(), printable(empty)))
    _say_if_cut(len(alarms), options.limit)
    return 0


def _act(options: argparse.Namespace) -> int:
    body: dict[str, Any] = {"note": options.note, "by": options.by}
    if options.operation == "snooze":
        body["snooze_s"] = options.snooze_s
    if not options.by and not os.environ.get("AWS_ACCESS_KEY_ID"):
        raise DataError("--as: say who acts")
    try:
        path = f"/wheeltapper/alarms/{quote(_found(options.server, options.alarm)['id'])}/{options.operation}"
    except _UnknownError:
        model, slash, key = options.alarm.partition("/")
        if not slash:
            raise
        path, body["key"] = f"/wheeltapper/models/{quote(model, safe='')}/{options.operation}", key
    answer = ask(options.server, "POST", path, body)
    if options.json:
        print(json.dumps(answer))
        return 0
    state = f"shelved for {age(options.snooze_s)}" if answer["state"] == _SHELVED else answer["state"]
    by = f", acknowledged by {answer['acknowledged_by']}" if answer.get("acknowledged_by") else ""
    print(printable(f"{answer['model']} {answer['key']}".strip() + f": {state}{by}"))
    return 0


def _found(server: str, wanted: str) -> Alarm:
    """
    The alarm that is meant: by its id, by either end of it, by its machine, or by model and key.

    Raises:
        DataError: there is none, or more than one.
    """
    alarms: list[Alarm] = ask(server, "GET", f"/wheeltapper/alarms?closed=true&limit={_MOST}")["alarms"]
    opened = [each for each in alarms if each["cleared_ms"] is None]
    for among in (opened, alarms):
        found = [each for each in among if wanted in _names(each)] or [
            each for each in among if _abbreviates(wanted, each)
        ]
        if len(found) == 1 or (found and among is alarms and wanted in _names(found[0])):
            return found[0]
        if found:
            raise DataError(_ambiguous(wanted, found))
    if len(wanted) == 32:
        return ask(server, "GET", f"/wheeltapper/alarms/{quote(wanted, safe='')}")
    raise _UnknownError(f"alarm {wanted}: does not exist; wheeltapper alarms --all lists them")


def _names(alarm: Alarm) -> tuple[str, ...]:
    return alarm["id"], alarm["key"], alarm["alarm"]["thing"], f"{alarm['model']}/{alarm['key']}"


def _abbreviates(wanted: str, alarm: Alarm) -> bool:
    return len(wanted) >= 4 and (alarm["id"].endswith(wanted) or alarm["id"].startswith(wanted))


def _ambiguous(wanted: str, found: list[Alarm]) -> str:
    ids = short_ids([each["id"] for each in found])
    choice = ", ".join(f"{ids[each['id']]} ({each['kind']} {each['model']}/{each['key']})" for each in found[:5])
    return f"alarm {wanted}: {len(found)} are meant: {choice}{' …' if len(found) > 5 else ''}; say which"
