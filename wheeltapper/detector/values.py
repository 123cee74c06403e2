"""
Values and what operators do to them.

Integer, Decimal, String and Boolean are Python's int, float, str and bool. Two more things occur that are not values:
``None``, a JSON null from a message, and ``UNDEFINED``. No operator ever raises: what cannot be computed is undefined.
"""

import math
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, Literal, TypeAlias

INTEGER_MIN, INTEGER_MAX = -(2**63), 2**63 - 1
# A text that is longer when made is undefined: `$variable.s + $variable.s` doubles with every message.
MAX_TEXT = 2**22


class Undefined:
    """The type of ``UNDEFINED``."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "UNDEFINED"

    def __reduce__(self) -> str:
        return "UNDEFINED"


UNDEFINED = Undefined()

# int | float | str | bool | None | Undefined; Any, because the tests on exact types below are not what checkers narrow by.
Operand: TypeAlias = Any
Operator: TypeAlias = Callable[[Operand, Operand], Operand]

_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?", re.ASCII)


def is_number(value: Operand) -> bool:
    """Integer or Decimal; a Boolean is neither."""
    return type(value) is float or type(value) is int


def _checked(value: int | float) -> Operand:
    if type(value) is int:
        return value if INTEGER_MIN <= value <= INTEGER_MAX else UNDEFINED
    return value if math.isfinite(value) else UNDEFINED


def add(left: Operand, right: Operand) -> Operand:
    """Sum of two numbers, concatenation of two strings."""
    if type(left) is str and type(right) is str:
        return left + right if len(left) + len(right) <= MAX_TEXT else UNDEFINED
    if is_number(left) and is_number(right):
        try:
            return _checked(left + right)
        except OverflowError:
            return UNDEFINED
    return UNDEFINED


def subtract(left: Operand, right: Operand) -> Operand:
    if is_number(left) and is_number(right):
        try:
            return _checked(left - right)
        except OverflowError:
            return UNDEFINED
    return UNDEFINED


def multiply(left: Operand, right: Operand) -> Operand:
    if is_number(left) and is_number(right):
        try:
            return _checked(left * right)
        except OverflowError:
            return UNDEFINED
    return UNDEFINED


Rounding: TypeAlias = Literal["half-up", "truncate", "floor"]


def divider(rounding: Rounding) -> Operator:
    """
    Division: a Decimal unless both are Integers, then rounded.

    >>> divide = divider("half-up")
    >>> divide(7, 2), divide(-7, 2), divide(7, 3), divide(7.0, 2), divide(7, 0)
    (4, -4, 2, 3.5, UNDEFINED)
    """

    def divide(left: Operand, right: Operand) -> Operand:
        if not (is_number(left) and is_number(right)) or right == 0:
            return UNDEFINED
        if type(left) is int and type(right) is int:
            return _checked(_divide_integers(left, right, rounding))
        try:
            return _checked(left / right)
        except OverflowError:
            return UNDEFINED

    return divide


def _divide_integers(left: int, right: int, rounding: Rounding) -> int:
    if rounding == "floor":
        return left // right
    sign = -1 if (left < 0) != (right < 0) else 1
    left, right = abs(left), abs(right)
    return sign * (left // right if rounding == "truncate" else (2 * left + right) // (2 * right))


def _comparable(left: Operand, right: Operand) -> bool:
    return (is_number(left) and is_number(right)) or (type(left) is str and type(right) is str)


def less(left: Operand, right: Operand) -> Operand:
    return left < right if _comparable(left, right) else UNDEFINED


def less_or_equal(left: Operand, right: Operand) -> Operand:
    return left <= right if _comparable(left, right) else UNDEFINED


def greater(left: Operand, right: Operand) -> Operand:
    return left > right if _comparable(left, right) else UNDEFINED


def greater_or_equal(left: Operand, right: Operand) -> Operand:
    return left >= right if _comparable(left, right) else UNDEFINED


def is_absent(value: Operand) -> bool:
    """Undefined or null."""
    return value is UNDEFINED or value is None


def equal(left: Operand, right: Operand) -> Operand:
    """
    Nothing equals what is absent; values of different types cannot be compared.

    >>> equal(1, 1.0), equal(UNDEFINED, UNDEFINED), equal(None, 1), equal(True, 1)
    (True, False, False, UNDEFINED)
    """
    if is_absent(left) or is_absent(right):
        return False
    if type(left) is type(right) or (is_number(left) and is_number(right)):
        return left == right
    return UNDEFINED


def not_equal(left: Operand, right: Operand) -> Operand:
    """
    The opposite of ``equal``, so that ``x != x`` tells whether x was never set.

    >>> not_equal(UNDEFINED, UNDEFINED), not_equal("a", "b"), not_equal("1", 1)
    (True, True, UNDEFINED)
    """
    same = equal(left, right)
    return same if same is UNDEFINED else not same


def bit_or(left: Operand, right: Operand) -> Operand:
    return _checked(left | right) if type(left) is int and type(right) is int else UNDEFINED


def bit_and(left: Operand, right: Operand) -> Operand:
    return _checked(left & right) if type(left) is int and type(right) is int else UNDEFINED


def bit_xor(left: Operand, right: Operand) -> Operand:
    return _checked(left ^ right) if type(left) is int and type(right) is int else UNDEFINED


def bit_not(operand: Operand) -> Operand:
    return _checked(~operand) if type(operand) is int else UNDEFINED


def negate(operand: Operand) -> Operand:
    return _checked(-operand) if is_number(operand) else UNDEFINED


def invert(operand: Operand) -> Operand:
    """``!``: negation of a Boolean."""
    return not operand if type(operand) is bool else UNDEFINED


def both(left: Operand, right: Operand) -> Operand:
    """
    ``&&``: false if either is false, else undefined unless both are true.

    >>> both(True, True), both(UNDEFINED, False), both(UNDEFINED, True), both(5, True)
    (True, False, UNDEFINED, UNDEFINED)
    """
    if left is False or right is False:
        return False
    return True if left is True and right is True else UNDEFINED


def starts_with(text: Operand, part: Operand) -> Operand:
    return text.startswith(part) if type(text) is str and type(part) is str else UNDEFINED


def ends_with(text: Operand, part: Operand) -> Operand:
    return text.endswith(part) if type(text) is str and type(part) is str else UNDEFINED


def contains(text: Operand, part: Operand) -> Operand:
    return part in text if type(text) is str and type(part) is str else UNDEFINED


def text_of(value: Operand) -> Operand:
    """
    The text of a value in a template; undefined for what is absent.

    >>> text_of(50.018), text_of(30.0), text_of(1e-7), text_of(True), text_of(7)
    ('50.018', '30.0', '0.0000001', 'true', '7')
    """
    if type(value) is str:
        return value
    if type(value) is bool:
        return "true" if value else "false"
    if type(value) is int:
        return str(value) if INTEGER_MIN <= value <= INTEGER_MAX else UNDEFINED
    if type(value) is float:
        digits = repr(value)
        if "e" not in digits:
            return digits
        digits = format(Decimal(digits), "f")
        return digits if "." in digits else digits + ".0"
    return UNDEFINED


def join(parts: Sequence[Operand]) -> Operand:
    """The text of a template's parts one after another; undefined if one of them has none, or all are too long."""
    texts = [text_of(part) for part in parts]
    if any(text is UNDEFINED for text in texts) or sum(map(len, texts)) > MAX_TEXT:
        return UNDEFINED
    return "".join(texts)


