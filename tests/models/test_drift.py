"""Drift: seen when it comes, not before, and by the right detector."""

import numpy as np
import pytest

from wheeltapper.errors import ModelError
from wheeltapper.messages import ModelName
from wheeltapper_models.drift import ADWIN, CHART, DAY_MS, KS, DriftMonitor, DriftSettings, Finding
from wheeltapper_models.drift_adwin import Adwin

HOUR_MS = 3_600_000
MODEL = ModelName("pump", "1")


def watched(score_shift: float = 0.0, value_shift: float = 0.0, days: int = 30, seed: int = 0) -> list[Finding]:
    """Two sensors with a daily rhythm at ten-minute steps; from day 20 on, scores or the second sensor shift."""
    rng = np.random.default_rng(seed)
    monitor = DriftMonitor(["TT01", "PT01"], DriftSettings(thin=6))
    found: list[Finding] = []
    for place in range(days * 144):
        late = place >= 20 * 144
        daily = np.sin(2 * np.pi * place / 144)
        values = [50 + 3 * daily + rng.normal(), 5 + rng.normal(0, 0.2) + value_shift * late]
        found += monitor.update(place * 600_000, abs(rng.normal(1.0, 0.2)) + score_shift * late, values)
    return found


@pytest.mark.parametrize("seed", range(3))
def test_a_steady_machine_raises_little(seed: int) -> None:
    assert len(watched(seed=seed)) <= 2


def test_scores_that_rise_are_seen_by_adwin_within_hours_and_by_the_chart_within_days() -> None:
    found = watched(score_shift=0.3)

    first = {method: min(item.time_ms for item in found if item.method == method) for method in (ADWIN, CHART)}
    assert 20 * DAY_MS < first[ADWIN] <= 20 * DAY_MS + 24 * HOUR_MS
    assert 20 * DAY_MS < first[CHART] <= 23 * DAY_MS
    assert not any(item.method == KS for item in found)


def test_a_sensor_that_moves_is_named() -> None:
    found = watched(value_shift=1.0)

    assert {item.sensor for item in found if item.method == KS} == {"PT01"}
    assert min(item.time_ms for item in found if item.method == KS) == 21 * DAY_MS


def test_a_finding_is_a_message_for_the_bus() -> None:
    message = watched(value_shift=1.0)[0].to_message("m1", "pump-1", MODEL)

    assert (message.thing, message.method, message.model) == ("pump-1", KS, MODEL)
    assert "PT01" in message.detail


def test_what_is_usual_can_be_handed_on() -> None:
    rng = np.random.default_rng(0)
    settings = DriftSettings(thin=6, learn_periods=3)
    first = DriftMonitor(["TT01"], settings)
    for place in range(5 * 144):
        first.update(place * 600_000, rng.normal(1.0, 0.2), [rng.normal()])
    assert first.usual is not None

    second = DriftMonitor(["TT01"], settings, first.usual)
    found = [finding for place in range(2 * 144) for finding in second.update(place * 600_000, 1.0, [9.0])]

    assert any(finding.method == KS for finding in found)


def test_missing_scores_and_values_pass() -> None:
    monitor = DriftMonitor(["TT01"], DriftSettings(learn_periods=3, thin=1))
    rng = np.random.default_rng(0)

    for place in range(6 * 144):
        gap = place % 3 == 0
        score = float("nan") if gap else rng.normal(1.0, 0.1)
        assert monitor.update(place * 600_000, score, [float("nan") if gap else rng.normal()]) == []


def test_adwin_finds_a_change_and_forgets_what_was_before() -> None:
    rng = np.random.default_rng(1)
    adwin = Adwin()

    changes = [place for place in range(2_000) if adwin.update(rng.normal(0.3 if place < 1_000 else 0.6, 0.1))]

    assert changes and 1_000 < changes[0] < 1_060
    assert adwin.mean == pytest.approx(0.6, abs=0.03)
    assert adwin.width <= 1_000


def test_adwin_needs_memory_that_grows_as_the_logarithm() -> None:
    adwin = Adwin()
    for value in np.random.default_rng(0).normal(0.5, 0.1, 5_000):
        adwin.update(value)

    assert adwin.width > 4_000
    assert sum(map(len, adwin._rows)) < 60


