"""
The functions of AWS IoT SQL that rules on plain JSON use.

A function called with a wrong type or number of arguments gives Undefined, as AWS documents; a function that is not here is
refused by name when the rule is read.
"""

import base64
import hashlib
import math
import random
import uuid
from collections.abc import Callable
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from typing import Any, Final

from wheeltapper_cloud import iotsql_patterns
from wheeltapper_cloud.iotsql_times import check_format, check_pattern, parse_time, time_to_epoch
from wheeltapper_cloud.iotsql_values import (
    MOST_GROWTH,
    UNDEFINED,
    TooMuchWorkError,
    calculate,
    exact,
    from_exact,
    read_json,
    to_boolean,
    to_int,
    to_number,
    to_string,
    whole,
)

_SCHEME: Final = "base64"
_ENRICH: Final = "enrichArray"
_BLANKS_MAX: Final = 1000
_PLACES_MAX: Final = 34


def _numeric(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        numbers = [to_number(argument) for argument in arguments]
        if UNDEFINED in numbers:
            return UNDEFINED
        try:
            return whole(function(*numbers))
        except (ValueError, ArithmeticError, TypeError):
            return UNDEFINED

    return call


def _textual(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        if UNDEFINED in arguments or None in arguments:
            return UNDEFINED
        try:
            return function(*arguments)
        except (ValueError, TypeError, IndexError, AttributeError, OverflowError):
            return UNDEFINED

    return call


def _text(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of texts: whatever else it is given, is converted."""
    return _textual(lambda *arguments: function(*[to_string(argument) for argument in arguments]))


def _blanks(count: Any) -> str:
    return " " * min(max(int(to_number(count)), 0), _BLANKS_MAX)


def _substring(text: Any, start: Any, end: Any = None) -> Any:
    text = to_string(text)
    first = max(int(to_number(start)), 0)
    last = len(text) if end is None else max(int(to_number(end)), 0)
    return text[first:last]


def _replace(text: str, old: str, new: str) -> str:
    if text.count(old) * (len(new) - len(old)) > MOST_GROWTH:
        raise TooMuchWorkError(f"replacing {old[:40]!r} in a text of {len(text)} characters makes it too long")
    return text.replace(old, new)


def _regexp_substr(text: str, pattern: str) -> Any:
    found = iotsql_patterns.first_match(text, pattern)
    return UNDEFINED if found is None else found


def _digest(name: str) -> Callable[..., Any]:
    return _text(lambda value: hashlib.new(name, value.encode(), usedforsecurity=False).hexdigest())


def get(container: Any, place: Any) -> Any:
    """The member of an object, or the item of an array or a text."""
    if isinstance(container, dict):
        return container.get(place, UNDEFINED) if isinstance(place, str) else UNDEFINED
    index = to_int(place)
    if not isinstance(index, int) or not isinstance(container, list | str) or not 0 <= index < len(container):
        return UNDEFINED
    return container[index]


def _encode(value: Any, scheme: Any) -> Any:
    data = value if isinstance(value, bytes) else to_string(value).encode()
    return base64.b64encode(data).decode() if scheme == _SCHEME else UNDEFINED


def _decode(value: Any, scheme: Any) -> Any:
    """A JSON document as what it says, other text as it is; null where it cannot be decoded; padding may be missing."""
    if scheme != _SCHEME:
        return UNDEFINED
    encoded = to_string(value)
    try:
        text = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True).decode()
    except ValueError:
        return None
    try:
        return read_json(text.encode())
    except ValueError:
        return text


def _concat(*parts: Any) -> Any:
    """Arrays and items as one array, where one of them is an array; else one text."""
    if UNDEFINED in parts or not parts:
        return UNDEFINED
    if any(isinstance(part, list) for part in parts):
        joined: list[Any] = []
        for part in parts:
            joined.extend(part if isinstance(part, list) else [part])
        return joined
    return UNDEFINED if None in parts else "".join(to_string(part) for part in parts)


def _transform(mode: Any, added: Any, items: Any) -> Any:
    """Items with the members of an object; either may be the result of a query within, which is an array around it."""
    if isinstance(added, list) and len(added) == 1:
        added = added[0]
    if isinstance(items, list) and len(items) == 1 and isinstance(items[0], list):
        items = items[0]
    if mode != _ENRICH or not isinstance(added, dict) or not isinstance(items, list):
        return UNDEFINED
    if len(to_string(added)) * len(items) > MOST_GROWTH:
        raise TooMuchWorkError(f"transform(): {len(items)} items become too long")
    return [{**item, **added} for item in items if isinstance(item, dict)]


def _parse_time(pattern: Any, time_ms: Any, zone: Any = "UTC") -> str:
    return parse_time(to_string(pattern), int(to_number(time_ms)), to_string(zone))


def _absent(value: Any) -> bool:
    return value is UNDEFINED or value is None


def _round(value: float) -> Any:
    return value if value == math.floor(value) else from_exact(exact(value).quantize(Decimal(1), ROUND_HALF_UP))


def _trunc(value: float, places: float) -> Any:
    """Cut off behind so many decimal places."""
    if isinstance(value, int):
        return value
    count = min(max(int(places), 0), _PLACES_MAX)
    number = exact(value)
    short = -int(number.as_tuple().exponent) <= count
    return from_exact(number if short else number.quantize(Decimal(1).scaleb(-count), ROUND_DOWN))


def _character(code: Any) -> Any:
    number = int(to_number(code))
    return chr(number) if 0 <= number < 128 else UNDEFINED


def _only(wanted: str) -> Callable[[Any], None]:
    def check(value: Any) -> None:
        if value != wanted:
            raise ValueError(f"only {wanted!r} is supported")

    return check


def _check_pattern(pattern: Any) -> None:
    iotsql_patterns.check(str(pattern))


def _remainder(left: Any, right: Any) -> Any:
    return calculate("%", left, right)


def _of_message(*_arguments: Any) -> Any:
    """Not called: what it gives depends on the message, and is made where expressions are read."""
    return UNDEFINED


FUNCTIONS: dict[str, tuple[Callable[..., Any], int, int]] = {
    # name: (function, fewest arguments, most arguments)
    "abs": (_numeric(abs), 1, 1),
    "accountid": (_of_message, 0, 0),
    "acos": (_numeric(math.acos), 1, 1),
    "asin": (_numeric(math.asin), 1, 1),
    "atan": (_numeric(math.atan), 1, 1),
    "atan2": (_numeric(math.atan2), 2, 2),
    "bitand": (_numeric(lambda a, b: int(a) & int(b)), 2, 2),
    "bitor": (_numeric(lambda a, b: int(a) | int(b)), 2, 2),
    "bitxor": (_numeric(lambda a, b: int(a) ^ int(b)), 2, 2),
    "bitnot": (_numeric(lambda a: ~int(a)), 1, 1),
    "ceil": (_numeric(math.ceil), 1, 1),
    "chr": (_textual(_character), 1, 1),
    "concat": (_concat, 0, 64),
    "cos": (_numeric(math.cos), 1, 1),
    "cosh": (_numeric(math.cosh), 1, 1),
    "decode": (_textual(_decode), 2, 2),
    "encode": (_textual(_encode), 2, 2),
    "endswith": (_text(str.endswith), 2, 2),
    "exp": (_numeric(math.exp), 1, 1),
    "floor": (_numeric(math.floor), 1, 1),
    "get": (get, 2, 2),
    "get_or_default": (lambda value, other=None: other if _absent(value) else value, 1, 2),
    "indexof": (_text(str.find), 2, 2),
    "isnull": (lambda value: value is None, 1, 1),
    "isundefined": (lambda value: value is UNDEFINED, 1, 1),
    "length": (_text(len), 1, 1),
    "ln": (_numeric(math.log), 1, 1),
    "log": (_numeric(math.log10), 1, 1),
    "lower": (_text(str.lower), 1, 1),
    "lpad": (_textual(lambda text, count: _blanks(count) + to_string(text)), 2, 2),
    "ltrim": (_text(lambda text: text.lstrip(" \t")), 1, 1),
    "md5": (_digest("md5"), 1, 1),
    "mod": (_remainder, 2, 2),
    "nanvl": (lambda value, other: other if _absent(value) else value, 2, 2),
    "newuuid": (lambda: str(uuid.uuid4()), 0, 0),
    "numbytes": (_text(lambda text: len(text.encode())), 1, 1),
    "parse_time": (_textual(_parse_time), 2, 3),
    "power": (_numeric(math.pow), 2, 2),
    "rand": (lambda: random.random(), 0, 0),
    "regexp_matches": (_text(iotsql_patterns.matches), 2, 2),
    "regexp_replace": (_text(iotsql_patterns.replaced), 3, 3),
    "regexp_substr": (_text(_regexp_substr), 2, 2),
    "remainder": (_remainder, 2, 2),
    "replace": (_text(_replace), 3, 3),
    "round": (_numeric(_round), 1, 1),
    "rpad": (_textual(lambda text, count: to_string(text) + _blanks(count)), 2, 2),
    "rtrim": (_text(lambda text: text.rstrip(" \t")), 1, 1),
    "sha1": (_digest("sha1"), 1, 1),
    "sha224": (_digest("sha224"), 1, 1),
    "sha256": (_digest("sha256"), 1, 1),
    "sha384": (_digest("sha384"), 1, 1),
    "sha512": (_digest("sha512"), 1, 1),
    "sign": (_numeric(lambda value: (value > 0) - (value < 0)), 1, 1),
    "sin": (_numeric(math.sin), 1, 1),
    "sinh": (_numeric(math.sinh), 1, 1),
    "sql_version": (lambda: "2016-03-23", 0, 0),
    "sqrt": (_numeric(math.sqrt), 1, 1),
    "startswith": (_text(str.startswith), 2, 2),
    "substring": (_textual(_substring), 2, 3),
    "tan": (_numeric(math.tan), 1, 1),
    "tanh": (_numeric(math.tanh), 1, 1),
    "time_to_epoch": (_text(time_to_epoch), 2, 2),
    "timestamp": (_of_message, 0, 0),
    "topic": (_of_message, 0, 1),
    "transform": (_transform, 3, 3),
    "trim": (_text(str.strip), 1, 1),
    "trunc": (_numeric(_trunc), 2, 2),
    "upper": (_text(str.upper), 1, 1),
}

CHECKS: dict[str, tuple[int, Callable[[Any], None]]] = {
    # name: (place of the argument that steers the function, what refuses it with a ValueError)
    "decode": (1, _only(_SCHEME)),
    "encode": (1, _only(_SCHEME)),
    "parse_time": (0, check_format),
    "regexp_matches": (1, _check_pattern),
    "regexp_replace": (1, _check_pattern),
    "regexp_substr": (1, _check_pattern),
    "time_to_epoch": (1, check_pattern),
    "transform": (0, _only(_ENRICH)),
}

_CALLS_AWS = "aws_lambda get_dynamodb get_registry_data get_secret get_thing_shadow machinelearning_predict"
_KNOWN_TO_AWS = "clientid get_mqtt_property get_user_properties principal sourceip traceid"

REFUSED: dict[str, str] = {
    **dict.fromkeys(_CALLS_AWS.split(), ": it calls AWS"),
    **dict.fromkeys(_KNOWN_TO_AWS.split(), ": the broker does not tell it; have the device put it into the message"),
}


def _cast_number(value: Any) -> Any:
    return int(value) if isinstance(value, bool) else to_number(value)


def _cast_int(value: Any) -> Any:
    number = _cast_number(value)
    return UNDEFINED if number is UNDEFINED else whole(int(number))


def _cast_boolean(value: Any) -> Any:
    return value != 0 if isinstance(value, int | float) else to_boolean(value)


CASTS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("string", "nvarchar", "text", "ntext", "varchar"), to_string),
    **dict.fromkeys(("int", "integer"), _cast_int),
    **dict.fromkeys(("decimal", "double"), _cast_number),
    **dict.fromkeys(("bool", "boolean"), _cast_boolean),
}
