"""
A model at work: the one module that imports onnxruntime.

A session is verified before anyone can use it: the file against its card's SHA-256, IR and opset against the runtime that is
installed, names and shapes against the card, and the outputs against the card's test vectors. It keeps no state: what a
machine needs remembered is a row of ``states`` that the caller hands in and gets back, so that one call can serve many
machines, each with its next row.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from wheeltapper.errors import ModelError
from wheeltapper.messages import UNREADABLE
from wheeltapper_models.card import CLOCK_INPUTS, HOUR, WEEKDAY, Card, model_paths, read_card
from wheeltapper_models.forest_watch import ForestWatch
from wheeltapper_models.header import read_header
from wheeltapper_models.pace import forgotten
from wheeltapper_models.serving import Judged, SensorRow

Floats = NDArray[np.float32]

ROWS = "rows"
STATES = "states"
NEXT_STATES = "next_states"
# The output that speaks for each kind.
SPOKEN = {"anomaly": "score", "forest": "score", "forecast": "prediction", "failure": "probability"}


class Scored(NamedTuple):
    """
    What a model says of N rows, one of each of N machines.

    ``score`` is the anomaly score, the forecast of the target's *next* value, or the probability of failure, by the
    model's kind; NaN where the model cannot speak yet. ``anomaly`` is 1 where an anomaly score or a probability exceeds
    the limit. ``contributions`` sum to 1 in each row of a kind that explains itself, and are zeros otherwise. ``limit`` and
    ``alert`` are a forest's, whose limit follows its scores, and None for other kinds.
    """

    score: Floats  # (N,)
    anomaly: NDArray[np.int64]  # (N,)
    contributions: Floats  # (N, S)
    states: Floats  # (N, K), to be handed in with the machines' next rows
    limit: Floats | None = None  # (N,)
    alert: NDArray[np.int64] | None = None  # (N,)


class Session:
    """A verified model. Thread-safe: it holds no state of any machine."""

    def __init__(self, card: Card, model: bytes, *, where: str = "model.onnx") -> None:
        """
        Load and verify a model.

        Raises:
            ModelError: the runtime refuses it, it disagrees with its card, or a test vector comes out wrong.
        """
        self.card = card
        self.sensors = card.sensors
        self.void = forgotten(card)
        self._where = where
        header = read_header(model, where)
        if card.sha256 and hashlib.sha256(model).hexdigest() != card.sha256:
            raise ModelError(f"{where}: its SHA-256 is not the one on its card; copy both files again or retrain")
        if card.opset and (header.opset, header.ir_version) != (card.opset, card.ir_version):
            raise ModelError(
                f"{where}: has IR {header.ir_version} and opset {header.opset}, "
                f"its card says IR {card.ir_version} and opset {card.opset}"
            )
        try:
            self._session = onnxruntime.InferenceSession(model, _options(), providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors share no root
            raise ModelError(
                f"{where}: onnxruntime {onnxruntime.__version__} refuses it "
                f"(IR {header.ir_version}, opset {header.opset}): {_one_line(error)}"
            ) from error
        self._speaks = SPOKEN.get(card.kind, "")
        self._check_contract()
        self._outputs = [output.name for output in self._session.get_outputs()]
        self._place = {name: place for place, name in enumerate(self._outputs)}
        self._run = self._session.run
        self._check_self_test()

    @classmethod
    def load(cls, path: Path | str, *, require_card: bool = True) -> "Session":
        """
        A verified session for a model's folder or .onnx file.

        Args:
            path: the folder of ``model.onnx`` and ``card.json``, or the .onnx file.
            require_card: refuse a model without a card; else what the file says of itself serves, unverified.

        Raises:
            ModelError: says which file and what is wrong with it; no session exists then.
        """
        model_path, card_path = model_paths(Path(path))
        try:
            model = model_path.read_bytes()
        except OSError as error:
            raise ModelError(f"{model_path}: cannot be read: {error.strerror}") from error
        if require_card or card_path.exists():
            card = read_card(card_path)
            if not card.sha256:
                raise ModelError(f"{card_path}: has no sha256, so {model_path.name} cannot be verified")
        else:
            card = _card_inside(model, str(model_path))
        return cls(card, model, where=str(model_path))

    def start(self, machines: int = 1) -> Floats:
        """The states of machines that have sent nothing yet, shape (machines, K)."""
        return np.zeros((machines, self.card.state_size), dtype=np.float32)

    def row(self, values: Mapping[str, Any], time_ms: int | None = None) -> Floats:
        """
        One machine's row, shape (S,), from named values; what is absent or no number is NaN.

        Args:
            values: sensor → value; others than the model's are ignored.
            time_ms: the row's time, for models that read the hour or the day.
        """
        row = np.full(len(self.sensors), np.nan, dtype=np.float32)
        for place, column in enumerate(self.card.inputs):
            if column.name in CLOCK_INPUTS:
                row[place] = np.nan if time_ms is None else _clock_value(column.name, time_ms)
                continue
            value = values.get(column.name)
            if column.categories:
                row[place] = column.categories.index(value) if value in column.categories else np.nan
            elif isinstance(value, int | float):  # also bool
                row[place] = value
        return row

    def step(self, rows: Floats, states: Floats) -> Scored:
        """
        Judge the next row of each of N machines in one call.

        Args:
            rows: raw values, float32, shape (N, S); NaN is missing. Each row belongs to another machine.
            states: what the previous step gave for these machines, or ``start()``; shape (N, K).

        Raises:
            ModelError: a shape does not fit the model.
        """
        found = self._call(rows, states)
        score = found[self._place[self._speaks]]
        place = self._place.get("contributions")
        shares = np.zeros(rows.shape, dtype=np.float32) if place is None else found[place]
        place = self._place.get("anomaly")
        anomaly = self._judge(score) if place is None else found[place]
        following = found[self._place[NEXT_STATES]] if self.card.state_size else states
        limit, alert = (found[self._place[name]] if name in self._place else None for name in ("limit", "alert"))
        return Scored(score, anomaly, shares, following, limit, alert)

    def judge(self, rows: Sequence[SensorRow], states: dict[str, Any]) -> list[Judged]:
        """Judge one row of each of some machines in one call, and move their states, machine → shape (K,)."""
        start = self.start()[0]
        values = np.stack([self.row(row.values, row.time_ms) for row in rows])
        scored = self.step(values, np.stack([states.get(row.thing, start) for row in rows]))
        for row, state in zip(rows, scored.states, strict=True):
            states[row.thing] = state.copy()
        return self._judged(scored)

    def _judged(self, scored: Scored) -> list[Judged]:
        scores, anomalies = scored.score.tolist(), scored.anomaly.tolist()
        limits: list[float | None] = [None] * len(scores)
        if scored.limit is not None:
            limits = [limit if math.isfinite(limit) else None for limit in scored.limit.tolist()]
        alerts = [0] * len(scores) if scored.alert is None else scored.alert.tolist()
        return [
            Judged(score, anomaly, dict(zip(self.sensors, shares, strict=True)), self.card, limit, alert)
            for score, anomaly, shares, limit, alert in zip(
                scores, anomalies, scored.contributions.tolist(), limits, alerts, strict=True
            )
        ]

    def restart(self, thing: str, states: dict[str, Any]) -> None:
        """Drop a machine's state: its next row is its first."""
        states.pop(thing, None)

    def pause(self, thing: str, states: dict[str, Any]) -> None:
        """Drop the rows before a pause from a machine's state."""
        if thing in states:
            for part in self.void:
                states[thing][part] = 0.0

    def pack(self, state: Any) -> bytes:
        """A machine's state as bytes."""
        packed: bytes = state.tobytes()
        return packed

    def unpack(self, thing: str, payload: bytes, states: dict[str, Any]) -> None:
        """Go on where ``pack`` was called; ignored where the bytes are not of this model's size."""
        if payload and len(payload) == 4 * self.card.state_size:
            states[thing] = np.frombuffer(payload, dtype=np.float32).copy()

    def learnt(self, state: Any) -> ForestWatch | None:
        """None: this model stands still."""
        return None

    def relearn(self, thing: str, payload: bytes, states: dict[str, Any]) -> None:
        """Nothing: this model stands still."""

    def outputs(self, rows: Floats, states: Floats) -> tuple[dict[str, NDArray[Any]], Floats]:
        """All outputs of one step by name, as the model gives them, and the next states."""
        found = dict(zip(self._outputs, self._call(rows, states), strict=True))
        return found, found.pop(NEXT_STATES, states)

    def _call(self, rows: Floats, states: Floats) -> list[Any]:
        feed = {ROWS: rows, STATES: states} if self.card.state_size else {ROWS: rows}
        try:
            found: list[Any] = self._run(self._outputs, feed)
        except Exception as error:  # onnxruntime's errors share no root
            expected = f"(N, {len(self.sensors)}) and states (N, {self.card.state_size}), float32"
            raise ModelError(
                f"{self._where}: needs rows {expected}; got {rows.dtype} {rows.shape} and {states.dtype} {states.shape}: "
                f"{_one_line(error)}"
            ) from error
        return found

    def _judge(self, score: Floats) -> NDArray[np.int64]:
        if self.card.limit is None or self.card.kind == "forecast":
            return np.zeros(score.shape, dtype=np.int64)
        return (score > self.card.limit).astype(np.int64)

    def _check_contract(self) -> None:
        inputs = {item.name: item.shape for item in self._session.get_inputs()}
        wanted = {ROWS: len(self.sensors)}
        if self.card.state_size:
            wanted[STATES] = self.card.state_size
        if set(inputs) != set(wanted):
            raise ModelError(f"{self._where}: reads {sorted(inputs)}; a model of this card reads {sorted(wanted)}")
        for name, width in wanted.items():
            shape = inputs[name]
            if len(shape) != 2 or (isinstance(shape[1], int) and shape[1] != width):
                raise ModelError(f"{self._where}: input {name} has shape {shape}; its card says (N, {width})")
        outputs = {item.name for item in self._session.get_outputs()}
        needed = {self._speaks, NEXT_STATES} if self.card.state_size else {self._speaks}
        if not self._speaks:
            raise ModelError(f"{self._where}: its card names the unknown kind {self.card.kind!r}")
        if missing := sorted((needed | set(self.card.outputs)) - outputs):
            raise ModelError(f"{self._where}: lacks the outputs {missing} that its card promises")
        parts = [part.size for part in self.card.state]
        if parts and (min(parts) < 1 or sum(parts) != self.card.state_size):
            raise ModelError(
                f"{self._where}: its card says that a state has {self.card.state_size} floats, in parts of {parts}; "
                "correct one of the two, or leave the parts out"
            )

    def _check_self_test(self) -> None:
        test = self.card.self_test
        if test is None:
            return
        states = self.start()
        for place, cells in enumerate(test.rows):
            if len(cells) != len(self.sensors):
                raise ModelError(
                    f"{self._where}: test row {place} has {len(cells)} values for {len(self.sensors)} inputs"
                )
            row = np.array([[np.nan if cell is None else cell for cell in cells]], dtype=np.float32)
            found, states = self.outputs(row, states)
            for name, expected in test.expected.items():
                got = np.asarray(found[name][0] if name in found else (), dtype=np.float64)
                self._compare(name, place, got, expected[place], test.tolerance)

    def _compare(self, name: str, place: int, got: NDArray[np.float64], expected: Any, tolerance: float) -> None:
        wanted = np.array(_numbers(expected), dtype=np.float64)
        if got.shape != wanted.shape or not np.allclose(got, wanted, rtol=tolerance, atol=tolerance, equal_nan=True):
            raise ModelError(
                f"{self._where}: fails its self-test on this machine: {name} of test row {place} is {got.tolist()}, "
                f"its card expects {expected}"
            )


