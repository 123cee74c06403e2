"""The probability of failure: from histories, from labels, calibrated, and wary of columns that give it away."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from wheeltapper.errors import DataError, SettingsError
from wheeltapper_models import failure
from wheeltapper_models.calibration import brier_score, calibration_error, fit_platt, sigmoid
from wheeltapper_models.data import Table, read_table, table_of
from wheeltapper_models.failure_features import (
    Layout,
    add_history_features,
    add_row_features,
    history_features,
    row_features,
)
from wheeltapper_models.kinds import Options, Trained
from wheeltapper_models.ranking import area_under_curve
from wheeltapper_models.score import score_table
from wheeltapper_models.session import Session

HISTORY = Options(name="jet", unit_column="unit", horizon=10.0, settings={"short": "3", "long": "8"})


def fleet(units: int, seed: int = 0) -> Table:
    """Units whose temperature climbs ever faster towards their end; units' rows are interleaved in time."""
    rng = np.random.default_rng(seed)
    rows = []
    for unit in range(units):
        life = int(rng.integers(40, 80))
        for cycle in range(life):
            wear = np.exp((cycle - life) / 8.0)
            rows.append((cycle, unit, 50 + 10 * wear + rng.normal(), 5 - 2 * wear + rng.normal(0, 0.5), 7.0))
    rows.sort()
    columns = {name: [row[place] for row in rows] for place, name in enumerate(("cycle", "unit", "T", "P", "K"))}
    return table_of(columns, time_column="cycle")


def labelled(rows: int = 1_200, seed: int = 0) -> Table:
    """Rows that fail where torque × speed, a power, is high; one column is written after the failure."""
    rng = np.random.default_rng(seed)
    torque, speed = rng.uniform(10, 70, rows), rng.uniform(1_000, 3_000, rows)
    failed = (torque * speed + rng.normal(0, 5_000, rows) > 130_000).astype(int)
    repair = np.where(rng.random(rows) < 0.7, failed, 0)
    grade = rng.choice(["L", "M", "H"], rows)
    columns = {
        "number": range(1, rows + 1),
        "serial": [f"S{place}" for place in range(rows)],
        "grade": grade.tolist(),
        "torque": torque.tolist(),
        "speed": speed.tolist(),
        "repair": repair.tolist(),
        "failed": failed.tolist(),
    }
    return table_of({name: list(column) for name, column in columns.items()})


@pytest.fixture(scope="module")
def jet() -> Trained:
    return failure.fit([fleet(24)], HISTORY)


@pytest.fixture(scope="module")
def machine() -> Trained:
    return failure.fit([labelled().without(["repair"])], Options(name="mill", target="failed"))


def events_of(table: Table, horizon: float) -> NDArray[np.bool_]:
    cycle, unit = table.time_ms, table.column("unit")
    assert cycle is not None
    return np.array([cycle[unit == one].max() - at <= horizon * 1000 for at, one in zip(cycle, unit, strict=True)])


def test_units_not_seen_in_training_are_told_apart(jet: Trained) -> None:
    table = fleet(15, seed=9)

    found = score_table(Session(jet.card, jet.model), table, unit_column="unit").score

    area = area_under_curve(events_of(table, 10.0), found)
    assert area is not None and area > 0.97
    assert jet.card.scores["auc"] > 0.97
    assert any(note.startswith("K: never varies") for note in jet.card.notes)


def test_probabilities_of_unseen_units_are_calibrated(jet: Trained) -> None:
    table = fleet(60, seed=5)

    found = score_table(Session(jet.card, jet.model), table, unit_column="unit").score.astype(np.float64)

    assert calibration_error(found, events_of(table, 10.0)) < 0.04
    assert brier_score(found, events_of(table, 10.0)) < 0.08


def test_scoring_knows_the_unit_column_that_training_named(jet: Trained) -> None:
    table, session = fleet(5, seed=2), Session(jet.card, jet.model)

    assert score_table(session, table).score.tolist() == score_table(session, table, unit_column="unit").score.tolist()


def test_labelled_rows_are_told_apart_by_products_of_columns(machine: Trained) -> None:
    table = labelled(seed=4)

    found = score_table(Session(machine.card, machine.model), table).score

    area = area_under_curve(table.column("failed") == 1, found)
    assert area is not None and area > 0.98
    assert machine.card.scores["average_precision"] > 0.8
    assert machine.card.sensors == ["torque", "speed", "grade"]


def test_counters_and_names_are_left_out_and_columns_that_decide_are_warned_of(machine: Trained) -> None:
    notes = failure.fit([labelled(400)], Options(target="failed")).card.notes

    assert any(note.startswith("number: counts the rows") for note in notes)
    assert any(note.startswith("serial: text with 400 different values") for note in notes)
    assert any(note.startswith("WARNING repair") and "--ignore 'repair'" in note for note in notes)
    assert not any(note.startswith("WARNING") for note in machine.card.notes)


def test_the_graph_computes_the_history_that_training_saw() -> None:
    rng = np.random.default_rng(0)
    layout = Layout(3, {3: [0.0, 1.0]}, [2.0, 500.0, 0.0], [1.0, 0.05, 3.0], short=3, long=6)
    rows = np.concatenate(
        [rng.normal([2.0, 500.0, 0.0], [1.0, 0.05, 3.0], (20, 3)), rng.integers(0, 2, (20, 1))], axis=1
    )
    rows[4:7, 1] = np.nan
    rows[0, 2] = np.nan
    singles = rows.astype(np.float32)

    wanted = history_features(layout, singles)

    assert _features_of(layout, singles, wanted.shape[1]) == pytest.approx(wanted, abs=1e-4)


