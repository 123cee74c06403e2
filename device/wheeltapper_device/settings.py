"""
What a device is told: TOML, then the environment, then the command line.

``WHEELTAPPER_DEVICE__BROKER__URL=mqtts://plant:8883`` in the environment overrides ``url`` in ``[broker]``; so it is with
every member.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from wheeltapper import topics
from wheeltapper.errors import SettingsError
from wheeltapper.transport.settings import BrokerSettings, decode_path

ENVIRONMENT_PREFIX = "WHEELTAPPER_DEVICE__"

Positive = Annotated[float, msgspec.Meta(gt=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
AtLeastOne = Annotated[int, msgspec.Meta(ge=1)]


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the settings; a name that it does not know is refused."""


class SimulationSettings(Section, frozen=True):
    """
    A simulated machine.

    Args:
        scenario: motor, robot, evaporator or air-quality.
        seed: decides noise, duty cycle, fault and onset.
        fault: a fault's name, ``none``, or empty for the seed's choice.
        onset_s: machine seconds until the fault begins; the seed's choice when absent.
        growth_s: machine seconds from there to its full effect; the fault's own when absent.
        rate_hz: readings per machine second; the machine's own when absent.
        time_scale: machine seconds that pass in a second.
    """

    scenario: str = "motor"
    seed: int = 0
    fault: str = ""
    onset_s: NotNegative | None = None
    growth_s: Positive | None = None
    rate_hz: Positive | None = None
    time_scale: Positive = 1.0


class ReplaySettings(Section, frozen=True):
    """
    A recorded file.

    Args:
        file: delimited text of any kind; one row is one reading.
        delimiter: one character, or ``space`` or ``tab``; detected when empty.
        time_column: the column of times; detected when empty, ``none`` for none.
        time_format: how times are written, in strptime's words; detected when empty.
        stamps: readings carry the recorded times, or the present ones.
        speed: how many times faster than recorded; 0: as recorded where rows are at most 10 s apart, else a row a second.
        rate_hz: rows a second, however they were recorded; goes before ``speed``; 0 leaves it to ``speed``.
        rows: ``first:last`` row to send, counted from 0, last left out; either may be missing.
        ignore: columns that are not sent, such as labels.
        loop: begin again at the end, with the present time as stamp.
    """

    file: Path | None = None
    delimiter: str = ""
    time_column: str = ""
    time_format: str = ""
    stamps: Literal["recorded", "now"] = "recorded"
    speed: NotNegative = 0.0
    rate_hz: NotNegative = 0.0
    rows: str = ""
    ignore: list[str] = []
    loop: bool = False


class OutboxSettings(Section, frozen=True):
    """
    Bounds of what waits for the broker.

    Args:
        max_bytes: payload bytes kept at the most.
        max_age_s: what is older is dropped and counted; absent: nothing is.
        full: when ``max_bytes`` is reached, ``refuse`` pauses the machine's readings, ``drop_oldest`` makes room and counts.
        flush: False survives a killed process, not a power cut.
    """

    max_bytes: AtLeastOne = 1 << 30
    max_age_s: Positive | None = None
    full: Literal["refuse", "drop_oldest"] = "refuse"
    flush: bool = True


class TriggerSettings(Section, frozen=True):
    """
    What an operator's trigger may ask for.

    Args:
        rows: readings sent at once when a trigger names no number.
        max_rows: readings that one trigger may ask for at the most.
        folder: the files that a trigger may replay lie here; absent: none.
    """

    rows: AtLeastOne = 1
    max_rows: AtLeastOne = 10_000
    folder: Path | None = None


class TopicSettings(Section, frozen=True):
    """Topics, each a template with ``{thing}`` in it or a literal name."""

    reading: str = topics.READING
    fault: str = topics.FAULT
    health: str = topics.HEALTH
    trigger_ingest: str = topics.TRIGGER_INGEST
    reply_suffix: str = topics.REPLY_SUFFIX


class DeviceSettings(Section, frozen=True):
    """
    All of a device's settings; a replayed file, where one is named, goes before the simulation.

    Args:
        thing: the name that its readings carry.
        data_dir: the outbox and the place in the source lie here.
        health_s: seconds between two reports of its health.
    """

    thing: str = "machine-1"
    data_dir: Path = Path("wheeltapper-data/device")
    broker: BrokerSettings = BrokerSettings()
    simulation: SimulationSettings = SimulationSettings()
    replay: ReplaySettings = ReplaySettings()
    outbox: OutboxSettings = OutboxSettings()
    topics: TopicSettings = TopicSettings()
    trigger: TriggerSettings = TriggerSettings()
    health_s: Positive = 5.0
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


def load_settings(
    path: Path | None, environment: Mapping[str, str], overrides: Mapping[tuple[str, ...], Any]
) -> DeviceSettings:
    """
    Settings from a TOML file (defaults where there is none), the environment and the command line, each over the one before.

    Relative paths in the file are relative to its folder, all others to the working directory.

    Args:
        path: the file.
        environment: variables; those with our prefix count.
        overrides: the place of a member, such as ``("broker", "url")`` → its value; None is no override.

    Raises:
        SettingsError: the file cannot be read, or a member is unknown or not valid; names it.
    """
    values = _read(path) if path is not None else {}
    where = str(path) if path is not None else "settings"
    if path is not None:
        _anchor_paths(values, path.absolute().parent)
    for name, text in environment.items():
        if name.startswith(ENVIRONMENT_PREFIX):
            _set(values, tuple(name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")), text)
    for place, value in overrides.items():
        if value is not None:
            _set(values, place, value)
    try:
        settings = msgspec.convert(values, DeviceSettings, strict=False, dec_hook=decode_path)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{where}: {error}") from error
    topics.topic_of("{thing}", settings.thing)
    return settings


def _read(path: Path) -> dict[str, Any]:
    try:
        values = msgspec.toml.decode(path.read_bytes())
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise SettingsError(f"{path}: not TOML: {error}") from error
    if not isinstance(values, dict):
        raise SettingsError(f"{path}: not a table of settings")
    return values


_PATHS = (
    ("data_dir",),
    ("replay", "file"),
    ("trigger", "folder"),
    ("broker", "ca"),
    ("broker", "certificate"),
    ("broker", "key"),
    ("broker", "password_file"),
)


def _anchor_paths(values: dict[str, Any], base: Path) -> None:
    for *sections, name in _PATHS:
        table: Any = values
        for section in sections:
            table = table.get(section) if isinstance(table, dict) else None
        if isinstance(table, dict) and isinstance(table.get(name), str):
            table[name] = str(base / table[name])


def _set(values: dict[str, Any], place: tuple[str, ...], value: Any) -> None:
    table = values
    for section in place[:-1]:
        inner = table.setdefault(section, {})
        if not isinstance(inner, dict):
            raise SettingsError(f"{'.'.join(place)}: {section} is not a table")
        table = inner
    table[place[-1]] = str(value) if isinstance(value, Path) else value
