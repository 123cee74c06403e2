"""
Message files: JSON Lines, CSV and Parquet, read piece by piece, so that a file larger than memory works.

JSON Lines hold a message each, ``{"inputName", "timestamp" (ms), "payload", "messageId"?}``. CSV and Parquet hold a column
per attribute; they stay columns, no JSON is made of them. An empty cell, a null and a NaN are attributes that the message
does not have. A dot in a column's name is a step into the payload.
"""

import gzip
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

from wheeltapper.detector.action import Message
from wheeltapper.errors import DataError, SettingsError
from wheeltapper.messages import UNREADABLE
from wheeltapper.times import read_time

if TYPE_CHECKING:
    from wheeltapper.detector.columns import Batch, Column

ROWS = 524_288
_LINES = 10_000
_CSV_BLOCK = 16 << 20
_MS_PER = {"s": 1e3, "ms": 1.0, "us": 1e-3, "ns": 1e-6}
_NULLS = ["", "NaN", "nan", "NA", "N/A", "null", "NULL", "None"]
# Times outside the years 1 to 9999 are mistakes.
_LOW_MS, _HIGH_MS = -62_135_596_800_000, 253_402_300_800_000


class Chunk(msgspec.Struct):
    """A piece of a file: messages, or a batch of columns; ``done`` of ``total`` is read after it."""

    done: int
    total: int
    messages: list[Message] = []
    batch: Any = None


