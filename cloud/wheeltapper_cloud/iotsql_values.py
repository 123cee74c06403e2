"""The values of AWS IoT SQL: Undefined, when two are equal, and how one kind becomes another."""

import math
import re
from typing import Any, Final


class _Undefined:
    """The value of what is not there; left out of JSON."""

    def __repr__(self) -> str:
        return "Undefined"

    def __bool__(self) -> bool:
        return False


UNDEFINED: Final = _Undefined()

_DIGITS_MAX: Final = 34


def to_number(value: Any) -> Any:
    """A number, from a numeric string too; Undefined from all else."""
    if isinstance(value, bool):
        return UNDEFINED
    if isinstance(value, int | float):
        return value
    if isinstance(value, str):
        try:
            number = float(value) if not re.fullmatch(r"\s*-?\d{1,34}\s*", value) else int(value)
        except ValueError:
            return UNDEFINED
        return number if math.isfinite(number) else UNDEFINED
    return UNDEFINED


def to_boolean(value: Any) -> Any:
    """A Boolean, from the strings "true" and "false" too; Undefined from all else."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    return UNDEFINED


def to_string(value: Any) -> Any:
    """The text of a value; Undefined stays."""
    if isinstance(value, str) or value is UNDEFINED:
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e16:
        return str(int(value))
    if isinstance(value, int | float):
        return str(value)
    import msgspec

    return msgspec.json.encode(value).decode()


def whole(value: Any) -> Any:
    """
    A whole number as an Int, as SQL version 2016-03-23 does; not finite or too long is Undefined.

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


def equal(left: Any, right: Any) -> Any:
    if left is UNDEFINED or right is UNDEFINED:
        return UNDEFINED
    if isinstance(left, bool) or isinstance(right, bool):
        a, b = to_boolean(left), to_boolean(right)
        return False if a is UNDEFINED or b is UNDEFINED else a is b
    if isinstance(left, int | float) != isinstance(right, int | float):
        left, right = to_number(left), to_number(right)
        return False if left is UNDEFINED or right is UNDEFINED else left == right
    return bool(type(left) is type(right) or isinstance(left, int | float)) and left == right
