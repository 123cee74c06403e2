"""What the commands of this room do."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from wheeltapper.errors import SettingsError

if TYPE_CHECKING:
    from wheeltapper_models.score import Scores
    from wheeltapper_models.train import Request

KIND_NAMES = ("anomaly", "forest", "forecast", "failure")


def train(arguments: argparse.Namespace) -> int:
    """Train one model, or one for each of many assets."""
    from wheeltapper_models.export import write
    from wheeltapper_models.train import train as train_one

    out = Path(arguments.out)
    request = request_of(arguments, arguments.kind, arguments.data, arguments.name or out.name)
    if arguments.each_file or arguments.asset_column:
        return _train_fleet(request, out, arguments)
    trained = train_one(request)
    write(trained, out)
    if arguments.json:
        print_json(trained.card)
    else:
        from wheeltapper_models.show import show_card

        show_card(trained.card)
        print(f"written: {out}")
    return 0


def import_forest(arguments: argparse.Namespace) -> int:
    """Take over a forest of krcf."""
    from wheeltapper_models.data import read_table
    from wheeltapper_models.export import write
    from wheeltapper_models.forest import fit_krcf
    from wheeltapper_models.show import show_card
    from wheeltapper_models.train import prepare

    out, path = Path(arguments.out), Path(arguments.forest)
    request = request_of(arguments, "forest", [arguments.data], out.name)
    tables = prepare(request, read_table(arguments.data, time_column=arguments.time_column))
    try:
        text = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    trained = fit_krcf(text, tables, request.options, where=path.name)
    write(trained, out)
    show_card(trained.card)
    print(f"written: {out}")
    return 0


def _train_fleet(request: "Request", out: Path, arguments: argparse.Namespace) -> int:
    from wheeltapper_models.fleet import show_fleet, train_fleet

    if arguments.each_file and arguments.asset_column:
        raise SettingsError("--each-file, --asset-column: choose one")
    report = train_fleet(
        request, out, asset_column=arguments.asset_column, jobs=arguments.jobs, restart=arguments.restart
    )
    if arguments.json:
        print_json(report)
    else:
        show_fleet(report, out)
    return 1 if report.failed else 0


def score(arguments: argparse.Namespace) -> int:
    """Score a file with a model, or with one learnt from its first rows."""
    scores = _scores(arguments)
    if arguments.json:
        from wheeltapper_models.score import json_lines

        output = sys.stdout.buffer
        for line in json_lines(scores):
            output.write(line + b"\n")
        output.flush()
        return 0
    from wheeltapper_models.show import show_scores

    show_scores(scores)
    return 0


def evaluate(arguments: argparse.Namespace) -> int:
    """Judge a model by labels."""
    from wheeltapper_models import evaluate as evaluation
    from wheeltapper_models.report import show_evaluation, write_report

    judged = evaluation.judge(_judged(arguments.model, arguments))
    if arguments.out:
        write_report(judged, Path(arguments.out))
    if arguments.json:
        print_json(judged.figures)
        return 0
    show_evaluation(judged)
    if arguments.out:
        print(f"written: {Path(arguments.out) / 'report.html'}")
    return 0


def compare(arguments: argparse.Namespace) -> int:
    """Judge two models on the same rows."""
    from wheeltapper_models.compare import compare_models, show_comparison

    comparison = compare_models(_judged(arguments.first, arguments), _judged(arguments.second, arguments))
    if arguments.json:
        print_json(comparison)
    else:
        show_comparison(comparison)
    return 0


def drift(arguments: argparse.Namespace) -> int:
    """Watch a file for drift, as a gateway does row by row."""
    from wheeltapper_models.drift import DriftSettings
    from wheeltapper_models.drift_report import draw, report_of, show, watch_file
    from wheeltapper_models.times import read_duration_ms

    settings = DriftSettings(
        period_ms=read_duration_ms(arguments.period), learn_periods=arguments.learn, thin=arguments.thin
    )
    path = model_path(arguments.model)
    monitor, findings = watch_file(path, arguments.data, time_column=arguments.time_column, settings=settings)
    if arguments.png:
        draw(monitor, findings, Path(arguments.png))
    report = report_of(path, monitor, findings)
    if arguments.json:
        print_json(report)
    else:
        show(report)
    return 0


def inspect(arguments: argparse.Namespace) -> int:
    """Show a model."""
    from wheeltapper_models.inspect import inspect_model, show_inspection

    inspection = inspect_model(model_path(arguments.model))
    if arguments.json:
        print_json(inspection)
    else:
        show_inspection(inspection)
    return 0


def reproduce(arguments: argparse.Namespace) -> int:
    """Train the shipped models again; status 1 where one comes out different."""
    from wheeltapper_models.reproduce import reproduce_all, show_reproductions

    found = reproduce_all(arguments.scenarios, Path(arguments.write) if arguments.write else None)
    if arguments.json:
        print_json(found)
    else:
        show_reproductions(found)
    return 0 if all(item.equal for item in found) else 1


def request_of(arguments: argparse.Namespace, kind: str, data: list[str], name: str) -> "Request":
    """What the command line asks of training."""
    from wheeltapper_models.kinds import Options
    from wheeltapper_models.train import Request

    options = Options(
        name=name,
        version=getattr(arguments, "model_version", ""),
        target=arguments.target,
        units=_pairs(arguments.unit, "--unit"),
        off_conditions=tuple(arguments.off),
        unit_column=arguments.unit_column,
        horizon=arguments.horizon,
        seed=arguments.seed,
        settings=_pairs(arguments.set, "--set"),
    )
    return Request(
        kind=kind,
        data=data,
        time_column=arguments.time_column,
        rows=arguments.rows,
        until=arguments.until,
        labels=arguments.labels,
        label_column=arguments.label_column,
        sensors=_names(arguments.sensors),
        ignore=_names(arguments.ignore),
        rate=arguments.rate,
        options=options,
    )


def model_path(text: str) -> Path:
    """A model's path; the name of a shipped scenario where there is no such path."""
    from wheeltapper_models.shipped import shipped_path

    path = Path(text)
    shipped = shipped_path(text)
    return shipped if not path.exists() and shipped is not None else path


