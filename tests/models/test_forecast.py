"""Forecasts: what is learnt, what is admitted, and that the future is not looked at."""

import numpy as np
import pytest
from numpy.typing import NDArray

from wheeltapper.errors import DataError, SettingsError
from wheeltapper_models import forecast
from wheeltapper_models.data import Table, table_of
from wheeltapper_models.forecast_blend import fit_ridge
from wheeltapper_models.forecast_features import Layout, add_features, features
from wheeltapper_models.kinds import Options, Trained
from wheeltapper_models.score import score_table
from wheeltapper_models.session import Session

Array = NDArray[np.float64]
START = np.datetime64("2026-01-01T00:00:00")


def hourly(target: Array, **columns: list[object]) -> Table:
    times = [str(START + np.timedelta64(place, "h")) for place in range(len(target))]
    return table_of({"time": times, "load": target.tolist(), **columns}, time_column="time")


def driven(rows: int = 700, seed: int = 0) -> Table:
    """A load that follows a weather column one row later, and the hour."""
    rng = np.random.default_rng(seed)
    weather = np.cumsum(rng.normal(size=rows)) * 0.5
    hours = np.sin(2 * np.pi * np.arange(rows) / 24)
    load = 50 + 8 * hours + 4 * np.roll(weather, 1) + rng.normal(0, 0.3, rows)
    wind = [["N", "S", "calm"][place % 3] for place in range(rows)]
    return hourly(load, weather=weather.tolist(), wind=wind)


@pytest.fixture(scope="module")
def taught() -> Trained:
    return forecast.fit([driven().rows(0, 550)], Options(target="load", name="load"))


def test_a_forecast_beats_persistence_on_rows_it_has_not_seen(taught: Trained) -> None:
    table = driven()
    load = table.column("load")

    found = score_table(Session(taught.card, taught.model), table).score[550:]

    error = np.sqrt(np.mean((found - load[550:]) ** 2))
    persistence = np.sqrt(np.mean(np.diff(load[549:]) ** 2))
    assert error < 0.7 * persistence
    assert taught.card.scores["beats_persistence"] == 1.0
    assert any(note.startswith("beats persistence") for note in taught.card.notes)


def test_a_random_walk_is_not_beaten_and_the_card_says_so() -> None:
    walk = np.cumsum(np.random.default_rng(3).normal(size=900))

    trained = forecast.fit([hourly(walk)], Options(target="load"))
    found = score_table(Session(trained.card, trained.model), hourly(walk)).score

    if trained.card.scores["beats_persistence"]:
        assert trained.card.scores["rmse"] > 0.97 * trained.card.scores["persistence_rmse"]
    else:
        assert any("does NOT beat persistence" in note for note in trained.card.notes)
        assert found[24:] == pytest.approx(walk[23:-1].astype(np.float32), rel=1e-6)


def test_a_prediction_is_absent_until_the_window_is_full(taught: Trained) -> None:
    found = score_table(Session(taught.card, taught.model), driven()).score

    assert np.isnan(found[:24]).all() and not np.isnan(found[24:]).any()


def test_a_prediction_knows_nothing_of_its_own_row_or_later_ones(taught: Trained) -> None:
    session, table = Session(taught.card, taught.model), driven(200)
    changed = table.values.copy()
    changed[100:] += 1_000.0
    other = Table(table.source, table.names, changed, table.text, table.time_ms, table.time_text, table.time_column)

    before, after = score_table(session, table).score, score_table(session, other).score

    assert before[24:101].tolist() == after[24:101].tolist()
    assert before[101] != after[101]


def test_missing_values_and_unknown_categories_take_the_last_ones(taught: Trained) -> None:
    table = driven(100)
    values = table.values.copy()
    values[60:63] = [[np.nan], [np.inf], [-np.inf]]
    wind = [*table.text["wind"][:70], *["gale"] * 20, *[""] * 10]
    holed = Table(table.source, table.names, values, {"wind": wind}, table.time_ms, table.time_text, "time")

    found = score_table(Session(taught.card, taught.model), holed).score

    assert np.isfinite(found[24:]).all()


