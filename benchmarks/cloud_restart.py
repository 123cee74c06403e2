"""How long a judge with many detectors takes to stand again."""

import json
import multiprocessing
import os
import resource
import signal
import time
from pathlib import Path
from typing import Any

from benchmarks.cloud_site import INPUTS, SAMPLE, payload


def measure_restart(folder: Path, detectors: int) -> dict[str, float]:
    """Seconds until a judge with many detectors stands again: after a clean stop, and after SIGKILL under load."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    filling = context.Process(target=_fill, args=(folder, detectors, results))
    filling.start()
    found = {"filled_memory_mb": results.get()}
    os.kill(filling.pid or 0, signal.SIGKILL)
    filling.join()
    for name in ("killed", "clean"):
        results = context.Queue()  # the killed process may have taken the other one's lock with it
        starting = context.Process(target=_restart, args=(folder, detectors, results))
        starting.start()
        found[f"restart_{name}_s"], found["memory_mb"] = results.get()
        starting.join()
    return found


def _judge(folder: Path) -> Any:
    from wheeltapper.clock import SystemClock
    from wheeltapper.judge import Judge, JudgeSettings

    return Judge(folder, SystemClock(), JudgeSettings(publish_states=False, publish_alarms=False))


def _fill(folder: Path, detectors: int, results: Any) -> None:
    import msgspec

    from wheeltapper.judge import Deployment, Message

    judge = _judge(folder)
    judge.start()
    judge.declare_inputs({name: [] for name in INPUTS})
    body = json.loads(SAMPLE.read_text())["detectorModel"]
    definition = {"detectorModelName": "Pump", "key": "motorID", "roleArn": "r", **body}
    raw = msgspec.Raw(json.dumps(definition).encode())
    judge.deploy(Deployment(name="Pump", version="1", kind="detector", body=raw))
    for turn in range(2):
        for start in range(0, detectors, 1000):
            judge.put([Message(INPUTS[0], payload(turn, motor, 50.0)) for motor in range(start, start + 1000)])
    for start in range(0, 20_000, 1000):  # what a restart has to replay
        judge.put([Message(INPUTS[0], payload(start, n % detectors, 60.0)) for n in range(start, start + 1000)])
    results.put(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)
    time.sleep(60)


def _restart(folder: Path, detectors: int, results: Any) -> None:
    judge = _judge(folder)
    began = time.perf_counter()
    judge.start()
    took = time.perf_counter() - began
    assert judge.statistics().detectors == detectors
    results.put((took, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3))
    judge.close()
