"""Recorded files as sources: detected, told, resumed, and the same rows whatever the dialect."""

import csv
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wheeltapper.errors import DataError, SettingsError
from wheeltapper_device.replay import ReplaySource
from wheeltapper_device.settings import ReplaySettings
from wheeltapper_device.sources import Step


def source_of(path: Path, **told: object) -> ReplaySource:
    return ReplaySource(ReplaySettings(file=path, **told))  # type: ignore[arg-type]


def steps_of(source: ReplaySource) -> list[Step]:
    return list(iter(source.next, None))


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"], ids=["comma", "semicolon", "tab", "bar"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["lf", "crlf"])
def test_the_dialect_does_not_matter(tmp_path: Path, delimiter: str, encoding: str, newline: str) -> None:
    lines = ["time,a,b °C", "2026-01-01 00:00:00,1.5,x1", "2026-01-01 00:00:02,,x2"]
    path = write(tmp_path / "f.csv", newline.join(line.replace(",", delimiter) for line in lines), encoding)

    steps = steps_of(source_of(path))
    assert [step.values for step in steps] == [{"a": 1.5, "b °C": "x1"}, {"a": None, "b °C": "x2"}]
    assert [step.time_ms for step in steps] == [1767225600000, 1767225602000]
    assert steps[0].pause_s == 2.0


def test_decimal_commas_are_numbers_where_the_comma_does_not_separate(tmp_path: Path) -> None:
    path = write(tmp_path / "f.csv", "t;a\n1;2,5\n2;-3,25\n")

    assert [step.values["a"] for step in steps_of(source_of(path))] == [2.5, -3.25]


@pytest.mark.parametrize("cell", ["", "nan", "NULL", "n/a", "?", "inf", "-inf", "1e999", "broken"])
def test_a_cell_that_is_no_number_is_missing(tmp_path: Path, cell: str) -> None:
    path = write(tmp_path / "f.csv", f"a,b\n1,2\n{cell},3\n4,5\n")

    assert [step.values["a"] for step in steps_of(source_of(path))] == [1.0, None, 4.0]


@pytest.mark.parametrize(
    ("cell", "told", "expected_ms"),
    [
        ("2026-03-01T12:00:00Z", {}, 1772366400000),
        ("2026-03-01T14:00:00+02:00", {}, 1772366400000),
        ("01.03.2026 12:00", {}, 1772366400000),
        ("1772366400", {}, 1772366400000),
        ("1772366400000", {}, 1772366400000),
        ("1772366400.5", {}, 1772366400500),
        ("12h00 01/03/26", {"time_format": "%Hh%M %d/%m/%y"}, 1772366400000),
    ],
)
def test_times_are_read_as_people_write_them(tmp_path: Path, cell: str, told: dict[str, str], expected_ms: int) -> None:
    path = write(tmp_path / "f.csv", f"timestamp,a\n{cell},1\n")

    assert source_of(path, **told).next() == Step({"a": 1.0}, 1.0, expected_ms)


def test_seconds_since_a_start_pace_the_rows_and_do_not_stamp_them(tmp_path: Path) -> None:
    path = write(tmp_path / "f.csv", "time,a\n0,1\n0.5,2\n1.0,3\n")

    steps = steps_of(source_of(path))
    assert [step.time_ms for step in steps] == [None, None, None]
    assert [step.pause_s for step in steps] == [0.5, 0.5, 0.5]


def test_a_first_column_of_numbers_without_a_name_for_it_is_a_sensor(tmp_path: Path) -> None:
    path = write(tmp_path / "f.csv", "speed,a\n1500,1\n1510,2\n")

    assert steps_of(source_of(path))[0].values == {"speed": 1500.0, "a": 1.0}


def test_a_file_without_a_header_calls_columns_by_their_place(tmp_path: Path) -> None:
    path = write(tmp_path / "f.txt", "1.0 642.1  0.5 \n2.0 643.0  0.6 \n")

    assert [step.values for step in steps_of(source_of(path))] == [
        {"1": 1.0, "2": 642.1, "3": 0.5},
        {"1": 2.0, "2": 643.0, "3": 0.6},
    ]


@pytest.mark.parametrize(
    ("rows", "expected"), [("", [0, 1, 2, 3]), ("2:", [2, 3]), (":1", [0]), ("1:3", [1, 2]), ("9:", [])]
)
def test_rows_choose_a_part(tmp_path: Path, rows: str, expected: list[float]) -> None:
    path = write(tmp_path / "f.csv", "a,b\n0,0\n1,0\n2,0\n3,0\n")

    assert [step.values["a"] for step in steps_of(source_of(path, rows=rows))] == expected


def test_ignored_columns_are_not_sent(tmp_path: Path) -> None:
    path = write(tmp_path / "f.csv", "a,b,label\n1,2,0\n")

    assert steps_of(source_of(path, ignore=["label", "b"]))[0].values == {"a": 1.0}


def test_a_column_with_a_reserved_name_does_not_pass_for_the_readings_own(tmp_path: Path) -> None:
    path = write(tmp_path / "f.csv", "thing,a\nm7,1\nm7,2\n")

    assert steps_of(source_of(path))[0].values == {"thing_": "m7", "a": 1.0}


def test_speed_divides_the_recorded_pauses(tmp_path: Path) -> None:
    path = write(tmp_path / "f.csv", "time,a\n2026-01-01 00:00,1\n2026-01-01 01:00,2\n2026-01-01 02:00,3\n")

    assert [step.pause_s for step in steps_of(source_of(path, speed=7200.0))] == [0.5, 0.5, 0.5]
    assert [step.pause_s for step in steps_of(source_of(path))] == [1.0, 1.0, 1.0]