def read_history(
    path: Path,
    *,
    input_name: str = "",
    time_column: str = "",
    wanted: Collection[str] | None = None,
    texts: Collection[str] = (),
) -> Iterator[Chunk]:
    """
    A message file in pieces, in its order.

    Args:
        path: ``.jsonl``, ``.ndjson`` or ``.json`` (also ``.gz``), ``.csv``, ``.tsv`` or ``.txt``, ``.parquet``.
        input_name: the input whose messages a CSV or Parquet file holds, or a JSON line that names none.
        time_column: where such a file keeps the time: a date, or a number of s, ms, µs or ns since the epoch.
        wanted: the columns needed, by the first step of their names; None for all.
        texts: columns of a CSV file that are text even where they look like numbers, such as keys.

    Raises:
        DataError: the file cannot be read; says which line or column and why.
        SettingsError: the name of the input or of the time column is missing.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    kind = path.with_suffix("").suffix.lower() if path.suffix.lower() == ".gz" else path.suffix.lower()
    if kind in (".jsonl", ".ndjson", ".json", ".log"):
        return _read_lines(path, input_name, time_column)
    if kind not in (".csv", ".tsv", ".txt", ".parquet", ".pq"):
        raise DataError(f"{path}: of unknown kind; .jsonl, .csv or .parquet is expected")
    if not input_name or not time_column:
        raise SettingsError(f"{path}: has columns; name its input and its time: --input NAME --time-column COLUMN")
    if kind in (".parquet", ".pq"):
        return _read_parquet(path, input_name, time_column, wanted)
    return _read_csv(path, input_name, time_column, wanted, texts)


def all_messages(chunks: Iterator[Chunk]) -> Iterator[Message]:
    """The messages of every piece, those of columns made into payloads."""
    for chunk in chunks:
        if chunk.batch is None:
            yield from chunk.messages
        else:
            from wheeltapper.detector.columns import messages_of

            yield from messages_of(chunk.batch)


# -- JSON Lines


class _Line(msgspec.Struct, rename="camel"):
    input_name: str = ""
    timestamp: int | float | dict[str, Any] | str | None = None
    payload: dict[str, Any] | None = None
    message_id: str = ""


def _read_lines(path: Path, input_name: str, time_column: str) -> Iterator[Chunk]:
    total = path.stat().st_size
    decoder = msgspec.json.Decoder(_Line)
    flat = msgspec.json.Decoder(dict[str, Any])
    messages: list[Message] = []
    with path.open("rb") as raw:
        stream: Any = gzip.GzipFile(fileobj=raw) if path.suffix.lower() == ".gz" else raw
        try:
            for number, line in enumerate(stream, start=1):
                if not line.strip():
                    continue
                try:
                    given = decoder.decode(line)
                    if given.payload is None and time_column:
                        payload = flat.decode(line)
                        given = _Line(input_name, payload.get(time_column), payload)
                    messages.append(_message(given, input_name))
                except (*UNREADABLE, DataError) as error:
                    raise DataError(f"{path}, line {number}: {error}") from error
                if len(messages) >= _LINES:
                    yield Chunk(min(raw.tell(), total), total, messages)
                    messages = []
        except (OSError, EOFError) as error:
            raise DataError(f"{path}: cannot be read: {error}") from error
    yield Chunk(total, total, messages)


def _message(line: _Line, input_name: str) -> Message:
    name = line.input_name or input_name
    if not name:
        raise DataError("lacks inputName; --input NAME says it for all lines")
    if line.payload is None:
        raise DataError("lacks a payload, an object")
    stamp = line.timestamp.get("timeInMillis") if isinstance(line.timestamp, dict) else line.timestamp
    time_ms = read_time(stamp) if isinstance(stamp, str) else stamp
    if isinstance(time_ms, bool) or not isinstance(time_ms, int | float):
        raise DataError("lacks a timestamp, ms since the epoch")
    return Message(name, line.payload, line.message_id, int(time_ms))


# -- columns


def _read_parquet(path: Path, input_name: str, time_column: str, wanted: Collection[str] | None) -> Iterator[Chunk]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
        texts = [
            field.name for field in schema if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
        ]
        file = pq.ParquetFile(path, read_dictionary=texts)
        _check_column(path, time_column, schema.names)
        names = [name for name in schema.names if name == time_column or wanted is None or name.split(".")[0] in wanted]
        done, total = 0, file.metadata.num_rows
        reader = _ColumnReader(path, input_name, time_column, wanted)
        for batch in _gathered(file.iter_batches(batch_size=ROWS, columns=names)):
            done += batch.num_rows
            yield Chunk(done, total, batch=reader.read(batch))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a Parquet file that can be read: {error}") from error


def _gathered(batches: Iterator[Any]) -> Iterator[Any]:
    """The same rows in as few batches as may be: where texts are read as codes, pyarrow begins anew at every row group."""
    held: list[Any] = []
    rows = 0
    for batch in batches:
        if held and rows + batch.num_rows > ROWS:
            yield _joined(held)
            held, rows = [], 0
        held.append(batch)
        rows += batch.num_rows
    if held:
        yield _joined(held)


def _joined(batches: list[Any]) -> Any:
    import pyarrow as pa

    if len(batches) == 1:
        return batches[0]
    whole: list[Any] = pa.Table.from_batches(batches).unify_dictionaries().combine_chunks().to_batches()
    return whole[0] if whole else batches[0]


def _read_csv(
    path: Path, input_name: str, time_column: str, wanted: Collection[str] | None, texts: Collection[str]
) -> Iterator[Chunk]:
    import pyarrow as pa
    import pyarrow.csv as pc

    from wheeltapper.delimited import delimiter_of

    total = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(64_000).decode("utf-8-sig", "replace").splitlines()[:20]
        names = [each.strip().strip('"') for each in head[0].split(delimiter_of(head))] if head else []
        _check_column(path, time_column, names)
        kept = [name for name in names if name == time_column or wanted is None or name.split(".")[0] in wanted]
        stream.seek(0)
        options = pc.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            include_columns=kept,
            null_values=_NULLS,
            strings_can_be_null=True,
        )
        try:
            reader = pc.open_csv(
                stream,
                read_options=pc.ReadOptions(block_size=_CSV_BLOCK, column_names=names, skip_rows=1),
                parse_options=pc.ParseOptions(delimiter=delimiter_of(head)),
                convert_options=options,
            )
            columns = _ColumnReader(path, input_name, time_column, wanted, texts)
            for batch in reader:
                yield Chunk(_tell(stream, total), total, batch=columns.read(batch))
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path}: not a CSV file that can be read: {' '.join(str(error).split())}") from error


def _tell(stream: BinaryIO, total: int) -> int:
    try:
        return min(stream.tell(), total)
    except ValueError:  # the reader has closed it at its end
        return total


def _check_column(path: Path, name: str, names: Collection[str]) -> None:
    if name not in names:
        raise DataError(f"{path}: has no column {name!r}; it has {', '.join(names)}")


class _ColumnReader:
    """Record batches of one file to batches of messages."""

    def __init__(
        self,
        path: Path,
        input_name: str,
        time_column: str,
        wanted: Collection[str] | None,
        texts: Collection[str] | None = None,
    ) -> None:
        self._path = path
        self._input_name = input_name
        self._time_column = time_column
        # The time is an attribute, too, but making one of it takes longer than all the rest.
        self._time_is_wanted = wanted is None or time_column.split(".")[0] in wanted
        self._texts = texts
        self._ms_per = 0.0
        self._rows = 0

    def read(self, batch: Any) -> "Batch":
        from wheeltapper.detector.columns import Batch

        columns: dict[tuple[str, ...], Column] = {}
        times = None
        for name, array in zip(batch.schema.names, batch.columns, strict=True):
            if name == self._time_column:
                times = self._times(array)
                if not self._time_is_wanted:
                    continue
            for path, leaf in _leaves((*name.split("."),), array):
                columns[path] = self._column(leaf, ".".join(path))
        self._rows += batch.num_rows
        assert times is not None  # noqa: S101 the column was asked for
        return Batch(self._input_name, times, columns)

    def _times(self, array: Any) -> Any:
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        if array.null_count:
            raise DataError(f"{self._path}: row {self._rows + 1 + _first_null(array)} has no {self._time_column!r}")
        if pa.types.is_timestamp(array.type):
            stamps = array if array.type.unit == "ms" else pc.cast(array, pa.timestamp("ms"), safe=False)
            return stamps.view(pa.int64()).to_numpy(zero_copy_only=False)
        if pa.types.is_date(array.type):
            return pc.cast(pc.cast(array, pa.timestamp("ms")), pa.int64()).to_numpy(zero_copy_only=False)
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
            numbers = _cast(array, pa.int64()) if self._ms_per or _cast(array[:1], pa.float64()) is not None else None
            array = numbers if numbers is not None else self._read_times(array)
        values = array.to_numpy(zero_copy_only=False)
        if not self._ms_per:
            self._ms_per = _MS_PER[_unit(float(values[0]))] if len(values) else 0.0
        times = values if values.dtype == np.int64 and self._ms_per == 1.0 else np.floor(values * self._ms_per + 1e-6)
        if len(times) and not (times.min() >= _LOW_MS and times.max() <= _HIGH_MS):
            raise DataError(f"{self._path}: column {self._time_column!r} holds no times")
        return times.astype(np.int64)

    def _read_times(self, array: Any) -> Any:
        import pyarrow as pa

        found = []
        for place, text in enumerate(array.to_pylist()):
            time_ms = read_time(text)
            if time_ms is None:
                raise DataError(f"{self._path}: row {self._rows + 1 + place}: {text!r} is no time")
            found.append(int(time_ms))
        self._ms_per = 1.0
        return pa.array(found, pa.int64())

    def _column(self, array: Any, name: str) -> "Column":
        import pyarrow as pa

        if self._texts is not None and name not in self._texts:
            array = _typed(array)
        kind = array.type
        if pa.types.is_dictionary(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
            return _text_column(array)
        if (
            pa.types.is_boolean(kind)
            or pa.types.is_integer(kind)
            or pa.types.is_floating(kind)
            or pa.types.is_decimal(kind)
        ):
            return _number_column(array)
        if pa.types.is_temporal(kind):
            return _text_column(array.cast(pa.string()))
        return _object_column(array)


def _leaves(path: tuple[str, ...], array: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The columns within a column of structures."""
    import pyarrow as pa

    if not pa.types.is_struct(array.type):
        yield path, array
        return
    for field, child in zip(array.type, array.flatten(), strict=True):
        yield from _leaves((*path, field.name), child)


