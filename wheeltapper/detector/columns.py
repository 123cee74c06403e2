"""
A batch of messages as columns, and expressions evaluated over all of its rows at once.

The results are exactly those of the engine, row by row: types, undefined and short circuits included. What cannot be
guaranteed (integers beyond 2**53, columns of mixed types, rare operators) raises ``UnsupportedError``, and the caller goes
back to one row at a time. A missing cell is an attribute that the message does not have: undefined.
"""

import operator as python
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from wheeltapper.detector import values as ev
from wheeltapper.detector.action import Message
from wheeltapper.detector.values import UNDEFINED, Operand

Path = tuple[str, ...]
Kind = Literal["integer", "decimal", "text", "boolean", "undefined"]
Mask: TypeAlias = npt.NDArray[np.bool_]

_EXACT = 2**53


class UnsupportedError(Exception):
    """This cannot be evaluated over columns with a guarantee."""


class Column(msgspec.Struct):
    """
    One attribute of every message.

    Attributes:
        kind: of every cell that is not missing; ``object`` is of mixed kinds.
        data: int64, float64, bool, codes into ``texts`` (int32), or Python objects.
        missing: True where the message does not have the attribute; None where all have it.
        texts: the texts that ``text`` codes stand for.
    """

    kind: Literal["integer", "decimal", "text", "boolean", "object"]
    data: npt.NDArray[Any]
    missing: Mask | None = None
    texts: Sequence[str] = ()

    def take(self, rows: npt.NDArray[np.intp]) -> "Column":
        """The rows in that order."""
        missing = None if self.missing is None else self.missing[rows]
        return Column(self.kind, self.data[rows], missing, self.texts)

    def cells(self) -> list[Any]:
        """Every cell as the engine's value; UNDEFINED where it is missing."""
        if self.kind == "text":
            found: list[Any] = [self.texts[code] if code >= 0 else UNDEFINED for code in self.data.tolist()]
        else:
            found = self.data.tolist()
        if self.missing is not None:
            for row in np.flatnonzero(self.missing).tolist():
                found[row] = UNDEFINED
        return found


class Batch(msgspec.Struct):
    """Messages of one input: their times in ms and their attributes by path."""

    input_name: str
    times_ms: npt.NDArray[np.int64]
    columns: dict[Path, Column]

    def __len__(self) -> int:
        return len(self.times_ms)


class Vector(msgspec.Struct):
    """A value for each row; ``undefined`` is None where every row has one."""

    kind: Kind
    data: Any
    undefined: Mask | None = None
    texts: Sequence[str] = ()


# Expressions with everything but the columns filled in, hashable: ("value", constant), ("column", path) or
# (operator or function, operand, …).
Residual: TypeAlias = tuple[Any, ...]

NOTHING = Vector("undefined", None)


def holds(tree: Residual, batch: Batch) -> Mask:
    """
    The rows for which a condition is true.

    Raises:
        UnsupportedError: not over columns.
    """
    found = _evaluate(tree, batch)
    if found.kind != "boolean":
        return np.zeros(len(batch), dtype=bool)
    mask: Mask = np.broadcast_to(np.asarray(found.data, dtype=bool), (len(batch),))
    return mask & ~found.undefined if found.undefined is not None else mask


def _evaluate(tree: Residual, batch: Batch) -> Vector:
    match tree:
        case ("value", constant):
            return _constant(constant.value)
        case ("column", path):
            return _column(path, batch)
        case ("&&", left, right):
            return _and(_evaluate(left, batch), _evaluate(right, batch), len(batch))
        case ("||", left, right):
            return _or(_evaluate(left, batch), _evaluate(right, batch), len(batch))
        case ("!", operand):
            return _not(_evaluate(operand, batch))
        case ("isUndefined", operand):
            return _is_undefined(_evaluate(operand, batch), len(batch))
        case ("isNull", _):
            return Vector("boolean", np.zeros(len(batch), dtype=bool))  # columns hold no nulls
        case (("<" | "<=" | ">" | ">=") as sign, left, right):
            return _order(sign, _evaluate(left, batch), _evaluate(right, batch))
        case (("==" | "!=") as sign, left, right):
            return _equality(sign, _evaluate(left, batch), _evaluate(right, batch), len(batch))
        case (("+" | "-" | "*") as sign, left, right):
            return _arithmetic(sign, _evaluate(left, batch), _evaluate(right, batch), len(batch))
        case ("/", left, right):
            return _divide(_evaluate(left, batch), _evaluate(right, batch), len(batch))
        case ("negate", operand):
            return _arithmetic("-", _constant(0), _evaluate(operand, batch), len(batch))
        case (("startsWith" | "endsWith" | "contains") as name, left, right):
            return _text_test(name, _evaluate(left, batch), _evaluate(right, batch))
    raise UnsupportedError