def test_infinite_speed_does_not_pause(tmp_path: Path) -> None:
    path = write(tmp_path / "f.csv", "time,a\n2026-01-01 00:00,1\n2026-01-01 01:00,2\n")

    assert [step.pause_s for step in steps_of(source_of(path, speed=float("inf")))] == [0.0, 0.0]


def test_a_long_gap_in_the_recording_is_cut_short(tmp_path: Path) -> None:
    rows = ["2026-01-01 00:00:00,1", "2026-01-01 00:00:01,2", "2026-01-03 00:00:00,3", "2026-01-03 00:00:01,4"]
    path = write(tmp_path / "f.csv", "time,a\n" + "\n".join(rows))

    assert [step.pause_s for step in steps_of(source_of(path))] == [1.0, 5.0, 1.0, 1.0]


def test_a_loop_begins_again_with_present_stamps(tmp_path: Path) -> None:
    path = write(tmp_path / "f.csv", "time,a\n2026-01-01 00:00:00,1\n2026-01-01 00:00:01,2\n")
    source = source_of(path, loop=True)

    steps = [source.next() for _ in range(5)]
    assert [step and step.values["a"] for step in steps] == [1.0, 2.0, 1.0, 2.0, 1.0]
    assert [step is not None and step.time_ms is None for step in steps] == [False, False, True, True, True]


@given(
    rows=st.lists(st.floats(-1e6, 1e6).map(lambda number: round(number, 3)), min_size=1, max_size=40),
    before=st.integers(0, 50),
    loop=st.booleans(),
)
@settings(max_examples=30, deadline=None)
def test_a_restored_replay_goes_on_with_the_next_row(
    tmp_path_factory: pytest.TempPathFactory, rows: list[float], before: int, loop: bool
) -> None:
    path = tmp_path_factory.mktemp("replay") / "f.csv"
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([["a", "b"], *([row, 1] for row in rows)])
    source = source_of(path, loop=loop)
    for _ in range(before):
        source.next()
    resumed = source_of(path, loop=loop)
    resumed.restore(source.position())

    assert [resumed.next() for _ in range(50)] == [source.next() for _ in range(50)]


@pytest.mark.parametrize(
    ("text", "told", "error"),
    [
        ("", {}, DataError),
        ("a,b\n", {}, DataError),
        ("a,b\n1,2\n", {"time_column": "when"}, DataError),
        ("a,b\n1,x\n", {"time_column": "b"}, DataError),
        ("a,b\n1,2\n", {"ignore": ["c"]}, DataError),
        ("a,b\n1,2\n", {"rows": "5:2"}, SettingsError),
        ("a,b\n1,2\n", {"rows": "x"}, SettingsError),
        ("a,b\n1,2\n", {"delimiter": "ab"}, SettingsError),
    ],
)
def test_what_cannot_be_replayed_is_refused_in_one_line(
    tmp_path: Path, text: str, told: dict[str, object], error: type[Exception]
) -> None:
    with pytest.raises(error) as raised:
        source_of(write(tmp_path / "f.csv", text), **told)

    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kept", [b"{", b'{"\xff": 1}', b"[" * 100_000])
def test_a_position_that_cannot_be_read_is_refused_in_one_line(tmp_path: Path, kept: bytes) -> None:
    source = source_of(write(tmp_path / "f.csv", "a,b\n1,2\n"))

    with pytest.raises(SettingsError, match="the saved position cannot be read"):
        source.restore(kept)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.csv"):
        source_of(tmp_path / "gone.csv")


def test_every_recording_at_hand_replays_whole(shared: Path) -> None:
    counts = {}
    for path in sorted((shared / "data").rglob("*")):
        if path.suffix in (".csv", ".txt"):
            source = source_of(path)
            step = source.next()
            assert step is not None
            assert any(value is not None for value in step.values.values()), path
            lines = len([line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()])
            counts[path.name] = (len(steps_of(source)) + 1, lines - source.layout.header)

    assert len(counts) >= 20
    assert all(sent == present for sent, present in counts.values()), counts


def test_a_damaged_row_keeps_its_place_in_time_and_harms_no_other(tmp_path: Path) -> None:
    lines = [f"2026-01-01 00:00:{second:02d},{second}" for second in range(20)]
    lines[10] = "rubbish"
    path = write(tmp_path / "f.csv", "time,a\n" + "\n".join(lines) + "\n")

    steps = steps_of(source_of(path))

    assert [(step.time_ms or 0) - 1767225600000 for step in steps] == [1000 * second for second in range(20)]
    assert [step.values["a"] for step in steps] == [*map(float, range(10)), None, *map(float, range(11, 20))]


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    path.write_bytes(b"PK\x03\x04\x00\x00\x00rows")

    with pytest.raises(DataError, match="is no text"):
        source_of(path)


def test_what_was_detected_is_told(tmp_path: Path) -> None:
    timed = write(tmp_path / "t.csv", "time;a;mode\n2026-01-01 00:00:00;1;idle\n2026-01-01 00:00:01;2;busy\n")
    plain = write(tmp_path / "p.csv", "a,b\n1,2\n3,4\n")

    told = source_of(timed).describe(), source_of(plain).describe()

    assert told[0].endswith("t.csv: delimiter ';'; sensors a; attributes mode; times in time")
    assert "no column of times" in told[1]
