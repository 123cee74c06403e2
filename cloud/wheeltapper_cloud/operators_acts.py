"""
What operators do about an alarm.

Their words are those of ISA-18.2 and IEC 62682: acknowledge, shelve, unshelve, out of service; for shelve AWS says snooze.
"""

import argparse
import json
from typing import Any
from urllib.parse import quote

from wheeltapper.cli import Commands
from wheeltapper_cloud.operators_names import Alarm, UnknownError, add_alarm, alarm_named
from wheeltapper_cloud.operators_options import add_common, add_who, ask, check_who, seconds_of
from wheeltapper_cloud.tables import age, moment, printable

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
_LONGEST_S = 366 * 86_400


def register(alarms: Commands) -> None:
    """Add the acts to the group."""
    for word, what in _ACTS.items():
        _add_act(alarms, word, what)


def _add_act(alarms: Commands, word: str, what: str) -> None:
    act = alarms.add(word, _act, help=what, example=_example(word))
    act.set_defaults(operation=word, for_s=None)
    act.add_argument("--note", default="", help="why; kept in the audit trail")
    add_who(act)
    if word in _TIMED:
        act.add_argument(
            "--for", dest="for_s", type=_shelving_s, default="1h", metavar="TIME", help="15m, 1h, 8h … (default: 1h)"
        )
    act.add_argument(
        "--kind", choices=("detector", "alarm"), default="", help="of the alarm's model, where two share the name"
    )
    add_alarm(act)
    add_common(act)


def _shelving_s(text: str) -> int:
    seconds = seconds_of(text)
    if seconds > _LONGEST_S:
        raise argparse.ArgumentTypeError(f"{text} is longer than 366d; disable takes out of service without an end")
    return seconds


def _example(word: str) -> str:
    first = f'wheeltapper alarms {word} pump-7 --note "bearing ordered" --as ada' + (
        " --for 8h" if word in _TIMED else ""
    )
    return f"{first}\nwheeltapper alarms {word} {'3f2a07' if word == 'ack' else 'Overheat/pump-7'} --as ada"


def _act(options: argparse.Namespace) -> int:
    body: dict[str, Any] = {"note": options.note, "by": options.by}
    if options.for_s is not None:
        body["snooze_s"] = options.for_s
    check_who(options)
    try:
        alarm = alarm_named(options.server, options.alarm, options.kind)
        path = f"/wheeltapper/alarms/{quote(alarm['id'])}/{options.operation}"
    except UnknownError:
        model, slash, key = options.alarm.partition("/")
        if not slash:
            raise
        path = f"/wheeltapper/models/{quote(model, safe='')}/{options.operation}"
        body |= {"key": key, "kind": options.kind}
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
