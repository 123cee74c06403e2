"""
The limit of an anomaly score, from training rows alone.

Scores are smoothed over ``span`` rows, so n of them are worth n / span independent ones. The limit is the upper prediction
bound of a log-normal distribution fitted to the held-out scores, with Student's t for the few that they are, and never below
``HEADROOM`` × the largest of them, which tells more than the fit where rows are many or tails are heavy.
"""

import math
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

FALSE_ALARM = 0.003  # the chance that a healthy score exceeds the bound
HEADROOM = 1.15
_FEWEST = 3.0  # degrees of freedom that the bound is ever computed with

Doubles = NDArray[np.float64]


def limit_of(scores: Doubles, span: float, *, false_alarm: float = FALSE_ALARM, headroom: float = HEADROOM) -> float:
    """
    The limit for scores of healthy rows that were held out from the fit.

    Args:
        scores: shape (n,), all > 0, in time order, after the moving average has filled.
        span: of the moving average, in rows.

    >>> scores = np.exp(np.random.default_rng(0).normal(0, 0.2, 3000))
    >>> 1.7 < limit_of(scores, span=30) < 2.4
    True
    """
    independent = max(len(scores) / span, 1.0)
    logs = np.log(scores)
    reach = student_t(1.0 - false_alarm, max(independent - 1.0, _FEWEST)) * math.sqrt(1.0 + 1.0 / independent)
    bound = math.exp(float(logs.mean()) + reach * float(logs.std()))
    return max(bound, headroom * float(scores.max()))


def limit_from_labels(normal: Doubles, abnormal: Doubles, limit: float) -> float:
    """
    The limit that tells labelled rows from normal ones best, by F1, among those that few normal rows exceed.

    Args:
        normal: scores of rows known or taken to be normal.
        abnormal: scores of rows labelled abnormal.
        limit: the one chosen without labels, kept where labels do not better it.
    """
    lowest = float(np.quantile(normal, 0.99))
    highest = max(limit, float(np.quantile(abnormal, 0.5)))
    if highest <= lowest:
        return limit
    candidates = np.append(np.geomspace(max(lowest, 1e-9), highest, 50), limit)
    quality = [_f1(normal, abnormal, candidate) for candidate in candidates]
    near = candidates[np.array(quality) >= max(quality) - 0.01]
    return float(near[np.argmin(np.abs(np.log(near / limit)))])


def student_t(probability: float, freedom: float) -> float:
    """
    Quantile of Student's t by Fisher and Cornish's expansion; within 5 % from 3 degrees of freedom up to p = 0.997.

    Source: Abramowitz and Stegun, 26.7.5.

    >>> round(student_t(0.975, 10), 2)
    2.23
    """
    z = NormalDist().inv_cdf(probability)
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )


def moving_average(values: Doubles, span: float, heard: NDArray[np.bool_] | None = None) -> Doubles:
    """
    Causal exponential moving average from zero, down the rows.

    Args:
        values: shape (rows, columns).
        span: the newest row weighs 2 / (span + 1).
        heard: where False the average stays as it was; shape of ``values``.
    """
    weight = 2.0 / (span + 1.0)
    found = np.empty_like(values)
    average: Any = np.zeros(values.shape[1])
    for place, row in enumerate(values):
        change = weight * (row - average)
        average = average + (change if heard is None else np.where(heard[place], change, 0.0))
        found[place] = average
    return found


def _f1(normal: Doubles, abnormal: Doubles, limit: float) -> float:
    hits, false = float((abnormal > limit).sum()), float((normal > limit).sum())
    return 2 * hits / (len(abnormal) + hits + false)
