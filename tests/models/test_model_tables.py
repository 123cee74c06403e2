"""Tables of machine data are read as people write them, and brought to a grid."""

from pathlib import Path

import numpy as np
import pytest

from wheeltapper.errors import DataError
from wheeltapper_models.data import Table, read_table
from wheeltapper_models.labels import Range, labelled_rows, read_ranges
from wheeltapper_models.times import read_duration_ms, read_time


def table_from(tmp_path: Path, text: str, **options: str) -> Table:
    path = tmp_path / "data.csv"
    path.write_bytes(text.encode())
    return read_table(path, **options)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|", " "], ids=["comma", "semicolon", "tab", "bar", "space"])
def test_any_delimiter_is_found(tmp_path, delimiter):
    text = "\n".join(delimiter.join(cells) for cells in (["t", "a", "b"], ["1", "2", "3"], ["4", "5", "6"]))

    table = table_from(tmp_path, text)

    assert table.names == ("t", "a", "b")
    assert table.values.tolist() == [[1, 2, 3], [4, 5, 6]]


def test_a_byte_order_mark_and_a_decimal_comma_are_understood(tmp_path):
    table = table_from(tmp_path, "\ufefftemp;load\n1,5;2\n2,5;3\n")

    assert table.names == ("temp", "load")
    assert table.column("temp").tolist() == [1.5, 2.5]


def test_quoted_names_with_the_delimiter_in_them_stay_whole(tmp_path):
    table = table_from(tmp_path, 'time,"Flow, net"\n2026-01-01 00:00,1\n2026-01-01 00:01,2\n')

    assert table.names == ("Flow, net",)
    assert table.time_column == "time"


def test_blank_lines_are_no_rows_and_empty_rows_are(tmp_path):
    table = table_from(tmp_path, 'a,note\n1,"two\nlines"\n\n,\n3,x\n')

    assert table.column("a")[[0, 2]].tolist() == [1.0, 3.0]
    assert table.text["note"] == ["two\nlines", "", "x"]


def test_cells_that_are_no_numbers_are_missing_and_counted(tmp_path):
    table = table_from(tmp_path, "a,b\n1,x\n2,\nbad,y\n4,NaN\n")

    assert np.isnan(table.column("a")[2])
    assert table.bad_cells == {"a": 1}
    assert table.text == {"b": ["x", "", "y", "NaN"]}


def test_a_file_without_a_header_calls_its_columns_by_place(tmp_path):
    table = table_from(tmp_path, "1 10 0.5 \n1 11 0.6 \n")

    assert table.names == ("1", "2", "3")


@pytest.mark.parametrize(
    "cell",
    ["2026-03-01 00:00:00", "2026-03-01T00:00:00Z", "2026-03-01T01:00:00+01:00", "2026/3/1 0:00", "3/1/2026 0:00",
     "1772323200", "1772323200000"],
)  # fmt: skip
def test_times_are_read_in_many_forms(cell):
    assert read_time(cell) == 1_772_323_200_000


def test_the_time_column_is_found_by_name_and_by_its_cells(tmp_path):
    named = table_from(tmp_path, "value,timestamp\n1,2026-01-01 00:00\n2,2026-01-01 00:01\n")
    first = table_from(tmp_path, "when,value\n2026-01-01 00:00,1\n2026-01-01 00:01,2\n")
    neither = table_from(tmp_path, "id,value\n1,1\n2,2\n")

    assert [table.time_column for table in (named, first, neither)] == ["timestamp", "when", ""]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, "is empty"),
        ("a,b\n", {}, "no rows"),
        ("a,b\n1,2\n", {"time_column": "t"}, "no column 't'; it has a, b"),
        ("t,b\nsoon,2\n", {"time_column": "t"}, "holds no times"),
    ],
    ids=["empty", "header only", "no such column", "no times"],
)
def test_what_cannot_be_read_is_said(tmp_path, text, options, message):
    with pytest.raises(DataError, match=message):
        table_from(tmp_path, text, **options)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone.csv: cannot be read"):
        read_table(tmp_path / "gone.csv")


def test_parquet_reads_as_csv_does(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {"time": ["2026-01-01 00:00", "2026-01-01 00:01"], "a": [1.5, None], "kind": ["L", "M"]}
    pq.write_table(pa.table(columns), tmp_path / "data.parquet")

    table = read_table(tmp_path / "data.parquet")

    assert table.names == ("a",)
    assert table.text == {"kind": ["L", "M"]}
    assert np.isnan(table.column("a")[1])
    assert table.time_ms is not None


@pytest.mark.parametrize("text", ["5M", "PT", "PT0S", "P1D"])
def test_what_is_no_rate_is_refused(text):
    with pytest.raises(DataError, match="is no duration"):
        read_duration_ms(text)


def test_labels_are_read_with_or_without_a_header_and_cover_both_ends(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("start,end\n1970-01-01T00:00:02,1970-01-01T00:00:03\n")
    table = Table("x", (), np.empty((5, 0)), time_ms=np.arange(5, dtype=np.int64) * 1000)

    ranges = read_ranges(path)

    assert ranges == [Range(2000, 3000)]
    assert labelled_rows(table, ranges).tolist() == [False, False, True, True, False]


def test_labels_that_end_before_they_start_are_refused_with_their_line(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("2026-01-01,2026-01-02\n2026-01-03,2026-01-02\n")

    with pytest.raises(DataError, match=r"line 2: ends before it starts"):
        read_ranges(path)
