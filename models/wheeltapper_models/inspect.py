"""A model file looked into: card, operators, size, and its speed on this machine."""

import time
from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
from rich.console import Console

from wheeltapper_models.card import Card, model_paths
from wheeltapper_models.session import Session, runtime_version
from wheeltapper_models.show import show_card, table_of

_ROUNDS = 2000
_BATCH = 256


class Inspection(msgspec.Struct, frozen=True):
    """
    What a file holds and how fast it is here.

    Args:
        operators: how often each occurs; empty without the ``onnx`` library.
        row_us: one row of one machine, median, in microseconds.
        batch_row_us: one row in a batch of 256 machines.
        load_ms: reading, verifying and loading.
        runtime: the version of onnxruntime.
    """

    card: Card
    path: str
    size_bytes: int
    operators: dict[str, int]
    row_us: float
    batch_row_us: float
    load_ms: float
    runtime: str


def inspect_model(path: Path) -> Inspection:
    """
    Load, verify and time a model.

    Raises:
        ModelError: it is not whole, not genuine or does not run here.
    """
    started = time.perf_counter()
    session = Session.load(path, require_card=False)
    load_ms = (time.perf_counter() - started) * 1000
    file, _ = model_paths(path)
    return Inspection(
        session.card,
        str(file),
        file.stat().st_size,
        _operators(file),
        round(_time_us(session, 1, _ROUNDS), 2),
        round(_time_us(session, _BATCH, _ROUNDS // 20) / _BATCH, 3),
        round(load_ms, 2),
        runtime_version(),
    )


def show_inspection(found: Inspection) -> None:
    """An inspection, for people."""
    console = Console()
    show_card(found.card)
    operators = ", ".join(f"{name} {count}" for name, count in found.operators.items())
    rows = [
        ("file", found.path),
        ("operators", operators or "(install the onnx library to list them)"),
        ("load and verify", f"{found.load_ms:.1f} ms"),
        ("one row", f"{found.row_us:.1f} µs"),
        (f"one row of a batch of {_BATCH}", f"{found.batch_row_us:.2f} µs"),
        ("runtime", f"onnxruntime {found.runtime}"),
    ]
    console.print(table_of("here", ["", ""], rows))


def _operators(file: Path) -> dict[str, int]:
    try:
        import onnx
    except ModuleNotFoundError:
        return {}
    nodes = onnx.load(str(file)).graph.node
    return dict(sorted(Counter(node.op_type for node in nodes).items(), key=lambda item: (-item[1], item[0])))


def _time_us(session: Session, machines: int, rounds: int) -> float:
    """The median time of one call, in microseconds."""
    lows = [0.0 if item.low is None else item.low for item in session.card.inputs]
    rows = np.repeat(np.array([lows], dtype=np.float32), machines, axis=0)
    states, taken = session.start(machines), []
    for _ in range(rounds):
        started = time.perf_counter()
        states = session.step(rows, states).states
        taken.append(time.perf_counter() - started)
    return float(np.median(taken)) * 1e6