def print_json(value: Any) -> None:
    """A value as one indented JSON document."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def _scores(arguments: argparse.Namespace) -> "Scores":
    from wheeltapper_models.forest_score import read_stream
    from wheeltapper_models.score import read_for, score_table
    from wheeltapper_models.session import Session

    if arguments.train_rows:
        return _scores_after_training(arguments)
    if len(arguments.paths) != 2:
        raise SettingsError("model score: give MODEL and DATA, or --train-rows N and DATA")
    path = model_path(arguments.paths[0])
    session = Session.load(path, require_card=False)
    table = read_for(session.card, arguments.paths[1], time_column=arguments.time_column)
    return score_table(session, table, unit_column=arguments.unit_column, stream=read_stream(session.card, path))


def _scores_after_training(arguments: argparse.Namespace) -> "Scores":
    from wheeltapper_models.data import read_table
    from wheeltapper_models.forest_watch import STREAM_FILE
    from wheeltapper_models.score import read_for, score_table
    from wheeltapper_models.session import Session
    from wheeltapper_models.train import train_tables

    if len(arguments.paths) != 1:
        raise SettingsError("model score --train-rows: give DATA alone; the model is learnt from its first rows")
    path = arguments.paths[0]
    request = request_of(arguments, arguments.kind, [path], Path(path).stem)
    table = read_table(path, time_column=arguments.time_column)
    if not 0 < arguments.train_rows < len(table):
        raise SettingsError(f"--train-rows {arguments.train_rows}: {path} has {len(table)} rows; leave some to score")
    trained = train_tables(request, [table.rows(0, arguments.train_rows)])
    session = Session(trained.card, trained.model)
    again = read_for(trained.card, path, time_column=arguments.time_column)
    stream = trained.files.get(STREAM_FILE)
    scores = score_table(session, again, unit_column=arguments.unit_column, stream=stream)
    return scores.since(arguments.train_rows)


def _judged(model: str, arguments: argparse.Namespace) -> Any:
    from wheeltapper_models.evaluate import Judging, score_for_judging

    judging = Judging(
        data=arguments.data,
        time_column=arguments.time_column,
        labels=arguments.labels,
        label_column=arguments.label_column,
        rows=arguments.rows,
        unit_column=arguments.unit_column,
    )
    return score_for_judging(model_path(model), judging)


def _names(lists: list[str]) -> list[str]:
    return [name.strip() for names in lists for name in names.split(",") if name.strip()]


def _pairs(pairs: list[str], option: str) -> dict[str, str]:
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise SettingsError(f"{option} {pair}: write it as NAME=VALUE")
        found[name.strip()] = value.strip()
    return found
