"""
``wheeltapper alarms``: what is wrong now, why, whether it happened before, and what operators do about it.

Their words are those of ISA-18.2 and IEC 62682: acknowledge, shelve, unshelve, out of service; for shelve AWS says snooze.
"""

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
_BEFORE_S = 30 * 86_400

_ACTS = {
    "ack": "acknowledge an alarm: somebody has taken it up",
    "shelve": "shelve an alarm for a while; it comes back by itself",
    "unshelve": "bring a shelved alarm back now",
    "snooze": "AWS's word for shelve",
    "disable": "take every alarm of a machine's detector, or its alarm of an alarm model, out of service",
    "enable": "put back into service what disable took out, or bring back what is shelved",
    "reset": "put an alarm of an alarm model back to normal",
}
_TIMED = ("shelve", "snooze")

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
    lying = alarms.add(
        "shelved",
        _shelf,
        help="what is shelved or out of service, until when and by whom, whether it rings or not",
        example="wheeltapper alarms shelved\nwheeltapper alarms shelved --json",
    )
    for word, what in _ACTS.items():
        _add_act(alarms, word, what)
    _add_alarm(detail)
    for parser in (listing, detail, past, lying):
        add_common(parser)


def _add_act(alarms: Commands, word: str, what: str) -> None:
    act = alarms.add(word, _act, help=what, example=_example(word))
    act.set_defaults(operation=word, for_s=None)
    act.add_argument("--note", default="", help="why; kept in the audit trail")
    add_who(act)
    if word in _TIMED:
        act.add_argument(
            "--for", dest="for_s", type=seconds_of, default="1h", metavar="TIME", help="15m, 1h, 8h … (default: 1h)"
        )
    if word not in ("ack", "reset"):
        act.add_argument(
            "--kind",
            choices=("detector", "alarm"),
            help="of MODEL, where two share the name and MODEL/KEY has never rung (default: the alarm model)",
        )
    _add_alarm(act)
    add_common(act)


def _example(word: str) -> str:
    first = f'wheeltapper alarms {word} pump-7 --note "bearing ordered" --as ada' + (
        " --for 8h" if word in _TIMED else ""
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
    twins = _twins(alarms)
    rows = [
        (
            ids[each["id"]],
            age((now_ms - each["raised_ms"]) / 1000),
            "" if each["severity"] is None else str(each["severity"]),
            _machine(each),
            _model(each, twins),
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
    if alarm["suppressed"] == "out_of_service":
        return "out of service"
    if alarm["suppressed"]:
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
    if alarm["suppressed"]:
        yield f"  {_laid_aside(alarm)}"
    yield f"  before    {_before(before, now_ms)}"
    yield f"  id        {alarm['id']}"


def _taken_up(alarm: Alarm, now_ms: int) -> str:
    if alarm["acknowledged_ms"] is None:
        return "by nobody"
    since = age((now_ms - alarm["acknowledged_ms"]) / 1000)
    return f"by {alarm['acknowledged_by'] or 'somebody'} {since} ago{_reasoned(alarm['acknowledged_note'])}"


def _laid_aside(alarm: Alarm) -> str:
    """
    By whom an alarm is kept away, and until when, as far as is known.

    >>> _laid_aside({"suppressed": "shelved", "shelved_by": "ada", "shelved_until_ms": 1500, "shelved_note": "cleaning"})
    'shelved   by ada until 1970-01-01 00:00:01Z: cleaning'
    """
    word = "shelved  " if alarm["suppressed"] == "shelved" else "out of service"
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
    alarms = _of_machine(options.server, options.machine, options.model, options.limit)
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
    twins = _twins(lying)
    rows = [
        (
            each["key"],
            _model(each, twins),
            each["state"] or "every one",
            "" if each["shelved_until_ms"] is None else moment(each["shelved_until_ms"]),
            "out of service"
            if each["shelved_until_ms"] is None
            else f"in {age((each['shelved_until_ms'] - now_ms) / 1000)}",
            age((now_ms - each["shelved_ms"]) / 1000),
            each["shelved_by"],
            each["shelved_note"],
        )
        for each in lying
    ]
    empty = "nothing is shelved or out of service; wheeltapper alarms shelve, or disable, lays an alarm aside"
    return table_of(("key", "model", "alarm", "until", "comes back", "since", "by", "note"), rows, empty)


def _act(options: argparse.Namespace) -> int:
    body: dict[str, Any] = {"note": options.note, "by": options.by}
    if options.for_s is not None:
        body["snooze_s"] = options.for_s
    if not options.by and not os.environ.get("AWS_ACCESS_KEY_ID"):
        raise DataError("--as: say who acts")
    try:
        path = f"/wheeltapper/alarms/{quote(_found(options.server, options.alarm)['id'])}/{options.operation}"
    except _UnknownError:
        model, slash, key = options.alarm.partition("/")
        if not slash:
            raise
        path, body["key"] = f"/wheeltapper/models/{quote(model, safe='')}/{options.operation}", key
        body["kind"] = getattr(options, "kind", None) or ""
    answer = ask(options.server, "POST", path, body)
    if options.json:
        print(json.dumps(answer))
        return 0
    print(printable(f"{answer['model']} {answer['key']}".strip() + f": {_done(options, answer)}"))
    return 0


def _done(options: argparse.Namespace, answer: Alarm) -> str:
    """What an act has come to."""
    if options.operation in _TIMED:
        until_ms = answer["snoozed_until_ms"] if "snoozed_until_ms" in answer else answer["shelved_until_ms"]
        which = f"{answer['shelved_state'] or 'every alarm'} " if answer.get("kind") == "detector" else ""
        return f"{which}shelved for {age(options.for_s)}" + ("" if until_ms is None else f", until {moment(until_ms)}")
    if answer.get("suppressed") == "out_of_service":
        return "out of service"
    by = f", acknowledged by {answer['acknowledged_by']}" if answer.get("acknowledged_by") else ""
    return f"{answer['state']}{by}"


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