# Where river 0.26.1's ADWIN(delta=0.002, clock=1, grace_period=10, min_window_length=5) reported a change, recorded.
STREAMS = {
    "up, then down and wider": (2, [(0.5, 0.1, 1_000), (0.6, 0.1, 800), (0.4, 0.15, 700)], [1146, 1850]),
    "nothing": (3, [(0.5, 0.1, 4_000)], []),
    "steps of a tenth": (
        4,
        [(0.3, 0.05, 600), (0.4, 0.05, 600), (0.5, 0.05, 600), (0.6, 0.05, 600)],
        [707, 1302, 1912],
    ),
    "wider, then up": (6, [(0.5, 0.05, 1_000), (0.5, 0.2, 1_000), (0.6, 0.2, 1_500)], [2128]),
}


@pytest.mark.parametrize(("seed", "parts", "rivers"), STREAMS.values(), ids=STREAMS)
def test_adwin_reacts_when_rivers_does(seed: int, parts: list[tuple[float, float, int]], rivers: list[int]) -> None:
    rng = np.random.default_rng(seed)
    stream = np.concatenate([rng.normal(*part) for part in parts])
    adwin = Adwin(0.002)

    found = [place for place, value in enumerate(stream.tolist()) if adwin.update(value)]

    assert len(found) == len(rivers)
    assert all(abs(ours - theirs) <= 20 for ours, theirs in zip(found, rivers, strict=True))


@pytest.mark.parametrize("stop", [1, 500, 144 * 12, 144 * 21 + 7])
def test_a_monitor_goes_on_to_the_bit_where_its_bytes_were_taken(stop: int) -> None:
    settings = DriftSettings(thin=6)
    rng = np.random.default_rng(3)
    rows = [
        (place * 600_000, rng.normal(1.0, 0.2) + (place > 144 * 20), [50 + rng.normal() + (place > 144 * 22), np.nan])
        for place in range(24 * 144)
    ]
    straight, stopped = DriftMonitor(["TT01", "PT01"], settings), DriftMonitor(["TT01", "PT01"], settings)
    expected = [finding for row in rows for finding in straight.update(*row)]

    found = [finding for row in rows[:stop] for finding in stopped.update(*row)]
    again = DriftMonitor.from_bytes(stopped.to_bytes(), ["TT01", "PT01"], settings)
    found += [finding for row in rows[stop:] for finding in again.update(*row)]

    assert expected
    assert found == expected
    assert again.to_bytes() == straight.to_bytes()


@pytest.mark.parametrize("payload", [b"", b"\x90", b"nothing of the kind"])
def test_bytes_of_no_monitor_are_refused(payload: bytes) -> None:
    with pytest.raises(ModelError, match="drift"):
        DriftMonitor.from_bytes(payload, ["TT01"], DriftSettings())


def test_bytes_of_a_monitor_of_other_sensors_are_refused() -> None:
    with pytest.raises(ModelError, match="other sensors"):
        DriftMonitor.from_bytes(DriftMonitor(["PT01"]).to_bytes(), ["TT01"], DriftSettings())


def test_memory_is_bounded_however_many_rows_a_period_has() -> None:
    monitor = DriftMonitor(["TT01", "PT01"], DriftSettings(period_ms=DAY_MS))

    sizes = []
    for place in range(20_000):
        monitor.update(place, 1.0, [float(place), 0.0])
        if place in (5_000, 19_999):
            sizes.append(len(monitor.to_bytes()))

    assert max(sizes) < 2 * 8 * 1_024 + 500


def test_a_clock_that_was_set_back_begins_a_period_anew() -> None:
    monitor = DriftMonitor(["TT01"], DriftSettings(learn_periods=3, thin=1))
    rng = np.random.default_rng(0)
    monitor.update(400 * DAY_MS, 1.0, [1.0])

    found = []
    for place in range(8 * 144):
        found += monitor.update(place * 600_000, rng.normal(), [rng.normal() + 9 * (place >= 6 * 144)])

    assert found[0].time_ms >= 6 * DAY_MS
    assert KS in {finding.method for finding in found}
