"""
Sets of values an expression may take, over-estimated: what is not in the set cannot happen.

Three-valued logic, null and undefined included. Every operation may lose precision and never loses a value, so that
"cannot be true" is a proof. Intervals are closed unless an end is open; an end may be infinite.
"""

import math
from collections.abc import Callable
from typing import Literal

import msgspec

# Beyond this an integer may overflow, which makes a result undefined.
_SAFE = float(2**63)
# Finite sets of texts larger than this become "any text".
_MAX_TEXTS = 64


class Interval(msgspec.Struct, frozen=True):
    """A non-empty interval of numbers."""

    low: float
    high: float
    low_open: bool = False
    high_open: bool = False

    def __str__(self) -> str:
        if self.low == self.high:
            return f"{self.low:g}"
        left = "(" if self.low_open or self.low == -math.inf else "["
        right = ")" if self.high_open or self.high == math.inf else "]"
        return f"{left}{self.low:g}, {self.high:g}{right}"


EVERY_NUMBER = Interval(-math.inf, math.inf)
Texts = frozenset[str] | Literal["any"] | None


class Possible(msgspec.Struct, frozen=True):
    """The values that may occur: each kind separately; ``texts`` None means no text."""

    undefined: bool = False
    null: bool = False
    true: bool = False
    false: bool = False
    number: Interval | None = None
    texts: Texts = None
    structure: bool = False

    @property
    def nothing(self) -> bool:
        return not (self.undefined or self.null or self.true or self.false or self.structure) and (
            self.number is None and self.texts is None
        )

    @property
    def is_value(self) -> bool:
        """Whether a value that a variable can hold may occur."""
        return self.true or self.false or self.number is not None or self.texts is not None

    @property
    def not_boolean(self) -> bool:
        """Whether something may occur that counts as false without being ``false``."""
        return self.undefined or self.null or self.structure or self.number is not None or self.texts is not None

    @property
    def constant(self) -> float | str | bool | None:
        """The only value, where there is exactly one; None otherwise."""
        if self.undefined or self.null or self.structure:
            return None
        kinds = (self.true, self.false, self.number is not None, self.texts is not None)
        if sum(kinds) != 1:
            return None
        if self.true or self.false:
            return self.true
        if self.number is not None:
            return self.number.low if self.number.low == self.number.high else None
        return next(iter(self.texts)) if isinstance(self.texts, frozenset) and len(self.texts) == 1 else None

    def __str__(self) -> str:
        parts = [name for name in ("undefined", "null", "true", "false", "structure") if getattr(self, name)]
        if self.number is not None:
            parts.append("any number" if self.number == EVERY_NUMBER else str(self.number))
        if self.texts is not None:
            parts.append("any text" if isinstance(self.texts, str) else ", ".join(map(repr, sorted(self.texts))))
        return " or ".join(parts) or "nothing"


ANYTHING = Possible(True, True, True, True, EVERY_NUMBER, "any", True)
NOTHING = Possible()
UNDEFINED = Possible(undefined=True)
TRUE = Possible(true=True)
FALSE = Possible(false=True)
ANY_BOOLEAN = Possible(true=True, false=True)


def of(value: float | str | bool) -> Possible:
    """
    Exactly one value.

    >>> str(of(2)), str(of(True)), str(of("a"))
    ('2', 'true', "'a'")
    """
    if isinstance(value, bool):
        return TRUE if value else FALSE
    if isinstance(value, str):
        return Possible(texts=frozenset((value,)))
    return _numbers(Interval(_down(value), _up(value)))


def _down(value: float) -> float:
    """The float at or below a number; integers beyond 2**53 round."""
    try:
        rounded = float(value)
    except OverflowError:
        return -math.inf if value < 0 else math.nextafter(math.inf, 0)
    return rounded if rounded <= value else math.nextafter(rounded, -math.inf)


def _up(value: float) -> float:
    return -_down(-value)


def _numbers(number: Interval | None, undefined: bool = False) -> Possible:
    return Possible(undefined=undefined, number=number)


def join(left: Possible, right: Possible) -> Possible:
    """
    What either may be.

    >>> str(join(of(1), of(3)))
    '[1, 3]'
    """
    if left == right:
        return left
    return Possible(
        left.undefined or right.undefined,
        left.null or right.null,
        left.true or right.true,
        left.false or right.false,
        _hull(left.number, right.number),
        _union(left.texts, right.texts),
        left.structure or right.structure,
    )


def _hull(left: Interval | None, right: Interval | None) -> Interval | None:
    if left is None or right is None:
        return left or right
    low = min((left.low, left.low_open), (right.low, right.low_open))
    high = max((left.high, not left.high_open), (right.high, not right.high_open))
    return Interval(low[0], high[0], low[1], not high[1])


def _union(left: Texts, right: Texts) -> Texts:
    if left is None or right is None:
        return left if right is None else right
    if isinstance(left, str) or isinstance(right, str):
        return "any"
    both = left | right
    return both if len(both) <= _MAX_TEXTS else "any"


def covers(outer: Possible, inner: Possible) -> bool:
    """Whether every value of ``inner`` is one of ``outer``."""
    return join(outer, inner) == outer


def without_undefined(value: Possible) -> Possible:
    """The part that a variable can hold."""
    return Possible(False, False, value.true, value.false, value.number, value.texts, False)


