"""
A frozen random cut forest as ONNX: standard operators, one ``Loop`` whose turns go down all trees of all rows at once.

The score is unrolled from the root: at each node a row adds the probability that a random cut parts it there, and hands the
rest to the next. Nodes are renumbered so that siblings lie side by side and a leaf is its own child.
"""

from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from wheeltapper_models.card import StatePart
from wheeltapper_models.export import FLOAT, INT64, Graph
from wheeltapper_models.forest_cutoff import Cutoff
from wheeltapper_models.forest_stream import Forest
from wheeltapper_models.forest_window import Shingle
from wheeltapper_models.session import NEXT_STATES, ROWS, STATES

INT32 = onnx.TensorProto.INT32
_TINY = 1e-30


class _Tables(NamedTuple):
    """The nodes of all trees, one row each."""

    box: NDArray[np.float32]
    range: NDArray[np.float32]
    cut_dimension: NDArray[np.int32]
    cut_value: NDArray[np.float32]
    left: NDArray[np.int32]
    leaf: NDArray[np.int32]  # a leaf's row in ``equal``; 0 for inner nodes
    equal: NDArray[np.float32]  # (leaf, dimension): what it adds where the row equals it
    root: NDArray[np.int32]
    depth: int


def forest_graph(forest: Forest, shingle: Shingle, cutoff: Cutoff) -> onnx.ModelProto:
    """
    The graph of a forest, the window before it and the cutoff behind it; all three are copied and may go on learning.

    The trees stand still; the cutoff follows each machine's scores as ``Cutoff`` does, from where training left it.

    Returns:
        Outputs ``score``, ``anomaly``, ``alert``, ``limit`` and ``contributions``.
    """
    sensors, width = shingle.sensors, shingle.sensors * shingle.length
    graph = Graph(sensors, state_size(shingle))
    parts_of_state = graph.constant([1, 1, 1, 1, 1, width], np.int64)
    *memory, runs, seen, window = graph.add("Split", STATES, parts_of_state, outputs=6, axis=1)
    scaled = graph.add("Div", graph.add("Sub", ROWS, graph.constant(shingle.center)), graph.constant(shingle.scale))
    last = _columns(graph, window, width - sensors, width)
    filled = graph.add("Where", graph.missing(scaled), last, scaled)
    point = graph.add("Concat", _columns(graph, window, sensors, width), filled, axis=1)
    length = graph.constant(float(shingle.length))
    seen = graph.add("Min", graph.add("Add", seen, graph.constant(1.0)), length)
    ready = graph.add("GreaterOrEqual", seen, length)

    parts = _parts(graph, forest, point)
    total = graph.add("ReduceSum", parts, graph.constant([1], np.int64), keepdims=1)
    score = graph.add("Where", ready, total, graph.constant(np.nan))
    limit, memory = _cutoff(graph, cutoff, memory, total, ready)
    anomaly = graph.add("Greater", score, limit)
    runs = graph.add("Where", anomaly, graph.add("Add", runs, graph.constant(1.0)), graph.constant(0.0))
    alert = graph.add("GreaterOrEqual", runs, graph.constant(float(cutoff.settings.run)))

    graph.output("score", _flat(graph, score))
    graph.output("anomaly", graph.add("Cast", _flat(graph, anomaly), to=INT64), type_=INT64)
    graph.output("alert", graph.add("Cast", _flat(graph, alert), to=INT64), type_=INT64)
    graph.output("limit", _flat(graph, limit))
    graph.output("contributions", _shares(graph, parts, total, ready, sensors), sensors)
    graph.output(NEXT_STATES, graph.add("Concat", *memory, runs, seen, point, axis=1), state_size(shingle))
    return graph.build("forest")


def state_size(shingle: Shingle) -> int:
    """Floats of state per machine."""
    return sum(part.size for part in state_parts(shingle))


