"""
A Greengrass component's process: the same services as ``wheeltapper gateway run``, on a nucleus's two links.

It exits with status 1 only where nothing but a new process can help (the nucleus refuses its token, or its streams stay
deaf), at most twice an hour; everything else is waited out inside.
"""

import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec

from wheeltapper import __version__
from wheeltapper.clock import Clock, SystemClock
from wheeltapper.errors import SettingsError, UnavailableError, WheeltapperError
from wheeltapper.logs import set_up
from wheeltapper.transport.greengrass import CORE_LIMIT, LOCAL_LIMIT, Nucleus
from wheeltapper_components.configuration import Watcher, coerce
from wheeltapper_components.detectors import Detectors
from wheeltapper_components.exits import ExitBudget
from wheeltapper_components.heartbeat import Heartbeat
from wheeltapper_components.inbox import Inbox
from wheeltapper_components.inference import Inference
from wheeltapper_components.links import Link, Links
from wheeltapper_components.settings import GatewaySettings, GreengrassSettings
from wheeltapper_components.threads import hand_over_quickly

log = logging.getLogger(__name__)

_TICK_S = 0.5
_CONNECT_TRIES = 5
_CONNECT_PAUSE_S = 1.0
_WAIT_INSIDE_S = 300.0
_WINDOW = 64
_DEFER_MS = 2_000
_DEFERRALS = 5
_DRAIN_S = 2.0


