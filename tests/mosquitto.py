"""A mosquitto of one's own on loopback, for tests and benchmarks."""

import shutil
import subprocess
from pathlib import Path

from tests.loopback import free_port, wait_for_port

_OPTIONS = "allow_anonymous true\nset_tcp_nodelay true\nmax_queued_messages 0\nmax_inflight_messages 0\n"


def find_mosquitto() -> str | None:
    """The program, None where it is not installed."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


class Mosquitto:
    """
    A broker that anybody on this machine may use, and that forgets everything when it ends.

    Raises:
        SystemExit: it is not installed.
    """

    def __init__(self, folder: Path) -> None:
        program = find_mosquitto()
        if program is None:
            raise SystemExit("mosquitto is not installed; run: apt-get install mosquitto")
        self.port = free_port()
        settings = folder / "mosquitto.conf"
        settings.write_text(f"listener {self.port} 127.0.0.1\n{_OPTIONS}")
        self.process = subprocess.Popen(
            [program, "-c", str(settings)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_for_port(self.port)

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(30)
