"""
Notices when a model's world has changed: its scores, the cutoff they would give, the values of each sensor.

Three detectors, fed row by row: ADWIN on the scores, thinned so that neighbours tell little of each other; and at the end of
each period (a day) the chart of the cutoff, mean + k σ of the period's scores, against the usual ± 3 σ, and a Kolmogorov and
Smirnov test per sensor. What is usual is learnt from the first periods. Memory is bounded whatever
the rate. Pure: no clock, no I/O.
"""

import math
from collections import deque
from collections.abc import Sequence

import msgspec
import numpy as np

from wheeltapper.errors import ModelError
from wheeltapper.messages import Drift, ModelName
from wheeltapper_models.drift_adwin import Adwin, AdwinState
from wheeltapper_models.drift_period import Floats, Moments, Period, PeriodState

ADWIN, CHART, KS = "adwin", "cutoff-chart", "ks"
DAY_MS = 86_400_000
SAMPLE = 512  # values of a sensor that stand for its usual distribution
FEWEST = 12  # rows that a period must have to be judged
_SMALLEST_KS = 0.25


class DriftSettings(msgspec.Struct, frozen=True):
    """
    Args:
        period_ms: the length of a period.
        learn_periods: how many full periods say what is usual, at least 3.
        k: of the cutoff, mean + k σ of a period's scores.
        band: standard deviations of the usual cutoffs, or distances, on either side.
        thin: rows whose mean score is one value for ADWIN.
        delta: ADWIN's chance of a false change.
    """

    period_ms: int = DAY_MS
    learn_periods: int = 7
    k: float = 2.5
    band: float = 3.0
    thin: int = 15
    delta: float = 0.002


class Usual(msgspec.Struct, frozen=True):
    """
    What periods without drift look like.

    Args:
        score_mean, score_sigma: of the thinned scores.
        cutoff_mean, cutoff_sigma: of the periods' cutoffs.
        samples: sensor → up to 512 sorted values.
        distances: sensor → mean and standard deviation of a usual period's distance from the others.
    """

    score_mean: float
    score_sigma: float
    cutoff_mean: float
    cutoff_sigma: float
    samples: dict[str, list[float]]
    distances: dict[str, tuple[float, float]]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One detector's alarm; ``sensor`` is empty where scores have drifted."""

    time_ms: int
    method: str
    detail: str
    sensor: str = ""

    def to_message(self, message_id: str, thing: str, model: ModelName) -> Drift:
        """The event for the bus."""
        return Drift(
            message_id=message_id,
            thing=thing,
            time_ms=self.time_ms,
            method=self.method,
            detail=self.detail,
            model=model,
        )


class PeriodReport(msgspec.Struct, frozen=True):
    """One finished period, for tables and charts."""

    start_ms: int
    rows: int
    score_mean: float
    cutoff: float
    distances: dict[str, float]


class _State(msgspec.Struct, array_like=True, frozen=True):
    sensors: list[str]
    settings: DriftSettings
    usual: Usual | None
    period: PeriodState | None
    learning: list[PeriodState]
    adwin: AdwinState
    block: list[float]