def convert(kind: Operand, value: Operand) -> Operand:
    """
    ``convert(String | Boolean | Decimal, value)``; the type's case does not matter.

    >>> convert("Decimal", "10"), convert("string", True), convert("Boolean", "yes"), convert("Integer", 1)
    (10.0, 'true', UNDEFINED, UNDEFINED)
    """
    match kind.lower() if type(kind) is str else "":
        case "string":
            return text_of(value)
        case "boolean" if type(value) is bool:
            return value
        case "boolean" if type(value) is str:
            return {"true": True, "false": False}.get(value, UNDEFINED)
        case "decimal":
            return _decimal_of(value)
    return UNDEFINED


def _decimal_of(value: Operand) -> Operand:
    if is_number(value) or (type(value) is str and _NUMBER.fullmatch(value)):
        try:
            return _checked(float(value))
        except OverflowError:
            return UNDEFINED
    return UNDEFINED


def follow(payload: Any, path: Sequence[str | int]) -> Operand:
    """
    What stands at a path of a payload; an object or an array is not a value.

    >>> follow({"a": {"b": [1, 2]}}, ("a", "b", 1)), follow({"a": {}}, ("a",)), follow({"a": None}, ("a",))
    (2, UNDEFINED, None)
    """
    for step in path:
        if type(step) is str:
            if type(payload) is not dict or step not in payload:
                return UNDEFINED
        elif type(payload) is not list or int(step) >= len(payload):
            return UNDEFINED
        payload = payload[step]
    return UNDEFINED if isinstance(payload, dict | list) else payload


# Everything but division, which the settings choose.
BINARY: dict[str, Operator] = {
    "|": bit_or,
    "^": bit_xor,
    "&": bit_and,
    "==": equal,
    "!=": not_equal,
    "<": less,
    "<=": less_or_equal,
    ">": greater,
    ">=": greater_or_equal,
    "+": add,
    "-": subtract,
    "*": multiply,
}
UNARY: dict[str, Callable[[Operand], Operand]] = {"!": invert, "~": bit_not, "-": negate}
FUNCTIONS: dict[str, Callable[..., Operand]] = {
    "convert": convert,
    "isNull": lambda value: value is None,
    "isUndefined": lambda value: value is UNDEFINED,
    "startsWith": starts_with,
    "endsWith": ends_with,
    "contains": contains,
    "bitor": bit_or,
    "bitand": bit_and,
    "bitxor": bit_xor,
    "bitnot": bit_not,
}