def _first_null(array: Any) -> int:
    return int(array.is_null().to_numpy(zero_copy_only=False).argmax())


def _unit(value: float) -> str:
    """The unit of a number of something since the epoch: today is 1.8e9 s, 1.8e12 ms, 1.8e15 µs, 1.8e18 ns."""
    size = abs(value)
    return "s" if size < 1e11 else "ms" if size < 1e14 else "us" if size < 1e17 else "ns"


def _cast(array: Any, kind: Any) -> Any:
    """The array in another type, or None where some cell does not fit."""
    import pyarrow as pa

    try:
        return array.cast(kind)
    except pa.ArrowInvalid:
        return None


def _typed(array: Any) -> Any:
    """A column of CSV cells as what it looks like: integers, decimals, Booleans or texts."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for kind in (pa.int64(), pa.float64()):
        found = _cast(array, kind)
        if found is not None:
            return found
    words = {each.as_py() for each in pc.unique(array)[:4]} - {None}
    if words <= {"true", "false"}:
        return array.cast(pa.bool_())
    return array


def _text_column(array: Any) -> "Column":
    import numpy as np
    import pyarrow as pa

    from wheeltapper.detector.columns import Column

    encoded = array if pa.types.is_dictionary(array.type) else array.dictionary_encode()
    missing = _missing(encoded)
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
    return Column("text", codes, missing, tuple(encoded.dictionary.to_pylist()))


def _missing(array: Any) -> Any:
    return array.is_null().to_numpy(zero_copy_only=False) if array.null_count else None


def _number_column(array: Any) -> "Column":
    import numpy as np
    import pyarrow as pa

    from wheeltapper.detector.columns import Column

    if pa.types.is_boolean(array.type):
        return Column("boolean", array.fill_null(False).to_numpy(zero_copy_only=False).astype(bool), _missing(array))
    if pa.types.is_integer(array.type) and array.type != pa.uint64():
        return Column("integer", array.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64), _missing(array))
    decimals = array if array.type == pa.float64() else array.cast(pa.float64(), safe=False)
    data = decimals.to_numpy(zero_copy_only=False)
    absent = ~np.isfinite(data)
    return Column("decimal", np.where(absent, 0.0, data) if absent.any() else data, absent if absent.any() else None)


def _object_column(array: Any) -> "Column":
    import numpy as np

    from wheeltapper.detector.columns import Column
    from wheeltapper.detector.values import UNDEFINED

    data = np.empty(len(array), dtype=object)
    data[:] = [UNDEFINED if cell is None else cell for cell in array.to_pylist()]
    return Column("object", data, _missing(array))