class DriftMonitor:
    """
    Feed it every judged row of one machine, in time order.

    >>> rng = np.random.default_rng(0)
    >>> monitor = DriftMonitor(["TT01"], DriftSettings(thin=1))
    >>> found = []
    >>> for hour in range(24 * 20):
    ...     shift = 5.0 if hour >= 24 * 14 else 0.0
    ...     found += monitor.update(hour * 3_600_000, rng.normal() + shift, [rng.normal(20.0) + shift])
    >>> sorted({finding.method for finding in found}), min(finding.time_ms for finding in found) >= 14 * DAY_MS
    (['adwin', 'cutoff-chart', 'ks'], True)

    Args:
        sensors: names of the values in a row.
        settings: else the defaults.
        usual: what was learnt before; else it is learnt from the first periods.
        reports: how many reports of periods are kept; else all.
    """

    def __init__(
        self,
        sensors: Sequence[str],
        settings: DriftSettings | None = None,
        usual: Usual | None = None,
        *,
        reports: int | None = None,
    ) -> None:
        self.sensors = list(sensors)
        self.settings = settings or DriftSettings()
        self.usual = usual
        self.reports: deque[PeriodReport] = deque(maxlen=reports)
        self._period: Period | None = None
        self._learning: list[Period] = []
        self._adwin = Adwin(self.settings.delta)
        self._block: list[float] = []

    def to_bytes(self) -> bytes:
        """
        All that it knows, to go on from with ``from_bytes``; what ``reports`` told is not in it.

        At the most 8 kB per sensor and period that is being learnt; from then on some 12 kB per sensor.
        """
        period = None if self._period is None else self._period.state()
        learning = [learnt.state() for learnt in self._learning]
        return msgspec.msgpack.encode(
            _State(self.sensors, self.settings, self.usual, period, learning, self._adwin.state(), self._block)
        )

    @classmethod
    def from_bytes(
        cls, payload: bytes, sensors: Sequence[str], settings: DriftSettings, *, reports: int | None = None
    ) -> "DriftMonitor":
        """
        Go on where another monitor of the same sensors and settings stopped.

        Raises:
            ModelError: these are no such monitor's bytes.
        """
        try:
            state = msgspec.msgpack.decode(payload, type=_State)
            if (state.sensors, state.settings) != (list(sensors), settings):
                raise ValueError("it watched other sensors, or by other settings")
            monitor = cls(sensors, settings, state.usual, reports=reports)
            width = len(monitor.sensors)
            monitor._period = None if state.period is None else Period.restored(state.period, width)
            monitor._learning = [Period.restored(period, width) for period in state.learning]
            monitor._adwin.restore(state.adwin)
            monitor._block = list(state.block)
        except (ValueError, msgspec.DecodeError) as error:
            raise ModelError(f"drift: not the state of such a monitor: {error}") from error
        return monitor

    def update(self, time_ms: int, score: float, values: Sequence[float]) -> list[Finding]:
        """
        Take a row in.

        Args:
            time_ms: when it was measured; a row of the period before counts towards the present one, an older one says
                that the clock was set back and begins a period anew.
            score: the model's; NaN where it could not judge.
            values: one per sensor; NaN where missing.

        Returns:
            What has drifted; mostly nothing.
        """
        found: list[Finding] = []
        start = time_ms - time_ms % self.settings.period_ms
        period = self._period
        if period is None or start > period.start_ms or start < period.start_ms - self.settings.period_ms:
            if period is not None and start > period.start_ms:
                found += self._finish(period)
            period = self._period = Period(start, len(self.sensors))
        period.add(values)
        if math.isfinite(score):
            period.scores.add(score)
            found += self._follow(time_ms, score, period)
        return found

    def _follow(self, time_ms: int, score: float, period: Period) -> list[Finding]:
        self._block.append(score)
        if len(self._block) < self.settings.thin:
            return []
        value = sum(self._block) / len(self._block)
        self._block.clear()
        period.blocks.add(value)
        if self.usual is None or not self._adwin.update(_bounded(value, self.usual)):
            return []
        before, after = (_unbounded(mean, self.usual) for mean in (self._adwin.mean_before, self._adwin.mean))
        detail = f"the mean score has gone from {before:.4g} to {after:.4g}"
        return [Finding(time_ms=time_ms, method=ADWIN, detail=detail)]

    def _finish(self, period: Period) -> list[Finding]:
        if period.scores.count < FEWEST:
            return []
        if self.usual is None:
            self._learning.append(period)
            if len(self._learning) >= max(self.settings.learn_periods, 3):
                self.usual = learn_usual(self.sensors, self._learning, self.settings)
                for learnt in self._learning:
                    self._report(learnt, self.usual)
                self._learning = []
            return []
        report = self._report(period, self.usual)
        return self._chart(report) + self._test(report, self.usual)

    def _report(self, period: Period, usual: Usual) -> PeriodReport:
        distances = _distances(self.sensors, period, usual.samples)
        mean, cutoff = period.scores.mean, period.cutoff(self.settings.k)
        report = PeriodReport(period.start_ms, period.rows, mean, cutoff, distances)
        self.reports.append(report)
        return report

    def band(self) -> tuple[float, float]:
        """Between which cutoffs a period is usual; everything is, until that is known."""
        if self.usual is None:
            return -math.inf, math.inf
        reach = self.settings.band * max(self.usual.cutoff_sigma, 0.01 * abs(self.usual.cutoff_mean))
        return self.usual.cutoff_mean - reach, self.usual.cutoff_mean + reach

    def _chart(self, report: PeriodReport) -> list[Finding]:
        low, high = self.band()
        if low <= report.cutoff <= high:
            return []
        detail = f"the period's cutoff {report.cutoff:.4g} is outside {low:.4g} to {high:.4g}"
        return [Finding(time_ms=report.start_ms + self.settings.period_ms, method=CHART, detail=detail)]

    def _test(self, report: PeriodReport, usual: Usual) -> list[Finding]:
        found = []
        for sensor, distance in report.distances.items():
            mean, sigma = usual.distances.get(sensor, (0.0, 0.0))
            limit = min(max(mean + self.settings.band * sigma, _SMALLEST_KS), 0.999)
            if distance > limit:
                detail = f"{sensor}: Kolmogorov–Smirnov distance {distance:.2f}, usually {mean:.2f}, limit {limit:.2f}"
                end = report.start_ms + self.settings.period_ms
                found.append(Finding(time_ms=end, method=KS, detail=detail, sensor=sensor))
        return found


