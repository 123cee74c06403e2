"""Random cut forests: the stream, the frozen form, AWS's own forest as the judge of both."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from wheeltapper.cli import main
from wheeltapper.errors import DataError, ModelError, SettingsError
from wheeltapper_models import forest
from wheeltapper_models.data import Table, table_of
from wheeltapper_models.forest_cutoff import Cutoff, CutoffSettings
from wheeltapper_models.forest_krcf import read_krcf
from wheeltapper_models.forest_onnx import forest_graph, state_size
from wheeltapper_models.forest_score import alerts_of, stream_judge
from wheeltapper_models.forest_stream import Forest, ForestSettings
from wheeltapper_models.forest_trees import NOBODY
from wheeltapper_models.forest_watch import STREAM_FILE, ForestWatch
from wheeltapper_models.forest_window import Shingle
from wheeltapper_models.kinds import Options, Trained
from wheeltapper_models.session import Session

Array = NDArray[np.float64]
SMALL = ForestSettings(trees=10, sample_size=32, seed=3)


def waves(rows: int, seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    time = np.arange(rows)
    return np.stack([50 + 5 * np.sin(time / 8), 10 + 2 * np.cos(time / 8)], axis=1) + rng.normal(0, 0.2, (rows, 2))


def as_table(rows: Array) -> Table:
    times = [
        f"2026-01-{1 + place // 1440:02d}T{place // 60 % 24:02d}:{place % 60:02d}:00Z" for place in range(len(rows))
    ]
    columns = {"TT01": rows[:, 0].tolist(), "PT01": rows[:, 1].tolist()}
    return table_of({"time": times, **columns}, time_column="time")


def taught(rows: Array, **settings_: str) -> Trained:
    chosen = {"trees": "20", "sample_size": "64", "shingle": "2", **settings_}
    return forest.fit([as_table(rows)], Options(name="pump", settings=chosen))


def grown(points: Array, settings_: ForestSettings = SMALL) -> Forest:
    found = Forest(points.shape[1], settings_)
    for point in points:
        found.update(point)
    return found


def check_boxes(found: Forest) -> None:
    """Every inner node's box is its children's, its cut parts them, and the leaves are the sample."""
    trees = found.trees
    for tree, root in enumerate(trees.root.tolist()):
        assert trees.parent[root] == NOBODY
        mass, queue = 0, [root]
        for node in queue:
            left, right = trees.child[2 * node], trees.child[2 * node + 1]
            if left == node:
                mass += trees.mass[node]
                continue
            assert trees.parent[left] == trees.parent[right] == node
            assert np.array_equal(trees.box[node], np.minimum(trees.box[left], trees.box[right]))
            cut, half = trees.cut_dimension[node], found.dimensions
            assert -trees.box[left, half + cut] <= trees.cut_value[node] < trees.box[right, cut]
            queue += [int(left), int(right)]
        assert mass == found.size[tree] <= found.settings.sample_size


@settings(max_examples=25, deadline=None)
@given(
    points=st.lists(st.tuples(*[st.integers(-3, 3)] * 3), min_size=1, max_size=120),
    seed=st.integers(0, 1000),
)
def test_trees_stay_sound_whatever_comes_and_goes(points: list[tuple[int, ...]], seed: int) -> None:
    found = Forest(3, ForestSettings(trees=3, sample_size=8, seed=seed, eager_share=1.0))
    for point in points:
        parts = found.observe(np.array(point, dtype=np.float64))
        assert np.isfinite(parts).all() and (parts >= 0).all()

    check_boxes(found)


def test_a_strange_point_scores_higher_and_blames_its_dimension() -> None:
    found = grown(np.random.default_rng(0).normal(size=(300, 4)))

    parts = found.attribute(np.array([0.0, 0.0, 8.0, 0.0]))

    assert parts.sum() > 2 * found.score(np.zeros(4))
    assert parts.argmax() == 2 and parts[2] > 0.8 * parts.sum()


def test_the_same_seed_and_stream_give_the_same_scores_and_another_seed_others() -> None:
    points = np.random.default_rng(0).normal(size=(200, 2))

    first, second = grown(points), grown(points)
    other = grown(points, ForestSettings(trees=10, sample_size=32, seed=4))

    assert first.score(np.ones(2)) == second.score(np.ones(2)) != other.score(np.ones(2))


def test_memory_is_bounded() -> None:
    found = Forest(2, SMALL)
    nodes = found.trees.box.shape
    for point in np.random.default_rng(0).normal(size=(2_000, 2)):
        found.update(point)

    assert found.trees.box.shape == nodes
    assert (found.size == SMALL.sample_size).all()


def test_a_forest_forgets_what_is_long_past() -> None:
    rng = np.random.default_rng(0)
    found = grown(rng.normal(size=(500, 2)))
    before = found.score(np.array([20.0, 20.0]))
    for point in rng.normal(20.0, 1.0, size=(2_000, 2)):
        found.update(point)

    assert found.score(np.array([20.0, 20.0])) < before / 2 < found.score(np.zeros(2))


def test_a_watch_goes_on_after_a_restart_as_if_there_had_been_none() -> None:
    rows = waves(400)
    watch = ForestWatch(Shingle(rows.mean(axis=0), rows.std(axis=0), 2), SMALL)
    for row in rows[:200]:
        watch.step(row)
    again = ForestWatch.from_bytes(watch.to_bytes())

    same = [(watch.step(row), again.step(row)) for row in rows[200:]]

    assert all(one.score == other.score and one.limit == other.limit for one, other in same)
    assert again.cutoff.history == watch.cutoff.history
    check_boxes(again.forest)


def test_bytes_that_are_no_state_are_refused() -> None:
    with pytest.raises(ModelError, match=r"stream\.npz: is not the state of a forest"):
        ForestWatch.from_bytes(b"nothing of the kind")


@pytest.mark.parametrize("hole", [np.nan, np.inf])
def test_a_missing_value_is_the_one_before_it(hole: float) -> None:
    rows = waves(200)
    one, other = (ForestWatch(Shingle(rows.mean(axis=0), rows.std(axis=0), 2), SMALL) for _ in range(2))
    for row in rows:
        one.step(row)
        other.step(row)
    gap = rows[-1].copy()
    gap[0] = hole

    assert one.step(gap).score == other.step(rows[-1]).score


def test_an_alert_takes_consecutive_anomalies() -> None:
    cutoff = Cutoff(CutoffSettings(run=3))
    for score in [1.0, 1.1] * 50:
        cutoff.judge(score)

    verdicts = [cutoff.judge(score) for score in (9.0, 9.0, 1.0, 9.0, 9.0, 9.0)]

    assert verdicts == [(1, 0), (1, 0), (0, 0), (1, 0), (1, 0), (1, 1)]
    assert len(cutoff.history) == 1


def test_alerts_count_within_a_unit() -> None:
    anomaly = np.array([1, 1, 1, 1])

    assert alerts_of(anomaly, [np.array([0, 2]), np.array([1, 3])], 2).tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("sensors", "shingle", "rounded"),
    [(2, 2, False), (1, 8, False), (8, 1, False), (3, 1, True)],
    ids=["shingled", "one sensor", "eight sensors", "equal points"],
)
def test_onnx_scores_and_attributes_as_krcf_does(sensors: int, shingle: int, rounded: bool) -> None:
    krcf = pytest.importorskip("krcf")
    rng = np.random.default_rng(sensors)
    rows = rng.normal(size=(400, sensors)).astype(np.float32).astype(np.float64)
    queries = np.concatenate([rng.normal(size=(30, sensors)) * 2, rows[-30:]]).astype(np.float32).astype(np.float64)
    if rounded:
        rows, queries = np.round(rows), np.round(queries)
    sizes = {"dimensions": sensors, "shingle_size": shingle, "num_trees": 10, "sample_size": 64}
    oracle = krcf.RandomCutForest({**sizes, "random_seed": 5, "output_after": 1})
    for row in rows:
        oracle.update(row.tolist())
    imported, window = read_krcf(oracle.to_json())
    session = _session(imported, window)

    states, seen = session.start(), []
    for row in queries:
        found, states = session.outputs(row[None].astype(np.float32), states)
        seen = [*seen, row][-shingle:]
        if len(seen) < shingle:
            continue
        point = np.concatenate(seen)
        parts = oracle.attribution(point.tolist())
        both = np.array(parts["high"]) + parts["low"]
        assert found["score"][0] == pytest.approx(oracle.score(point.tolist()), abs=1e-5)
        assert imported.attribute(point) == pytest.approx(both, abs=1e-5)
        shares = found["contributions"][0] * found["score"][0]
        assert shares == pytest.approx(both.reshape(shingle, sensors).sum(axis=0), abs=1e-5)


def test_a_krcf_forest_goes_on_learning_here() -> None:
    krcf = pytest.importorskip("krcf")
    oracle = krcf.RandomCutForest({"dimensions": 2, "shingle_size": 1, "num_trees": 4, "sample_size": 16})
    rows = np.round(np.random.default_rng(0).normal(size=(300, 2)))
    for row in rows[:100]:
        oracle.update(row.tolist())
    imported, _ = read_krcf(oracle.to_json())

    for row in rows[100:]:
        imported.update(row)

    check_boxes(imported)


def test_a_krcf_forest_becomes_a_model_with_a_cutoff_of_its_own(tmp_path: Path) -> None:
    krcf = pytest.importorskip("krcf")
    rows = waves(400)
    oracle = krcf.RandomCutForest({"dimensions": 2, "shingle_size": 2, "num_trees": 10, "sample_size": 64})
    for row in rows[:300]:
        oracle.update(row.tolist())
    (tmp_path / "forest.json").write_text(oracle.to_json())
    lines = [f"{place},{a},{b}" for place, (a, b) in enumerate(rows.tolist())]
    (tmp_path / "rows.csv").write_text("time,TT01,PT01\n" + "\n".join(lines))

    paths = [str(tmp_path / name) for name in ("forest.json", "rows.csv", "model")]
    status = main(["model", "import", paths[0], "--data", paths[1], "--out", paths[2]])

    session = Session.load(tmp_path / "model")
    assert status == 0
    assert session.sensors == ["TT01", "PT01"]
    assert session.card.limit == pytest.approx(session.card.scores["mean"] + 2.5 * session.card.scores["sigma"])
    assert (tmp_path / "model" / STREAM_FILE).exists()


@pytest.mark.parametrize("text", ["{}", "no json", '{"rcf": {"internal_rotation": false}}'])
def test_what_is_no_krcf_forest_is_refused(text: str) -> None:
    with pytest.raises(ModelError, match="is not the JSON of a krcf forest"):
        read_krcf(text)


def test_the_frozen_form_follows_the_stream_and_its_cutoff() -> None:
    rows = waves(600).astype(np.float32)
    watch = ForestWatch(Shingle(rows.mean(axis=0), rows.std(axis=0), 3), SMALL)
    for row in rows[:500]:
        watch.step(row)
    session = _session(watch.forest, watch.shingle, watch.cutoff)
    cutoff, window = Cutoff(watch.cutoff.settings), Shingle(watch.shingle.center, watch.shingle.scale, 3)
    cutoff.restore(watch.cutoff.state())

    states = session.start()
    for row in rows[500:]:
        found, states = session.outputs(row[None], states)
        point = window.push(row)
        if point is None:
            assert np.isnan(found["score"][0]) and found["anomaly"][0] == 0
            continue
        limit = cutoff.limit
        score = watch.forest.score(point.astype(np.float64))
        anomaly, _ = cutoff.judge(score)
        assert found["score"][0] == pytest.approx(score, abs=1e-5)
        assert found["limit"][0] == pytest.approx(limit, abs=1e-4)
        assert found["anomaly"][0] == anomaly
        assert found["contributions"][0].sum() == pytest.approx(1.0, abs=1e-5)


def test_a_trained_forest_alerts_on_a_fault_in_both_forms_and_blames_the_sensor() -> None:
    rows = waves(1_000)
    rows[900:960, 1] += 6.0
    trained = taught(rows[:800])
    table, places = as_table(rows), [np.arange(len(rows))]
    session = Session(trained.card, trained.model)

    stream = stream_judge(trained.files[STREAM_FILE], table.values.astype(np.float32), places)
    states, frozen = session.start(), []
    for row in table.values.astype(np.float32):
        found, states = session.outputs(row[None], states)
        frozen.append(int(found["alert"][0]))

    for alert in (alerts_of(stream[1], places, 5), np.array(frozen)):
        assert alert[900:925].any() and alert[:900].sum() < 10
    assert stream[2][903].argmax() == 1


def test_contents_of_a_trained_forest_depend_on_data_and_seed_alone() -> None:
    rows = waves(300)

    first, second = taught(rows), taught(rows)

    assert first.model == second.model and first.files == second.files


@pytest.mark.parametrize(
    ("rows", "settings_", "error", "what"),
    [
        (np.ones((200, 2)), {}, DataError, "no column of numbers varies"),
        (waves(30), {}, DataError, "rows are too few"),
        (waves(200), {"tree": "5"}, SettingsError, "tree"),
        (waves(200), {"run": "0"}, SettingsError, "run=0: must be at least 1"),
    ],
    ids=["constant", "short", "unknown setting", "wrong setting"],
)
def test_what_cannot_be_learnt_from_is_refused_with_the_reason(
    rows: Array, settings_: dict[str, str], error: type[Exception], what: str
) -> None:
    with pytest.raises(error, match=what):
        taught(rows, **settings_)


def _session(found: Forest, window: Shingle, cutoff: Cutoff | None = None) -> Session:
    from wheeltapper_models.card import Card, ModelInput, Training
    from wheeltapper_models.export import seal

    if cutoff is None:
        cutoff = Cutoff()
        for score in [1.0, 1.1] * 50:
            cutoff.judge(score)
    card = Card(
        name="forest",
        version="1",
        kind="forest",
        inputs=[ModelInput(f"S{place}") for place in range(window.sensors)],
        training=Training(1, ""),
        state_size=state_size(window),
    )
    sealed = seal(forest_graph(found, window, cutoff), card, np.zeros((2, window.sensors)))
    return Session(sealed.card, sealed.model)
