"""The anomaly model: what it learns, what it refuses, and that its file does what the reference does."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests.models.pumps import SENSORS, pump_model, pump_table, pump_values
from wheeltapper.errors import DataError, SettingsError
from wheeltapper_models import varx, varx_model
from wheeltapper_models.card import encode_card
from wheeltapper_models.conditions import parse_condition
from wheeltapper_models.data import Table
from wheeltapper_models.kinds import Options
from wheeltapper_models.score import score_table
from wheeltapper_models.session import Session

MODEL = pump_model()


def session() -> Session:
    return Session(MODEL.card, MODEL.model)


def varx_of(off: str = "", lags: int = 3, sensors: int = 4, seed: int = 1) -> varx_model.Varx:
    random = np.random.default_rng(seed)
    counts = np.ones(sensors, dtype=bool)
    counts[-1] = False
    weights = random.normal(0, 1, ((lags + 1) * sensors, sensors)) * counts
    return varx_model.Varx(
        lags=lags,
        span=10.0,
        centre=random.normal(0, 100, sensors).astype(np.float32).astype(np.float64),
        spread=random.uniform(0.5, 20, sensors).astype(np.float32).astype(np.float64),
        weights=weights,
        bias=random.normal(0, 1, sensors) * counts,
        counts=counts,
        limit=2.0,
        off=[(0, parse_condition(off))] if off else (),
    )


@settings(max_examples=60, deadline=None)
@given(
    rows=arrays(
        np.float32,
        st.tuples(st.integers(1, 12), st.just(4)),
        elements=st.one_of(st.floats(-1000, 1000, width=32), st.sampled_from([np.nan, np.inf, -np.inf, 1e30, 3e38])),
    ),
    off=st.sampled_from(["", "a < 0", "a > 50"]),
    lags=st.integers(1, 4),
)
def test_the_file_equals_the_reference_and_shares_sum_to_one_whatever_comes(rows, off, lags):
    model = varx_of(off, lags)
    from onnxruntime import InferenceSession

    runtime = InferenceSession(varx_model.to_onnx(model, "random").SerializeToString())
    states = np.zeros((1, model.state_size), dtype=np.float32)

    for row in rows:
        expected = varx_model.step(model, row[None], states)
        score, _, shares, following = runtime.run(
            ["score", "anomaly", "contributions", "next_states"], {"rows": row[None], "states": states}
        )
        assert np.allclose(score, expected.score, rtol=1e-5, atol=1e-5)
        assert np.allclose(shares, expected.contributions, atol=1e-5)
        assert np.allclose(following, expected.states, rtol=1e-5, atol=1e-5)
        assert abs(float(shares.sum()) - 1.0) <= 1e-5
        assert np.isfinite(following).all()
        states = following


def test_healthy_rows_that_were_not_seen_raise_no_alarm():
    scores = score_table(session(), pump_table(2000, seed=7))

    assert scores.anomaly.sum() == 0


@pytest.mark.parametrize("sensor", range(4), ids=SENSORS)
def test_a_sensor_that_leaves_its_relation_is_found_and_blamed(sensor):
    values = pump_values(400, seed=9)
    values[200:, sensor] += 6 * values[:, sensor].std()

    scores = score_table(session(), Table("x", SENSORS, values))

    assert scores.anomaly[:200].sum() == 0
    assert scores.anomaly[230:260].all()
    assert scores.contributions[230:260].mean(axis=0).argmax() == sensor


def test_equal_rows_give_equal_bytes():
    again = pump_model()

    assert again.model == MODEL.model
    assert again.card == MODEL.card


def test_nothing_is_said_before_the_lags_are_filled():
    model = session()
    row = np.full((1, 4), 1e6, dtype=np.float32)
    states, scores = model.start(), []
    for _ in range(MODEL.card.warmup_rows):
        found = model.step(row, states)
        states = found.states
        scores.append((float(found.score[0]), int(found.anomaly[0])))

    assert scores == [(0.0, 0)] * MODEL.card.warmup_rows
    assert np.allclose(found.contributions, 0.25)


def test_a_missing_value_neither_moves_the_score_of_its_sensor_nor_makes_it_nan():
    values = pump_values(300, seed=3)
    values[200:, 3] = np.nan

    scores = score_table(session(), Table("x", SENSORS, values))

    assert np.isfinite(scores.score).all()
    assert scores.anomaly.sum() == 0


def test_one_mad_value_is_forgotten_soon():
    values = pump_values(400, seed=3)
    values[200, 1] = 1e12

    scores = score_table(session(), Table("x", SENSORS, values))

    assert scores.anomaly[200] == 1
    assert scores.anomaly[350:].sum() == 0


def test_a_constant_sensor_is_graded_low_and_never_blamed():
    values = pump_values(400)
    values[:, 3] = 7.0

    trained = varx.fit([Table("x", SENSORS, values)], Options())
    values[300:, 3] = 9.0
    scores = score_table(Session(trained.card, trained.model), Table("x", SENSORS, values))

    assert [item.grade for item in trained.card.inputs] == ["high", "high", "high", "low"]
    assert trained.card.inputs[3].remarks == ["constant"]
    assert scores.contributions[:, 3].max() == 0


def test_constant_data_are_refused_with_the_reason():
    table = Table("flat.csv", ("a", "b"), np.tile([1.0, np.nan], (500, 1)))

    with pytest.raises(DataError, match=r"no sensor can be learnt from \(a: constant; b: no values\)"):
        varx.fit([table], Options())


def test_too_few_rows_are_refused_with_the_number():
    with pytest.raises(DataError, match=r"pump.csv: 37 rows can be learnt from .* at least 60"):
        varx.fit([pump_table(40)], Options())


def test_labelled_rows_are_not_learnt_from_and_move_the_limit():
    table = pump_table(800)
    labelled = np.zeros(800, dtype=bool)
    labelled[500:560] = True
    values = table.values.copy()
    values[500:560, 1] += 0.5
    sick = Table("x", SENSORS, values, sha256="00")
    ignorant = varx.fit([sick], Options())
    taught = varx.fit([sick.with_labels(labelled)], Options())

    found = score_table(Session(taught.card, taught.model), sick)

    assert taught.card.training.excluded_rows == 60
    assert taught.card.limit is not None and ignorant.card.limit is not None
    assert taught.card.limit < ignorant.card.limit
    assert "labelled" in taught.card.limit_rule
    assert found.anomaly[505:560].mean() > 0.5


def test_off_rows_are_neither_learnt_from_nor_judged():
    table = pump_table(600)
    values = table.values.copy()
    values[300:400] = 0.0
    idle = Table("x", SENSORS, values)

    trained = varx.fit([idle], Options(off_conditions=("load < 10",)))
    scores = score_table(Session(trained.card, trained.model), idle)

    assert trained.card.off_conditions == ["load < 10"]
    assert scores.anomaly.sum() == 0
    assert scores.score[300:400].max() == 0.0
    assert trained.card.inputs[0].name == "load"
    assert float(trained.card.limit or 0) + 40 > 40


def test_an_off_condition_of_an_unknown_sensor_is_refused():
    with pytest.raises(DataError, match="'speed' is not among load, current, heat, noise"):
        varx.fit([pump_table()], Options(off_conditions=("speed < 10",)))


def test_only_the_targets_count():
    trained = varx.fit([pump_table()], Options(settings={"targets": "heat,current"}))

    scores = score_table(Session(trained.card, trained.model), pump_table())

    assert scores.contributions[:, [0, 3]].max() == 0
    assert np.allclose(scores.contributions.sum(axis=1), 1, atol=1e-5)


def test_an_unknown_setting_is_named():
    with pytest.raises(SettingsError, match="lag"):
        varx.fit([pump_table()], Options(settings={"lag": "3"}))


def test_a_batch_of_machines_equals_each_alone():
    model = session()
    rows = pump_values(6, seed=2).astype(np.float32)
    states = model.start(6)
    together = model.step(rows, states)
    together = model.step(rows, together.states)

    for place, row in enumerate(rows):
        alone = model.step(row[None], model.step(row[None], model.start()).states)
        assert np.allclose(alone.states, together.states[place], atol=1e-6)


def test_the_file_is_small():
    names = tuple(f"sensor number {place}" for place in range(8))
    values = np.random.default_rng(0).normal(0, 1, (400, 8))

    trained = varx.fit([Table("x", names, values)], Options(name="eight"))

    assert len(trained.model) <= 10_000


def test_stretches_are_learnt_from_without_a_bridge_between_them():
    first, second = pump_table(400), pump_table(400, seed=5)

    trained = varx.fit([first, second], Options())

    assert trained.card.training.rows == 800
    assert score_table(Session(trained.card, trained.model), pump_table(1000, seed=8)).anomaly.sum() == 0


def column_of(kind: str, rows: int, random: np.random.Generator) -> np.ndarray:
    return {
        "walk": np.cumsum(random.normal(0, 1, rows)),
        "constant": np.full(rows, 3.7),
        "nearly constant": 1e3 + random.normal(0, 1e-9, rows),
        "huge": random.normal(0, 1e8, rows),
        "switch": random.integers(0, 2, rows).astype(float),
        "absent": np.full(rows, np.nan),
        "counter": np.arange(rows, dtype=float),
        "rare": np.where(random.random(rows) < 0.9, np.nan, random.normal(0, 1, rows)),
    }[kind]


@pytest.mark.filterwarnings("error")
@settings(max_examples=40, deadline=None)
@given(
    kinds=st.lists(
        st.sampled_from(["walk", "constant", "nearly constant", "huge", "switch", "absent", "counter", "rare"]),
        min_size=1,
        max_size=5,
    ),
    rows=st.integers(1, 250),
    cut=st.integers(0, 250),
    labelled=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_whatever_the_data_a_model_is_learnt_and_stays_finite_or_the_reason_is_given(kinds, rows, cut, labelled, seed):
    random = np.random.default_rng(seed)
    values = np.stack([column_of(kind, rows, random) for kind in kinds], axis=1)
    table = Table("x", tuple(f"c{place}" for place in range(len(kinds))), values)
    if labelled:
        table = table.with_labels(random.random(rows) < 0.1)
    stretches = [stretch for stretch in (table.rows(0, cut), table.rows(cut)) if len(stretch)]

    try:
        trained = varx.fit(stretches, Options())
    except DataError as error:
        assert "learnt from" in str(error)
        return
    strange = Table("y", table.names, random.normal(0, 1e3, (30, len(kinds))))
    scores = score_table(Session(trained.card, trained.model), strange)

    assert np.isfinite(scores.score).all()
    assert np.allclose(scores.contributions.sum(axis=1), 1, atol=1e-5)
    assert encode_card(trained.card)
