"""
Operators' commands: ``alarms``, ``detectors``, ``actions``, ``audit``; each asks a running cloud companion over HTTP.

With access keys in the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) requests are signed; who acts is then the
key's owner, whatever ``--as`` says.
"""

import argparse
import json
import os
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

from wheeltapper.cli import Commands
from wheeltapper.clock import SystemClock
from wheeltapper.errors import DataError, SettingsError, UnavailableError

_DEFAULT_SERVER = "http://127.0.0.1:8600"
_WATCH_S = 1.0


def register(commands: Commands) -> None:
    """Add the commands."""
    _register_alarms(commands.group("alarms", help="what is wrong now, and what operators do about it"))
    _register_detectors(commands.group("detectors", help="where every detector stands"))
    _register_actions(commands.group("actions", help="what became of actions; try parked ones again"))
    audit = commands.add(
        "audit", _audit, help="show who did what", example="wheeltapper audit --json --server http://127.0.0.1:8600"
    )
    _add_common(audit)


def _register_alarms(alarms: Commands) -> None:
    listing = alarms.otherwise(
        _list_alarms,
        example="wheeltapper alarms --watch\nwheeltapper alarms --all --json\nwheeltapper alarms ack --help",
    )
    listing.add_argument("--watch", action="store_true", help="go on showing them until Ctrl-C")
    listing.add_argument("--all", action="store_true", help="those that are over, too")
    _add_common(listing)
    for word, what in {
        "ack": "take up an alarm",
        "snooze": "shelve an alarm of an alarm model for a while",
        "disable": "take an alarm of an alarm model out of service",
        "enable": "put an alarm of an alarm model back into service",
        "reset": "put an alarm of an alarm model back to normal",
    }.items():
        example = f'wheeltapper alarms {word} 3f2a… --note "bearing ordered" --as ada'
        operate = alarms.add(word, _operate, help=what, example=example + (" --for 8h" if word == "snooze" else ""))
        operate.set_defaults(operation=word)
        operate.add_argument("id", help="the alarm's id, or the end of it that the list shows")
        operate.add_argument("--note", default="", help="why; kept in the audit trail")
        operate.add_argument("--as", dest="by", default=os.environ.get("USER", ""), help="your name (default: $USER)")
        if word == "snooze":
            operate.add_argument("--for", dest="duration", default="1h", help="15m, 1h, 8h … (default: 1h)")
        _add_common(operate)


def _register_detectors(detectors: Commands) -> None:
    listing = detectors.add(
        "list",
        _list_detectors,
        help="the detectors of a model, or the models in force",
        example="wheeltapper detectors list IoTImlDetectorModel --state motor_on",
    )
    listing.add_argument("model", nargs="?", help="the detector model; without it the models are listed")
    listing.add_argument("--state", help="only those in this state")
    show = detectors.add(
        "show",
        _show_detector,
        help="state, variables and timers of one detector",
        example="wheeltapper detectors show IoTImlDetectorModel motor-1",
    )
    show.add_argument("model", help="the detector model")
    show.add_argument("key", nargs="?", default="-", help="the detector's key; none for a model without keys")
    for parser in (listing, show):
        _add_common(parser)


