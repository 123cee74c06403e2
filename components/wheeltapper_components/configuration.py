"""
Settings from a component's configuration: coerced, checked member by member, followed while they change.

A YAML recipe on a nucleus lite gives every number as a string, and a deployment may merge in anything: a member that
cannot be is reported and keeps its old value, the others take effect.
"""

import copy
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from wheeltapper import config
from wheeltapper.clock import Clock
from wheeltapper.errors import SettingsError, WheeltapperError
from wheeltapper_components.settings import GatewaySettings

log = logging.getLogger(__name__)

DEBOUNCE_S = 0.2
_IGNORED = ("accessControl",)

Tree = dict[str, Any]


def coerce(values: Tree, old: GatewaySettings, folder: Path = Path()) -> tuple[GatewaySettings, list[str]]:
    """
    Settings from a configuration, and what was wrong with it.

    Args:
        values: the whole configuration as the nucleus gives it.
        old: whose members stay where the configuration's cannot be; those it does not name have their defaults.
        folder: relative paths begin there.

    >>> settings, problems = coerce({"max_batch": "64", "health_s": "often"}, GatewaySettings(health_s=7.0))
    >>> settings.max_batch, settings.health_s, problems
    (64, 7.0, ['configuration: Expected `float`, got `str` - at `$.health_s`; the old value stays'])
    """
    values = {name: value for name, value in values.items() if name not in _IGNORED}
    try:
        return config.convert(GatewaySettings, values, "configuration", folder), []
    except SettingsError:
        pass
    known: Tree = msgspec.to_builtins(old, enc_hook=str)
    good: Tree = {}
    problems: list[str] = []
    for path, value in _leaves(values):
        trial = copy.deepcopy(good)
        config.set_member(trial, path, value)
        try:
            config.convert(GatewaySettings, trial, "configuration", folder)
        except SettingsError as error:
            problems.append(f"{error}; the old value stays")
            value = _at(known, path)
            if value is None:
                continue
            config.set_member(trial, path, value)
        good = trial
    return config.convert(GatewaySettings, good, "configuration", folder), problems


def _leaves(tree: Tree, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*path, name))
        else:
            yield (*path, name), value


def _at(tree: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree


class Watcher:
    """
    Reads the configuration again when told that it changed, and every few minutes in case nobody tells.

    Args:
        read: gives the whole configuration.
        apply: called with new settings, on this object's thread, when they differ from the last.
        settings: those in force.
        folder: relative paths in the configuration begin there.
    """

    def __init__(
        self,
        read: Callable[[], Tree],
        apply: Callable[[GatewaySettings], None],
        settings: GatewaySettings,
        clock: Clock,
        folder: Path = Path(),
    ) -> None:
        self._read = read
        self._apply = apply
        self._settings = settings
        self._folder = folder
        self._clock = clock
        self._changed = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="configuration", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def tell(self) -> None:
        """Something changed; called once for every leaf, from any thread."""
        self._changed.set()

    def close(self) -> None:
        """Stop watching."""
        self._stop.set()
        self._changed.set()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(5.0)

    def look(self) -> None:
        """Read once, and apply what is new."""
        try:
            settings, problems = coerce(self._read(), self._settings, self._folder)
        except WheeltapperError as error:
            log.warning("%s", error)
            return
        for problem in problems:
            log.error("%s", problem)
        if settings != self._settings:
            self._settings = settings
            self._apply(settings)

    def _run(self) -> None:
        while not self._stop.is_set():
            if self._clock.wait(self._changed, self._settings.greengrass.reread_s):
                while not self._stop.is_set() and self._quieter():
                    pass
            if not self._stop.is_set():
                self.look()

    def _quieter(self) -> bool:
        """Wait for the debounce; whether more came meanwhile."""
        self._changed.clear()
        return self._clock.wait(self._changed, DEBOUNCE_S)
