"""The conformance cases, through the commands, in the way their checker asks for them."""

import shlex
import subprocess
import sys
from pathlib import Path


def test_every_conformance_case_passes(shared: Path) -> None:
    folder = shared / "conformance" / "iot-events"
    command = f"{shlex.quote(sys.executable)} -m wheeltapper.cli"

    done = subprocess.run(
        [sys.executable, str(folder / "check.py"), "--command", command, str(folder / "cases.jsonl")],
        capture_output=True,
        text=True,
        timeout=100,
    )

    assert done.returncode == 0, done.stdout
    assert done.stdout.strip().endswith(" 0 failed")