def _register_actions(actions: Commands) -> None:
    listing = actions.add(
        "list", _list_actions, help="the newest actions", example="wheeltapper actions list --status undelivered,failed"
    )
    listing.add_argument("--status", default="", help="pending, delivered, undelivered, failed, parked; by commas")
    parked = actions.add(
        "parked", _list_actions, help="actions that were given up", example="wheeltapper actions parked --json"
    )
    parked.set_defaults(status="parked")
    replay = actions.add(
        "replay",
        _replay,
        help="try actions again that were parked, failed or undelivered",
        example="wheeltapper actions replay --as ada\nwheeltapper actions replay 0ac1… 77d0… --as ada",
    )
    replay.add_argument("ids", nargs="*", help="ids; without any, everything that is parked")
    replay.add_argument("--as", dest="by", default=os.environ.get("USER", ""), help="your name (default: $USER)")
    for parser in (listing, parked, replay):
        _add_common(parser)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--server",
        default=os.environ.get("WHEELTAPPER_SERVER", _DEFAULT_SERVER),
        help=f"address of the cloud companion (default: $WHEELTAPPER_SERVER or {_DEFAULT_SERVER})",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def ask(server: str, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """
    One request to a cloud companion.

    Raises:
        UnavailableError: nobody answers, or not now.
        DataError: the request is refused; says why.
    """
    import urllib.error
    import urllib.request

    content = None if body is None else json.dumps(body).encode()
    url = server.rstrip("/") + path
    if not url.startswith(("http://", "https://")):
        raise SettingsError(f"--server {server}: must begin with http:// or https://")
    headers = _signed(method, url, content)
    request = urllib.request.Request(url, content, headers, method=method)  # noqa: S310 - checked above
    try:
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
            answer: dict[str, Any] = json.load(response)
            return answer
    except urllib.error.HTTPError as error:
        said = _said(error.read())
        kind = UnavailableError if error.code >= 500 else DataError
        raise kind(f"{server}: {said or error.reason}") from error
    except (OSError, ValueError) as error:
        raise UnavailableError(f"{server}: nobody answers; start it with: wheeltapper cloud serve ({error})") from error


def _said(content: bytes) -> str:
    try:
        return str(json.loads(content).get("message", ""))
    except (ValueError, AttributeError):
        return ""


def _signed(method: str, url: str, content: bytes | None) -> dict[str, str]:
    headers = {"Content-Type": "application/json"}
    key, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
    if not key or not secret:
        return headers
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    request = AWSRequest(method=method, url=url, data=content or b"", headers=headers)
    SigV4Auth(Credentials(key, secret), "iotevents", os.environ.get("AWS_REGION", "us-east-1")).add_auth(request)
    return dict(request.headers)


def _list_alarms(options: argparse.Namespace) -> int:
    path = "/wheeltapper/alarms" + ("?closed=true" if options.all else "")
    if not options.watch:
        return _show(options, ask(options.server, "GET", path), "alarms", _alarm_table)
    from rich.live import Live

    clock = SystemClock()
    with Live(auto_refresh=False, screen=False) as live:
        while True:
            live.update(_alarm_table(ask(options.server, "GET", path)["alarms"]), refresh=True)
            clock.wait(threading.Event(), _WATCH_S)


def _operate(options: argparse.Namespace) -> int:
    body: dict[str, Any] = {"note": options.note, "by": options.by}
    if options.operation == "snooze":
        body["snooze_s"] = seconds_of(options.duration)
    alarm_id = _whole_id(options.server, options.id)
    answer = ask(options.server, "POST", f"/wheeltapper/alarms/{quote(alarm_id)}/{options.operation}", body)
    if options.json:
        print(json.dumps(answer))
    else:
        by = f", acknowledged by {answer['acknowledged_by']}" if answer["acknowledged_by"] else ""
        print(f"{answer['model']} {answer['key']}: {answer['state']}{by}")
    return 0


def _whole_id(server: str, part: str) -> str:
    """The one alarm whose id begins or ends so; an id that no open alarm has is left to the server."""
    if len(part) >= 32:
        return part
    alarms = ask(server, "GET", "/wheeltapper/alarms?limit=1000")["alarms"]
    part = part.strip("…")
    found = [each["id"] for each in alarms if each["id"].startswith(part) or each["id"].endswith(part)]
    if len(found) > 1:
        raise DataError(f"alarm {part}: {len(found)} alarms have such an id; give more of it")
    return found[0] if found else part


def seconds_of(text: str) -> int:
    """
    A duration as people write it.

    >>> seconds_of("15m"), seconds_of("8h"), seconds_of("90")
    (900, 28800, 90)
    """
    factor = {"s": 1, "m": 60, "h": 3600, "d": 86400}.get(text[-1:])
    number = text[:-1] if factor else text
    if not number.isdigit() or int(number) == 0:
        raise SettingsError(f"--for {text}: must be a duration such as 15m, 1h or 8h")
    return int(number) * (factor or 1)


def _list_detectors(options: argparse.Namespace) -> int:
    if options.model is None:
        return _show(options, ask(options.server, "GET", "/wheeltapper/models"), "models", _model_table)
    path = f"/wheeltapper/detectors/{quote(options.model, safe='')}"
    detectors: list[dict[str, Any]] = []
    while True:
        query = {"limit": "1000", **({"state": options.state} if options.state else {})}
        if detectors:
            query["after"] = detectors[-1]["key"]
        page = ask(options.server, "GET", f"{path}?{urlencode(query)}")["detectors"]
        detectors += page
        if len(page) < 1000:
            return _show(options, {"detectors": detectors}, "detectors", _detector_table)


def _show_detector(options: argparse.Namespace) -> int:
    path = f"/wheeltapper/detectors/{quote(options.model, safe='')}/{quote(options.key, safe='')}"
    answer = ask(options.server, "GET", path)
    if options.json:
        print(json.dumps(answer))
        return 0
    from rich.console import Console

    console = Console()
    console.print(f"{answer['model']} (version {answer['version']}) {answer['key']}: {answer['state']}", markup=False)
    for name, value in answer["variables"].items():
        console.print(f"  variable {name} = {json.dumps(value)}", markup=False)
    for name, expiry_ms in answer["timers"].items():
        console.print(f"  timer {name} ends {_time(expiry_ms)}", markup=False)
    return 0


def _list_actions(options: argparse.Namespace) -> int:
    path = "/wheeltapper/actions" + (f"?{urlencode({'status': options.status})}" if options.status else "")
    return _show(options, ask(options.server, "GET", path), "actions", _action_table)


def _replay(options: argparse.Namespace) -> int:
    body = {"by": options.by, **({"ids": options.ids} if options.ids else {})}
    answer = ask(options.server, "POST", "/wheeltapper/actions/replay", body)
    print(json.dumps(answer) if options.json else f"{answer['replayed']} actions are tried again")
    return 0


def _audit(options: argparse.Namespace) -> int:
    return _show(options, ask(options.server, "GET", "/wheeltapper/audit?limit=1000"), "audit", _audit_table)


def _show(
    options: argparse.Namespace, answer: dict[str, Any], member: str, table: Callable[[list[dict[str, Any]]], Any]
) -> int:
    if options.json:
        for each in answer[member]:
            print(json.dumps(each))
        return 0
    from rich.console import Console

    Console().print(table(answer[member]))
    return 0


def _table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]], empty: str) -> Any:
    from rich.table import Table
    from rich.text import Text

    if not rows:
        return Text(empty)
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def _alarm_table(alarms: list[dict[str, Any]]) -> Any:
    rows = [
        (
            each["id"][-8:],
            "" if each["severity"] is None else str(each["severity"]),
            _time(each["raised_ms"]),
            _machine(each["alarm"]["thing"], each["key"]),
            each["model"],
            each["state"] if each["cleared_ms"] is None else f"over since {_time(each['cleared_ms'])}",
            each["acknowledged_by"],
            _sensors(each["alarm"]["contributions"]) or each["alarm"]["condition"],
        )
        for each in alarms
    ]
    columns = ("id", "severity", "since", "machine", "model", "state", "taken up by", "why")
    return _table(*_without_empty(columns, rows), "no alarm is open")