def test_the_graph_computes_the_row_that_training_saw() -> None:
    layout = Layout(3, {3: [0.0, 1.0, 2.0]}, [2.0, 1.0, 0.0], [1.0, 1.0, 1.0], paired=[0, 1, 2])
    rows = np.array([[3.0, -2.0, 0.5, 1.0], [0.0, 0.0, 0.0, np.nan], [1.0, 0.0, np.nan, 2.0]], dtype=np.float32)

    wanted = row_features(layout, rows)

    assert _features_of(layout, rows, wanted.shape[1]).tolist() == wanted.tolist()


def test_platt_keeps_the_order_and_mends_overconfidence() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=5_000)
    event = rng.random(5_000) < sigmoid(truth)

    platt = fit_platt(4.0 * truth, event)

    assert platt.slope == pytest.approx(0.25, rel=0.1)
    assert (
        calibration_error(platt.probability(4.0 * truth), event) < 0.02 < calibration_error(sigmoid(4 * truth), event)
    )


@pytest.mark.parametrize(
    ("table", "options", "error", "what"),
    [
        (fleet(8), Options(), SettingsError, "say what a failure is"),
        (fleet(8), Options(unit_column="unit"), SettingsError, "needs --horizon"),
        (fleet(3), HISTORY, DataError, "3 units are too few"),
        (labelled(), Options(target="torque"), DataError, "must hold two different values"),
        (labelled(40), Options(target="failed"), DataError, "rows are failures"),
        (labelled(), Options(target="failed", settings={"shortt": "1"}), SettingsError, "shortt"),
    ],
    ids=["no failure", "no horizon", "few units", "not two values", "few failures", "unknown setting"],
)
def test_what_cannot_be_learnt_is_refused_with_the_reason(
    table: Table, options: Options, error: type[Exception], what: str
) -> None:
    with pytest.raises(error, match=what):
        failure.fit([table], options)


def _features_of(layout: Layout, rows: NDArray[np.float32], columns: int) -> NDArray[np.float32]:
    from wheeltapper_models.card import Card, ModelInput, Training
    from wheeltapper_models.export import Graph, seal

    width = rows.shape[1]
    graph = Graph(width, layout.state_size)
    if layout.long:
        names, states = add_history_features(graph, layout, "rows", "states")
        graph.output("next_states", states, layout.state_size)
    else:
        names = add_row_features(graph, layout, "rows")
    graph.output("features", names, columns)
    graph.output("probability", graph.add("ReduceMax", "rows", axes=[1], keepdims=0))
    inputs = [ModelInput(f"S{place}") for place in range(width)]
    size = layout.state_size
    card = Card(name="f", version="1", kind="failure", inputs=inputs, training=Training(1, ""), state_size=size)
    sealed = seal(graph.build("f"), card, np.zeros((1, width)))
    session = Session(sealed.card, sealed.model)
    states_, found = session.start(), []
    for row in rows:
        values, states_ = session.outputs(row[None], states_)
        found.append(values["features"][0])
    return np.array(found)


def test_the_columns_behind_a_failure_are_named(machine: Trained) -> None:
    table = labelled(seed=4)

    found = score_table(Session(machine.card, machine.model), table)

    assert np.allclose(found.contributions.sum(axis=1), 1.0, atol=1e-5)
    shares = found.contributions[found.anomaly == 1].mean(axis=0)
    assert shares[:2].sum() > 0.95 and shares[:2].min() > 0.2  # torque and speed, not the grade


def test_the_sensors_of_a_unit_that_nears_its_end_are_named() -> None:
    table = fleet(24)
    noisy = table_of(
        {
            "cycle": [time // 1000 for time in ([] if table.time_ms is None else table.time_ms.tolist())],
            **{name: table.column(name).tolist() for name in ("unit", "T")},
            "noise": np.random.default_rng(1).normal(size=len(table)).tolist(),
        },
        time_column="cycle",
    )
    trained = failure.fit([noisy], HISTORY)

    found = score_table(Session(trained.card, trained.model), noisy)

    shares = dict(zip(trained.card.sensors, found.contributions[found.score > 0.8].mean(axis=0).tolist(), strict=True))
    assert shares["T"] > 0.9


def test_the_causes_of_milling_failures_are_named(shared: Path) -> None:
    table = read_table(shared / "data" / "ai4i" / "ai4i2020-first-7000.csv")
    causes = {
        "TWF": {"Tool wear"},
        "HDF": {"Air temperature", "Process temperature", "Rotational speed"},
        "PWF": {"Torque", "Rotational speed"},
        "OSF": {"Tool wear", "Torque"},
    }
    sensors = table.without(["UDI", "Product ID", "RNF", *causes])
    trained = failure.fit([sensors.rows(0, 4_000)], Options(target="Machine failure"))

    found = score_table(Session(trained.card, trained.model), sensors).since(4_000)

    right = []
    for mode, names in causes.items():
        alarmed = (table.column(mode)[found.rows] > 0) & (found.anomaly == 1)
        right += [trained.card.sensors[place] in names for place in found.contributions[alarmed].argmax(axis=1)]
    assert len(right) > 50
    assert np.mean(right) > 0.9
