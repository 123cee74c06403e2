"""
Starts processes, starts them again when they die, and ends them all.

A child never outlives its supervisor: on Linux the kernel ends it when the supervisor is killed.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

import msgspec

from wheeltapper.clock import Clock
from wheeltapper.errors import SettingsError, UnavailableError

_PR_SET_PDEATHSIG = 1
_STOP_TIMEOUT_S = 12.0
_BACKOFF_S = (0.2, 0.5, 1.0, 2.0, 5.0)
_STABLE_AFTER_S = 30.0
_GIVE_UP_AFTER = 10
_LAST_WORDS_BYTES = 4096
_LOG_BYTES = 5_000_000
_READ_BYTES = 65_536
_DRAIN_S = 5.0


class Program(msgspec.Struct, frozen=True):
    """A process to keep running: its name and its command line."""

    name: str
    command: Sequence[str]


class Supervisor:
    """
    Keeps programs running.

    Args:
        programs: started in this order and ended in the reverse.
        log_folder: one file per program takes its standard output and error; before it grows beyond ``log_bytes`` it
            begins anew, and one older file is kept beside it.
        clock: measures how long a program lived.
        on_event: told (program, what happened, detail) of every start and death; from any thread.
        log_bytes: when a log begins anew.
    """

    def __init__(
        self,
        programs: Sequence[Program],
        log_folder: Path,
        clock: Clock,
        on_event: Callable[[str, str, str], None],
        *,
        log_bytes: int = _LOG_BYTES,
    ) -> None:
        self._programs = {program.name: program for program in programs}
        self._log_folder = log_folder
        self._clock = clock
        self._on_event = on_event
        self._log_bytes = log_bytes
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._writers: dict[str, threading.Thread] = {}
        self._started_at: dict[str, float] = {}
        self._deaths: dict[str, int] = {}
        self._due: dict[str, float] = {}
        self._stop = threading.Event()

    def start(self, name: str) -> None:
        """Start one program."""
        self._log_folder.mkdir(parents=True, exist_ok=True)
        child = self._children[name] = subprocess.Popen(
            [*self._programs[name].command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )
        writer = threading.Thread(
            target=_write_down,
            args=(child.stdout, self.log_file(name), self._log_bytes),
            name=f"log-{name}",
            daemon=True,
        )
        self._writers[name] = writer
        writer.start()
        self._started_at[name] = self._clock.monotonic()
        self._on_event(name, "starting", f"pid {child.pid}")

    def watch(self) -> None:
        """
        Start again what has died; call it now and then.

        Raises:
            SettingsError: a program says that its settings are wrong: starting it again would not help.
            UnavailableError: a program keeps dying.
        """
        now = self._clock.monotonic()
        for name, child in list(self._children.items()):
            status = child.poll()
            if status is not None:
                del self._children[name]
                self._bury(name, status, now)
        for name, due in list(self._due.items()):
            if now >= due:
                del self._due[name]
                self.start(name)

    def _bury(self, name: str, status: int, now: float) -> None:
        self._writers.pop(name).join(_DRAIN_S)
        last_words = self.last_line(name)
        if status == SettingsError.exit_code:
            raise SettingsError(f"{name}: {last_words}")
        lived = now - self._started_at[name]
        deaths = 1 if lived > _STABLE_AFTER_S else self._deaths.get(name, 0) + 1
        self._deaths[name] = deaths
        if deaths >= _GIVE_UP_AFTER:
            raise UnavailableError(f"{name}: died {deaths} times in a row: {last_words}; see {self.log_file(name)}")
        self._due[name] = now + _BACKOFF_S[min(deaths, len(_BACKOFF_S)) - 1]
        self._on_event(name, "restarted", f"ended with status {status}: {last_words}")

    def log_file(self, name: str) -> Path:
        """Where a program's output goes."""
        return self._log_folder / f"{name}.log"

    def last_line(self, name: str) -> str:
        """What a program last said."""
        log = self.log_file(name)
        lines = _last_lines(log) or _last_lines(_older(log))
        return lines[-1].removeprefix("wheeltapper: ") if lines else "it said nothing"

    def pids(self) -> dict[str, int]:
        """The running processes."""
        return {name: child.pid for name, child in self._children.items()}

    def stop(self, *, but: str = "") -> list[str]:
        """End every program ``but`` one, the last started first; returns the names of those that had to be killed."""
        killed = []
        for name in reversed([name for name in self._programs if name != but]):
            child = self._children.pop(name, None)
            if child is None:
                continue
            with contextlib.suppress(ProcessLookupError):
                child.send_signal(signal.SIGTERM)
            try:
                child.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
                killed.append(name)
            self._writers.pop(name).join(_DRAIN_S)
        return killed


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _older(path: Path) -> Path:
    return path.with_name(f"{path.name}.1")


def _last_lines(path: Path) -> list[str]:
    try:
        with path.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - _LAST_WORDS_BYTES))
            return log.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return []


def _write_down(said: IO[bytes], path: Path, limit: int) -> None:
    """
    Write what a program says into its log until it has ended.

    Through a pipe, so that the log is turned over between two writes: a file that a program itself writes to cannot be
    copied and emptied without losing what it says in between.
    """
    with said:
        while words := said.read(min(_READ_BYTES, limit)):
            with contextlib.suppress(OSError):  # on a full disk the words go, and the program goes on
                _append(path, words, limit)


def _append(path: Path, words: bytes, limit: int) -> None:
    if path.exists() and path.stat().st_size + len(words) > limit:
        path.replace(_older(path))
    with path.open("ab") as log:
        log.write(words)
