"""The executor that appends actions to a file."""

import errno
import os
import threading
from pathlib import Path

from wheeltapper.errors import UnavailableError
from wheeltapper.judge import Action
from wheeltapper.judge.delivery import Result, Settled
from wheeltapper_cloud.actions_json import as_json, describe
from wheeltapper_cloud.actions_patience import Patience

# For a disk that is somewhere else, and away: the system waits for it for ever.
_TIMEOUT_S = 30.0


class FileExecutor:
    """Appends JSON Lines; a line is whole and on disk before the action counts as delivered."""

    immediate = False

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._patience = Patience(1)

    def execute(self, action: Action, settled: Settled) -> None:
        line = as_json(describe(action)).encode() + b"\n"
        try:
            self._patience.wait(_TIMEOUT_S, lambda: self._write(line))
        except OSError as error:
            raise UnavailableError(f"{self._path}: {error.strerror or error}") from error
        settled(Result("delivered"))

    def _write(self, line: bytes) -> None:
        with self._lock:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                _append(descriptor, line)
            finally:
                os.close(descriptor)


def _append(descriptor: int, line: bytes) -> None:
    """Write the whole line and sync it, or leave the file as it was: a disk that fills up takes part of a write."""
    end = os.fstat(descriptor).st_size
    if end and os.pread(descriptor, 1, end - 1) != b"\n":  # a power cut has left half a line
        line = b"\n" + line
    written = os.write(descriptor, line)
    if written < len(line):
        os.ftruncate(descriptor, end)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.fdatasync(descriptor)
