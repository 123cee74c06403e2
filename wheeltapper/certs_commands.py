"""``wheeltapper certs``: the certificates of a plant's broker and of the machines that speak to it."""

import argparse
import json
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from wheeltapper.cli import Commands
from wheeltapper.clock import SystemClock
from wheeltapper.errors import SettingsError

if TYPE_CHECKING:
    from wheeltapper.certs import Authority

_BROKER_NAMES = ("localhost", "127.0.0.1", "::1", "broker", "mosquitto")


def register(commands: Commands) -> None:
    """Add the commands of ``wheeltapper certs``."""
    group = commands.group("certs", "certificates for the broker and its clients")
    _add_init(group)
    _add_device(group)
    _add_rotate(group)
    _add_show(group)


def _add_init(group: Commands) -> None:
    parser = group.add(
        "init",
        _init,
        help="make an authority, the broker's certificate, and one for each thing named",
        example="wheeltapper certs init\n"
        "wheeltapper certs init --name broker.plant.example --name 10.0.0.5 --thing motor-1 --thing gateway --thing cloud",
    )
    _add_place(parser)
    parser.add_argument(
        "--name", action="append", default=[], help="a name or address the broker is reached by; repeatable"
    )
    parser.add_argument(
        "--thing", action="append", default=[], help="a client: a machine, gateway or cloud; repeatable"
    )
    parser.add_argument("--keep", action="store_true", help="keep what is there and make what is missing")
    parser.add_argument(
        "--force", action="store_true", help="replace the authority: whatever it issued is worthless then"
    )


def _add_device(group: Commands) -> None:
    parser = group.add(
        "device",
        _device,
        help="make a certificate for a machine, a gateway or a cloud companion",
        example="wheeltapper certs device motor-7\n"
        "wheeltapper certs device cloud --name localhost --name companion.plant.example",
    )
    parser.add_argument("thing", nargs="+", help="its name: the broker knows it by this")
    parser.add_argument(
        "--name", action="append", default=[], help="a name or address it is reached by, if it serves, too; repeatable"
    )
    _add_place(parser)
    parser.add_argument("--force", action="store_true", help="replace the one there is")


def _add_rotate(group: Commands) -> None:
    parser = group.add(
        "rotate",
        _rotate,
        help="renew certificates and keys before they expire",
        example="wheeltapper certs rotate motor-7\n"
        "wheeltapper certs rotate --expiring 30\nwheeltapper certs rotate --authority",
    )
    parser.add_argument("name", nargs="*", help="broker, or things")
    _add_place(parser)
    parser.add_argument("--expiring", type=int, metavar="DAYS", help="those with so many days left, or fewer")
    parser.add_argument(
        "--authority", action="store_true", help="the authority and all it issued; the old stays trusted"
    )


def _add_show(group: Commands) -> None:
    parser = group.add(
        "show",
        _show,
        help="list certificates and when they expire; status 1 when one has expired or is unfit",
        example="wheeltapper certs show\nwheeltapper certs show --json",
    )
    parser.add_argument("--dir", type=Path, default=Path("certs"), metavar="DIR", help="the folder (default certs)")
    parser.add_argument(
        "--warn", type=int, default=30, metavar="DAYS", help="days left that count as expiring (default 30)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def _add_place(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dir", type=Path, default=Path("certs"), metavar="DIR", help="the folder (default certs)")
    parser.add_argument("--days", type=int, default=365, help="days until a certificate expires (default 365)")
    parser.add_argument("--owner", metavar="UID:GID", help="give files to this user, as containers need; takes root")


def _init(options: argparse.Namespace) -> int:
    from wheeltapper.certs import BROKER

    if options.keep and options.force:
        raise SettingsError("--keep and --force: give one of them")
    authority = _authority(options)
    if not (options.keep and authority.exists):
        print(f"made {authority.create(force=options.force)}: keep its key off every machine")
    host = socket.gethostname()
    broker_names = list(dict.fromkeys([*_BROKER_NAMES, *([host] if host.isascii() else []), *options.name]))
    present = authority.names() if options.keep else []
    for name, names in {BROKER: broker_names, **dict.fromkeys(options.thing, ())}.items():
        if name not in present:
            print(f"made {authority.issue(name, names=names, days=options.days, force=options.force)}")
    authority.give_away()
    return 0


def _device(options: argparse.Namespace) -> int:
    authority = _authority(options)
    for thing in options.thing:
        folder = authority.issue(thing, names=options.name, days=options.days, force=options.force)
        print(f"made {folder}: copy this folder to the machine")
    return 0


def _rotate(options: argparse.Namespace) -> int:
    authority = _authority(options)
    names = list(options.name)
    if options.authority:
        names = authority.rotate_authority(days=options.days)
    else:
        if options.expiring is not None:
            names += [
                each.name for each in authority.list() if each.days_left <= options.expiring and each.name != "ca"
            ]
        elif not names:
            raise SettingsError("certs rotate: names nothing; give names, --expiring DAYS or --authority")
        for name in dict.fromkeys(names):
            authority.rotate(name, days=options.days)
    print(f"renewed {', '.join(dict.fromkeys(names))}" if names else "nothing to renew")
    return 0


def _show(options: argparse.Namespace) -> int:
    from wheeltapper.certs import Authority

    listed = list(Authority(options.dir, SystemClock()).list(options.warn))
    if options.json:
        import msgspec

        json.dump([msgspec.to_builtins(each, enc_hook=str) for each in listed], sys.stdout)
        sys.stdout.write("\n")
    else:
        from rich.console import Console
        from rich.table import Table

        table = Table("name", "days left", "state", "names")
        for each in listed:
            style = {"valid": "green", "expiring": "yellow"}.get(each.state, "red")
            table.add_row(
                each.name,
                str(each.days_left),
                f"[{style}]{each.state}[/]",
                ", ".join(each.alternative_names) or each.subject,
            )
        Console().print(table)
    return 0 if all(each.state in ("valid", "expiring") for each in listed) else 1


def _authority(options: argparse.Namespace) -> "Authority":
    from wheeltapper.certs import Authority

    return Authority(options.dir, SystemClock(), _owner(options.owner))


def _owner(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    user, _, group = text.partition(":")
    try:
        return int(user), int(group or user)
    except ValueError as error:
        raise SettingsError(f"--owner {text!r}: must be two numbers, such as 1883:1883") from error
