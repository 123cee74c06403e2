"""The rule that turns a forest's scores into alerts: mean + k σ of the scores so far, passed n times in a row."""

import math
from collections import deque

import msgspec

KEPT = 4096  # cutoffs in the history


class CutoffSettings(msgspec.Struct, frozen=True):
    """
    Args:
        k: standard deviations above the mean.
        run: anomalies in a row that make an alert.
        memory: points after which a score weighs 1 ÷ e of a new one.
        settling: scores seen before anything is an anomaly.
        every: points between entries of the history.
    """

    k: float = 2.5
    run: int = 5
    memory: float = 2560.0
    settling: int = 30
    every: int = 60


class CutoffState(msgspec.Struct, frozen=True):
    """All that a cutoff remembers."""

    points: int
    streak: int
    numbers: tuple[float, float, float]
    history: list[tuple[int, float]]


class Cutoff:
    """
    A limit that follows the scores; each score is judged before it moves the limit.

    >>> cutoff = Cutoff(CutoffSettings(run=2))
    >>> [cutoff.judge(score) for score in [1.0, 1.1] * 20 + [5.0, 5.0]][-3:]
    [(0, 0), (1, 0), (1, 1)]
    """

    def __init__(self, settings: CutoffSettings | None = None) -> None:
        self.settings = settings or CutoffSettings()
        self.points = 0
        self.streak = 0
        self.history: deque[tuple[int, float]] = deque(maxlen=KEPT)
        self._weight = 0.0
        self._mean = 0.0
        self._variance = 0.0

    @property
    def mean(self) -> float:
        """The weighted mean of the scores so far."""
        return self._mean

    @property
    def sigma(self) -> float:
        """Their weighted standard deviation."""
        return math.sqrt(self._variance)

    @property
    def limit(self) -> float:
        """A score above it is an anomaly; infinite while the scores are too few."""
        return self._mean + self.settings.k * self.sigma if self.points >= self.settings.settling else math.inf

    def judge(self, score: float) -> tuple[int, int]:
        """
        Judge a score, then take it in.

        Returns:
            Whether it is an anomaly, and whether it is the last of a run that is an alert.
        """
        anomaly = int(score > self.limit)
        self.streak = self.streak + 1 if anomaly else 0
        self._take(score)
        return anomaly, int(self.streak >= self.settings.run)

    def _take(self, score: float) -> None:
        kept = 1.0 - 1.0 / self.settings.memory
        self._weight = self._weight * kept + 1.0
        step = (score - self._mean) / self._weight
        self._variance = (1.0 - 1.0 / self._weight) * (self._variance + step * (score - self._mean))
        self._mean += step
        self.points += 1
        if self.points >= self.settings.settling and self.points % self.settings.every == 0:
            self.history.append((self.points, self.limit))

    def state(self) -> CutoffState:
        """All that it remembers."""
        return CutoffState(self.points, self.streak, (self._weight, self._mean, self._variance), list(self.history))

    def restore(self, state: CutoffState) -> None:
        """Remember what another one did."""
        self.points, self.streak = state.points, state.streak
        self._weight, self._mean, self._variance = state.numbers
        self.history = deque(state.history, maxlen=KEPT)
