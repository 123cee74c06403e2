"""
How a process is, in a file: what a container's health check asks, without a broker in between.

A process leaves its latest ``messages.Health`` in its data directory; ``wheeltapper health`` reads it. Silence is sickness.
"""

import argparse
import contextlib
from pathlib import Path

import msgspec

from wheeltapper.cli import Commands
from wheeltapper.clock import Clock, SystemClock
from wheeltapper.errors import UnavailableError
from wheeltapper.messages import UNREADABLE, Health

FILE = "health.json"
_MAX_AGE_S = 60.0


def register(commands: Commands) -> None:
    """Add ``wheeltapper health``."""
    parser = commands.add(
        "health",
        _run,
        help="say how the process with this data directory is; status 1 when it is not well",
        example="wheeltapper health wheeltapper-data/device",
    )
    parser.add_argument("data_dir", type=Path, help="the data directory of a device or a gateway")
    parser.add_argument(
        "--max-age", type=float, default=_MAX_AGE_S, metavar="S", help="older reports are silence (default 60)"
    )


def write_health(data_dir: Path, payload: bytes, part: str = "") -> None:
    """
    Leave a report, whole or not at all; on a full disk it takes the place of the last one, whose room it has.

    Args:
        payload: a ``messages.Health`` as JSON.
        part: which part of the process speaks, where several do.
    """
    path = data_dir / (f"health-{part}.json" if part else FILE)
    fresh = path.with_name(path.name + ".new")
    with contextlib.suppress(OSError):
        try:
            fresh.write_bytes(payload)
            fresh.replace(path)
        except OSError:
            fresh.unlink(missing_ok=True)
            with path.open("r+b") as file:
                file.write(payload)
                file.truncate()


def forget_health(data_dir: Path) -> None:
    """Drop the reports of a process that was here before."""
    for path in _reports(data_dir):
        path.unlink(missing_ok=True)


def check_health(data_dir: Path, clock: Clock, max_age_s: float = _MAX_AGE_S) -> Health:
    """
    What the process last said of itself; where several of its parts speak, the one that spoke longest ago.

    Raises:
        UnavailableError: nothing, nothing lately, or that a part of it is not well.
    """
    reports = [_read_well(path, clock, max_age_s) for path in _reports(data_dir) or [data_dir / FILE]]
    return min(reports, key=lambda report: report.time_ms)


def _reports(data_dir: Path) -> list[Path]:
    return sorted([*data_dir.glob(FILE), *data_dir.glob("health-*.json")])


def _read_well(path: Path, clock: Clock, max_age_s: float) -> Health:
    try:
        health = msgspec.json.decode(path.read_bytes(), type=Health)
    except (OSError, *UNREADABLE) as error:
        raise UnavailableError(
            f"{path}: says nothing; is a device or gateway at work with this data directory?"
        ) from error
    age_s = (clock.time_ms() - health.time_ms) / 1000.0
    if age_s > max_age_s:
        raise UnavailableError(f"{path}: is {age_s:.0f} s old; the process is silent, or cannot write")
    if age_s < -max_age_s:
        raise UnavailableError(
            f"{path}: is from {-age_s:.0f} s in the future, as after a clock was set back; silent since"
        )
    if health.status != "ready":
        raise UnavailableError(f"{health.process} {health.thing}: {health.status}: {health.detail}")
    return health


def _run(options: argparse.Namespace) -> int:
    health = check_health(options.data_dir, SystemClock(), options.max_age)
    print(f"{health.process} {health.thing}: {health.status}: {health.detail}")
    return 0
