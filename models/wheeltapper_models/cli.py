"""The commands of this room; what they need is imported when they run."""

import argparse

from wheeltapper.cli import Commands

TRAIN_EXAMPLE = """\
wheeltapper model train --kind anomaly --data pump.csv --rows 0:400 --ignore anomaly --out models/pump
wheeltapper model train --kind anomaly --data pump.csv --rate PT1M --off 'Speed < 10' --labels bad.csv --out models/pump
wheeltapper model train --kind forecast --data air.csv --target pollution --until 2012-01-01 --out models/air
wheeltapper model train --kind failure --data jets.csv --unit-column u --time-column cycle --horizon 24 --out models/jet
wheeltapper model train --kind anomaly --data plant/*.csv --each-file --out models/plant"""


def register(commands: Commands) -> None:
    """Add this room's commands."""
    model = commands.group("model", "train models of a machine's health, score and judge them")
    _train(model)
    _score(model)
    _evaluate(model)
    _compare(model)
    _drift(model)
    _import(model)
    _inspect(model)
    _reproduce(model)


def _train(model: Commands) -> None:
    from wheeltapper_models import commands

    parser = model.add(
        "train", commands.train, help="learn from CSV or Parquet and write a model", example=TRAIN_EXAMPLE
    )
    parser.add_argument("--kind", required=True, choices=commands.KIND_NAMES, help="what to learn")
    parser.add_argument("--data", required=True, nargs="+", metavar="FILE", help="CSV (any delimiter) or Parquet")
    parser.add_argument("--out", required=True, metavar="DIR", help="where model.onnx and card.json go")
    _selection(parser, lists=True)
    _learning(parser)
    parser.add_argument("--name", default="", help="the model's name; else the folder's")
    parser.add_argument("--model-version", default="", metavar="V", help="else 12 digits of the model's SHA-256")
    fleet = parser.add_argument_group("many assets at once")
    fleet.add_argument("--each-file", action="store_true", help="one model per file, in DIR/<file name>")
    fleet.add_argument(
        "--asset-column", default="", metavar="C", help="one model per value of this column, in DIR/<value>"
    )
    fleet.add_argument("--jobs", type=int, default=0, metavar="N", help="processes; else one per processor")
    fleet.add_argument("--restart", action="store_true", help="train again what an earlier run has finished")
    parser.add_argument("--json", action="store_true", help="print the card (or the fleet's report) as JSON")


