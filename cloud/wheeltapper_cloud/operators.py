"""
Operators' commands: ``alarms``, ``detectors``, ``actions``, ``audit``; each asks a running cloud companion over HTTP.

With access keys in the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) requests are signed; who acts is then the
key's owner, whatever ``--as`` says.
"""

import argparse
import json
from typing import Any
from urllib.parse import quote, urlencode

from wheeltapper.cli import Commands
from wheeltapper.clock import SystemClock
from wheeltapper.errors import DataError, SettingsError
from wheeltapper_cloud import operators_alarms
from wheeltapper_cloud.operators_names import model_of, twins_among
from wheeltapper_cloud.operators_options import add_common, add_limit, add_who, ask, check_who, seconds_of
from wheeltapper_cloud.tables import age, moment, printable, short_ids, show, table_of

_PAGE = 1000
_REPLAYED = "parked,failed,undelivered"
_ID = 36

Row = dict[str, Any]


def register(commands: Commands) -> None:
    """Add the commands."""
    operators_alarms.register(commands.group("alarms", help="what is wrong now, and what operators do about it"))
    _register_detectors(commands.group("detectors", help="where every detector stands"))
    _register_actions(commands.group("actions", help="what became of actions; try parked ones again"))
    audit = commands.add(
        "audit", _audit, help="show who did what", example="wheeltapper audit --limit 20\nwheeltapper audit --json"
    )
    add_limit(audit)
    add_common(audit)


def _register_detectors(detectors: Commands) -> None:
    listing = detectors.add(
        "list",
        _list_detectors,
        help="the detectors of a model, or the models in force",
        example="wheeltapper detectors list\nwheeltapper detectors list IoTImlDetectorModel --state motor_on\n"
        "wheeltapper detectors list IoTImlDetectorModel --silent 10m",
    )
    listing.add_argument("model", nargs="?", help="the detector or alarm model; without it the models are listed")
    listing.add_argument("--state", help="only those in this state")
    listing.add_argument(
        "--silent",
        type=seconds_of,
        metavar="TIME",
        help="only those that no message or timer has touched for 90s, 10m, 8h …",
    )
    detail = detectors.add(
        "show",
        _show_detector,
        help="state, variables and timers of one detector",
        example="wheeltapper detectors show IoTImlDetectorModel motor-1",
    )
    detail.add_argument("model", help="the detector or alarm model")
    detail.add_argument("key", nargs="?", default="-", help="the detector's key; none for a model without keys")
    for parser in (listing, detail):
        parser.add_argument(
            "--kind",
            choices=("detector", "alarm"),
            help="of the model, where two share the name (default: the detector model)",
        )
        add_common(parser)


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
        example="wheeltapper actions replay --as ada\nwheeltapper actions replay --status undelivered --as ada\n"
        "wheeltapper actions replay 0ac1d3 --as ada",
    )
    replay.add_argument("ids", nargs="*", help="ids, or the ends that the list shows; without any, all of --status")
    replay.add_argument("--status", default="parked", help=f"which, of {_REPLAYED}; by commas (default: parked)")
    add_who(replay)
    add_limit(listing)
    add_limit(parked)
    for parser in (listing, parked, replay):
        add_common(parser)


def _list_detectors(options: argparse.Namespace) -> int:
    if options.model is None:
        if options.state or options.silent is not None or options.kind:
            raise SettingsError(
                "detectors list: --state, --silent and --kind choose among the detectors of a model; name one"
            )
        models = ask(options.server, "GET", "/wheeltapper/models")["models"]
        return _show(options, models, _model_table)
    path = f"/wheeltapper/detectors/{quote(options.model, safe='')}"
    detectors: list[Row] = []
    while True:
        query = {"limit": str(_PAGE), **({"state": options.state} if options.state else {}), **_kind(options)}
        if detectors:
            query["after"] = detectors[-1]["key"]
        page = ask(options.server, "GET", f"{path}?{urlencode(query)}")["detectors"]
        detectors += page
        if len(page) < _PAGE:
            break
    if options.silent is None:
        empty = (
            f"none is in the state {options.state}; wheeltapper detectors list {options.model} shows where each stands"
            if options.state
            else "no detector yet: the first message of a key makes one"
        )
        return _show(options, detectors, lambda rows: _detector_table(rows, empty))
    return _show(options, silent_since(detectors, SystemClock().time_ms() - options.silent * 1000), _silent_table)


def _kind(options: argparse.Namespace) -> dict[str, str]:
    return {"kind": options.kind} if options.kind else {}


def silent_since(detectors: list[Row], time_ms: int) -> list[Row]:
    """Those that nothing has touched since a time, the longest silent first."""
    return sorted(
        (each for each in detectors if each["updated_ms"] <= time_ms), key=lambda each: int(each["updated_ms"])
    )


def _show_detector(options: argparse.Namespace) -> int:
    path = f"/wheeltapper/detectors/{quote(options.model, safe='')}/{quote(options.key, safe='')}"
    answer = ask(options.server, "GET", f"{path}?{urlencode(_kind(options))}")
    if options.json:
        print(json.dumps(answer))
        return 0
    now_ms = SystemClock().time_ms()
    lines = [
        f"{answer['model']} {answer['key']}".strip() + f": {answer['state']}",
        f"  version {answer['version']}",
        f"  updated {moment(answer['updated_ms'])}, {age((now_ms - answer['updated_ms']) / 1000)} ago",
    ]
    lines += [f"  variable {name} = {json.dumps(value)}" for name, value in answer.get("variables", {}).items()]
    for name, due_ms in answer.get("timers", {}).items():
        lines.append(f"  timer {name} ends {moment(due_ms)}, in {age((due_ms - now_ms) / 1000)}")
    for each in answer["shelf"]:
        if each["kind"] == "detector":
            lines.append(f"  {each['state'] or 'every alarm'} {operators_alarms.laid_aside(each)}")
    if answer.get("customer_action"):
        lines.append(_operated(answer))
    if answer.get("rule"):
        lines.append("  rule {inputProperty} {operator} {threshold}".format(**answer["rule"]))
    show(*(printable(line) for line in lines))
    return 0


