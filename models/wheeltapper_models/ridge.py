"""Ridge regressions of every sensor on the others now and on the past of all, from running sums of rows."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from wheeltapper_models.lagged import Doubles, Mask, Rows


class _Moments(NamedTuple):
    """What a regression of one sensor needs: the features' means and centred products."""

    sensor: int
    centre: Doubles
    gram: Doubles


class Solver:
    """
    Ridge regressions of every sensor on the others now and on the past of all.

    Args:
        rows: what may be learnt from.
        counts: the sensors to predict, shape (S,); the others only help.
        strengths: of the ridge, to choose from.
        folds: blocks of normal rows that are held out in turn.
    """

    def __init__(self, rows: Rows, counts: Mask, strengths: Doubles, folds: int) -> None:
        self._rows = rows
        self._counts = counts
        self._strengths = strengths
        self._folds = folds
        self._sensors = rows.heard.shape[1]
        self._lags = rows.features.shape[1] // self._sensors - 1

    def solve(self, learn: Mask, strengths: Doubles) -> tuple[Doubles, Doubles]:
        """Weights, shape (features, S), and bias, shape (S,), from the rows in ``learn``."""
        return self._solve(list(self._moments(learn)), strengths)

    def held_out(self) -> tuple[Doubles, Doubles]:
        """
        Residuals of rows in blocks that the fit has not seen, shape (T, S), and the strength chosen for each sensor.

        Rows beside a block are left out of its fit as far as lags reach.
        """
        rows = self._rows
        residuals = np.full((len(self._strengths), *rows.heard.shape), np.nan)
        for block in np.array_split(np.flatnonzero(rows.normal), self._folds):
            learn = rows.normal.copy()
            learn[max(block[0] - self._lags, 0) : block[-1] + self._lags + 1] = False
            moments = list(self._moments(learn))
            for place, strength in enumerate(self._strengths):
                weights, bias = self._solve(moments, np.full(self._sensors, strength))
                features = rows.features[block]
                residuals[place, block] = features[:, : self._sensors] - (features @ weights + bias)
        residuals[:, ~rows.heard] = np.nan
        best = np.nansum(residuals**2, axis=1).argmin(axis=0)
        return residuals[best, :, np.arange(self._sensors)].T, self._strengths[best]

    def _solve(self, moments: Sequence[_Moments], strengths: Doubles) -> tuple[Doubles, Doubles]:
        """A ridge that draws a sensor's own last value towards 1, all else towards 0: unless shown, nothing changes."""
        features = self._rows.features.shape[1]
        weights, bias = np.zeros((features, self._sensors)), np.zeros(self._sensors)
        for sensor, centre, gram in moments:
            others = np.flatnonzero(np.arange(features) != sensor)
            prior = (others == self._sensors + sensor).astype(np.float64)
            within = gram[np.ix_(others, others)]
            ridge = within + strengths[sensor] * np.eye(len(others))
            weights[others, sensor] = prior + np.linalg.solve(ridge, gram[others, sensor] - within @ prior)
            bias[sensor] = centre[sensor] - centre @ weights[:, sensor]
        return weights, bias

    def _moments(self, learn: Mask) -> Iterator[_Moments]:
        """Means and centred products for each sensor that counts, over the rows where it was heard."""
        whole = _sums_of(self._rows.features[learn])
        for sensor in np.flatnonzero(self._counts).tolist():
            unheard = learn & ~self._rows.heard[:, sensor]
            yield _centred(sensor, whole.without(_sums_of(self._rows.features[unheard])) if unheard.any() else whole)


class _Sums(NamedTuple):
    """Number, sums and products of rows; those of some rows can be taken out again."""

    number: int
    total: Doubles
    products: Doubles

    def without(self, other: "_Sums") -> "_Sums":
        return _Sums(self.number - other.number, self.total - other.total, self.products - other.products)


def _sums_of(features: Doubles) -> _Sums:
    return _Sums(len(features), features.sum(axis=0), features.T @ features)


def _centred(sensor: int, sums: _Sums) -> _Moments:
    centre = sums.total / max(sums.number, 1)
    return _Moments(sensor, centre, sums.products - sums.number * np.outer(centre, centre))