def _score(model: Commands) -> None:
    from wheeltapper_models import commands

    parser = model.add(
        "score",
        commands.score,
        help="say of every row of a file what a model thinks of it",
        example="wheeltapper model score models/pump pump.csv --json\n"
        "wheeltapper model score --kind anomaly --train-rows 400 --time-column datetime pump.csv --json",
    )
    parser.add_argument("paths", nargs="+", metavar="MODEL DATA", help="a model's folder or .onnx file, and the data")
    parser.add_argument("--train-rows", type=int, default=0, metavar="N", help="no MODEL: learn from the first N rows")
    parser.add_argument(
        "--kind", choices=commands.KIND_NAMES, default="anomaly", help="what to learn with --train-rows"
    )
    _selection(parser, lists=False)
    _learning(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object per row, in order")


def _evaluate(model: Commands) -> None:
    from wheeltapper_models import commands

    parser = model.add(
        "evaluate",
        commands.evaluate,
        help="compare what a model says with what was labelled, in tables and pictures",
        example="wheeltapper model evaluate models/pump pump.csv --label-column anomaly --out report\n"
        "wheeltapper model evaluate models/robot history.csv --labels faults.csv --out report",
    )
    parser.add_argument("model", metavar="MODEL", help="a model's folder or .onnx file")
    parser.add_argument("data", metavar="DATA", help="CSV or Parquet")
    _judging(parser)
    parser.add_argument("--out", default="", metavar="DIR", help="write report.html and pictures here")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")


def _compare(model: Commands) -> None:
    from wheeltapper_models import commands

    parser = model.add(
        "compare",
        commands.compare,
        help="run two models over the same data and say where they differ",
        example="wheeltapper model compare models/pump-1 models/pump-2 pump.csv --label-column anomaly",
    )
    parser.add_argument("first", metavar="A", help="a model's folder or .onnx file")
    parser.add_argument("second", metavar="B", help="another")
    parser.add_argument("data", metavar="DATA", help="CSV or Parquet")
    _judging(parser)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")


def _drift(model: Commands) -> None:
    from wheeltapper_models import commands

    parser = model.add(
        "drift",
        commands.drift,
        help="tell from a file's rows whether the model's world has changed since its first days",
        example="wheeltapper model drift models/pump history.csv\n"
        "wheeltapper model drift models/pump shift.csv --period PT1H --learn 4 --png drift.png",
    )
    parser.add_argument("model", metavar="MODEL", help="a model's folder or .onnx file")
    parser.add_argument("data", metavar="DATA", help="CSV or Parquet with times")
    parser.add_argument("--time-column", default="", metavar="C", help="the column of times; else it is found")
    parser.add_argument("--period", default="PT24H", metavar="PT24H", help="length of the periods that are compared")
    parser.add_argument("--learn", type=int, default=7, metavar="N", help="full periods that say what is usual")
    parser.add_argument("--thin", type=int, default=15, metavar="N", help="rows whose mean score is one value of ADWIN")
    parser.add_argument("--png", default="", metavar="FILE", help="draw cutoffs and distances")
    parser.add_argument("--json", action="store_true", help="print findings and periods as JSON")


def _import(model: Commands) -> None:
    from wheeltapper_models import commands

    parser = model.add(
        "import",
        commands.import_forest,
        help="take over a random cut forest that krcf (AWS's Rust implementation) has written with to_json()",
        example="wheeltapper model import forest.json --data history.csv --out models/evaporator",
    )
    parser.add_argument("forest", metavar="FOREST.json", help="what krcf's to_json() gave")
    parser.add_argument("--data", required=True, metavar="FILE", help="rows like those it was fed; they set the cutoff")
    parser.add_argument("--out", required=True, metavar="DIR", help="where model.onnx, card.json and stream.npz go")
    _selection(parser, lists=False)
    _learning(parser)


def _inspect(model: Commands) -> None:
    from wheeltapper_models import commands

    parser = model.add(
        "inspect",
        commands.inspect,
        help="show a model's card, its operators and size, and its speed on this machine",
        example="wheeltapper model inspect models/pump",
    )
    parser.add_argument(
        "model", metavar="MODEL", help="a model's folder or .onnx file, or the name of a shipped scenario"
    )
    parser.add_argument("--json", action="store_true", help="print it as JSON")


def _reproduce(model: Commands) -> None:
    from wheeltapper_models import commands

    parser = model.add(
        "reproduce",
        commands.reproduce,
        help="train the shipped scenario models again from the simulator and compare",
        example="wheeltapper model reproduce\nwheeltapper model reproduce motor --json",
    )
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help="motor, robot, evaporator; else all")
    parser.add_argument("--write", default="", metavar="DIR", help="write the models trained here to DIR/<scenario>")
    parser.add_argument("--json", action="store_true", help="print the comparison as JSON")


def _selection(parser: argparse.ArgumentParser, *, lists: bool) -> None:
    # where positional arguments follow, an option cannot take a list
    group = parser.add_argument_group("which data")
    group.add_argument("--time-column", default="", metavar="C", help="the column of times; else it is found")
    group.add_argument("--rows", default="", metavar="A:B", help="rows to learn from, 0-based, B left out")
    group.add_argument("--until", default="", metavar="T", help="learn from rows before this time")
    for option, text in (("--sensors", "columns to learn from; else all"), ("--ignore", "columns to leave out")):
        group.add_argument(option, action="extend", nargs="+" if lists else 1, default=[], metavar="C,…", help=text)
    group.add_argument("--labels", default="", metavar="CSV", help="abnormal times: start,end per line")
    group.add_argument(
        "--label-column", default="", metavar="C", help="a column that is not 0 or blank where a row is abnormal"
    )
    group.add_argument("--rate", default="", metavar="PT5M", help="resample to one row per PT1S … PT1H")


def _learning(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how to learn")
    group.add_argument("--target", default="", metavar="C", help="what to forecast, or the 0/1 column of failures")
    group.add_argument(
        "--off", action="append", default=[], metavar="'C < 10'", help="while this holds the machine is off"
    )
    group.add_argument("--unit-column", default="", metavar="U", help="tells run-to-failure units apart")
    group.add_argument(
        "--horizon", type=float, metavar="H", help="how far ahead a failure counts, in units of the time column"
    )
    group.add_argument("--seed", type=int, default=0, help="for kinds that draw at random")
    group.add_argument("--unit", action="append", default=[], metavar="C=°C", help="a sensor's unit, for the card")
    group.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the kind, see docs/models.md"
    )


def _judging(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--time-column", default="", metavar="C", help="the column of times; else it is found")
    parser.add_argument("--labels", default="", metavar="CSV", help="abnormal times: start,end per line")
    parser.add_argument(
        "--label-column", default="", metavar="C", help="a column that is not 0 or blank where a row is abnormal"
    )
    parser.add_argument("--rows", default="", metavar="A:B", help="judge these rows only, 0-based, B left out")
    parser.add_argument(
        "--unit-column", default="", metavar="U", help="rows of different units are of different machines"
    )