def _constant(value: Operand) -> Vector:
    if type(value) is bool:
        return Vector("boolean", np.bool_(value))
    if type(value) is int:
        if abs(value) >= _EXACT:
            raise UnsupportedError
        return Vector("integer", np.int64(value))
    if type(value) is float:
        return Vector("decimal", np.float64(value))
    if type(value) is str:
        return Vector("text", np.int32(0), None, (value,))
    if value is UNDEFINED:
        return NOTHING
    raise UnsupportedError


def _column(path: Path, batch: Batch) -> Vector:
    column = batch.columns.get(path)
    if column is None:
        if any(each[: len(path)] == path or path[: len(each)] == each for each in batch.columns):
            raise UnsupportedError
        return NOTHING
    if column.kind == "object":
        raise UnsupportedError
    if column.kind == "integer":
        _check_exact(column.data)
    return Vector(column.kind, column.data, column.missing, column.texts)


def _check_exact(data: Any) -> None:
    """Integers that a float holds exactly, so that numpy compares and computes as Python does."""
    array = np.asarray(data)
    if array.size and (int(array.max()) >= _EXACT or int(array.min()) <= -_EXACT):
        raise UnsupportedError


def _either(left: Mask | None, right: Mask | None) -> Mask | None:
    if left is None or right is None:
        return left if right is None else right
    return left | right


def _truth(vector: Vector, rows: int) -> tuple[Mask, Mask]:
    """Where a vector is true and where it is false; elsewhere it is neither."""
    if vector.kind != "boolean":
        nowhere = np.zeros(rows, dtype=bool)
        return nowhere, nowhere
    data = np.broadcast_to(np.asarray(vector.data, dtype=bool), (rows,))
    if vector.undefined is None:
        return data, ~data
    return data & ~vector.undefined, ~data & ~vector.undefined


def _and(left: Vector, right: Vector, rows: int) -> Vector:
    true_left, false_left = _truth(left, rows)
    true_right, false_right = _truth(right, rows)
    true, false = true_left & true_right, false_left | false_right
    return Vector("boolean", true, ~(true | false))


def _or(left: Vector, right: Vector, rows: int) -> Vector:
    return Vector("boolean", _truth(left, rows)[0] | _truth(right, rows)[0])


def _not(operand: Vector) -> Vector:
    if operand.kind != "boolean":
        return NOTHING
    return Vector("boolean", ~np.asarray(operand.data, dtype=bool), operand.undefined)


def _is_undefined(operand: Vector, rows: int) -> Vector:
    if operand.kind == "undefined":
        return Vector("boolean", np.bool_(True))
    return Vector("boolean", np.zeros(rows, dtype=bool) if operand.undefined is None else operand.undefined)


_NUMBERS = ("integer", "decimal")
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "<": python.lt,
    "<=": python.le,
    ">": python.gt,
    ">=": python.ge,
    "==": python.eq,
    "!=": python.ne,
}


def _order(sign: str, left: Vector, right: Vector) -> Vector:
    undefined = _either(left.undefined, right.undefined)
    if left.kind in _NUMBERS and right.kind in _NUMBERS:
        return Vector("boolean", _COMPARE[sign](left.data, right.data), undefined)
    if left.kind == right.kind == "text":
        return Vector("boolean", _compare_texts(sign, left, right), undefined)
    return NOTHING


def _compare_texts(sign: str, left: Vector, right: Vector) -> Any:
    """One side must be a constant: each different text is compared once."""
    if np.ndim(right.data) == 0:
        outcomes = [_COMPARE[sign](text, right.texts[0]) for text in left.texts]
        return _look_up(outcomes, left.data)
    if np.ndim(left.data) == 0:
        outcomes = [_COMPARE[sign](left.texts[0], text) for text in right.texts]
        return _look_up(outcomes, right.data)
    raise UnsupportedError