def runtime_version() -> str:
    """The version of the installed onnxruntime."""
    return str(onnxruntime.__version__)


def _numbers(expected: Any) -> Any:
    if isinstance(expected, list):
        return [_numbers(item) for item in expected]
    return np.nan if expected is None else expected


def _options() -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.enable_cpu_mem_arena = False  # memory returns when a model is replaced
    options.log_severity_level = 4  # what it would print is in the errors it raises
    return options


def _card_inside(model: bytes, where: str) -> Card:
    text = read_header(model, where).metadata.get("card")
    if text is None:
        raise ModelError(f"{where}: has neither a card beside it nor one inside; train it with wheeltapper model train")
    try:
        card = msgspec.json.decode(text, type=Card)
    except UNREADABLE as error:
        raise ModelError(f"{where}: the card inside it cannot be read: {error}") from error
    return msgspec.structs.replace(card, version=card.version or hashlib.sha256(model).hexdigest()[:12])


def _clock_value(name: str, time_ms: int) -> float:
    moment = datetime.fromtimestamp(time_ms / 1000, UTC)
    if name == HOUR:
        return moment.hour + moment.minute / 60 + moment.second / 3600
    if name == WEEKDAY:
        return float(moment.weekday())
    return float(moment.timetuple().tm_yday)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
