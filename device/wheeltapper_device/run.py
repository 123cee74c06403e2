"""``wheeltapper device run``: the agent's process, from its settings to a clean end."""

import argparse
import fcntl
import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wheeltapper import logs, topics
from wheeltapper.clock import SystemClock
from wheeltapper.errors import SettingsError
from wheeltapper.outbox import Outbox
from wheeltapper.sender import Sender
from wheeltapper.transport.patient import PatientTransport
from wheeltapper.transport.settings import open_transport
from wheeltapper_device.agent import Agent
from wheeltapper_device.health import Reporter
from wheeltapper_device.replay import ReplaySource
from wheeltapper_device.settings import DeviceSettings, load_settings
from wheeltapper_device.sources import SimulatedSource, Source

log = logging.getLogger(__name__)

_DRAIN_S = 3.0


def settings_of(options: argparse.Namespace) -> DeviceSettings:
    """
    Settings from the file, the environment and the command line.

    Raises:
        SettingsError: something in them is not valid.
    """
    given = vars(options)
    replay, simulation = given.get("replay"), given.get("scenario")
    if replay is not None and simulation is not None:
        raise SettingsError("--replay and --scenario: give one of them")
    overrides = {
        ("thing",): given.get("thing"),
        ("data_dir",): given.get("data_dir"),
        ("broker", "url"): given.get("broker"),
        ("replay", "file"): replay,
        ("replay", "delimiter"): given.get("delimiter"),
        ("replay", "time_column"): given.get("time_column"),
        ("replay", "time_format"): given.get("time_format"),
        ("replay", "stamps"): given.get("stamps"),
        ("replay", "speed"): given.get("speed"),
        ("replay", "rows"): given.get("rows"),
        ("replay", "ignore"): given.get("ignore"),
        ("replay", "loop"): given.get("loop"),
        ("simulation", "scenario"): simulation,
        ("simulation", "seed"): given.get("seed"),
        ("simulation", "fault"): given.get("fault"),
        ("simulation", "onset_s"): given.get("onset"),
        ("simulation", "growth_s"): given.get("growth"),
        ("simulation", "rate_hz"): given.get("rate"),
        ("simulation", "time_scale"): given.get("time_scale"),
    }
    settings = load_settings(given.get("config"), os.environ, overrides)
    if simulation is not None and settings.replay.file is not None:
        raise SettingsError(
            "--scenario: the settings file names a file to replay; take it out, or use another settings file"
        )
    return settings


def source_of(settings: DeviceSettings) -> Source:
    """
    The recorded file where one is named, else the simulated machine.

    Raises:
        SettingsError, DataError: it cannot be.
    """
    if settings.replay.file is not None:
        replay = ReplaySource(settings.replay)
        log.info("replay of %s", replay.describe())
        return replay
    return SimulatedSource(settings.simulation, settings.thing)


def run(options: argparse.Namespace) -> int:
    """Measure, keep and send until told to stop, or with ``--exit`` until all of a source is sent."""
    settings = settings_of(options)
    logs.set_up(settings.log_level)
    settings.broker.host_and_port()
    settings.broker.check_files()
    source = source_of(settings)
    clock = SystemClock()
    with _only_agent(settings.data_dir):
        bounds = settings.outbox
        outbox = Outbox(
            settings.data_dir / "outbox.db",
            max_bytes=bounds.max_bytes,
            max_age_s=bounds.max_age_s,
            full=bounds.full,
            flush=bounds.flush,
            clock=clock,
        )
        transport = PatientTransport(lambda: open_transport(settings.broker, f"{settings.thing}-device"), clock)
        agent = Agent(settings, source, outbox, clock)
        sender = Sender(outbox, transport, clock=clock)
        reporter = Reporter(settings, agent, outbox, sender, transport, clock)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: agent.stop())
        transport.subscribe(topics.topic_of(settings.topics.trigger_ingest, settings.thing), agent.take_trigger)
        transport.start()
        sender.start()
        reporter.start()
        try:
            agent.run(until_sent=options.exit)
        finally:
            sender.close(_DRAIN_S)
            reporter.close()
            transport.close()
            outbox.close()
    return 0


@contextmanager
def _only_agent(data_dir: Path) -> Iterator[None]:
    """Hold the data directory: two agents on one outbox would number readings alike."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        stream = (data_dir / "lock").open("w")
    except OSError as error:
        raise SettingsError(f"data directory {data_dir}: cannot be written: {error.strerror}") from error
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise SettingsError(
                f"data directory {data_dir}: another agent is at work in it; give this one its own: --data-dir"
            ) from error
        yield
