"""What the operators of AWS IoT SQL do, each as a closure over what its operands do."""

from collections.abc import Callable
from typing import Any, NamedTuple

from wheeltapper_cloud.iotsql_functions import FUNCTIONS
from wheeltapper_cloud.iotsql_values import UNDEFINED, equal, to_boolean, to_number, to_string, whole


class Context(NamedTuple):
    """What an expression may look at: the message, its topic, the clock."""

    payload: Any
    topic: str
    time_ms: int


Expression = Callable[[Context], Any]


def member(value: Expression, name: str) -> Expression:
    def read(context: Context) -> Any:
        container = value(context)
        return container.get(name, UNDEFINED) if isinstance(container, dict) else UNDEFINED

    return read


def indexed(value: Expression, index: Expression) -> Expression:
    get = FUNCTIONS["get"][0]
    return lambda context: get(value(context), index(context))


def topic(level: Expression | None) -> Expression:
    """topic() is the topic, topic(1) its first level."""
    if level is None:
        return lambda context: context.topic

    def at(context: Context) -> Any:
        number = to_number(level(context))
        levels = context.topic.split("/")
        return levels[number - 1] if isinstance(number, int) and 1 <= number <= len(levels) else UNDEFINED

    return at


def logical(left: Expression, right: Expression, combine: Callable[[bool, bool], bool]) -> Expression:
    def evaluate(context: Context) -> Any:
        a, b = to_boolean(left(context)), to_boolean(right(context))
        return UNDEFINED if a is UNDEFINED or b is UNDEFINED else combine(a, b)

    return evaluate


def negated(operand: Expression) -> Expression:
    def evaluate(context: Context) -> Any:
        value = to_boolean(operand(context))
        return UNDEFINED if value is UNDEFINED else not value

    return evaluate


def compared(sign: str, left: Expression, right: Expression) -> Expression:
    if sign == "=":
        return lambda context: equal(left(context), right(context))
    if sign in ("<>", "!="):

        def differs(context: Context) -> Any:
            same = equal(left(context), right(context))
            return UNDEFINED if same is UNDEFINED else not same

        return differs
    order: Callable[[Any, Any], bool] = {
        "<": lambda a, b: a < b,
        "<=": lambda a, b: a <= b,
        ">": lambda a, b: a > b,
        ">=": lambda a, b: a >= b,
    }[sign]

    def ordered(context: Context) -> Any:
        a, b = to_number(left(context)), to_number(right(context))
        return UNDEFINED if a is UNDEFINED or b is UNDEFINED else order(a, b)

    return ordered


def added(left: Expression, right: Expression) -> Expression:
    """Concatenation where a side is a string, else the sum."""

    def add(context: Context) -> Any:
        a, b = left(context), right(context)
        if a is UNDEFINED or b is UNDEFINED:
            return UNDEFINED
        if isinstance(a, str) or isinstance(b, str):
            return to_string(a) + to_string(b)
        a, b = to_number(a), to_number(b)
        return UNDEFINED if a is UNDEFINED or b is UNDEFINED else whole(a + b)

    return add


def arithmetic(sign: str, left: Expression, right: Expression) -> Expression:
    operate: Callable[[Any, Any], Any] = {
        "-": lambda a, b: a - b,
        "*": lambda a, b: a * b,
        "/": lambda a, b: a / b,
        "%": FUNCTIONS["mod"][0],
    }[sign]

    def evaluate(context: Context) -> Any:
        a, b = to_number(left(context)), to_number(right(context))
        if a is UNDEFINED or b is UNDEFINED:
            return UNDEFINED
        try:
            return whole(operate(a, b))
        except (ZeroDivisionError, OverflowError):
            return UNDEFINED

    return evaluate