class Component:
    """
    One component from start to stop.

    Args:
        process: ``inference`` or ``detectors``.
        work: the component's work folder, where everything that must outlive the process lies.
        artifacts: the folder of all components' artifacts; relative paths in the configuration begin there.
        nucleus: by default the one whose socket and token the environment names.
    """

    def __init__(
        self, process: str, work: Path, artifacts: Path, clock: Clock, *, socket_path: str = "", token: str = ""
    ) -> None:
        self._process = process
        self._work = work.absolute()
        self._artifacts = artifacts.absolute()
        self._clock = clock
        self._budget = ExitBudget(work / "exits.json", clock)
        self._stop = threading.Event()
        self._told = threading.Event()
        self._status = 0
        self._wait_inside_until = float("-inf")
        self._said = ""
        self._reported: dict[str, Any] | None = None
        self._shadows = True
        self._deferrals = 0
        self._inbox = Inbox(clock)
        self._settings = GatewaySettings()
        self.nucleus = Nucleus(on_refused=self.give_up, socket_path=socket_path, token=token, clock=clock)
        self.service: Inference | Detectors | None = None

    def run(self) -> int:
        """Serve until told to stop; the exit status."""
        links: Links | None = None
        try:
            if self._connect():
                self._settings = self._first_settings()
                links = self._links(self._settings)
                self._serve(links)
        except Exception as error:
            if not self.nucleus.connected and isinstance(error, SettingsError):
                raise  # this is no nucleus
            log.exception("the component failed")
            while not self._stop.is_set():
                self.give_up(f"it failed: {error}")
                self._clock.wait(self._stop, _WAIT_INSIDE_S)
        finally:
            self._inbox.close()
            if links is not None:
                links.close(_DRAIN_S)
            self.nucleus.close()
        return self._status

    def stop(self) -> None:
        """Ask to stop; from any thread, or a signal's handler."""
        self._stop.set()
        self._told.set()

    def give_up(self, reason: str) -> None:
        """Exit so that the nucleus starts a new process, if that has not been done too often; else wait inside."""
        if self._stop.is_set() or self._clock.monotonic() < self._wait_inside_until:
            return
        if self._budget.spend():
            log.error("exiting for a new process: %s", reason)
            self._status = 1
            self.stop()
            return
        log.error("waiting inside, since two exits were spent within the hour: %s", reason)
        self._wait_inside_until = self._clock.monotonic() + _WAIT_INSIDE_S

    def _connect(self) -> bool:
        tries = 0
        while not self._stop.is_set():
            try:
                self.nucleus.start()
                return True
            except UnavailableError as error:
                tries += 1
                log.warning("%s", error)
                if tries >= _CONNECT_TRIES:
                    self.give_up(str(error))
            self._clock.wait(self._stop, _CONNECT_PAUSE_S * min(tries, 30))
        return False

    def _first_settings(self) -> GatewaySettings:
        while not self._stop.is_set():
            try:
                settings, problems = coerce(self.nucleus.configuration(), GatewaySettings(), self._artifacts)
            except UnavailableError as error:
                log.warning("%s", error)
                self._clock.wait(self._stop, _CONNECT_PAUSE_S)
                continue
            for problem in problems:
                log.error("%s", problem)
            return settings
        return GatewaySettings()

    def _links(self, settings: GatewaySettings) -> Links:
        sides: GreengrassSettings = settings.greengrass
        folder = self._work / self._process
        nucleus, store, clock = self.nucleus, settings.store, self._clock
        return Links(
            [
                Link(
                    "local",
                    nucleus.local,
                    folder,
                    store,
                    clock,
                    filters=sides.local,
                    max_payload_bytes=LOCAL_LIMIT,
                    reads="local" in sides.readings_from,
                    window=_WINDOW,
                ),
                Link(
                    "core",
                    nucleus.core,
                    folder,
                    store,
                    clock,
                    filters=sides.core,
                    max_payload_bytes=CORE_LIMIT,
                    reads="core" in sides.readings_from,
                    window=_WINDOW,
                ),
            ]
        )

    def _serve(self, links: Links) -> None:
        watcher = Watcher(self.nucleus.configuration, self._renew, self._settings, self._clock, self._artifacts)
        self.nucleus.on_configuration_change(watcher.tell)
        self.nucleus.watch_core()
        self.nucleus.on_update(lambda: self._wait_ms(links))
        beats = self._heartbeats()
        links.start()
        watcher.start()
        try:
            while not self._stop.is_set():
                self._told.clear()
                self._serve_with(self._settings, links, beats)
        finally:
            watcher.close()

    def _heartbeats(self) -> list[Heartbeat]:
        settings = self._complete(self._settings)
        if not settings.greengrass.heartbeat_s:
            return []
        topic = f"wt/{settings.thing}/heartbeat/{self._process}"
        beats: list[Heartbeat] = []
        for side in (self.nucleus.local, self.nucleus.core):
            beat = Heartbeat(side, topic, settings.greengrass.deaf_s, self.give_up, self._clock)
            try:
                beat.start()
                beats.append(beat)
            except WheeltapperError as error:
                log.error("no heartbeat: %s", error)
        return beats

    def _renew(self, settings: GatewaySettings) -> None:
        log.info("the configuration changed")
        self._settings = settings
        self._told.set()

    def _serve_with(self, settings: GatewaySettings, links: Links, beats: Sequence[Heartbeat]) -> None:
        """Serve until the settings change or the process is told to stop."""
        complete = self._complete(settings)
        logging.getLogger().setLevel(complete.log_level)
        self.service = self._open(complete, links)
        period, next_beat = complete.greengrass.heartbeat_s, 0.0
        try:
            while not self._told.is_set() and not self._stop.is_set():
                self._say_state()
                if period and self._clock.monotonic() >= next_beat:
                    next_beat = self._clock.monotonic() + period
                    for beat in beats:
                        beat.beat()
                self._clock.wait(self._told, _TICK_S)
        finally:
            service, self.service = self.service, None
            if service is not None:
                service.close()
                if self._stop.is_set():
                    service.pulse.tell("stopped", "")

    def _open(self, settings: GatewaySettings, links: Links) -> Inference | Detectors | None:
        service: Inference | Detectors | None = None
        try:
            if self._process == "inference":
                service = Inference(settings, links, self._clock, self._inbox)
                service.open(wait_for_models=True)
            else:
                service = Detectors(settings, links, self._clock)
                service.open()
            service.start()
        except WheeltapperError as error:
            log.error("%s", error)
            if service is not None:
                service.close()
            return None
        return service

    def _complete(self, settings: GatewaySettings) -> GatewaySettings:
        """The settings with what the nucleus says of itself, and with our own folder."""
        thing = os.environ.get("AWS_IOT_THING_NAME", "")
        if settings.thing == GatewaySettings().thing and thing:
            settings = msgspec.structs.replace(settings, thing=thing)
        return msgspec.structs.replace(settings, data_dir=self._work)

    def _say_state(self) -> None:
        """Tell the nucleus RUNNING once there is something to score with, ERRORED where there can be nothing."""
        service = self.service
        if isinstance(service, Inference):
            seats = service.shelf.seats
            ready = bool(seats) and all(seat.slot is not None for seat in seats)
            broken = not ready and any(seat.refusal for seat in seats if seat.slot is None)
        else:
            ready, broken = service is not None, service is None
        state = "RUNNING" if ready else "ERRORED" if broken else ""
        if state and state != self._said and self.nucleus.connected:
            self._said = state
            self.nucleus.update_state(state)
        if isinstance(service, Inference):
            self._report({seat.settings.folder.name: seat.label for seat in service.shelf.seats})

    def _report(self, models: dict[str, str]) -> None:
        """Tell in a shadow which models serve, where the nucleus offers shadows."""
        document = {self._process: {"version": __version__, "models": models}}
        if not self._shadows or document == self._reported or not self.nucleus.connected:
            return
        self._reported = document
        try:
            self.nucleus.report("wheeltapper", document)
        except UnavailableError as error:
            self._shadows = False
            log.info("shadows not offered by this nucleus (%s)", error)

    def _wait_ms(self, links: Links) -> int:
        """A deployment waits a moment for what can still be sent."""
        if links.waiting and self.nucleus.connected and self._deferrals < _DEFERRALS:
            self._deferrals += 1
            return _DEFER_MS
        self._deferrals = 0
        return 0


def main(process: str, arguments: Sequence[str]) -> int:
    """
    What a component's ``main.py`` calls.

    Args:
        process: ``inference`` or ``detectors``.
        arguments: the work folder and the folder of all artifacts, as the recipe gives them.
    """
    set_up("INFO", sys.stdout)
    if len(arguments) != 2:
        log.error("usage: main.py WORK_FOLDER ARTIFACTS_FOLDER, as the recipe calls it")
        return SettingsError.exit_code
    hand_over_quickly()
    component = Component(process, Path(arguments[0]), Path(arguments[1]), SystemClock())

    def tell(_signal: int, _frame: FrameType | None) -> None:
        component.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, tell)
    try:
        return component.run()
    except WheeltapperError as error:
        log.error("%s", error)
        return error.exit_code
