"""The commands: what they print is what machines read, for each form of the command line."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.models.pumps import SENSORS, pump_values, write_csv
from wheeltapper.cli import main
from wheeltapper_models.card import read_card
from wheeltapper_models.commands import KIND_NAMES
from wheeltapper_models.data import read_table
from wheeltapper_models.kinds import KINDS
from wheeltapper_models.ranking import area_under_curve, average_precision
from wheeltapper_models.train import Request, label, prepare


@pytest.fixture
def pump(tmp_path: Path) -> str:
    values = pump_values(600, seed=4)
    values[450:500, 2] += 15.0
    return write_csv(tmp_path / "pump.csv", values)


def lines_of(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_training_on_the_first_rows_scores_the_rest_in_order(pump, capsys):
    status = main(["model", "score", "--kind", "anomaly", "--train-rows", "400", pump, "--json"])

    rows = lines_of(capsys.readouterr().out)
    assert status == 0
    assert [row["row"] for row in rows] == list(range(400, 600))
    assert set(rows[0]) == {"row", "time", "score", "anomaly", "contributions"}
    assert rows[0]["time"] == "2026-01-01T00:06:40Z"
    assert {row["anomaly"] for row in rows} == {0, 1}
    assert all(abs(sum(row["contributions"].values()) - 1) <= 1e-5 for row in rows)
    assert max(rows[80]["contributions"], key=rows[80]["contributions"].get) == "heat"


def test_a_trained_model_scores_every_row_from_its_folder_and_its_file(pump, tmp_path, capsys):
    out = tmp_path / "model"
    assert main(["model", "train", "--kind", "anomaly", "--data", pump, "--rows", "0:400", "--out", str(out)]) == 0
    capsys.readouterr()

    main(["model", "score", str(out), pump, "--json"])
    by_folder = capsys.readouterr().out
    main(["model", "score", str(out / "model.onnx"), pump, "--json"])

    assert capsys.readouterr().out == by_folder
    assert len(lines_of(by_folder)) == 600


def test_scoring_after_training_equals_scoring_with_the_trained_model(pump, tmp_path, capsys):
    out = tmp_path / "model"
    main(["model", "train", "--kind", "anomaly", "--data", pump, "--rows", ":400", "--out", str(out)])
    capsys.readouterr()
    main(["model", "score", str(out), pump, "--json"])
    whole = lines_of(capsys.readouterr().out)

    main(["model", "score", "--train-rows", "400", pump, "--json"])

    assert lines_of(capsys.readouterr().out) == whole[400:]


def test_ignored_and_chosen_columns_and_the_span_reach_the_card(pump, tmp_path):
    out = tmp_path / "model"

    command = ["model", "train", "--kind", "anomaly", "--data", pump, "--out", str(out), "--name", "pump"]
    command += ["--ignore", "noise", "--sensors", "load,heat", "current", "--until", "2026-01-01T00:05:00"]
    main([*command, "--unit", "heat=°C", "--set", "span=20"])

    card = read_card(out / "card.json")
    assert card.sensors == ["load", "heat", "current"]
    assert (card.training.rows, card.training.end) == (300, "2026-01-01T00:04:59Z")
    assert card.inputs[1].unit == "°C"
    assert card.settings["span"] == 20
    assert card.period_ms == 1000


def test_a_resampled_model_scores_one_row_per_interval(pump, tmp_path, capsys):
    out = tmp_path / "model"
    main(["model", "train", "--kind", "anomaly", "--data", pump, "--rate", "PT5S", "--out", str(out)])
    capsys.readouterr()

    main(["model", "score", str(out), pump, "--json"])

    rows = lines_of(capsys.readouterr().out)
    assert [row["row"] for row in rows][:3] == [0, 5, 10]
    assert len(rows) == 121


def test_a_label_column_may_hold_numbers_or_words(tmp_path):
    path = tmp_path / "labelled.csv"
    path.write_text("a,bad,fault\n1,0,\n2,1,leak\n3,,normal\n4,2,wear\n")
    table = read_table(path)

    masks = [label(table, "", column).labelled for column in ("bad", "fault")]

    assert [mask.tolist() for mask in masks if mask is not None] == [[False, True, False, True]] * 2
    assert label(table, "", "fault").names == ("a", "bad")


def test_the_command_line_knows_every_kind():
    assert set(KIND_NAMES) == set(KINDS)


def test_a_table_is_cut_where_time_jumps(tmp_path):
    path = tmp_path / "gap.csv"
    path.write_text("time,a\n" + "".join(f"{second},1\n" for second in [*range(10), *range(1000, 1005)]))

    stretches = prepare(Request(kind="anomaly", data=[str(path)]), read_table(path))

    assert [len(stretch) for stretch in stretches] == [10, 5]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["score", "{pump}", "--json"], "give MODEL and DATA"),
        (["score", "--train-rows", "900", "{pump}"], "has 600 rows"),
        (["train", "--kind", "anomaly", "--data", "{pump}", "--rows", "5", "--out", "x"], "write it as A:B"),
        (["train", "--kind", "anomaly", "--data", "{pump}", "--ignore", "colour", "--out", "x"], "no column 'colour'"),
        (["train", "--kind", "anomaly", "--data", "{pump}", "--rate", "soon", "--out", "x"], "is no duration"),
        (["train", "--kind", "anomaly", "--data", "{pump}", "--set", "lags", "--out", "x"], "NAME=VALUE"),
        (["score", "{pump}", "{pump}"], "is not an ONNX file|has neither a card"),
        (["reproduce", "ship"], "no such scenario"),
    ],
    ids=["one path", "too many rows", "rows", "ignore", "rate", "set", "no model", "scenario"],
)
def test_a_mistake_is_one_line_that_names_it(arguments, message, pump, capsys):
    status = main(["model", *(argument.format(pump=pump) for argument in arguments)])

    error = capsys.readouterr().err
    assert status != 0
    assert re.search(message, error)
    assert error.count("\n") == 1


def test_evaluation_finds_the_labelled_range_and_writes_a_report(pump, tmp_path, capsys):
    labels = tmp_path / "labels.csv"
    labels.write_text("2026-01-01T00:07:30Z,2026-01-01T00:08:19Z\n")
    out = tmp_path / "model"
    main(["model", "train", "--kind", "anomaly", "--data", pump, "--rows", "0:400", "--out", str(out)])
    capsys.readouterr()

    main(["model", "evaluate", str(out), pump, "--labels", str(labels), "--json", "--out", str(tmp_path / "report")])

    figures = json.loads(capsys.readouterr().out)
    assert (figures["ranges_labelled"], figures["ranges_found"], figures["ranges_false"]) == (1, 1, 0)
    assert figures["abnormal_rows"] == 50
    assert figures["recall"] > 0.9
    assert figures["far"] + figures["mar"] < 0.5
    assert next(iter(figures["events"][0]["sensors"])) == "heat"
    assert figures["events"][0]["delay"] + figures["events"][0]["lead"] == 49.0
    assert (tmp_path / "report" / "score.png").read_bytes().startswith(b"\x89PNG")
    assert "Labelled ranges" in (tmp_path / "report" / "report.html").read_text()


def test_a_model_agrees_with_itself_and_an_inspection_lists_its_operators(pump, tmp_path, capsys):
    out = tmp_path / "model"
    main(["model", "train", "--kind", "anomaly", "--data", pump, "--rows", "0:400", "--out", str(out)])
    capsys.readouterr()

    main(["model", "compare", str(out), str(out), pump, "--json"])
    comparison = json.loads(capsys.readouterr().out)
    main(["model", "inspect", str(out), "--json"])
    inspection = json.loads(capsys.readouterr().out)

    assert (comparison["agreement"], comparison["disagreements"]) == (1.0, [])
    assert inspection["operators"]["Gemm"] == 1
    assert inspection["card"]["name"] == "model"


def test_a_failing_asset_does_not_stop_the_fleet_and_a_second_run_resumes(tmp_path, capsys):
    files = [write_csv(tmp_path / f"pump {name}.csv", pump_values(200, seed=seed)) for seed, name in enumerate("ab")]
    files.append(write_csv(tmp_path / "dead.csv", np.full((200, 4), 5.0)))
    command = ["model", "train", "--kind", "anomaly", "--data", *files, "--each-file", "--jobs", "2", "--json"]
    command += ["--out", str(tmp_path / "fleet")]

    first_status, first = main(command), json.loads(capsys.readouterr().out)
    second_status, second = main(command), json.loads(capsys.readouterr().out)

    assert (first_status, second_status) == (1, 1)
    assert (first["trained"], first["kept"], first["failed"]) == (2, 0, 1)
    assert (second["trained"], second["kept"], second["failed"]) == (0, 2, 1)
    assert [asset["asset"] for asset in first["assets"]] == ["pump_a", "pump_b", "dead"]
    assert "no sensor can be learnt from" in first["assets"][2]["error"]
    assert read_card(tmp_path / "fleet" / "pump_a" / "card.json").name == "pump_a"


def test_one_file_of_many_assets_gives_a_model_each(tmp_path, capsys):
    lines = ["machine;" + ";".join(SENSORS)]
    for machine, seed in (("7", 1), ("north/2", 2)):
        lines += [machine + ";" + ";".join(map(str, row)) for row in pump_values(150, seed=seed).tolist()]
    path = tmp_path / "plant.csv"
    path.write_text("\n".join(lines))

    command = ["model", "train", "--kind", "anomaly", "--data", str(path), "--asset-column", "machine"]
    status = main([*command, "--jobs", "1", "--out", str(tmp_path / "plant"), "--json"])

    report = json.loads(capsys.readouterr().out)
    assert status == 0
    assert [asset["asset"] for asset in report["assets"]] == ["7", "north_2"]
    assert read_card(tmp_path / "plant" / "north_2" / "card.json").sensors == list(SENSORS)


def test_ranking_figures_equal_those_of_scikit_learn():
    from sklearn.metrics import average_precision_score, roc_auc_score

    random = np.random.default_rng(0)
    score = np.round(random.normal(0, 1, 500), 1)
    abnormal = random.random(500) < 0.2

    assert area_under_curve(abnormal, score) == pytest.approx(roc_auc_score(abnormal, score))
    assert average_precision(abnormal, score) == pytest.approx(average_precision_score(abnormal, score))


def test_the_test_bed_of_pump_and_valve_is_judged_as_promised(shared):
    from wheeltapper_models.kinds import Options
    from wheeltapper_models.score import score_table
    from wheeltapper_models.session import Session
    from wheeltapper_models.train import train_tables

    hit = false = missed = right = 0
    for path in sorted((shared / "data" / "skab" / "valve1").glob("*.csv")):
        table = read_table(path)
        abnormal = table.column("anomaly")[400:] > 0
        sensors = table.without(["anomaly", "changepoint"])
        trained = train_tables(Request(kind="anomaly", data=[], options=Options()), [sensors.rows(0, 400)])
        alarm = score_table(Session(trained.card, trained.model), sensors).anomaly[400:] > 0
        hit, false = hit + int((alarm & abnormal).sum()), false + int((alarm & ~abnormal).sum())
        missed, right = missed + int((~alarm & abnormal).sum()), right + int((~alarm & ~abnormal).sum())

    assert 2 * hit / (2 * hit + false + missed) >= 0.84
    assert false / (false + right) <= 0.25
    assert missed / (hit + missed) <= 0.15