def _operated(alarm: Row) -> str:
    """The operator's act that is still in force for an alarm of an alarm model."""
    action = alarm["customer_action"]
    by = f" by {alarm['snoozed_by']}" if alarm["snoozed_by"] else ""
    until = f" until {moment(alarm['snoozed_until_ms'])}" if alarm["snoozed_until_ms"] else ""
    return f"  operator {action['action']}{by}{until}" + (f": {action['note']}" if action["note"] else "")


def _list_actions(options: argparse.Namespace) -> int:
    query = {"limit": str(options.limit), **({"status": options.status} if options.status else {})}
    actions = ask(options.server, "GET", f"/wheeltapper/actions?{urlencode(query)}")["actions"]
    return _show(options, actions, _parked_table if options.status == "parked" else _action_table)


def _replay(options: argparse.Namespace) -> int:
    check_who(options)
    body: Row = {"by": options.by, "statuses": [each for each in options.status.split(",") if each]}
    if options.ids:
        body["ids"] = _whole_ids(options.server, options.ids)
    replayed = ask(options.server, "POST", "/wheeltapper/actions/replay", body)["replayed"]
    if options.json:
        print(json.dumps({"replayed": replayed}))
    elif replayed:
        print(
            f"{replayed} action{'s are' if replayed > 1 else ' is'} tried again; wheeltapper actions list shows how it went"
        )
    else:
        print(f"nothing is {options.status.replace(',', ' or ')}; wheeltapper actions list shows every action")
    return 0


def _whole_ids(server: str, ends: list[str]) -> list[str]:
    """
    The ids that are meant.

    Raises:
        DataError: an end is no action's, or several actions'.
    """
    if all(len(each) == _ID for each in ends):
        return ends
    query = urlencode({"status": _REPLAYED, "limit": _PAGE})
    known = [each["id"] for each in ask(server, "GET", f"/wheeltapper/actions?{query}")["actions"]]
    found = []
    for end in ends:
        meant = [each for each in known if each == end or each.endswith(end) or each.startswith(end)]
        if len(meant) != 1:
            what = (
                f"{len(meant)} actions are meant; give more of the id" if meant else "nothing to try again has that id"
            )
            raise DataError(f"action {end}: {what}")
        found += meant
    return found


def _audit(options: argparse.Namespace) -> int:
    records = ask(options.server, "GET", f"/wheeltapper/audit?limit={options.limit}")["audit"]
    return _show(options, records, _audit_table)


def _show(options: argparse.Namespace, rows: list[Row], table: Any) -> int:
    if options.json:
        for each in rows:
            print(json.dumps(each))
    else:
        show(table(rows))
    return 0


def _model_table(models: list[Row]) -> Any:
    rows = [(each["name"], each["kind"], each["key"], each["version"]) for each in models]
    empty = (
        "no model is in force; create one with boto3 or the AWS CLI (wheeltapper boto env), "
        "or name its file under models in cloud.toml"
    )
    return table_of(("model", "kind", "key", "version"), rows, empty)


def _silent_table(detectors: list[Row]) -> Any:
    return _detector_table(detectors, "none has been silent for so long")


def _detector_table(detectors: list[Row], empty: str) -> Any:
    now_ms = SystemClock().time_ms()
    rows = [
        (
            each["key"],
            each["state"],
            f"{age((now_ms - each['updated_ms']) / 1000)} ago",
            moment(each["snoozed_until_ms"]) if each.get("snoozed_until_ms") else "",
            each.get("snoozed_by", ""),
        )
        for each in detectors
    ]
    return table_of(("key", "state", "updated", "until", "by"), rows, empty)


def _action_table(actions: list[Row], empty: str = "no action yet: detectors and alarms make them") -> Any:
    ids, now_ms = short_ids([each["id"] for each in actions]), SystemClock().time_ms()
    twins = twins_among(actions)
    alike = {each["attempts"] for each in actions} <= {0, 1}
    rows = [
        (
            ids[each["id"]],
            age((now_ms - each["time_ms"]) / 1000),
            each["status"],
            "" if alike else str(each["attempts"]),
            model_of(each, twins),
            each["key"],
            f"{each['type']} {_last_part(each['target'])}".strip(),
            each["detail"],
        )
        for each in actions
    ]
    return table_of(("id", "age", "status", "attempts", "model", "key", "action", "detail"), rows, empty)


def _parked_table(actions: list[Row]) -> Any:
    empty = "no actions are parked; wheeltapper actions list --status undelivered,failed shows what else did not arrive"
    return _action_table(actions, empty)


def _last_part(target: str) -> str:
    """
    What people call a target.

    >>> _last_part("arn:aws:sns:us-west-2:080524404744:Mail"), _last_part("wt/pump/alarm")
    ('Mail', 'wt/pump/alarm')
    """
    return target.rpartition(":")[2] if target.startswith("arn:") else target


def _audit_table(records: list[Row]) -> Any:
    rows = [
        (
            moment(each["time_ms"]),
            each["who"],
            each["what"],
            each["kind"],
            each["model"],
            each["key"],
            "" if each["until_ms"] is None else moment(each["until_ms"]),
            each["note"],
        )
        for each in records
    ]
    return table_of(
        ("time", "who", "what", "kind", "model", "key", "until", "note"),
        rows,
        "no act is on record: acts are those that are signed, or that name who acts",
    )
