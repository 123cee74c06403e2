"""
The models' quality on public data beside their peers', and what they cost: training time, file size, time per row.

Protocols: SKAB, the first 400 rows of each file train, outcomes are pooled; NAB's ambient temperature, an alert is five
anomalies in a row above mean + 2.5 σ; Beijing's air, trained before 2012, judged on 2012–13, nothing dropped; C-MAPSS FD001,
failure within 24 cycles, five folds by engine; AI4I 2020, five folds. Peers need ``pip install pyod river krcf``.

    python benchmarks/models.py [anomaly] [forest] [forecast] [failure] [speed]
"""

import argparse
import json
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from wheeltapper_models.data import Table, read_table
from wheeltapper_models.failure_learners import folds_of
from wheeltapper_models.forest_cutoff import Cutoff, CutoffSettings
from wheeltapper_models.forest_score import alerts_of, stream_judge
from wheeltapper_models.forest_watch import STREAM_FILE
from wheeltapper_models.kinds import Options, Trained
from wheeltapper_models.ranking import area_under_curve, average_precision
from wheeltapper_models.score import score_table
from wheeltapper_models.session import Session
from wheeltapper_models.train import Request, train_tables

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
SEEDS = (0, 1, 2)

warnings.filterwarnings("ignore")


def show(title: str, header: str, lines: list[str]) -> None:
    print(f"\n{title}\n{header}")
    print("\n".join(lines), flush=True)


# SKAB


def skab() -> Iterator[tuple[Floats, Mask, Table]]:
    for path in sorted((DATA / "skab" / "valve1").glob("*.csv")):
        table = read_table(path, time_column="datetime")
        yield table.without(["anomaly", "changepoint"]).values, table.column("anomaly") > 0, table


def pooled(alarm: list[Mask], abnormal: list[Mask]) -> str:
    said, true = np.concatenate(alarm), np.concatenate(abnormal)
    hit, false, missed = (said & true).sum(), (said & ~true).sum(), (~said & true).sum()
    return f"{2 * hit / (2 * hit + false + missed):.3f} {100 * false / (~true).sum():6.1f} {100 * missed / true.sum():6.1f}"


def peer_scores(name: str, train: Floats, rows: Floats) -> Floats:
    """The score of each row by a peer with its defaults, taught the training rows, standardised by them."""
    center, scale = train.mean(axis=0), train.std(axis=0) + 1e-9
    train, rows = (train - center) / scale, (rows - center) / scale
    if name == "PyOD ECOD":
        from pyod.models.ecod import ECOD

        return np.asarray(ECOD().fit(train).decision_function(rows))
    if name == "PyOD IForest":
        from pyod.models.iforest import IForest

        return np.asarray(IForest(random_state=0).fit(train).decision_function(rows))
    if name == "sklearn OneClassSVM":
        from sklearn.svm import OneClassSVM

        return -np.asarray(OneClassSVM(nu=0.01).fit(train).decision_function(rows))
    if name == "sklearn LOF":
        from sklearn.neighbors import LocalOutlierFactor

        return -np.asarray(LocalOutlierFactor(novelty=True).fit(train).decision_function(rows))
    if name == "river HalfSpaceTrees":
        return half_space_trees(train, rows)
    return krcf_scores(train, rows, shingle=4)


def half_space_trees(train: Floats, rows: Floats) -> Floats:
    from river.anomaly import HalfSpaceTrees

    model = HalfSpaceTrees(seed=0, window_size=100, limits={str(place): (-5.0, 5.0) for place in range(train.shape[1])})
    named = [{str(place): value for place, value in enumerate(row)} for row in np.concatenate([train, rows]).tolist()]
    for row in named[: len(train)]:
        model.learn_one(row)
    return np.array([model.score_one(row) for row in named[len(train) :]])


def krcf_scores(train: Floats, rows: Floats, shingle: int, seed: int = 0, *, learn: bool = False) -> Floats:
    import krcf

    sizes = {"dimensions": train.shape[1], "shingle_size": shingle, "num_trees": 50, "sample_size": 256}
    model = krcf.RandomCutForest({**sizes, "random_seed": seed, "output_after": 1})
    for row in train.tolist():
        model.update(row)
    found, window = [], list(train[-shingle:].tolist())
    for row in rows.tolist():
        window = [*window, row][-shingle:]
        found.append(model.score([value for part in window for value in part]))
        if learn:
            model.update(row)
    return np.array(found)