def _look_up(outcomes: Sequence[bool], codes: Any) -> Any:
    return np.asarray([*outcomes, False], dtype=bool)[codes]


def _equality(sign: str, left: Vector, right: Vector, rows: int) -> Vector:
    """An undefined operand is unequal to everything, whatever the other one is; other kinds that differ have no answer."""
    undefined = _either(left.undefined, right.undefined)
    unequal = sign == "!="
    if left.kind == "undefined" or right.kind == "undefined":
        return Vector("boolean", np.bool_(unequal))
    if left.kind in _NUMBERS and right.kind in _NUMBERS:
        data = _COMPARE[sign](left.data, right.data)
    elif left.kind != right.kind:
        found = np.full(rows, unequal)
        return Vector("boolean", found, ~undefined) if undefined is not None else NOTHING
    elif left.kind == "text":
        data = _compare_texts(sign, left, right)
    else:
        data = _COMPARE[sign](left.data, right.data)
    if undefined is None:
        return Vector("boolean", data)
    return Vector("boolean", np.where(undefined, unequal, data))


_OPERATE: dict[str, Callable[[Any, Any], Any]] = {"+": python.add, "-": python.sub, "*": python.mul}


def _arithmetic(sign: str, left: Vector, right: Vector, rows: int) -> Vector:
    if left.kind == right.kind == "text":
        raise UnsupportedError
    if left.kind not in _NUMBERS or right.kind not in _NUMBERS:
        return NOTHING
    undefined = _either(left.undefined, right.undefined)
    if left.kind == right.kind == "integer":
        _check_exact(np.asarray(_OPERATE[sign](_wide(left.data), _wide(right.data))))
        return Vector("integer", _OPERATE[sign](left.data, right.data), undefined)
    return _finite(_OPERATE[sign], left, right, undefined, rows)


def _wide(data: Any) -> Any:
    """As floats, in which a product that is too large is seen instead of wrapping round."""
    return np.asarray(data, dtype=np.float64)


def _finite(
    operate: Callable[[Any, Any], Any], left: Vector, right: Vector, undefined: Mask | None, rows: int
) -> Vector:
    with np.errstate(all="ignore"):
        data = operate(_wide(left.data), _wide(right.data))
    lost = ~np.isfinite(data)
    if np.any(lost):
        undefined = _either(undefined, np.broadcast_to(lost, (rows,)))
    return Vector("decimal", data, undefined)


def _divide(left: Vector, right: Vector, rows: int) -> Vector:
    if left.kind not in _NUMBERS or right.kind not in _NUMBERS:
        return NOTHING
    if left.kind == right.kind == "integer":
        raise UnsupportedError  # rounded, and how is for the settings to say
    return _finite(python.truediv, left, right, _either(left.undefined, right.undefined), rows)


_TEXT_TESTS: dict[str, Callable[[Any, Any], Operand]] = {
    "startsWith": ev.starts_with,
    "endsWith": ev.ends_with,
    "contains": ev.contains,
}


def _text_test(name: str, left: Vector, right: Vector) -> Vector:
    if left.kind != "text" or right.kind != "text":
        return NOTHING
    undefined = _either(left.undefined, right.undefined)
    test = _TEXT_TESTS[name]
    if np.ndim(right.data) == 0:
        return Vector(
            "boolean", _look_up([test(text, right.texts[0]) is True for text in left.texts], left.data), undefined
        )
    if np.ndim(left.data) == 0:
        return Vector(
            "boolean", _look_up([test(left.texts[0], text) is True for text in right.texts], right.data), undefined
        )
    raise UnsupportedError


def messages_of(batch: Batch) -> Iterator[Message]:
    """The batch as messages, row by row."""
    columns = [(path, column.cells()) for path, column in sorted(batch.columns.items())]
    for row, time_ms in enumerate(batch.times_ms.tolist()):
        yield Message(batch.input_name, payload_of(columns, row), "", time_ms)


def payload_of(columns: Sequence[tuple[Path, list[Any]]], row: int) -> dict[str, Any]:
    """One row's payload; a column within another that holds a value is left out."""
    payload: dict[str, Any] = {}
    for path, cells in columns:
        value = cells[row]
        if value is UNDEFINED:
            continue
        inner: Any = payload
        for step in path[:-1]:
            inner = inner.setdefault(step, {})
            if type(inner) is not dict:
                break
        else:
            inner[path[-1]] = value
    return payload
