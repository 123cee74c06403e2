"""
The forest kind: a random cut forest taught by its own stream, frozen into ONNX for the edge and kept so that it can go on.

Each training row is scored before it is learnt, so the cutoff is that of rows the forest has not seen.
"""

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from wheeltapper.errors import DataError, SettingsError
from wheeltapper_models.card import Card
from wheeltapper_models.data import Table
from wheeltapper_models.export import seal
from wheeltapper_models.forest_cutoff import CutoffSettings
from wheeltapper_models.forest_krcf import read_krcf
from wheeltapper_models.forest_onnx import forest_graph, state_parts, state_size
from wheeltapper_models.forest_stream import ForestSettings
from wheeltapper_models.forest_watch import STREAM_FILE, ForestWatch
from wheeltapper_models.forest_window import Shingle
from wheeltapper_models.grades import grade_sensors
from wheeltapper_models.kinds import Options, Trained, settings_of
from wheeltapper_models.provenance import labelled_rows_of, period_of, training_of
from wheeltapper_models.stretches import stretches_of, varying_columns

POINT_SIZE = 16  # values in a point that rows are joined to
LONGEST_SHINGLE = 8
SETTLING = 30  # scores before there is a cutoff


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """
    Args:
        shingle: rows joined to one point; 0 for as many as make 16 values, 8 at the most.
        trees: in the forest.
        sample_size: points that a tree keeps.
        memory: points after which an old one weighs 1 ÷ e of a new one, in samples and cutoff; 0 for 10 × ``sample_size``.
        k: standard deviations of the scores above their mean where an anomaly begins.
        run: anomalies in a row that make an alert.
    """

    shingle: int = 0
    trees: int = 50
    sample_size: int = 256
    memory: float = 0.0
    k: float = 2.5
    run: int = 5


def fit(tables: Sequence[Table], options: Options) -> Trained:
    """
    Teach a forest; rows labelled abnormal are left out.

    Raises:
        DataError: no sensor varies, the tables differ in their columns, or there are too few rows.
        SettingsError: a setting is unknown or of the wrong type.
    """
    settings = _settings(options)
    names, notes = varying_columns(tables)
    stretches = stretches_of(tables, names)
    if not stretches:
        raise DataError(f"{tables[0].source}: all its rows are labelled abnormal; a forest learns from the others")
    values = np.concatenate(stretches)
    watch = _watch(values, settings, options.seed)
    scores, alerts = _teach(watch, stretches)
    if scores < SETTLING:
        raise DataError(
            f"{tables[0].source}: {len(values)} rows are too few: {scores} could be scored and a cutoff needs {SETTLING}; "
            "give more rows, or a smaller sample or window (--set sample_size=64 --set shingle=1)"
        )
    account = {**msgspec.to_builtins(settings), "shingle": watch.shingle.length, "seed": options.seed}
    return _freeze(watch, tables, names, account, options, [*notes, f"{alerts} alerts in training"])


def fit_krcf(text: bytes, tables: Sequence[Table], options: Options, *, where: str = "krcf forest") -> Trained:
    """
    Take over a forest of AWS's Rust implementation, ``krcf.RandomCutForest.to_json()``.

    Args:
        text: the JSON.
        tables: rows of the columns that it was fed, in its order; their scores set the cutoff.
        options: names and units.
        where: the file, for messages.

    Raises:
        ModelError: not such a forest.
        DataError: the tables have another number of columns, or too few rows.
    """
    grown, window = read_krcf(text, where=where)
    settings = _settings(options)
    names = list(tables[0].names)
    if len(names) != window.sensors:
        raise DataError(
            f"{tables[0].source}: has {len(names)} columns of numbers, {where} was fed {window.sensors}; "
            "choose them with --sensors"
        )
    memory = settings.memory or 10.0 * grown.settings.sample_size
    watch = ForestWatch(window, cutoff=CutoffSettings(settings.k, settings.run, memory, SETTLING), forest=grown)
    for table in tables:
        watch.new_stretch()
        for row in table.values:
            point = watch.shingle.push(row)
            if point is not None:
                watch.cutoff.judge(grown.score(point.astype(np.float64)))
    if watch.cutoff.points < SETTLING:
        raise DataError(f"{tables[0].source}: {watch.cutoff.points} rows are too few for a cutoff; give {SETTLING}")
    account = {
        "trees": grown.settings.trees,
        "sample_size": grown.settings.sample_size,
        "k": settings.k,
        "run": settings.run,
    }
    notes = [f"taken over from {where}; the rows set the cutoff alone"]
    return _freeze(watch, tables, names, {**account, "shingle": window.length}, options, notes)


def _settings(options: Options) -> Settings:
    settings = settings_of(options, Settings)
    least = {"shingle": 0, "trees": 1, "sample_size": 8, "run": 1, "memory": 0}
    for name, value in least.items():
        if getattr(settings, name) < value:
            raise SettingsError(f"--set {name}={getattr(settings, name):g}: must be at least {value}")
    return settings


def _freeze(
    watch: ForestWatch,
    tables: Sequence[Table],
    names: list[str],
    account: dict[str, object],
    options: Options,
    notes: list[str],
) -> Trained:
    cutoff = watch.cutoff
    card = Card(
        name=options.name,
        version=options.version,
        kind="forest",
        inputs=grade_sensors([table.select(names) for table in tables], options.units),
        training=training_of(tables, labelled_rows_of(tables)),
        state_size=state_size(watch.shingle),
        state=state_parts(watch.shingle),
        warmup_rows=watch.shingle.length,
        period_ms=period_of(tables),
        limit=cutoff.limit,
        limit_rule=f"mean {cutoff.mean:.4g} + {cutoff.settings.k:g} × σ {cutoff.sigma:.4g} of the scores of rows not yet "
        f"learnt, and follows them; {cutoff.settings.run} anomalies in a row are an alert",
        settings=account,
        scores={"mean": cutoff.mean, "sigma": cutoff.sigma},
        notes=notes,
    )
    test_rows = max((table.select(names).values for table in tables), key=len)[: watch.shingle.length + 12]
    sealed = seal(forest_graph(watch.forest, watch.shingle, cutoff), card, test_rows)
    return msgspec.structs.replace(sealed, files={STREAM_FILE: watch.to_bytes()})


def _watch(values: NDArray[np.float64], settings: Settings, seed: int) -> ForestWatch:
    length = settings.shingle or max(1, min(LONGEST_SHINGLE, POINT_SIZE // values.shape[1]))
    memory = settings.memory or 10.0 * settings.sample_size
    shingle = Shingle(np.nanmean(values, axis=0), np.nanstd(values, axis=0), length)
    grown = ForestSettings(settings.trees, settings.sample_size, seed, 1.0 / memory)
    return ForestWatch(shingle, grown, CutoffSettings(settings.k, settings.run, memory, SETTLING))


def _teach(watch: ForestWatch, stretches: Sequence[NDArray[np.float64]]) -> tuple[int, int]:
    """Stream all rows through the forest; how many could be scored, and how many alerts began."""
    scores = alerts = 0
    for rows in stretches:
        watch.new_stretch()
        alerting = 0
        for row in rows:
            verdict = watch.step(row)
            scores += not np.isnan(verdict.score)
            alerts += verdict.alert > alerting
            alerting = verdict.alert
    return scores, alerts
