"""Which alarm an operator means: by its id or either end of it, its machine, or model and key."""

import argparse
from typing import Any
from urllib.parse import quote, urlencode

from wheeltapper.errors import DataError
from wheeltapper_cloud.operators_options import ask
from wheeltapper_cloud.tables import short_ids

_MOST = 1000

Alarm = dict[str, Any]


class UnknownError(DataError):
    """No alarm that has ever been raised."""


def add_alarm(parser: argparse.ArgumentParser) -> None:
    """Which alarm."""
    parser.add_argument(
        "alarm", help="its id, or the end that the list shows; or its machine, or MODEL/KEY, where only one rings"
    )


def alarm_named(server: str, wanted: str, kind: str = "") -> Alarm:
    """
    The alarm that is meant: by its id, by either end of it, by its machine, or by model and key.

    Args:
        kind: of its model; either where it is empty.

    Raises:
        DataError: there is none, or more than one.
    """
    alarms = [each for each in _remembered(server, wanted) if kind in ("", each["kind"])]
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
    raise UnknownError(f"alarm {wanted}: does not exist; wheeltapper alarms --all lists them")


def of_machine(server: str, machine: str, model: str = "", limit: int = _MOST) -> list[Alarm]:
    """What befell a machine, the newest first."""
    query = urlencode({"model": model, "limit": limit})
    told: list[Alarm] = ask(server, "GET", f"/wheeltapper/history/{quote(machine, safe='')}?{query}")["alarms"]
    return told


def twins_among(rows: list[dict[str, Any]]) -> set[str]:
    """The names among the models of alarms or actions that a detector model and an alarm model share."""
    names = {(each["model"], each["kind"]) for each in rows}
    return {name for name, kind in names if kind == "alarm" and (name, "detector") in names}


def model_of(row: dict[str, Any], twins: set[str]) -> str:
    """The name of an alarm's or action's model, with the kind where another has that name."""
    return f"{row['model']} ({row['kind']})" if row["model"] in twins and row["kind"] else str(row["model"])


def _remembered(server: str, wanted: str) -> list[Alarm]:
    """Open alarms, then those that are over; where there are more than one answer holds, the machine's as well."""
    alarms: list[Alarm] = ask(server, "GET", f"/wheeltapper/alarms?closed=true&limit={_MOST}")["alarms"]
    if len(alarms) < _MOST:
        return alarms
    machines = {wanted, wanted.partition("/")[2]} - {""}
    told = {each["id"]: each for each in (*alarms, *(each for name in machines for each in of_machine(server, name)))}
    return list(told.values())


def _names(alarm: Alarm) -> tuple[str, ...]:
    return alarm["id"], alarm["key"], alarm["alarm"]["thing"], f"{alarm['model']}/{alarm['key']}"


def _abbreviates(wanted: str, alarm: Alarm) -> bool:
    return len(wanted) >= 4 and (alarm["id"].endswith(wanted) or alarm["id"].startswith(wanted))


def _ambiguous(wanted: str, found: list[Alarm]) -> str:
    ids = short_ids([each["id"] for each in found])
    choice = ", ".join(f"{ids[each['id']]} ({each['kind']} {each['model']}/{each['key']})" for each in found[:5])
    return f"alarm {wanted}: {len(found)} are meant: {choice}{' …' if len(found) > 5 else ''}; say which"
