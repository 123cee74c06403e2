"""
A random cut forest that learns while it runs, and says which values made a point strange.

Every tree keeps a bounded, time-decayed sample of the stream and cuts it at random, a dimension being cut in proportion to
its range; a point that random cuts soon part from the sample is anomalous. Numpy alone, bounded memory, and the same scores
for the same seed and stream. Sources: Guha, Mishra, Roy and Schrijvers, "Robust Random Cut Forest Based Anomaly Detection On
Streams", ICML 2016; the score is that of AWS's open implementation.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from wheeltapper_models.forest_trees import Floats, Trees, Walk


class ForestSettings(msgspec.Struct, frozen=True):
    """
    How a forest is grown.

    ``decay`` is how fast old points leave the samples, per point; 0 stands for 1 ÷ (10 × ``sample_size``). The first
    ``eager_share`` of a sample takes every point, the rest ever fewer, so that the trees come to differ.
    """

    trees: int = 50
    sample_size: int = 256
    seed: int = 0
    decay: float = 0.0
    eager_share: float = 0.125


class Forest:
    """
    A streaming random cut forest over points of fixed dimension; not safe across threads.

    Points are kept in single precision, as the exported model compares them.

    >>> forest = Forest(2, ForestSettings(trees=20, sample_size=64, seed=1))
    >>> for point in np.random.default_rng(1).normal(size=(200, 2)):
    ...     forest.update(point)
    >>> forest.score(np.array([0.0, 0.0])) < 1 < forest.score(np.array([0.0, 9.0]))
    True
    >>> parts = forest.attribute(np.array([0.0, 9.0]))
    >>> bool(parts[1] > 0.9 * parts.sum())
    True
    """

    def __init__(self, dimensions: int, settings: ForestSettings | None = None) -> None:
        self.settings = settings or ForestSettings()
        self.dimensions = dimensions
        self.points_seen = 0
        trees, capacity = self.settings.trees, self.settings.sample_size
        self.trees = Trees(trees, capacity, dimensions)
        self.size = np.zeros(trees, dtype=np.int64)
        self._leaf_of = np.full((trees, capacity), -1, dtype=np.int64)
        self._weight_of = np.full((trees, capacity), -np.inf)
        self._rng = np.random.Generator(np.random.PCG64(self.settings.seed))
        self._decay = self.settings.decay or 1.0 / (10 * capacity)

    @property
    def ready(self) -> bool:
        """Whether every sample is a quarter full, so that scores mean something."""
        return bool((4 * self.size >= self.settings.sample_size).all())

    def score(self, point: Floats) -> float:
        """
        How soon random cuts part the point from what the trees remember: around 1 for the ordinary, more for the strange.

        Args:
            point: shape (dimensions,), finite.

        Returns:
            0 while a tree is empty.
        """
        return float(self.attribute(point).sum())

    def attribute(self, point: Floats) -> Floats:
        """The score by dimension: shape (dimensions,), all ≥ 0, summing to the score."""
        if not self.trees.planted:
            return np.zeros(self.dimensions)
        return self._attribute(self.trees.walk(_single(point)))

    def update(self, point: Floats) -> None:
        """Learn a point, shape (dimensions,), finite."""
        self.observe(point, learn_only=True)

    def observe(self, point: Floats, *, learn_only: bool = False) -> Floats:
        """Attribute a point, then learn it: one walk for both."""
        single = _single(point)
        walk = self.trees.walk(single) if self.trees.planted else None
        parts = np.zeros(self.dimensions) if walk is None or learn_only else self._attribute(walk)
        self._learn(single, walk)
        return parts

    def adopt(self, tree: int, leaves: Sequence[int], weights: Sequence[float]) -> None:
        """Make leaves that were put into a tree its sample; the sample keeps the points of the smallest weights."""
        self.size[tree] = len(leaves)
        self._leaf_of[tree, : len(leaves)] = leaves
        self._weight_of[tree, : len(leaves)] = weights

    def state(self) -> dict[str, NDArray[Any]]:
        """All that it knows, with the place in its sequence of draws."""
        draws = json.dumps(self._rng.bit_generator.state).encode()
        return {
            **self.trees.state(),
            "points_seen": np.array(self.points_seen),
            "size": self.size,
            "leaf_of": self._leaf_of.astype(np.int32),
            "weight_of": self._weight_of,
            "draws": np.frombuffer(draws, dtype=np.uint8),
        }

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """
        Go on where another forest of the same settings and dimensions was.

        Raises:
            ValueError: it had others.
        """
        self.trees.restore(state)
        self.points_seen = int(state["points_seen"])
        self.size[...] = state["size"]
        self._leaf_of[...] = state["leaf_of"]
        self._weight_of[...] = state["weight_of"]
        self._rng.bit_generator.state = json.loads(state["draws"].tobytes())

    def _attribute(self, walk: Walk) -> Floats:
        depth = np.arange(len(walk.nodes), dtype=np.float64)[:, None]
        equal = walk.leaf & (walk.growth == 0.0)
        grown = np.where(walk.grown > 0.0, walk.grown, 1.0)
        parted = np.where(walk.leaf, 1.0, walk.growth / grown)
        reached = np.ones_like(parted)
        np.cumprod(1.0 - parted[:-1], axis=0, out=reached[1:])
        reached *= np.log2(1.0 + self.size) / len(self.size)
        parts: Floats = np.einsum("lt,ltd->d", reached / ((depth + 1.0) * grown), walk.outside)
        parts = parts[: self.dimensions] + parts[self.dimensions :]
        for tree in np.flatnonzero(equal.any(axis=0)).tolist():
            level = int(equal[:, tree].argmax())
            leaf = int(walk.nodes[level, tree])
            score = reached[level, tree] * self.trees.equal_score(leaf, level, int(self.size[tree]))
            parts += score * self.trees.shares_of_equal(leaf, level)
        return parts

    def _learn(self, point: Floats, walk: Walk | None) -> None:
        self.points_seen += 1
        capacity = self.settings.sample_size
        # The logarithm of an exponential variate whose rate falls with time: the smallest stay, the newer are smaller.
        draws = self._rng.random((2, len(self.size)))
        weight = np.log(-np.log1p(-draws[0])) - self.points_seen * self._decay
        slot = np.where(self.size < capacity, np.minimum(self.size, capacity - 1), self._weight_of.argmax(axis=1))
        leaving = self._weight_of[np.arange(len(slot)), slot]
        accepted = np.where(self.size < capacity, draws[1] < self._welcome(), weight < leaving)
        for tree in np.flatnonzero(accepted).tolist():
            place = int(slot[tree])
            leaf = self.trees.insert(tree, point, walk, self._rng)
            if self.size[tree] < capacity:
                self.size[tree] += 1
            else:
                self.trees.delete(tree, int(self._leaf_of[tree, place]))
            self._leaf_of[tree, place] = leaf
            self._weight_of[tree, place] = weight[tree]

    def _welcome(self) -> Floats:
        """The chance that a tree with room takes a point."""
        share = self.settings.eager_share
        filled = self.size / self.settings.sample_size
        result: Floats = np.clip((1.0 - filled) / max(1.0 - share, 1e-9), 0.0, 1.0)
        return result


def _single(point: Floats) -> Floats:
    return np.asarray(point, dtype=np.float32).astype(np.float64)
