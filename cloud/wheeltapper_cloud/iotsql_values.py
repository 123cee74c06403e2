"""
The values of AWS IoT SQL: Undefined, when two are equal, how one kind becomes another, and arithmetic.

Numbers are ints and floats, calculated with to 34 decimal digits as AWS does, so that 0.1 + 0.2 is 0.3; what is whole is an
Int, as in SQL version 2016-03-23.
"""

import decimal
import math
import re
from collections.abc import Callable
from typing import Any, Final

import msgspec

from wheeltapper.errors import MessageError

MOST_GROWTH: Final = 1 << 20  # by how many characters a function may make its result longer than what it is given


class TooMuchWorkError(MessageError):
    """A message and a rule that together would hold up the messages behind them."""


class _Undefined:
    """The value of what is not there; left out of JSON."""

    def __repr__(self) -> str:
        return "Undefined"

    def __bool__(self) -> bool:
        return False


UNDEFINED: Final = _Undefined()

_DIGITS_MAX: Final = 34
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE]-?[0-9]+)?")
_EXACT: Final = decimal.Context(
    prec=_DIGITS_MAX,
    Emin=-999,
    Emax=999,
    traps=[decimal.InvalidOperation, decimal.DivisionByZero, decimal.Overflow],
)
_CHANGED: Final = frozenset((float, dict, list))
_OPERATIONS: Final[dict[str, Callable[[decimal.Decimal, decimal.Decimal], decimal.Decimal]]] = {
    "+": _EXACT.add,
    "-": _EXACT.subtract,
    "*": _EXACT.multiply,
    "/": _EXACT.divide,
    "%": _EXACT.remainder,
}


def to_number(value: Any) -> Any:
    """A number, from a numeric string too; Undefined from all else."""
    if isinstance(value, bool):
        return UNDEFINED
    if isinstance(value, int | float):
        return value
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return number_of(value)
    return UNDEFINED


def number_of(text: str) -> Any:
    """The number that a text is; Undefined where it is too long or too large."""
    digits = text.removeprefix("-")
    if digits.isdigit():
        return int(text) if len(digits) <= _DIGITS_MAX else UNDEFINED
    return whole(float(text))


def to_int(value: Any) -> Any:
    """An Int: a Decimal rounded to the nearest, a numeric string cut off; Undefined from all else."""
    number = to_number(value)
    if isinstance(number, float):
        return math.trunc(number) if isinstance(value, str) else math.floor(number + 0.5)
    return number


def to_boolean(value: Any) -> Any:
    """A Boolean, from the strings "true" and "false" too; Undefined from all else."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    return UNDEFINED


def to_string(value: Any) -> Any:
    """
    The text of a value; Undefined from Undefined and null.

    >>> to_string(2.50), to_string(1e-7), to_string(1e23), to_string([1, None])
    ('2.5', '1E-7', '100000000000000000000000', '[1,null]')
    """
    if isinstance(value, str) or value is UNDEFINED:
        return value
    if value is None:
        return UNDEFINED
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        number = exact(value)
        return format(number, "f") if value.is_integer() and number.adjusted() < _DIGITS_MAX else str(number)
    return msgspec.json.encode(value).decode()


def whole(value: Any) -> Any:
    """
    A whole number as an Int; not finite or too long is Undefined.

    >>> whole(10.0), whole(2.5)
    (10, 2.5)
    """
    if isinstance(value, float):
        if not math.isfinite(value):
            return UNDEFINED
        return int(value) if value.is_integer() and abs(value) < 1e15 else value
    if isinstance(value, int) and abs(value) >= 10**_DIGITS_MAX:
        return UNDEFINED
    return value


def read_json(text: bytes) -> Any:
    """
    What a JSON text says; what is whole is an Int.

    Raises:
        ValueError: it is not JSON, nests too deeply, or holds a number that is out of range.

    >>> read_json(b'{"t": 10.0, "u": 0.5}')
    {'t': 10, 'u': 0.5}
    """
    try:
        return _with_ints(msgspec.json.decode(text))
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(str(error)) from error


def _with_ints(value: Any) -> Any:
    """The same value, changed in place: a hook of the decoder, called for each number, takes as long as all the rest."""
    if type(value) is float:
        return whole(value)
    places = value.items() if type(value) is dict else enumerate(value) if type(value) is list else ()
    for place, each in places:
        if type(each) in _CHANGED:
            value[place] = _with_ints(each)
    return value


def room_left(value: Any, room: int) -> int:
    """
    What a value leaves of the room for so many characters, below zero where it does not fit.

    They are counted as JSON has them, roughly, and no further than the room; what stands in it twice counts twice.

    >>> room_left({"ab": "cde"}, 10), room_left([1, 2], 10)
    (1, -2)
    """
    waiting = [value]
    while waiting and room >= 0:
        each = waiting.pop()
        if type(each) is dict:
            waiting += each.values()
            room -= sum(map(len, each))
        elif type(each) is list:
            waiting += each
        room -= len(each) if type(each) is str else 4
    return room


def exact(number: int | float) -> decimal.Decimal:
    """
    The decimal number that is meant by a float.

    >>> exact(0.1)
    Decimal('0.1')
    """
    return decimal.Decimal(number if isinstance(number, int) else repr(number))


def calculate(sign: str, left: Any, right: Any) -> Any:
    """
    Two values by ``+ - * / %``; Undefined where one is no number, or there is no result.

    >>> calculate("+", 0.1, 0.2), calculate("/", 43 * 5, 9), calculate("%", -7, 4), calculate("/", 1, 0)
    (0.3, 23.88888888888889, -3, Undefined)
    """
    a, b = to_number(left), to_number(right)
    if a is UNDEFINED or b is UNDEFINED:
        return UNDEFINED
    try:
        return from_exact(_OPERATIONS[sign](exact(a), exact(b)))
    except decimal.DecimalException:
        return UNDEFINED


def from_exact(number: decimal.Decimal) -> Any:
    """A decimal number as a value."""
    if number == number.to_integral_value() and number.adjusted() < _DIGITS_MAX:
        return whole(int(number))
    return whole(float(number))


def equal(left: Any, right: Any) -> Any:
    """Whether two values are the same; Int and Decimal compare, nothing else is converted; Undefined where one is."""
    if left is UNDEFINED or right is UNDEFINED:
        return UNDEFINED
    return _same(left, right)


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, int | float) and isinstance(right, int | float):
        return left == right
    if type(left) is not type(right):
        return False
    if isinstance(left, list):
        return len(left) == len(right) and all(map(_same, left, right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(_same(value, right[name]) for name, value in left.items())
    return bool(left == right)