def state_parts(shingle: Shingle) -> list[StatePart]:
    """What is kept per machine."""
    return [
        StatePart("weight, mean and variance of the scores", 3, kept=True),
        StatePart("anomalies in a row", 1),
        StatePart("rows seen, up to the window's length", 1),
        StatePart("window, oldest row first", shingle.sensors * shingle.length),
    ]


def _cutoff(graph: Graph, cutoff: Cutoff, memory: list[str], score: str, ready: str) -> tuple[str, list[str]]:
    """The limit before this score, and the memory after it; a memory of zeros is what training left."""
    one = graph.constant(1.0)
    taught = cutoff.state().numbers
    cold = graph.add("Equal", memory[0], graph.constant(0.0))
    known = [graph.add("Where", cold, graph.constant(left), now) for left, now in zip(taught, memory, strict=True)]
    weight, mean, variance = known
    limit = graph.add("Add", mean, graph.add("Mul", graph.constant(cutoff.settings.k), graph.add("Sqrt", variance)))
    kept = graph.constant(1.0 - 1.0 / cutoff.settings.memory)
    weight = graph.add("Add", graph.add("Mul", weight, kept), one)
    off = graph.add("Sub", score, mean)
    step = graph.add("Div", off, weight)
    spread = graph.add("Add", variance, graph.add("Mul", step, off))
    variance = graph.add("Mul", graph.add("Sub", one, graph.add("Div", one, weight)), spread)
    after = [weight, graph.add("Add", mean, step), variance]
    return str(limit), [str(graph.add("Where", ready, new, old)) for new, old in zip(after, known, strict=True)]


def _parts(graph: Graph, forest: Forest, point: str) -> str:
    """The score by dimension, (N, dimensions)."""
    tables = _tables(forest)
    trees, dimensions = len(tables.root), forest.dimensions
    edges = graph.add("Concat", point, graph.add("Neg", point), axis=1)
    edges = graph.add("Unsqueeze", edges, graph.constant([1], np.int64))
    rows = graph.add("Shape", point, end=1)
    weight = (np.log2(1.0 + forest.size) / trees).astype(np.float32)
    shape = graph.add("Concat", rows, graph.constant([trees], np.int64), axis=0)
    at = graph.add("Expand", graph.constant(tables.root[None, :], np.int32), shape)
    reached = graph.add("Expand", graph.constant(weight[None, :]), shape)
    shape = graph.add("Concat", rows, graph.constant([2 * dimensions], np.int64), axis=0)
    parts = graph.add("Expand", graph.constant([[0.0]]), shape)
    at, reached, parts = graph.add(
        "Loop",
        graph.constant(tables.depth, np.int64),
        "",
        at,
        reached,
        parts,
        outputs=3,
        body=_turn(graph, tables, point, edges),
    )
    parts = graph.add("Add", _columns(graph, parts, 0, dimensions), _columns(graph, parts, dimensions, 2 * dimensions))
    leaf = graph.add("Gather", graph.constant(tables.leaf, np.int32), at)
    equal = graph.add("Gather", graph.constant(tables.equal), leaf)
    middle = graph.constant([1], np.int64)
    equal = graph.add("Squeeze", graph.add("MatMul", graph.add("Unsqueeze", reached, middle), equal), middle)
    return str(graph.add("Add", parts, equal))


