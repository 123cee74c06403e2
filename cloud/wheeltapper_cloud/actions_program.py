"""Runs an operator's program for an action, bounded in time and in what is kept of its words."""

import contextlib
import os
import select
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, NamedTuple, cast

_KEPT_BYTES = 1000
_READ_BYTES = 65_536
_GLANCE_MS = 100
_LAST_S = 5.0
# A pipe holds no more than so many reads; what comes later comes from those who stayed behind.
_LAST_READS = 16


class Ended(NamedTuple):
    """How a program ended, and the end of what it wrote to its standard error."""

    status: int
    said: str


def run_program(arguments: Sequence[str], given: bytes, environment: Mapping[str, str], timeout_s: float) -> Ended:
    """
    Run a program to its end; what it leaves running in the background is not waited for.

    Args:
        arguments: the program and its arguments; no shell.
        given: its standard input.

    Raises:
        subprocess.TimeoutExpired: it took too long; it and all that it started in its session have been killed.
        OSError: it cannot be started.
    """
    with tempfile.TemporaryFile() as source:
        source.write(given)
        source.seek(0)
        process = subprocess.Popen(
            arguments, stdin=source, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment,
            start_new_session=True,
        )  # fmt: skip
    with cast(IO[bytes], process.stderr) as stream, _listening(stream) as words:
        try:
            process.wait(timeout_s)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with contextlib.suppress(
                subprocess.TimeoutExpired
            ):  # it waits for a disk that is away, and ends when it can
                process.wait(_LAST_S)
            raise
    return Ended(process.returncode, words.kept.decode("utf-8", "replace").strip())


class _Words:
    """Keeps the end of what comes out of a pipe."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.kept = b""
        self.over = threading.Event()
        self._descriptor = stream.fileno()

    def listen(self) -> None:
        """Read until the pipe's end, or, once it is over, until nothing more is in it, whoever still holds it."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        last_reads = _LAST_READS
        while last_reads:
            over = self.over.is_set()
            if poll.poll(0 if over else _GLANCE_MS):
                chunk = os.read(self._descriptor, _READ_BYTES)
                if not chunk:
                    return
                self.kept = (self.kept + chunk)[-_KEPT_BYTES:]
                last_reads -= over
            elif over:
                return


@contextlib.contextmanager
def _listening(stream: IO[bytes]) -> Iterator[_Words]:
    words = _Words(stream)
    thread = threading.Thread(target=words.listen, name="command", daemon=True)
    thread.start()
    try:
        yield words
    finally:
        words.over.set()
        thread.join()