def widen(value: Possible, thresholds: list[float]) -> Possible:
    """The value with its interval pushed out to the nearest thresholds, so that repetition ends."""
    if value.number is None:
        return msgspec.structs.replace(value, texts="any") if isinstance(value.texts, frozenset) else value
    low = max((each for each in thresholds if each <= value.number.low), default=-math.inf)
    high = min((each for each in thresholds if each >= value.number.high), default=math.inf)
    return Possible(
        value.undefined, value.null, value.true, value.false, Interval(low, high), "any" if value.texts else None,
        value.structure,
    )  # fmt: skip


# -- arithmetic


def _unfit(value: Possible) -> bool:
    """Whether an operand may be something that is no number."""
    return value.undefined or value.null or value.true or value.false or value.structure or value.texts is not None


def add(left: Possible, right: Possible) -> Possible:
    """``+``: numbers add, texts concatenate, all else is undefined."""
    numbers = _arithmetic(left, right, lambda a, b: a + b)
    texts: Texts = None
    if left.texts is not None and right.texts is not None:
        texts = "any"
        if isinstance(left.texts, frozenset) and isinstance(right.texts, frozenset):
            made = frozenset(a + b for a in left.texts for b in right.texts)
            texts = made if len(made) <= _MAX_TEXTS else "any"
    only_texts = _only_texts(left) and _only_texts(right)
    return Possible(undefined=numbers.undefined and not only_texts, number=numbers.number, texts=texts)


def _only_texts(value: Possible) -> bool:
    return value.texts is not None and value == Possible(texts=value.texts)


def subtract(left: Possible, right: Possible) -> Possible:
    """``-`` of two numbers."""
    return _arithmetic(left, right, lambda a, b: a - b)


def multiply(left: Possible, right: Possible) -> Possible:
    """``*`` of two numbers."""
    return _arithmetic(left, right, lambda a, b: 0.0 if a == 0 or b == 0 else a * b)


def divide(left: Possible, right: Possible) -> Possible:
    """``/`` of two numbers; by zero undefined; two integers round, by at most one."""
    divisor = right.number
    if left.number is None or divisor is None:
        return UNDEFINED
    if divisor.low <= 0 <= divisor.high:
        return _numbers(EVERY_NUMBER, undefined=True)
    exact = _arithmetic(left, right, lambda a, b: a / b if not (math.isinf(a) and math.isinf(b)) else math.nan)
    if exact.number is None:
        return exact
    return _numbers(Interval(exact.number.low - 1, exact.number.high + 1), undefined=exact.undefined)


def negate(value: Possible) -> Possible:
    """Unary ``-``."""
    return subtract(of(0), value)


def _exact(end: float) -> bool:
    """Whether arithmetic on it does not round: an end between two such ends bounds every rounded result."""
    return math.isinf(end) or (end.is_integer() and abs(end) < 2**53)


def _arithmetic(left: Possible, right: Possible, operate: Callable[[float, float], float]) -> Possible:
    if left.number is None or right.number is None:
        return UNDEFINED
    a, b = left.number, right.number
    ends = [operate(x, y) for x in (a.low, a.high) for y in (b.low, b.high)]
    if any(math.isnan(end) for end in ends):
        return _numbers(EVERY_NUMBER, undefined=True)
    low, high = min(ends), max(ends)
    if not all(_exact(end) for end in (a.low, a.high, b.low, b.high, low, high)):
        low, high = math.nextafter(low, -math.inf), math.nextafter(high, math.inf)
    overflow = low <= -_SAFE or high >= _SAFE
    return _numbers(Interval(low, high), undefined=overflow or _unfit(left) or _unfit(right))


# -- comparison: the operand's values for which the outcome is possible

Operator = Literal["<", "<=", ">", ">="]

_MIRROR: dict[str, Operator] = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
_OPPOSITE: dict[str, Operator] = {"<": ">=", "<=": ">", ">": "<=", ">=": "<"}


def mirrored(operator: Operator) -> Operator:
    """The operator with its sides exchanged."""
    return _MIRROR[operator]


def opposite(operator: Operator) -> Operator:
    """The operator that holds for two numbers exactly where this one does not."""
    return _OPPOSITE[operator]


def numbers_where(number: Interval, operator: Operator, other: Interval) -> Interval | None:
    """
    The numbers for which some number of ``other`` satisfies the comparison.

    >>> str(numbers_where(EVERY_NUMBER, ">", Interval(10, 20)))
    '(10, inf)'
    """
    if operator in ("<", "<="):
        high, is_open = other.high, other.high_open or operator == "<"
        if (high, not is_open) < (number.high, not number.high_open):
            return _interval(number.low, high, number.low_open, is_open)
        return number
    low, is_open = other.low, other.low_open or operator == ">"
    if (low, is_open) > (number.low, number.low_open):
        return _interval(low, number.high, is_open, number.high_open)
    return number


def overlap(left: Interval, right: Interval) -> Interval | None:
    """
    The numbers in both.

    >>> overlap(Interval(0, 1), Interval(1, 2, low_open=True)) is None
    True
    """
    low = max((left.low, left.low_open), (right.low, right.low_open))
    high = min((left.high, not left.high_open), (right.high, not right.high_open))
    return _interval(low[0], high[0], low[1], not high[1])


def _interval(low: float, high: float, low_open: bool, high_open: bool) -> Interval | None:
    if low > high or (low == high and (low_open or high_open) and not math.isinf(low)):
        return None
    return Interval(low, high, low_open, high_open)


def texts_overlap(left: Texts, right: Texts) -> Texts:
    """The texts in both."""
    if left is None or right is None:
        return None
    if isinstance(left, str):
        return right
    if isinstance(right, str):
        return left
    return (left & right) or None