def anomaly() -> None:
    lines, labels, ours, started = [], [], [], time.perf_counter()
    peers = ["PyOD ECOD", "PyOD IForest", "sklearn OneClassSVM", "sklearn LOF", "river HalfSpaceTrees", "krcf"]
    alarms: dict[str, list[Mask]] = {name: [] for name in peers}
    for _, abnormal, table in skab():
        request = Request(kind="anomaly", data=[], rows="0:400", ignore=["anomaly", "changepoint"])
        trained = train_tables(request, [table])
        scores = score_table(Session(trained.card, trained.model), table).since(400)
        ours.append(scores.anomaly > 0)
        labels.append(abnormal[400:])
    lines.append(f"{'wheeltapper anomaly':24} {pooled(ours, labels)}  ({time.perf_counter() - started:.0f} s)")
    for values, _, _ in skab():
        for name in peers:
            taught = peer_scores(name, values[:400], values[:400])
            limit = taught.mean() + 3.0 * taught.std()
            alarms[name].append(peer_scores(name, values[:400], values[400:]) > limit)
    lines += [f"{name:24} {pooled(alarms[name], labels)}" for name in peers]
    lines.append(f"{'always alarm':24} {pooled([np.ones_like(mask) for mask in labels], labels)}")
    show("SKAB valve1; peers' limit: mean + 3 σ of their training scores", f"{'':24}    F1    FAR %  MAR %", lines)


# NAB


def nab() -> tuple[Table, list[Mask]]:
    table = read_table(DATA / "nab" / "ambient_temperature_system_failure.csv", time_column="timestamp")
    windows = json.loads((DATA / "nab" / "windows.json").read_text())
    assert table.time_ms is not None
    times = table.time_ms.astype("datetime64[ms]")
    found = [
        (times >= np.datetime64(start)) & (times <= np.datetime64(stop))
        for start, stop in windows["realKnownCause/ambient_temperature_system_failure.csv"]
    ]
    return table, found


def alerts_line(name: str, anomaly_: NDArray[np.int64], windows: list[Mask], days: float, seconds: float) -> str:
    alert = alerts_of(anomaly_, [np.arange(len(anomaly_))], 5) > 0
    begins = alert & ~np.append(False, alert[:-1])
    outside = ~np.logical_or.reduce(windows)
    found = sum(bool(alert[window].any()) for window in windows)
    rate = (begins & outside).sum() / days
    return f"{name:34} {found} of {len(windows)}   {rate:8.3f} {1e6 * seconds / len(anomaly_):9.0f}"


def judged_by_cutoff(scores: Floats) -> NDArray[np.int64]:
    cutoff = Cutoff(CutoffSettings())
    return np.array([cutoff.judge(score)[0] for score in scores.tolist()])


def forest() -> None:
    table, windows = nab()
    days, lines = len(table) / 24.0, []
    for seed in SEEDS:
        request = Request(kind="forest", data=[], rows="0:1000", options=Options(seed=seed))
        trained = train_tables(request, [table])
        rows, places = table.values.astype(np.float32), [np.arange(len(table))]
        started = time.perf_counter()
        _, streamed, _ = stream_judge(trained.files[STREAM_FILE], rows, places)
        lines.append(
            alerts_line(f"forest, streaming, seed {seed}", streamed, windows, days, time.perf_counter() - started)
        )
        started = time.perf_counter()
        frozen = score_table(Session(trained.card, trained.model), table).anomaly
        lines.append(
            alerts_line(f"forest, frozen ONNX, seed {seed}", frozen, windows, days, time.perf_counter() - started)
        )
    values = (table.values - table.values[:1000].mean()) / table.values[:1000].std()
    for seed in SEEDS:
        started = time.perf_counter()
        scores = krcf_scores(values[:1000], values, shingle=8, seed=seed, learn=True)
        seconds = time.perf_counter() - started
        lines.append(alerts_line(f"krcf, streaming, seed {seed}", judged_by_cutoff(scores), windows, days, seconds))
    started = time.perf_counter()
    scores = half_space_trees(values[:1000], values)
    seconds = time.perf_counter() - started
    lines.append(alerts_line("river HalfSpaceTrees", judged_by_cutoff(scores), windows, days, seconds))
    show("NAB ambient temperature, taught rows 0:1000", f"{'':34} windows  false/day  µs a row", lines)


