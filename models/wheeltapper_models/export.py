"""
Writes models: graphs of standard operators as bytes that every supported runtime accepts, sealed with a card.

Equal graphs give equal bytes, so equal data and settings give the same SHA-256.
"""

import hashlib
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from wheeltapper import __version__
from wheeltapper.errors import ModelError
from wheeltapper_models.card import CARD_FILE, MODEL_FILE, Card, SelfTest, encode_card
from wheeltapper_models.kinds import Trained
from wheeltapper_models.session import NEXT_STATES, ROWS, STATES, Floats, Session

# What onnxruntime 1.14 (2023) and every later release accept.
OPSET = 17
ML_OPSET = 3
IR_VERSION = 8

FLOAT = onnx.TensorProto.FLOAT
INT64 = onnx.TensorProto.INT64


class Graph:
    """
    A graph in the making, by the contract of ``kinds``: every method adds one node or constant and returns its output.

    Args:
        sensors: columns of ``rows``.
        state_size: columns of ``states``; 0 for a model that remembers nothing.
    """

    def __init__(self, sensors: int, state_size: int) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._domains: dict[str, int] = {"": OPSET}
        self._inputs = [helper.make_tensor_value_info(ROWS, FLOAT, ["N", sensors])]
        self._outputs: list[onnx.ValueInfoProto] = []
        if state_size:
            self._inputs.append(helper.make_tensor_value_info(STATES, FLOAT, ["N", state_size]))

    def constant(self, values: Any, dtype: Any = np.float32) -> str:
        """A tensor that the file carries."""
        name = f"c{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(values, dtype=dtype), name))
        return name

    def add(self, operator: str, *inputs: str, outputs: int = 1, domain: str = "", **attributes: Any) -> Any:
        """One node; the name of its output, or a list of names where it has several."""
        if domain == "ai.onnx.ml":
            self._domains[domain] = ML_OPSET
        names = [f"n{len(self._nodes)}_{place}" for place in range(outputs)]
        self._nodes.append(helper.make_node(operator, list(inputs), names, domain=domain, **attributes))
        return names[0] if outputs == 1 else names

    def missing(self, value: str) -> str:
        """Where a value is no finite number."""
        return str(self.add("Or", self.add("IsNaN", value), self.add("IsInf", value)))

    def output(self, name: str, value: str, columns: int | None = None, *, type_: int = FLOAT) -> None:
        """Give a value away under a name, shape (N,) or (N, columns)."""
        self._nodes.append(helper.make_node("Identity", [value], [name]))
        shape: list[str | int | None] = ["N"] if columns is None else ["N", columns]
        self._outputs.append(helper.make_tensor_value_info(name, type_, shape))

    def build(self, name: str) -> onnx.ModelProto:
        """The checked model."""
        graph = helper.make_graph(self._nodes, name, self._inputs, self._outputs, self._constants)
        opsets = [helper.make_opsetid(domain, number) for domain, number in sorted(self._domains.items())]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="wheeltapper")
        onnx.checker.check_model(model, full_check=True)
        return model


def seal(model: onnx.ModelProto, card: Card, test_rows: NDArray[np.floating[Any]]) -> Trained:
    """
    Bind a model and its card: metadata into the file, header, hash and test vectors onto the card.

    Args:
        model: from ``Graph.build``.
        card: without header, hash, outputs, versions and test vectors.
        test_rows: rows of one machine from a cold start, shape (T, S); a dozen that reach past the warm-up is enough.

    Returns:
        What ``write`` writes, loaded and verified once in the installed runtime.
    """
    outputs = [item.name for item in model.graph.output if item.name != NEXT_STATES]
    card = msgspec.structs.replace(
        card, opset=_opset(model), ir_version=model.ir_version, outputs=outputs, versions=_versions()
    )
    inside = msgspec.structs.replace(card, versions={}, scores={}, notes=[], self_test=None)
    del model.metadata_props[:]
    helper.set_model_props(model, {"card": msgspec.json.encode(inside).decode(), "sensors": "\n".join(card.sensors)})
    payload = model.SerializeToString(deterministic=True)
    digest = hashlib.sha256(payload).hexdigest()
    card = msgspec.structs.replace(card, sha256=digest, size_bytes=len(payload), version=card.version or digest[:12])
    session = Session(card, payload, where=card.name)
    test = _self_test(session, np.asarray(test_rows, dtype=np.float32), outputs)
    return Trained(payload, msgspec.structs.replace(card, self_test=test))


def write(trained: Trained, folder: Path) -> None:
    """
    Write the kind's own files, ``model.onnx``, then ``card.json``; each appears whole or not at all.

    Raises:
        ModelError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files = [*trained.files.items(), (MODEL_FILE, trained.model), (CARD_FILE, encode_card(trained.card))]
        for name, payload in files:
            beside = folder / f".{name}.new"
            beside.write_bytes(payload)
            beside.replace(folder / name)
    except OSError as error:
        raise ModelError(f"{folder}: cannot be written: {error.strerror}") from error


def _self_test(session: Session, rows: Floats, outputs: Sequence[str]) -> SelfTest:
    found: dict[str, list[Any]] = {name: [] for name in outputs}
    states = session.start()
    for row in rows:
        values, states = session.outputs(row[None, :], states)
        for name in outputs:
            found[name].append(_cells(values[name][0]))
    return SelfTest([_cells(row) for row in rows], found)


def _cells(values: Any) -> Any:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim:
        return [_cells(value) for value in array]
    return float(f"{array:.9g}") if np.isfinite(array) else None  # nine digits carry any float32


def _opset(model: onnx.ModelProto) -> int:
    return next(int(item.version) for item in model.opset_import if item.domain in ("", "ai.onnx"))


def _versions() -> dict[str, str]:
    found = {name: version(name) for name in ("numpy", "onnx", "onnxruntime")}
    return {"wheeltapper": __version__, "python": platform.python_version(), **found}
