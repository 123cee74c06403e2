"""What the operators of AWS IoT SQL do, each as a closure over what its operands do."""

from collections.abc import Callable, Iterable, Iterator
from time import thread_time
from typing import Any, Final, NamedTuple, TypeVar

from wheeltapper_cloud.iotsql_functions import get
from wheeltapper_cloud.iotsql_values import (
    MOST_GROWTH,
    UNDEFINED,
    TooMuchWorkError,
    calculate,
    equal,
    room_left,
    to_boolean,
    to_number,
    to_string,
)

T = TypeVar("T")

_BASIC_INGEST = "$aws/rules/"
_MOST_CPU_S: Final = 1.0  # for one message, of all the queries that may read a variable for every row


class Context(NamedTuple):
    """
    What an expression may look at.

    Attributes:
        payload: the message, or in a query within, the item; Undefined where the message is not JSON.
        topic: of the message.
        time_ms: now.
        raw: the message's bytes.
        alias: what the item of a query within is called.
        account: the id of the account that owns the rule.
        variables: of the SET clause.
    """

    payload: Any
    topic: str
    time_ms: int
    raw: bytes = b""
    alias: str = ""
    account: str = ""
    variables: "Variables | None" = None


class Variables:
    """
    The values of a SET clause for one message, and what it may cost.

    Through them a message multiplies: each may hold another many times, and a query may read one for every row.

    Args:
        length: of the message, in bytes.
    """

    __slots__ = ("_room", "_started", "values")

    def __init__(self, length: int) -> None:
        self.values: list[Any] = []
        self._room = MOST_GROWTH + 4 * length
        self._started = thread_time()

    def bounded(self, value: Any) -> Any:
        """
        The value.

        Raises:
            TooMuchWorkError: it is many times as long as the message.
        """
        if room_left(value, self._room) < 0:
            raise TooMuchWorkError("what it selects becomes too long")
        return value

    def paced(self, items: Iterable[T]) -> Iterator[T]:
        """
        The items, as long as there is time.

        Raises:
            TooMuchWorkError: the time is up.
        """
        for item in items:
            if thread_time() - self._started > _MOST_CPU_S:
                raise TooMuchWorkError("its queries read variables for too many rows")
            yield item

    def held(self, rows: Iterable[Any]) -> Iterator[Any]:
        """
        The rows, which somebody keeps.

        Raises:
            TooMuchWorkError: together they are many times as long as the message.
        """
        room = self._room
        for row in rows:
            room = room_left(row, room)
            if room < 0:
                raise TooMuchWorkError("what its queries select becomes too long")
            yield row


Expression = Callable[[Context], Any]


class Literal:
    """An expression that is known when the rule is read."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __call__(self, _context: Context) -> Any:
        return self.value


def variable(number: int) -> Expression:
    """A variable of the SET clause; Undefined where that was not carried out."""

    def read(context: Context) -> Any:
        return UNDEFINED if context.variables is None else context.variables.values[number]

    return read


def account() -> Expression:
    """``accountid()``."""
    return lambda context: context.account


def time() -> Expression:
    """``timestamp()``."""
    return lambda context: context.time_ms


def everything(context: Context) -> Any:
    """``*``: the whole payload."""
    return context.payload


def attribute(name: str) -> Expression:
    """A member of the payload; or the item that the name stands for in a query within."""

    def read(context: Context) -> Any:
        if name == context.alias:
            return context.payload
        return context.payload.get(name, UNDEFINED) if isinstance(context.payload, dict) else UNDEFINED

    return read


def member(value: Expression, name: str) -> Expression:
    """``value.name``."""

    def read(context: Context) -> Any:
        container = value(context)
        return container.get(name, UNDEFINED) if isinstance(container, dict) else UNDEFINED

    return read


def indexed(value: Expression, index: Expression) -> Expression:
    """``value[index]``."""
    return lambda context: get(value(context), index(context))


def topic(level: Expression | None = None) -> Expression:
    """topic() is the topic, topic(1) its first level; the prefix of Basic Ingest does not count."""

    def read(context: Context) -> str:
        if context.topic.startswith(_BASIC_INGEST):
            return context.topic.split("/", 3)[-1]
        return context.topic

    if level is None:
        return read

    def at(context: Context) -> Any:
        number = to_number(level(context))
        levels = read(context).split("/")
        return levels[number - 1] if isinstance(number, int) and 1 <= number <= len(levels) else UNDEFINED

    return at


def logical(left: Expression, right: Expression, combine: Callable[[bool, bool], bool]) -> Expression:
    """AND and OR: Undefined where a side is no Boolean."""

    def evaluate(context: Context) -> Any:
        a, b = to_boolean(left(context)), to_boolean(right(context))
        return UNDEFINED if a is UNDEFINED or b is UNDEFINED else combine(a, b)

    return evaluate


def negated(operand: Expression) -> Expression:
    """NOT: Undefined where the operand is no Boolean."""

    def evaluate(context: Context) -> Any:
        value = to_boolean(operand(context))
        return UNDEFINED if value is UNDEFINED else not value

    return evaluate


def compared(sign: str, left: Expression, right: Expression) -> Expression:
    """The six comparisons; the four of order convert both sides to numbers."""
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


def contained(left: Expression, container: Expression) -> Expression:
    """IN: Undefined where the right side is no array."""

    def evaluate(context: Context) -> Any:
        value, items = left(context), container(context)
        if value is UNDEFINED or not isinstance(items, list):
            return UNDEFINED
        return any(equal(value, item) is True for item in items)

    return evaluate


def chosen(
    subject: Expression | None, branches: list[tuple[Expression, Expression]], otherwise: Expression
) -> Expression:
    """CASE: Undefined where its subject is; without a subject, the first branch whose condition is true."""

    def choose(context: Context) -> Any:
        value = True if subject is None else subject(context)
        if value is UNDEFINED:
            return UNDEFINED
        for condition, result in branches:
            if equal(value, condition(context)) is True:
                return result(context)
        return otherwise(context)

    return choose


def added(left: Expression, right: Expression) -> Expression:
    """Concatenation where a side is a string, else the sum."""

    def add(context: Context) -> Any:
        a, b = left(context), right(context)
        if not (isinstance(a, str) or isinstance(b, str)):
            return calculate("+", a, b)
        a, b = to_string(a), to_string(b)
        return UNDEFINED if a is UNDEFINED or b is UNDEFINED else a + b

    return add


def arithmetic(sign: str, left: Expression, right: Expression) -> Expression:
    """``- * / %``."""
    return lambda context: calculate(sign, left(context), right(context))
