"""
Delimited text as machines export it: which delimiter, whether there is a header, what a cell says.

The device replays such files and the models learn from them; both must call the same column by the same name.
"""

import csv
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from wheeltapper.errors import DataError
from wheeltapper.times import read_time

MISSING = frozenset({"", "nan", "null", "none", "na", "n/a", "#n/a", "-", "?", "nat"})
TIME_NAMES = re.compile(r"(date|time|datetime|date_?time|time_?stamp|ts|time_?(ms|s|seconds|utc)|epoch|_time)", re.I)
_WORDS = {"true": 1.0, "false": 0.0, "on": 1.0, "off": 0.0}
_DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+")
_CANDIDATES = (";", "\t", "|", ",")


def encoding_of(path: Path) -> str:
    """
    UTF-8 or, where its mark says so, UTF-16; marks are not part of the text.

    Raises:
        DataError: the file cannot be read, or is no text.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(4096)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    if b"\0" in head:
        raise DataError(f"{path}: is no text; save it as CSV, in UTF-8")
    return "utf-8-sig"


def delimiter_of(lines: Sequence[str]) -> str:
    """
    The delimiter that splits these lines into the most columns, equally often in each; a space stands for any white space.

    >>> delimiter_of(["time;a;b", "1,5;2;3"]), delimiter_of(["1 2.5 3", "2 2.5  4"])
    (';', ' ')
    """
    best, most = "", 1
    for candidate in _CANDIDATES:
        counts = {len(row) for row in csv.reader(lines, delimiter=candidate)}
        if len(counts) == 1 and (width := counts.pop()) > most:
            best, most = candidate, width
    if best:
        return best
    if lines and "," not in lines[0] and len({len(line.split()) for line in lines}) == 1 and len(lines[0].split()) > 1:
        return " "
    return max(_CANDIDATES, key=lambda candidate: lines[0].count(candidate)) if lines else ","


def split_lines(lines: Iterable[str], delimiter: str) -> Iterator[list[str]]:
    """The cells of every line that holds any."""
    if delimiter == " ":
        return (line.split() for line in lines if line.strip())
    filled = (line for line in lines if line.strip())
    return csv.reader(filled, delimiter=delimiter, skipinitialspace=True)


def names_of(first_row: Sequence[str]) -> tuple[list[str], bool]:
    """
    The columns' names, and whether the first row is a header.

    A row of nothing but numbers and times is none; columns are then called by their place.

    >>> names_of(["t", "a", "a", ""]), names_of(["1.5", "2"])
    ((['t', 'a', 'a (2)'], True), (['1', '2'], False))
    """
    header = [cell.strip() for cell in first_row]
    if all(not cell or read_time(cell) is not None for cell in header):
        return [str(place + 1) for place in range(len(header))], False
    while len(header) > 1 and not header[-1]:
        header.pop()  # a delimiter at the end of each line
    return _distinct(header), True


def number_of(cell: str) -> float | None:
    """
    What a cell measures; NaN where it is missing, None where it is no number.

    >>> number_of("2,5"), number_of("on"), number_of("n/a"), number_of("M14860")
    (2.5, 1.0, nan, None)
    """
    word = cell.strip().lower()
    if word in MISSING:
        return math.nan
    if word in _WORDS:
        return _WORDS[word]
    try:
        number = float(word.replace(",", ".") if _DECIMAL_COMMA.fullmatch(word) else word)
    except ValueError:
        return None
    return number if math.isfinite(number) else math.nan


def is_text(cells: Iterable[str]) -> bool:
    """Whether a column is text: more than half of the cells that are not missing are no numbers."""
    numbers = [number for number in map(number_of, cells) if number is None or not math.isnan(number)]
    return sum(number is None for number in numbers) * 2 > len(numbers)


def _distinct(names: Sequence[str]) -> list[str]:
    seen: dict[str, int] = {}
    found = []
    for place, given in enumerate(names):
        name = given or f"column {place + 1}"
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return found