# Beijing's air


def air() -> Table:
    return read_table(DATA / "air-quality" / "pollution-2010-2013.csv", time_column="date")


def errors(name: str, error: Floats, note: str = "") -> str:
    return f"{name:34} {np.sqrt(np.mean(error**2)):7.3f} {np.abs(error).mean():7.3f}  {note}"


def forecast() -> None:
    from sklearn.linear_model import Ridge

    table = air()
    assert table.time_ms is not None
    judged = table.time_ms >= np.datetime64("2012-01-01", "ms").astype(np.int64)
    first, target = int(judged.argmax()), table.column("pollution")
    change = np.diff(target)
    rows = table.values[:-1]
    lines = [errors("persistence", -change[first - 1 :])]
    center, scale = rows[: first - 1].mean(axis=0), rows[: first - 1].std(axis=0)
    line = Ridge(alpha=10.0).fit((rows[: first - 1] - center) / scale, change[: first - 1])
    predicted = line.predict((rows[first - 1 :] - center) / scale)
    lines.append(errors("ridge, 1 lag", predicted - change[first - 1 :]))
    started = time.perf_counter()
    trained = train_air(table)
    seconds = time.perf_counter() - started
    found = score_table(Session(trained.card, trained.model), table).score[first:]
    note = f"{seconds:.1f} s to train, {len(trained.model) / 1000:.0f} kB"
    lines.append(errors("wheeltapper forecast", found - target[first:], note))
    show("Beijing PM2.5, trained before 2012, 2012–13 judged", f"{'':34}    RMSE     MAE", lines)


def train_air(table: Table) -> Trained:
    request = Request(kind="forecast", data=[], until="2012-01-01", options=Options(target="pollution"))
    return train_tables(request, [table])


# Failures


def train_jets() -> Trained:
    table = read_table(DATA / "cmapss" / "train_FD001.txt", time_column="2")
    return train_tables(Request(kind="failure", data=[], options=Options(unit_column="1", horizon=24.0)), [table])


def mills() -> Table:
    table = read_table(DATA / "ai4i" / "ai4i2020-first-7000.csv")
    return table.without(["UDI", "Product ID", "TWF", "HDF", "PWF", "OSF", "RNF"])


def logistic(features: Floats, event: Mask, groups: NDArray[np.int64]) -> tuple[float | None, float | None]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    found = np.zeros(len(event))
    for test in folds_of(event, groups, 0):
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(features[~test], event[~test])
        found[test] = model.decision_function(features[test])
    return area_under_curve(event, found), average_precision(event, found)


def failure() -> None:
    lines = []
    jets = read_table(DATA / "cmapss" / "train_FD001.txt", time_column="2")
    unit = jets.column("1").astype(np.int64)
    assert jets.time_ms is not None
    last = np.zeros(unit.max() + 1, dtype=np.int64)
    np.maximum.at(last, unit, jets.time_ms)
    event = (last[unit] - jets.time_ms) <= 24_000
    for name, trained, plain in (
        ("C-MAPSS FD001", train_jets(), logistic(jets.without(["1"]).values, event, unit)),
        ("AI4I 2020", train_mills(), logistic_of_mills()),
    ):
        scores = trained.card.scores
        figures = f"{scores['auc']:.4f} {scores['average_precision']:8.4f} {scores['calibration_error']:8.4f}"
        lines.append(f"{name + ': wheeltapper failure':40} {figures}")
        lines.append(f"{name + ': logistic regression, raw':40} {plain[0]:.4f} {plain[1]:8.4f}")
    show("Failures, cross-validated", f"{'':40}    AUC       AP      ECE", lines)


def train_mills() -> Trained:
    return train_tables(Request(kind="failure", data=[], options=Options(target="Machine failure")), [mills()])


def logistic_of_mills() -> tuple[float | None, float | None]:
    table = mills()
    event = table.column("Machine failure") > 0
    grades = np.array(table.text["Type"])
    flags = np.stack([grades == grade for grade in np.unique(grades)], axis=1)
    features = np.concatenate([table.without(["Machine failure"]).values, flags], axis=1)
    return logistic(features, event, np.arange(len(event)))


# Cost