def learn_usual(sensors: Sequence[str], periods: Sequence[Period], settings: DriftSettings) -> Usual:
    """What these periods, taken to be without drift, have in common."""
    thinned = [period.blocks for period in periods]
    if sum(moments.count for moments in thinned) < 2:
        thinned = [period.scores for period in periods]
    score_mean, score_sigma = _pooled(thinned)
    cutoffs = [period.cutoff(settings.k) for period in periods]
    tables = [period.table() for period in periods]
    samples, distances = {}, {}
    for place, sensor in enumerate(sensors):
        columns = [table[:, place][~np.isnan(table[:, place])] for table in tables]
        samples[sensor] = _sample(np.concatenate(columns))
        apart = [
            ks_distance(np.sort(column), np.array(_sample(np.concatenate(columns[:turn] + columns[turn + 1 :]))))
            for turn, column in enumerate(columns)
            if len(column)
        ]
        distances[sensor] = (float(np.mean(apart)), float(np.std(apart))) if apart else (0.0, 0.0)
    return Usual(
        score_mean,
        score_sigma or 1.0,
        float(np.mean(cutoffs)),
        float(np.std(cutoffs, ddof=1)),
        samples,
        distances,
    )


def _pooled(parts: Sequence[Moments]) -> tuple[float, float]:
    """Mean and standard deviation of all numbers together."""
    count = sum(part.count for part in parts)
    mean = sum(part.count * part.mean for part in parts) / count
    squares = sum(part.squares + part.count * (part.mean - mean) ** 2 for part in parts)
    return mean, math.sqrt(squares / count)


def ks_distance(first: Floats, second: Floats) -> float:
    """
    The largest difference of two samples' distribution functions; both sorted. 0 where one is empty.

    >>> ks_distance(np.array([1.0, 2.0]), np.array([2.5, 3.0]))
    1.0
    """
    if not len(first) or not len(second):
        return 0.0
    everything = np.concatenate([first, second])
    below = first.searchsorted(everything, side="right") / len(first)
    return float(np.abs(below - second.searchsorted(everything, side="right") / len(second)).max())


def _sample(values: Floats) -> list[float]:
    """The values in order, or as many quantiles of them as are kept."""
    if len(values) <= SAMPLE:
        return [float(value) for value in np.sort(values)]
    quantiles: list[float] = np.quantile(values, (np.arange(SAMPLE) + 0.5) / SAMPLE).tolist()
    return quantiles


def _distances(sensors: Sequence[str], period: Period, samples: dict[str, list[float]]) -> dict[str, float]:
    table = period.table()
    found = {}
    for place, sensor in enumerate(sensors):
        column = table[:, place][~np.isnan(table[:, place])]
        if len(column) >= FEWEST and samples.get(sensor):
            found[sensor] = ks_distance(np.sort(column), np.array(samples[sensor]))
    return found


def _bounded(score: float, usual: Usual) -> float:
    """The score as ADWIN wants it, in [0, 1]: three standard deviations either side of the usual mean."""
    return min(max((score - usual.score_mean) / (6.0 * usual.score_sigma) + 0.5, 0.0), 1.0)


def _unbounded(value: float, usual: Usual) -> float:
    return (value - 0.5) * 6.0 * usual.score_sigma + usual.score_mean
