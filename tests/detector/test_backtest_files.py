"""The same history gives the same back-test from JSON Lines, CSV and Parquet."""

import gzip
import json
from pathlib import Path

import pytest

from wheeltapper.cli import main
from wheeltapper.detector.templates import Shape, threshold
from wheeltapper.errors import DataError
from wheeltapper.history import all_messages, read_history

pa = pytest.importorskip("pyarrow")

START_MS = 1_700_000_000_000
ROWS = [
    {"time": START_MS + 1000 * t, "thing": f"m{t % 3}", "t": None if t % 50 == 7 else float(90 if t % 60 < 9 else 20)}
    for t in range(600)
]


def _write(folder: Path, kind: str) -> Path:
    path = folder / f"history.{kind}"
    if kind.startswith("jsonl"):
        lines = []
        for row in ROWS:
            payload = {name: value for name, value in row.items() if name != "time" and value is not None}
            lines.append(json.dumps({"inputName": "Pump", "timestamp": row["time"], "payload": payload}))
        text = "\n".join(lines).encode()
        path.write_bytes(gzip.compress(text) if kind.endswith("gz") else text)
    elif kind == "csv":
        cells = [f"{row['time'] / 1000:.0f},{row['thing']},{'' if row['t'] is None else row['t']}" for row in ROWS]
        path.write_text("\n".join(["time,thing,t", *cells]) + "\n")
    else:
        import pyarrow.parquet as pq

        table = pa.Table.from_pylist(ROWS)
        stamps = pa.array([row["time"] for row in ROWS], pa.timestamp("ms"))
        pq.write_table(table.set_column(0, "time", stamps), path, row_group_size=100)
    return path


@pytest.fixture
def models(tmp_path: Path) -> tuple[Path, Path]:
    shape = Shape(name="m", input_name="Pump", key="thing", topic="alarms")
    paths = tmp_path / "new.json", tmp_path / "old.json"
    for path, limit in zip(paths, (80, 15), strict=True):
        path.write_text(json.dumps(threshold(shape, attribute="t", above=limit).model))
    return paths


def _told(models: tuple[Path, Path], history: Path, capsys: pytest.CaptureFixture[str], *more: str) -> dict:
    arguments = ["detector", "backtest", str(models[0]), "--against", str(models[1]), "--messages", str(history)]
    assert main([*arguments, "--input", "Pump", "--time-column", "time", "--json", *more]) == 0
    told = json.loads(capsys.readouterr().out)
    del told["messagesPerSecond"]
    return told


def test_every_kind_of_file_gives_the_same_back_test(
    tmp_path: Path, models: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
):
    told = [_told(models, _write(tmp_path, kind), capsys) for kind in ("jsonl", "jsonl.gz", "csv", "parquet")]

    assert told[0]["alarms"] == 30
    assert told[0]["against"]["gained"] == 27
    assert all(each == told[0] for each in told[1:])


def test_one_key_alone_can_be_asked_for(tmp_path: Path, models: tuple[Path, Path], capsys: pytest.CaptureFixture[str]):
    told = _told(models, _write(tmp_path, "parquet"), capsys, "--key", "m1")

    assert list(told["keys"]) == ["m1"]


def test_columns_keep_their_kinds(tmp_path: Path):
    path = tmp_path / "x.csv"
    path.write_text('when;code;a.b;flag;note\n2024-01-01 00:00:01;007;3;true;"x; y"\n2024-01-01 00:00:02;008;;false;\n')

    messages = list(all_messages(read_history(path, input_name="I", time_column="when", texts={"code"})))

    assert [each.payload for each in messages] == [
        {"when": "2024-01-01 00:00:01", "code": "007", "a": {"b": 3}, "flag": True, "note": "x; y"},
        {"when": "2024-01-01 00:00:02", "code": "008", "flag": False},
    ]
    assert [each.time_ms for each in messages] == [1_704_067_201_000, 1_704_067_202_000]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.jsonl", '{"inputName": "I", "payload": {}}', "line 1: lacks a timestamp"),
        ("a.jsonl", '{"inputName": "I", "timestamp": 1, "payload": {}}\n[]', "line 2"),
        ("a.csv", "t,v\n1,2\n", "has no column 'time'"),
        ("a.csv", "time,v\n1700000000,2\n,3\n", "row 2 has no 'time'"),
        ("a.csv", "time,v\nsoon,2\n", "'soon' is no time"),
        ("a.parquet", "no parquet", "not a Parquet file"),
        ("a.xls", "", "of unknown kind"),
    ],
    ids=["stamp", "line", "column", "empty", "word", "parquet", "kind"],
)
def test_what_cannot_be_read_says_where(tmp_path: Path, name: str, text: str, says: str):
    path = tmp_path / name
    path.write_text(text)

    with pytest.raises(DataError, match=says):
        list(read_history(path, input_name="I", time_column="time"))


@pytest.mark.parametrize("payload", [b'{"\xff": 1}', b'{"a": ' + b"[" * 100_000 + b"]}"], ids=["bytes", "depth"])
def test_a_line_that_no_decoder_can_read_is_named(
    models: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], payload: bytes
):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"inputName": "I", "timestamp": 1, "payload": %s}' % payload)

    with pytest.raises(DataError, match="line 1"):
        list(read_history(path, input_name="I", time_column="time"))
    assert main(["detector", "simulate", str(models[0]), "--messages", str(path)]) in (1, 2)
    assert "line 1" in capsys.readouterr().err


def test_a_file_of_columns_needs_the_names_of_its_input_and_time(
    models: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    status = main(["detector", "backtest", str(models[0]), "--messages", str(_write(tmp_path, "csv"))])

    assert status == 2
    assert "--time-column" in capsys.readouterr().err


def test_lint_and_new_and_migrate_work_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    made = tmp_path / "beat.json"
    new = ["detector", "new", "heartbeat", "--input", "Pump", "--key", "thing", "--topic", "a", "--output", str(made)]
    assert main([*new, "--seconds", "300"]) == 0

    lint = main(["detector", "lint", str(made), str(tmp_path / "beat.input.json"), "--level", "warning", "--json"])
    migrate = main(["detector", "migrate", str(made), str(made)])

    out = capsys.readouterr().out
    assert (lint, migrate) == (0, 0)
    assert '"level"' not in out
    assert "silence" in out