def best_of(run: Callable[[], object], count: int, times: int = 5) -> float:
    """Seconds a call, the best of five rounds."""
    found = []
    for _ in range(times):
        started = time.perf_counter()
        for _ in range(count):
            run()
        found.append((time.perf_counter() - started) / count)
    return min(found)


def cost(name: str, train: Callable[[], Trained]) -> str:
    started = time.perf_counter()
    trained = train()
    seconds = time.perf_counter() - started
    session = Session(trained.card, trained.model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    bare = onnxruntime.InferenceSession(trained.model, options, providers=["CPUExecutionProvider"])
    outputs = [output.name for output in bare.get_outputs()]
    figures = []
    for machines, count in ((1, 300), (1024, 3)):
        rows = np.ones((machines, len(trained.card.inputs)), dtype=np.float32)
        states = session.start(machines)
        feed = {"rows": rows, "states": states} if trained.card.state_size else {"rows": rows}
        ours = best_of(lambda rows=rows, states=states: session.step(rows, states), count)
        theirs = best_of(lambda feed=feed: bare.run(outputs, feed), count)
        figures.append(f"{1e6 * ours / machines:9.2f} {1e6 * theirs / machines:9.2f} {ours / theirs:6.2f}")
    return f"{name:22} {seconds:8.2f} {len(trained.model) / 1000:9.1f} {figures[0]}   {figures[1]}"


def speed() -> None:
    _, _, valve = next(skab())
    request = Request(kind="anomaly", data=[], rows="0:400", ignore=["anomaly", "changepoint"])
    table, _ = nab()
    lines = [
        cost("anomaly, SKAB", lambda: train_tables(request, [valve])),
        cost("forest, NAB", lambda: train_tables(Request(kind="forest", data=[], rows="0:1000"), [table])),
        cost("forecast, Beijing", lambda: train_air(air())),
        cost("failure, C-MAPSS", train_jets),
        cost("failure, AI4I", train_mills),
    ]
    header = f"{'':22}  train s        kB   alone µs  bare µs  ratio   ×1024 µs  bare µs  ratio"
    show(
        "Cost: one row alone, and one of 1,024 machines' rows in a call; bare is onnxruntime's own session",
        header,
        lines,
    )


def pace() -> None:
    """A reading in the gateway, from its message to its prediction on disk, with and without a pace to bring it to."""
    from tests.components.memory_gateway import MemoryGateway
    from wheeltapper.messages import Reading, encode
    from wheeltapper_components.settings import DriftSettings, ModelSettings
    from wheeltapper_models.shipped import shipped_path

    folder = shipped_path("motor")
    assert folder is not None
    sensors = Session.load(folder).sensors
    found: dict[str, list[float]] = {}
    count = 3_000
    for _ in range(9):
        for name, period_s, step_ms in (("each a row", 0.0, 1000), ("in pace", 1.0, 1000), ("ten a row", 1.0, 100)):
            with tempfile.TemporaryDirectory(dir="/dev/shm") as place:
                models = [ModelSettings(things=["*"], folder=folder, period_s=period_s)]
                gateway = MemoryGateway(Path(place), models=models, drift=DriftSettings(enabled=False))
                payloads = [
                    encode(
                        Reading(f"m{n}", f"motor-{n % 50}", step_ms * (n // 50), dict.fromkeys(sensors, 1.0 + n % 7))
                    )
                    for n in range(count)
                ]
                for number, payload in enumerate(payloads):
                    gateway.send_raw(payload, f"motor-{number % 50}")
                gateway.local.deliver()
                started = time.process_time()
                while gateway.inference.work():
                    pass
                found.setdefault(name, []).append((time.process_time() - started) / count)
                gateway.close()
    plain = min(found["each a row"])
    lines = [f"{name:14} {1e6 * min(times):8.1f} {min(times) / plain:6.2f}" for name, times in found.items()]
    show("A reading in the gateway, 50 things, CPU time, best of nine", f"{'':14}       µs  ratio", lines)


PARTS = {
    "anomaly": anomaly,
    "forest": forest,
    "forecast": forecast,
    "failure": failure,
    "speed": speed,
    "pace": pace,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Quality and cost of the models, beside peers.")
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="which; else all")
    for part in parser.parse_args().parts or PARTS:
        PARTS[part]()


if __name__ == "__main__":
    main()
