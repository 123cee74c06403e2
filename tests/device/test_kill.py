"""kill -9 of the agent at random moments: nothing skipped, nothing made twice under two ids."""

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.loopback import free_port
from wheeltapper.outbox import Outbox
from wheeltapper_device.run import source_of
from wheeltapper_device.settings import DeviceSettings, SimulationSettings

# Imports once, then forks an agent for every byte it reads, so that fifty starts take no longer than one.
FORKING_AGENT = """
import os, sys
from pathlib import Path
from wheeltapper.clock import SystemClock
from wheeltapper.outbox import Outbox
from wheeltapper_device.agent import Agent
from wheeltapper_device.run import source_of
from wheeltapper_device.settings import DeviceSettings, SimulationSettings

settings = DeviceSettings(simulation=SimulationSettings(seed=8, time_scale=500.0))
while os.read(0, 1):
    child = os.fork()
    if child == 0:
        agent = Agent(settings, source_of(settings), Outbox(Path(sys.argv[1])), SystemClock())
        os.write(1, b"%d\\n" % os.getpid())
        agent.run()
    os.waitpid(child, 0)
"""


def test_fifty_kills_skip_no_reading_and_make_none_twice(tmp_path: Path) -> None:
    moments = random.Random(50)
    path = tmp_path / "outbox.db"
    parent = subprocess.Popen(
        [sys.executable, "-c", FORKING_AGENT, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert parent.stdin is not None
    assert parent.stdout is not None
    for _ in range(50):
        parent.stdin.write(b"x")
        parent.stdin.flush()
        child = int(parent.stdout.readline())
        time.sleep(moments.uniform(0.0, 0.06))
        os.kill(child, signal.SIGKILL)
    parent.stdin.close()
    assert parent.wait(90) == 0
    parent.stdout.close()

    outbox = Outbox(path)
    kept = [json.loads(entry.payload) for entry in outbox.peek(1_000_000) if entry.topic.endswith("/reading")]
    outbox.close()
    source = source_of(DeviceSettings(simulation=SimulationSettings(seed=8)))
    machine = [step.values for step in itertools.islice(iter(source.next, None), len(kept))]
    assert len(kept) > 100
    assert [int(reading["message_id"].rpartition("-")[2]) for reading in kept] == list(range(1, len(kept) + 1))
    assert [{name: reading[name] for name in machine[0]} for reading in kept] == machine


def test_a_device_measures_before_its_broker_is_there_and_ends_on_a_signal(tmp_path: Path) -> None:
    command = [
        "device",
        "run",
        "--time-scale",
        "50",
        "--data-dir",
        str(tmp_path),
        "--broker",
        f"mqtt://127.0.0.1:{free_port()}",
    ]
    agent = subprocess.Popen(
        [sys.executable, "-m", "wheeltapper.cli", *command], stderr=subprocess.PIPE, text=True, env={**os.environ}
    )
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and not (tmp_path / "health.json").exists():
        time.sleep(0.05)
    second = subprocess.run(
        [sys.executable, "-m", "wheeltapper.cli", *command], capture_output=True, text=True, check=False, timeout=60
    )
    agent.send_signal(signal.SIGTERM)
    _, said = agent.communicate(timeout=60)

    outbox = Outbox(tmp_path / "outbox.db")
    kept = len(outbox)
    outbox.close()
    assert agent.returncode == 0
    assert kept > 0
    assert "cannot be reached" in said
    assert "Traceback" not in said
    assert (second.returncode, len(second.stderr.splitlines())) == (2, 1)
    assert "another agent" in second.stderr
