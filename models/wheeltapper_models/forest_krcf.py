"""
Reads a random cut forest of AWS's Rust implementation, as ``krcf.RandomCutForest.to_json`` writes it.

The forest scores as it did there, and may go on learning here. A node's place there is its row in the node store; from the
capacity on, a place is a leaf and names a point of the point store.
"""

import json
from typing import Any

import numpy as np

from wheeltapper.errors import ModelError
from wheeltapper_models.forest_stream import Forest, ForestSettings
from wheeltapper_models.forest_trees import NOBODY, Floats
from wheeltapper_models.forest_window import Shingle


def read_krcf(text: str | bytes, *, where: str = "krcf forest") -> tuple[Forest, Shingle]:
    """
    The forest and the window of its rows.

    Raises:
        ModelError: not such a forest, an empty one, or one that rotates its points, which no table of nodes can show.
    """
    try:
        state = json.loads(text)["rcf"]
        if state["internal_rotation"]:
            raise ModelError(f"{where}: rotates its points; build it with internal_rotation false")
        return _read(state, where)
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise ModelError(f"{where}: is not the JSON of a krcf forest: {type(error).__name__} {error}") from error


def _read(state: dict[str, Any], where: str) -> tuple[Forest, Shingle]:
    dimensions, capacity = int(state["dimensions"]), int(state["capacity"])
    decay = float(state["time_decay"])
    share = float(state["initial_accept_fraction"])
    members = state["sampler_plus_trees"]
    settings = ForestSettings(len(members), capacity, int(state["random_seed"]), decay, share)
    forest = Forest(dimensions, settings)
    forest.trees.uncounted = 1  # krcf scores a point that it holds n > 1 times as if it held it n - 1 times
    forest.points_seen = int(state["entries_seen"])
    points = _Points(state["point_store"])
    for tree, member in enumerate(members):
        _plant(forest, tree, member, points, where)
    inside = bool(state["internal_shingling"])
    length = int(state["shingle_size"]) if inside else 1
    sensors = dimensions // length
    window = np.asarray(points.last, dtype=np.float32) if inside and len(points.last) == dimensions else None
    shingle = Shingle(np.zeros(sensors), np.ones(sensors), length)
    if window is not None and forest.points_seen:
        shingle.window, shingle.seen = window, length
    return forest, shingle


class _Points:
    """The point store: points may overlap, being windows over one stretch of rows."""

    def __init__(self, store: dict[str, Any]) -> None:
        self.dimensions = int(store["dimensions"])
        self.step = self.dimensions // int(store["shingle_size"])
        self.location: list[int] = store["location"]
        self.store = np.array(store["store"], dtype=np.float32).astype(np.float64)
        self.last: list[float] = store["last_known_shingle"]

    def point(self, place: int) -> Floats:
        start = self.location[place] * self.step
        return self.store[start : start + self.dimensions]


def _plant(forest: Forest, tree: int, member: dict[str, Any], points: _Points, where: str) -> None:
    trees, nodes, sampler = forest.trees, member["tree"]["node_store"], member["sampler"]
    size = int(sampler["current_size"])
    if not size:
        raise ModelError(f"{where}: tree {tree} is empty; feed the forest before exporting it")
    capacity = int(nodes["capacity"])
    extra = {int(point): int(mass) for point, mass in nodes["hash_mass_leaves"].items()}
    here: dict[int, int] = {}

    def place_of(node: int, parent: int) -> int:
        if node < capacity - 1:
            here[node] = trees.free_inner[tree].pop()
        else:
            here[node] = trees.new_leaf(tree, points.point(node - capacity), parent)
            trees.mass[here[node]] = extra.get(node - capacity, 0) + 1
        trees.parent[here[node]] = parent
        return here[node]

    order = [int(member["tree"]["root"])]
    trees.root[tree] = place_of(order[0], NOBODY)
    for node in order:
        if node >= capacity - 1:
            continue
        children = [int(nodes["left_index"][node]), int(nodes["right_index"][node])]
        for side, child in enumerate(children):
            trees.child[2 * here[node] + side] = place_of(child, here[node])
        trees.cut_dimension[here[node]] = int(nodes["cut_dimension"][node])
        trees.cut_value[here[node]] = np.float32(nodes["cut_value"][node])
        order += children
    trees.refresh([here[node] for node in reversed(order) if node < capacity - 1])
    forest.adopt(tree, [here[place + capacity] for place in sampler["points"][:size]], sampler["weights"][:size])