def test_zeros_that_are_missing_can_be_left_out() -> None:
    table = driven()
    load = table.column("load")
    holed = hourly(np.where(np.arange(len(load)) % 20, load, 0.0), weather=table.column("weather").tolist())
    options = Options(target="load", settings={"zero_is_missing": "true"})

    trained = forecast.fit([holed], options)
    found = score_table(Session(trained.card, trained.model), holed).score

    assert np.mean(np.abs(found[24:] - load[24:])) < 3.0
    assert "exactly 0" in " ".join(forecast.fit([holed], Options(target="load")).card.notes)


def test_the_graph_computes_the_features_that_training_saw() -> None:
    from wheeltapper_models.card import CLOCK_INPUTS, Card, ModelInput, Training
    from wheeltapper_models.export import Graph, seal

    rng = np.random.default_rng(0)
    layout = Layout(2, 0, {1: [0.0, 1.0, 2.0]}, 6, CLOCK_INPUTS, 5_400_000)
    rows = np.stack([rng.normal(size=300), rng.integers(0, 3, 300)], axis=1).astype(np.float32)
    place = np.arange(300)
    clock = np.stack([place * 1.5 % 24, place * 1.5 // 24 % 7, (355 + place * 1.5 // 24) % 366 + 1], axis=1)
    wanted = features(layout, rows, clock)
    graph = Graph(15, 0)
    window = graph.add("Slice", "rows", *(graph.constant([bound], np.int64) for bound in (0, 12, 1)))
    window = graph.add("Reshape", window, graph.constant([-1, 6, 2], np.int64))
    columns = [
        graph.add("Slice", "rows", *(graph.constant([bound], np.int64) for bound in (12 + turn, 13 + turn, 1)))
        for turn in range(3)
    ]
    graph.output(
        "features", add_features(graph, layout, window, dict(zip(CLOCK_INPUTS, columns, strict=True))), wanted.shape[1]
    )
    graph.output("probability", graph.add("ReduceMax", "rows", axes=[1], keepdims=0))
    inputs = [ModelInput(f"S{turn}") for turn in range(15)]
    card = Card(name="f", version="1", kind="failure", inputs=inputs, training=Training(1, ""))
    windows = np.stack([rows[start : start + 6].ravel() for start in range(295)])
    feed = np.concatenate([windows, clock[5:]], axis=1).astype(np.float32)
    sealed = seal(graph.build("f"), card, feed[:2])

    found, _ = Session(sealed.card, sealed.model).outputs(feed, np.zeros((295, 0), dtype=np.float32))

    assert found["features"] == pytest.approx(wanted, abs=1e-4)


def test_ridge_finds_a_line() -> None:
    features_ = np.random.default_rng(0).normal(5.0, 2.0, (400, 3)).astype(np.float32)

    ridge = fit_ridge(features_, features_ @ np.array([1.0, -2.0, 0.5]) + 4.0, alpha=1e-6)

    assert ridge.slope == pytest.approx([1.0, -2.0, 0.5], abs=1e-4)
    assert ridge.offset == pytest.approx(4.0, abs=1e-3)


@pytest.mark.parametrize(
    ("table", "target", "error", "what"),
    [
        (driven(), "", SettingsError, "--target"),
        (driven(), "power", DataError, "'power' is not among"),
        (driven(), "wind", DataError, "is text"),
        (driven(60), "load", DataError, "36 rows have 24 rows before them"),
        (hourly(np.ones(300), other=list(range(300))), "load", DataError, "never varies"),
    ],
    ids=["no target", "unknown", "text", "short", "constant"],
)
def test_what_cannot_be_forecast_is_refused_with_the_reason(
    table: Table, target: str, error: type[Exception], what: str
) -> None:
    with pytest.raises(error, match=what):
        forecast.fit([table], Options(target=target))
