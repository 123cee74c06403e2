"""
The functions of AWS IoT SQL that rules on plain JSON use.

A function called with a wrong type or number of arguments gives Undefined, as AWS documents; a function that is not here is
refused by name when the rule is read.
"""

import base64
import hashlib
import math
import random
import re
import uuid
from collections.abc import Callable
from typing import Any

from wheeltapper_cloud.iotsql_values import UNDEFINED, to_boolean, to_number, to_string, whole


def _numeric(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        numbers = [to_number(argument) for argument in arguments]
        if UNDEFINED in numbers:
            return UNDEFINED
        try:
            return whole(function(*numbers))
        except (ValueError, ZeroDivisionError, OverflowError, TypeError):
            return UNDEFINED

    return call


def _textual(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        if UNDEFINED in arguments or None in arguments:
            return UNDEFINED
        try:
            return function(*arguments)
        except (ValueError, TypeError, IndexError, AttributeError, re.error):
            return UNDEFINED

    return call


def _pad(text: Any, length: Any, left: bool) -> Any:
    text, length = to_string(text), int(to_number(length))
    if not 0 <= length <= 1000:
        return UNDEFINED
    blanks = " " * (length - len(text))
    return blanks + text if left else text + blanks


def _substring(text: Any, start: Any, end: Any = None) -> Any:
    text = to_string(text)
    first, last = int(start), len(text) if end is None else int(end)
    return text[max(first, 0) : max(last, 0)] if first <= last else ""


def _index_of(text: Any, part: Any) -> Any:
    place = to_string(text).find(to_string(part))
    return place if place >= 0 else UNDEFINED


def _regexp_replace(text: Any, pattern: str, replacement: str) -> Any:
    return re.sub(pattern, re.sub(r"\$(\d+)", r"\\\1", replacement), to_string(text))


def _regexp_substr(text: Any, pattern: str) -> Any:
    found = re.search(pattern, to_string(text))
    return found.group(0) if found else UNDEFINED


def _digest(name: str) -> Callable[..., Any]:
    return _textual(lambda value: hashlib.new(name, to_string(value).encode(), usedforsecurity=False).hexdigest())


def _get(container: Any, place: Any) -> Any:
    if isinstance(container, dict):
        return container.get(place, UNDEFINED) if isinstance(place, str) else UNDEFINED
    index = to_number(place)
    if not isinstance(index, int) or not isinstance(container, list | str) or not 0 <= index < len(container):
        return UNDEFINED
    return container[index]


def _encode(value: Any, scheme: Any) -> Any:
    return base64.b64encode(to_string(value).encode()).decode() if scheme == "base64" else UNDEFINED


def _decode(value: Any, scheme: Any) -> Any:
    return base64.b64decode(value, validate=True).decode() if scheme == "base64" else UNDEFINED


def _nanvl(value: Any, other: Any) -> Any:
    return value if to_number(value) is not UNDEFINED else other


def _concat(*parts: Any) -> Any:
    if any(isinstance(part, list) for part in parts):
        joined: list[Any] = []
        for part in parts:
            joined.extend(part if isinstance(part, list) else [part])
        return joined
    return "".join(to_string(part) for part in parts)


def _round_half_up(value: float) -> int:
    return math.floor(value + 0.5) if value >= 0 else math.ceil(value - 0.5)


def _trunc(value: float, places: int = 0) -> float:
    scale: int = 10 ** max(int(places), 0)
    return math.trunc(value * scale) / scale


FUNCTIONS: dict[str, tuple[Callable[..., Any], int, int]] = {
    # name: (function, fewest arguments, most arguments)
    "abs": (_numeric(abs), 1, 1),
    "acos": (_numeric(math.acos), 1, 1),
    "asin": (_numeric(math.asin), 1, 1),
    "atan": (_numeric(math.atan), 1, 1),
    "atan2": (_numeric(math.atan2), 2, 2),
    "bitand": (_numeric(lambda a, b: int(a) & int(b)), 2, 2),
    "bitor": (_numeric(lambda a, b: int(a) | int(b)), 2, 2),
    "bitxor": (_numeric(lambda a, b: int(a) ^ int(b)), 2, 2),
    "bitnot": (_numeric(lambda a: ~int(a)), 1, 1),
    "ceil": (_numeric(math.ceil), 1, 1),
    "chr": (_textual(lambda code: chr(int(to_number(code)))), 1, 1),
    "concat": (_textual(_concat), 1, 64),
    "cos": (_numeric(math.cos), 1, 1),
    "decode": (_textual(_decode), 2, 2),
    "encode": (_textual(_encode), 2, 2),
    "endswith": (_textual(lambda a, b: to_string(a).endswith(to_string(b))), 2, 2),
    "exp": (_numeric(math.exp), 1, 1),
    "floor": (_numeric(math.floor), 1, 1),
    "get": (_get, 2, 2),
    "indexof": (_textual(_index_of), 2, 2),
    "isnull": (lambda value: value is None, 1, 1),
    "isundefined": (lambda value: value is UNDEFINED, 1, 1),
    "length": (_textual(lambda text: len(text) if isinstance(text, list) else len(to_string(text))), 1, 1),
    "ln": (_numeric(math.log), 1, 1),
    "log": (_numeric(math.log10), 1, 1),
    "lower": (_textual(lambda text: to_string(text).lower()), 1, 1),
    "lpad": (_textual(lambda text, length: _pad(text, length, True)), 2, 2),
    "ltrim": (_textual(lambda text: to_string(text).lstrip()), 1, 1),
    "md5": (_digest("md5"), 1, 1),
    "mod": (_numeric(math.fmod), 2, 2),
    "nanvl": (_nanvl, 2, 2),
    "newuuid": (lambda: str(uuid.uuid4()), 0, 0),
    "power": (_numeric(math.pow), 2, 2),
    "rand": (lambda: random.random(), 0, 0),
    "regexp_matches": (_textual(lambda text, pattern: re.search(pattern, to_string(text)) is not None), 2, 2),
    "regexp_replace": (_textual(_regexp_replace), 3, 3),
    "regexp_substr": (_textual(_regexp_substr), 2, 2),
    "remainder": (_numeric(math.fmod), 2, 2),
    "replace": (_textual(lambda text, old, new: to_string(text).replace(to_string(old), to_string(new))), 3, 3),
    "round": (_numeric(_round_half_up), 1, 1),
    "rpad": (_textual(lambda text, length: _pad(text, length, False)), 2, 2),
    "rtrim": (_textual(lambda text: to_string(text).rstrip()), 1, 1),
    "sha1": (_digest("sha1"), 1, 1),
    "sha224": (_digest("sha224"), 1, 1),
    "sha256": (_digest("sha256"), 1, 1),
    "sha384": (_digest("sha384"), 1, 1),
    "sha512": (_digest("sha512"), 1, 1),
    "sign": (_numeric(lambda value: (value > 0) - (value < 0)), 1, 1),
    "sin": (_numeric(math.sin), 1, 1),
    "sqrt": (_numeric(math.sqrt), 1, 1),
    "startswith": (_textual(lambda a, b: to_string(a).startswith(to_string(b))), 2, 2),
    "substring": (_textual(_substring), 2, 3),
    "tan": (_numeric(math.tan), 1, 1),
    "trim": (_textual(lambda text: to_string(text).strip()), 1, 1),
    "trunc": (_numeric(_trunc), 1, 2),
    "upper": (_textual(lambda text: to_string(text).upper()), 1, 1),
}

CASTS: dict[str, Callable[[Any], Any]] = {
    "string": to_string,
    "int": lambda value: int(number) if (number := _cast_number(value)) is not UNDEFINED else UNDEFINED,
    "integer": lambda value: int(number) if (number := _cast_number(value)) is not UNDEFINED else UNDEFINED,
    "decimal": lambda value: _cast_number(value),
    "boolean": lambda value: value != 0 if isinstance(value, int | float) else to_boolean(value),
    "bool": lambda value: value != 0 if isinstance(value, int | float) else to_boolean(value),
}


def _cast_number(value: Any) -> Any:
    return int(value) if isinstance(value, bool) else to_number(value)
