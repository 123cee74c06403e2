"""
Make docs/up.svg: what ``wheeltapper up`` draws a few seconds after its first alarm, from a real run.

    .venv/bin/python docs/screenshot.py
"""

import io
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from wheeltapper.up.view import Picture

LINGER_S = 3.0


def main() -> int:
    """Run, watch, draw."""
    picture = Picture("wheeltapper up – motor-1")
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "wheeltapper.cli",
            "up",
            "--json",
            "--duration",
            "60",
            "--data-dir",
            f"{folder}/run",
        ]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None  # noqa: S101
        end = float("inf")
        for line in process.stdout:
            event = json.loads(line)
            picture.add(event)
            if event["kind"] == "alarm":
                end = min(end, time.monotonic() + LINGER_S)
            if time.monotonic() >= end:
                process.terminate()
                break
        process.communicate()
    console = Console(width=112, record=True, file=io.StringIO())
    console.print(picture.render())
    Path(__file__).with_name("up.svg").write_text(console.export_svg(title="./up", clear=False), encoding="utf-8")
    print(console.export_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