def _turn(graph: Graph, tables: _Tables, point: str, edges: str) -> onnx.GraphProto:
    """One level down: carries the node, the chance of coming here and the parts; sees the rows in the graph around it."""
    constant = graph.constant
    nodes: list[onnx.NodeProto] = []

    def add(operator: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        output = name or f"turn{len(nodes)}"
        nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    outside = add("Relu", add("Sub", add("Gather", constant(tables.box), "at"), edges))
    growth = add("ReduceSum", outside, constant([2], np.int64), keepdims=0)
    grown = add("Add", add("Gather", constant(tables.range), "at"), growth)
    grown = add("Max", grown, constant(_TINY))  # a row that equals its leaf grows nothing of nothing
    level = add("Add", add("Cast", "turn", to=FLOAT), constant(1.0))
    middle = constant([1], np.int64)
    weight = add("Unsqueeze", add("Div", "reached", add("Mul", grown, level)), middle)
    add("Add", "parts", add("Squeeze", add("MatMul", weight, outside), middle), name="parts_next")
    add("Mul", "reached", add("Sub", constant(1.0), add("Div", growth, grown)), name="reached_next")
    cut = add("GatherElements", point, add("Gather", constant(tables.cut_dimension, np.int32), "at"), axis=1)
    right = add("Cast", add("Greater", cut, add("Gather", constant(tables.cut_value), "at")), to=INT32)
    add("Add", add("Gather", constant(tables.left, np.int32), "at"), right, name="at_next")
    add("Identity", "go", name="go_next")

    scalar = [("turn", INT64), ("go", onnx.TensorProto.BOOL)]
    carried = [("at", INT32), ("reached", FLOAT), ("parts", FLOAT)]
    inputs = [helper.make_tensor_value_info(name, type_, []) for name, type_ in scalar]
    inputs += [helper.make_tensor_value_info(name, type_, ["N", None]) for name, type_ in carried]
    outputs = [helper.make_tensor_value_info("go_next", onnx.TensorProto.BOOL, [])]
    outputs += [helper.make_tensor_value_info(f"{name}_next", type_, ["N", None]) for name, type_ in carried]
    return helper.make_graph(nodes, "turn", inputs, outputs)


def _tables(forest: Forest) -> _Tables:
    """The live nodes, each tree breadth first, siblings side by side."""
    trees = forest.trees
    order: list[int] = []
    left: list[int] = []
    leaf: list[int] = []
    roots: list[int] = []
    equal = [np.zeros(forest.dimensions)]
    depth = 0
    for root, size in zip(trees.root.tolist(), forest.size.tolist(), strict=True):
        roots.append(len(order))
        queue = [(root, 0)]
        order.append(root)
        for node, depth_of in queue:
            children = trees.child[2 * node : 2 * node + 2].tolist()
            place = len(left)
            if children[0] != node:
                left.append(len(order))
                leaf.append(0)
                order += children
                queue += [(child, depth_of + 1) for child in children]
                continue
            left.append(place)
            leaf.append(len(equal))
            equal.append(trees.equal_score(node, depth_of, size) * trees.shares_of_equal(node, depth_of))
            depth = max(depth, depth_of + 1)
    nodes = np.array(order)
    return _Tables(
        trees.box[nodes].astype(np.float32),
        trees.range[nodes].astype(np.float32),
        trees.cut_dimension[nodes].astype(np.int32),
        trees.cut_value[nodes].astype(np.float32),
        np.array(left, dtype=np.int32),
        np.array(leaf, dtype=np.int32),
        np.array(equal, dtype=np.float32),
        np.array(roots, dtype=np.int32),
        depth,
    )


def _shares(graph: Graph, parts: str, total: str, ready: str, sensors: int) -> str:
    """The parts of a sensor's values in the window together, as a share of the score; equal shares before it is full."""
    by_row = graph.add("Reshape", parts, graph.constant([0, -1, sensors], np.int64))
    by_sensor = graph.add("ReduceSum", by_row, graph.constant([1], np.int64), keepdims=0)
    shares = graph.add("Div", by_sensor, graph.add("Max", total, graph.constant(_TINY)))
    return str(graph.add("Where", ready, shares, graph.constant(np.full(sensors, 1.0 / sensors))))


def _columns(graph: Graph, value: str, start: int, stop: int) -> str:
    bounds = [graph.constant([bound], np.int64) for bound in (start, stop, 1)]
    return str(graph.add("Slice", value, *bounds))


def _flat(graph: Graph, value: str) -> str:
    return str(graph.add("Squeeze", value, graph.constant([1], np.int64)))
