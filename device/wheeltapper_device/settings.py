"""
What a device is told: TOML, then the environment, then the command line.

``WHEELTAPPER_DEVICE__BROKER__URL=mqtts://plant:8883`` in the environment overrides ``url`` in ``[broker]``; so it is with
every member.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from wheeltapper import config, topics
from wheeltapper.transport.settings import BrokerSettings

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
    settings = config.load(
        DeviceSettings, path, prefix=ENVIRONMENT_PREFIX, environment=environment, overrides=overrides
    )
    topics.topic_of("{thing}", settings.thing)
    return settings
