"""What operators' commands share: their options, and whom they ask."""

import argparse
import os
from typing import Any

from wheeltapper.errors import DataError

_DEFAULT_SERVER = "http://127.0.0.1:8600"
_MOST = 1000


def ask(server: str, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """One request, see ``companion_client.ask``; what it needs is imported with the first."""
    from wheeltapper_cloud import companion_client

    return companion_client.ask(server, method, path, body)


def add_common(parser: argparse.ArgumentParser) -> None:
    """Whom to ask, and in which form to answer."""
    parser.add_argument(
        "--server",
        default=os.environ.get("WHEELTAPPER_SERVER") or _DEFAULT_SERVER,
        help=f"address of the cloud companion (default: $WHEELTAPPER_SERVER or {_DEFAULT_SERVER})",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, one object a line")


def add_who(parser: argparse.ArgumentParser) -> None:
    """Who acts."""
    parser.add_argument(
        "--as",
        dest="by",
        default=os.environ.get("USER", ""),
        help="your name (default: $USER); a key's name goes before it",
    )


def check_who(options: argparse.Namespace) -> None:
    """
    See that somebody acts: a key's owner, or whom the command line names.

    Raises:
        DataError: nobody.
    """
    if not options.by and not os.environ.get("AWS_ACCESS_KEY_ID"):
        raise DataError("--as: say who acts")


def add_limit(parser: argparse.ArgumentParser) -> None:
    """How many rows."""
    parser.add_argument("--limit", type=_limit, default=250, metavar="N", help="the newest N (default: 250)")


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text[:9]) <= _MOST):
        raise argparse.ArgumentTypeError(f"must be a number from 1 to {_MOST}")
    return int(text)


def seconds_of(text: str) -> int:
    """
    A duration as people write it.

    >>> seconds_of("15m"), seconds_of("8h"), seconds_of("90")
    (900, 28800, 90)
    """
    factor = {"s": 1, "m": 60, "h": 3600, "d": 86400}.get(text[-1:])
    number = text[:-1] if factor else text
    if not (number.isascii() and number.isdigit() and int(number[:9]) > 0 and len(number) < 10):
        raise argparse.ArgumentTypeError(f"{text!r} is no duration such as 15m, 1h or 8h")
    return int(number) * (factor or 1)