def _machine(thing: str, key: str) -> str:
    return thing if key in ("", thing) else f"{thing} ({key})"


def _sensors(contributions: list[dict[str, Any]]) -> str:
    """The sensors to blame first, with their shares."""
    first = sorted(contributions, key=lambda each: -each["share"])[:2]
    return ", ".join(f"{each['sensor']} {each['share']:.0%}" for each in first)


def _without_empty(
    columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Leave out the columns in which no row says anything."""
    kept = [place for place in range(len(columns)) if any(row[place] for row in rows)]
    return tuple(columns[place] for place in kept), [tuple(row[place] for place in kept) for row in rows]


def _model_table(models: list[dict[str, Any]]) -> Any:
    rows = [(each["name"], each["kind"], each["version"]) for each in models]
    return _table(("model", "kind", "version"), rows, "no model is in force")


def _detector_table(detectors: list[dict[str, Any]]) -> Any:
    rows = [(each["key"], each["state"], _time(each["updated_ms"])) for each in detectors]
    return _table(("key", "state", "updated"), rows, "no detector yet")


def _action_table(actions: list[dict[str, Any]]) -> Any:
    rows = [
        (each["id"][-8:], _time(each["time_ms"]), each["model"], each["key"], each["type"], each["target"], each["status"],
         str(each["attempts"]), each["detail"])
        for each in actions
    ]  # fmt: skip
    columns = ("id", "time", "model", "key", "type", "target", "status", "attempts", "detail")
    return _table(columns, rows, "no actions")


def _audit_table(records: list[dict[str, Any]]) -> Any:
    rows = [
        (_time(each["time_ms"]), each["who"], each["what"], each["model"], each["key"], each["note"])
        for each in records
    ]
    return _table(("time", "who", "what", "model", "key", "note"), rows, "nobody has done anything yet")


def _time(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
