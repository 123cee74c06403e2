"""
ADWIN: notices that the mean of a stream has changed, and forgets what was before.

The window is kept as an exponential histogram: O(log n) buckets, each the sum of 2ⁱ values. Wherever it can be cut into an
older and a newer part whose means differ by more than chance allows, the older part goes. Source: Bifet and Gavaldà,
"Learning from Time-Changing Data with Adaptive Windowing", SDM 2007.
"""

import math

import msgspec

MOST_BUCKETS = 5  # of one size
SHORTEST_WINDOW = 10
SHORTEST_PART = 5


class _Bucket(msgspec.Struct):
    count: int
    mean: float
    squares: float  # sum of squared deviations from the mean

    def merged(self, other: "_Bucket") -> "_Bucket":
        count = self.count + other.count
        step = other.mean - self.mean
        squares = self.squares + other.squares + step * step * self.count * other.count / count
        return _Bucket(count, self.mean + step * other.count / count, squares)


class AdwinState(msgspec.Struct, array_like=True, frozen=True):
    """All that a window remembers."""

    seen: int
    mean_before: float
    rows: list[list[tuple[int, float, float]]]


class Adwin:
    """
    A window that shrinks when its mean changes.

    Args:
        delta: the chance of a false change per cut that is tried.
        every: values between attempts to cut.

    >>> adwin = Adwin()
    >>> any(adwin.update(value) for value in [0.0, 0.1] * 200), any(adwin.update(value) for value in [1.0, 1.1] * 50)
    (False, True)
    >>> adwin.mean > 0.8
    True
    """

    def __init__(self, delta: float = 0.002, *, every: int = 1) -> None:
        self.delta = delta
        self.every = every
        self.mean_before = math.nan  # of what was forgotten at the last change
        self._rows: list[list[_Bucket]] = []  # by size, smallest first; in each, newest first
        self._seen = 0

    @property
    def width(self) -> int:
        """How many values the window holds."""
        return sum(bucket.count for row in self._rows for bucket in row)

    @property
    def mean(self) -> float:
        """The mean of the window; NaN while it is empty."""
        whole = self._whole()
        return whole.mean if whole else math.nan

    def update(self, value: float) -> bool:
        """Take a value in; whether the mean has changed, and the window has shrunk."""
        self._seen += 1
        self._insert(_Bucket(1, value, 0.0))
        if self._seen % self.every or self.width < SHORTEST_WINDOW:
            return False
        changed = False
        while self._cut():
            changed = True
        return changed

    def state(self) -> AdwinState:
        """All that it remembers."""
        rows = [[(bucket.count, bucket.mean, bucket.squares) for bucket in row] for row in self._rows]
        return AdwinState(self._seen, self.mean_before, rows)

    def restore(self, state: AdwinState) -> None:
        """Remember what another one did."""
        self._seen, self.mean_before = state.seen, state.mean_before
        self._rows = [[_Bucket(*bucket) for bucket in row] for row in state.rows]

    def _insert(self, bucket: _Bucket) -> None:
        level = 0
        while True:
            if level == len(self._rows):
                self._rows.append([])
            row = self._rows[level]
            row.insert(0, bucket)
            if len(row) <= MOST_BUCKETS:
                return
            oldest, second = row.pop(), row.pop()
            bucket = oldest.merged(second)
            level += 1

    def _cut(self) -> bool:
        """Forget the oldest bucket if some cut shows that the mean has changed."""
        whole = self._whole()
        if whole is None:
            return False
        buckets = [bucket for row in reversed(self._rows) for bucket in reversed(row)]  # oldest first
        total, count = whole.mean * whole.count, 0
        older_total = 0.0
        for place, bucket in enumerate(buckets[:-1]):
            count += bucket.count
            older_total += bucket.mean * bucket.count
            newer = whole.count - count
            if count < SHORTEST_PART or newer < SHORTEST_PART:
                continue
            difference = older_total / count - (total - older_total) / newer
            if abs(difference) > self._bound(whole, count, newer):
                self.mean_before = older_total / count
                self._forget(place + 1)
                return True
        return False

    def _bound(self, whole: _Bucket, older: int, newer: int) -> float:
        harmonic = 1.0 / older + 1.0 / newer
        chance = math.log(2.0 * math.log(whole.count) / self.delta)
        variance = whole.squares / whole.count
        return math.sqrt(2.0 * harmonic * variance * chance) + 2.0 / 3.0 * harmonic * chance

    def _forget(self, buckets: int) -> None:
        for row in reversed(self._rows):
            while row and buckets:
                row.pop()
                buckets -= 1
        while self._rows and not self._rows[-1]:
            self._rows.pop()

    def _whole(self) -> _Bucket | None:
        whole: _Bucket | None = None
        for row in self._rows:
            for bucket in row:
                whole = bucket if whole is None else whole.merged(bucket)
        return whole
