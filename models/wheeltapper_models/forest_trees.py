"""
The cut trees of a random cut forest, in flat arrays, so that one point walks down all trees at once.

A tree's nodes lie together: first its inner nodes, then its leaves. A node carries the box of the points below it, as its
lower edges followed by its negated upper edges, so that a box grows by one minimum; an inner node also carries the cut that
parts them: dimension and value, left where the point's coordinate is at most the value.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
NOBODY = -1


@dataclass(frozen=True)
class Walk:
    """One point's way down every tree, arrays of (level, tree, …); below a tree's leaf the leaf repeats."""

    nodes: Ints
    leaf: NDArray[np.bool_]
    outside: Floats  # (level, tree, 2 × dimension): how far the point lies below and above the node's box
    growth: Floats  # by how much the point grows the summed ranges of the box
    grown: Floats  # the summed ranges of the box with the point in it


class Trees:
    """The nodes of all trees; points must be representable in single precision, in which the cuts are drawn."""

    def __init__(self, trees: int, capacity: int, dimensions: int) -> None:
        self.capacity = capacity
        self.inner = capacity  # inner nodes a tree may need with one leaf more than its capacity, for the newcomer
        self.stride = 2 * capacity + 1
        nodes = trees * self.stride
        self.box = np.zeros((nodes, 2 * dimensions))
        self.range = np.zeros(nodes)
        self.cut_dimension = np.zeros(nodes, dtype=np.int64)
        self.cut_value = np.full(nodes, np.inf)
        self.child = np.repeat(np.arange(nodes), 2)  # left and right of node n at 2n and 2n + 1; a leaf's are itself
        self.parent = np.full(nodes, NOBODY, dtype=np.int64)
        self.mass = np.zeros(nodes, dtype=np.int64)  # of a leaf: how many equal points it stands for
        self.uncounted = 0  # of a leaf's equal points its score leaves out so many
        self.root = np.full(trees, NOBODY, dtype=np.int64)
        starts = [tree * self.stride for tree in range(trees)]
        self.free_inner = [list(range(start + self.inner - 1, start - 1, -1)) for start in starts]
        self.free_leaves = [list(range(start + self.stride - 1, start + self.inner - 1, -1)) for start in starts]

    @property
    def planted(self) -> bool:
        """Whether every tree holds a point."""
        return bool((self.root >= 0).all())

    def state(self) -> dict[str, NDArray[Any]]:
        """The nodes, as arrays that lose nothing: boxes and cuts are in single precision."""
        return {
            "box": self.box.astype(np.float32),
            "range": self.range,
            "cut_dimension": self.cut_dimension.astype(np.int32),
            "cut_value": self.cut_value.astype(np.float32),
            "child": self.child.astype(np.int32),
            "parent": self.parent.astype(np.int32),
            "mass": self.mass.astype(np.int32),
            "root": self.root.astype(np.int32),
            "uncounted": np.array(self.uncounted),
        }

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """
        The nodes of another forest of the same shape.

        Raises:
            ValueError: it has another shape.
        """
        for name in ("box", "range", "cut_dimension", "cut_value", "child", "parent", "mass", "root"):
            getattr(self, name)[...] = state[name]
        self.uncounted = int(state["uncounted"])
        used = self.mass > 0
        used[self.parent[self.parent >= 0]] = True
        for tree in range(len(self.root)):
            nodes = np.arange(tree * self.stride, (tree + 1) * self.stride)
            free = nodes[~used[nodes]][::-1]
            inner = free % self.stride < self.inner
            self.free_inner[tree], self.free_leaves[tree] = free[inner].tolist(), free[~inner].tolist()

    def walk(self, point: Floats) -> Walk:
        """The way of a point, shape (dimensions,), down every tree; all must be planted."""
        at = self.root
        levels = [at]
        while True:
            below = self.child[2 * at + (point[self.cut_dimension[at]] > self.cut_value[at])]
            if (below == at).all():
                break
            levels.append(below)
            at = below
        nodes = np.array(levels)
        outside = np.maximum(self.box[nodes] - _box(point), 0.0)
        growth = outside.sum(axis=2)
        return Walk(nodes, nodes % self.stride >= self.inner, outside, growth, self.range[nodes] + growth)

    def insert(self, tree: int, point: Floats, walk: Walk | None, rng: np.random.Generator) -> int:
        """
        Add a point to a tree; the result is distributed as if the tree had been cut with it from the start.

        Args:
            tree: which.
            point: shape (dimensions,).
            walk: the point's way, taken since this tree last changed; None where the tree is empty.
            rng: draws the cut.

        Returns:
            The point's leaf.
        """
        if walk is None:
            self.root[tree] = self.new_leaf(tree, point, NOBODY)
            return int(self.root[tree])
        depth = int(walk.leaf[:, tree].argmax())
        nodes, growth, grown = (
            walk.nodes[: depth + 1, tree],
            walk.growth[: depth + 1, tree],
            walk.grown[: depth + 1, tree],
        )
        if growth[depth] == 0.0:
            self.mass[nodes[depth]] += 1
            return int(nodes[depth])
        draws = rng.random(depth + 2)
        level = int((draws[:-1] * grown < growth).argmax())  # at the leaf the two are equal, and a draw is below 1
        node = int(nodes[level])
        inner, leaf = self._part(tree, node, point, walk.outside[level, tree], float(draws[-1]))
        grow = np.append(nodes[:level], inner)
        self.box[grow] = np.minimum(self.box[grow], _box(point))
        self.range[grow] = grown[: level + 1]
        return leaf

    def _part(self, tree: int, node: int, point: Floats, outside: Floats, draw: float) -> tuple[int, int]:
        """Put an inner node above ``node`` whose cut parts its box from the point; returns it and the point's leaf."""
        edges = outside.cumsum()
        place = min(int(edges.searchsorted(draw * edges[-1], side="right")), edges.size - 1)
        above, dimension = divmod(place, len(point))
        near, far = (-self.box[node, place], point[dimension]) if above else (point[dimension], self.box[node, place])
        within = draw * edges[-1] - edges[place] + outside[place]
        inner, parent = self.free_inner[tree].pop(), int(self.parent[node])
        leaf = self.new_leaf(tree, point, inner)
        self.cut_dimension[inner] = dimension
        self.cut_value[inner] = _single_between(near, far, near + within)
        self.child[2 * inner], self.child[2 * inner + 1] = (node, leaf) if above else (leaf, node)
        self.box[inner] = self.box[node]
        self.parent[inner], self.parent[node] = parent, inner
        self._replace_child(tree, parent, node, inner)
        return inner, leaf

    def new_leaf(self, tree: int, point: Floats, parent: int) -> int:
        """A leaf of one point, which knows its parent; the parent does not know it yet."""
        leaf = self.free_leaves[tree].pop()
        self.box[leaf] = _box(point)
        self.parent[leaf] = parent
        self.mass[leaf] = 1
        return leaf

    def _replace_child(self, tree: int, parent: int, old: int, new: int) -> None:
        if parent == NOBODY:
            self.root[tree] = new
        else:
            self.child[2 * parent + (self.child[2 * parent] != old)] = new

    def delete(self, tree: int, leaf: int) -> None:
        """Take one point of a leaf out of a tree that holds at least two leaves, or equal points in this one."""
        self.mass[leaf] -= 1
        if self.mass[leaf]:
            return
        inner = int(self.parent[leaf])
        sibling = int(self.child[2 * inner + (self.child[2 * inner] == leaf)])
        above = int(self.parent[inner])
        self.parent[sibling] = above
        self._replace_child(tree, above, inner, sibling)
        self.child[2 * inner] = self.child[2 * inner + 1] = inner
        self.cut_value[inner] = np.inf
        self.parent[inner] = self.parent[leaf] = NOBODY
        self.free_inner[tree].append(inner)
        self.free_leaves[tree].append(leaf)
        self._shrink(above)

    def _shrink(self, node: int) -> None:
        """Recompute the boxes from a node upwards until one is as it was."""
        while node != NOBODY and self._recompute(node):
            node = int(self.parent[node])

    def refresh(self, nodes: Iterable[int]) -> None:
        """Recompute the boxes of inner nodes, given after those below them."""
        for node in nodes:
            self._recompute(node)

    def _recompute(self, node: int) -> bool:
        """Make a node's box that of its children; False where it was."""
        box = np.minimum(self.box[self.child[2 * node]], self.box[self.child[2 * node + 1]])
        if (box == self.box[node]).all():
            return False
        half = len(box) // 2
        self.box[node] = box
        self.range[node] = -(box[:half] + box[half:]).sum()
        return True

    def equal_score(self, leaf: int, depth: int, size: int) -> float:
        """What a tree of ``size`` points says of a point that equals its leaf, before it is normalised."""
        mass = max(int(self.mass[leaf]) - self.uncounted, 1)
        return (1.0 - mass / (2.0 * size)) / (depth + math.log2(1.0 + mass))

    def shares_of_equal(self, leaf: int, depth: int) -> Floats:
        """
        Which dimensions would make a leaf's point strange if its tree did not hold it.

        Args:
            leaf: at ``depth`` cuts below the root.

        Returns:
            Shape (dimensions,), summing to 1; equal shares where the other points surround it.
        """
        half = self.box.shape[1] // 2
        parts, others, node = np.zeros(2 * half), np.full(2 * half, np.inf), leaf
        for level in range(depth - 1, -1, -1):
            parent = int(self.parent[node])
            others = np.minimum(others, self.box[self.child[2 * parent + (self.child[2 * parent] == node)]])
            outside = np.maximum(others - self.box[leaf], 0.0)
            growth = outside.sum()
            if growth == 0.0:
                break
            grown = growth - (others[:half] + others[half:]).sum()
            parts = parts * (1.0 - growth / grown) + outside / (grown * (level + 1))
            node = parent
        shares: Floats = parts[:half] + parts[half:]
        total = shares.sum()
        return shares / total if total > 0.0 else np.full(half, 1.0 / half)


def _box(point: Floats) -> Floats:
    return np.concatenate((point, -point))


def _single_between(near: float, far: float, value: float) -> float:
    """The value in single precision, in [near, far); near and far are in single precision, near < far."""
    rounded = float(np.float32(value))
    return rounded if near <= rounded < far else near
