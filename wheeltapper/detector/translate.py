"""
Expressions of the language as expressions of Python.

``truth`` is for conditions, where only "true" matters: most comparisons become one comparison of Python. ``value`` is for
everything else, and calls the operators of ``values``. Names and texts of users enter only as literals, through ``ascii``.
"""

from collections.abc import Callable, Iterable
from typing import TypeAlias

from wheeltapper.detector.expression import (
    Binary,
    Call,
    Expression,
    Literal,
    Reference,
    Template,
    Unary,
    children,
    walk,
)

# Deeper trees are left to the interpreter: Python limits nesting, and nobody could read the line.
MAX_INLINE_DEPTH = 25
# Integers below are floats, too.
_EXACT = 2**53

ORDER = ("<", "<=", ">", ">=")
BINARY_NAMES = {
    "|": "bit_or",
    "^": "bit_xor",
    "&": "bit_and",
    "==": "equal",
    "!=": "not_equal",
    "<": "less",
    "<=": "less_or_equal",
    ">": "greater",
    ">=": "greater_or_equal",
    "+": "add",
    "-": "subtract",
    "*": "multiply",
    "/": "divide",
}
UNARY_NAMES = {"!": "invert", "~": "bit_not", "-": "negate"}
FUNCTION_NAMES = {
    "convert": "convert",
    "startsWith": "starts_with",
    "endsWith": "ends_with",
    "contains": "contains",
    "bitor": "bit_or",
    "bitand": "bit_and",
    "bitxor": "bit_xor",
    "bitnot": "bit_not",
}
_MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}

Ask: TypeAlias = Callable[[Expression], str]


class Translator:
    """
    Turns trees into Python for one function.

    Args:
        slots: reference → attribute of the detector ``d``.
        timers: timer → number of its slots.
        local: references that the function holds in local variables: ``i0`` as ``i0``, and as ``ni0`` where it is a
            number, NaN where it is not.
        is_message: whether the function runs on a message (True), a timer (False) or either (None).
        input_name: of the message, where ``is_message``.
        once: ``timeout`` is true for its first check only.
        quiet: whether no expiry is pending in any timer of ``tested``, so that ``timeout`` is false.
        ask: Python for a tree that is left to the interpreter.

    Attributes:
        checks: whether anything translated so far may have seen an expiry; the function then settles if ``k`` is true.
        asks: the same of a tree that was left to the interpreter, which does not tell.
        numbers: the local references of which ``n…`` is used.
        tested: slots of the timers that ``timeout`` asked about.
    """

    def __init__(
        self,
        slots: dict[Reference, str],
        timers: dict[str, str],
        local: Iterable[Reference],
        *,
        is_message: bool | None,
        input_name: str,
        once: bool,
        quiet: bool,
        ask: Ask,
    ) -> None:
        self._slots = slots
        self._timers = timers
        self._local = set(local)
        self._is_message = is_message
        self._input_name = input_name
        self._once = once
        self._quiet = quiet
        self._ask = ask
        self._temporaries = 0
        self.checks = self.asks = False
        self.numbers: set[Reference] = set()
        self.tested: dict[str, None] = {}

    def truth(self, tree: Expression) -> str:
        """Python that is true where the expression's value is true, false for everything else."""
        return self._asked(tree) + " is True" if self._is_alien(tree) else self._truth(tree)

    def value(self, tree: Expression) -> str:
        """Python that gives the expression's value, ``None`` or ``U``."""
        return self._asked(tree) if self._is_alien(tree) else self._value(tree)

    def hoist(self, reference: Reference) -> None:
        """Hold another reference in local variables."""
        self._local.add(reference)

    def _is_alien(self, tree: Expression) -> bool:
        return _depth(tree) > MAX_INLINE_DEPTH or any(
            isinstance(node, Call)
            and node.function in ("timeout", "triggerType", "currentInput")
            and not isinstance(node.arguments[0], Literal)
            for node in walk(tree)
        )

    def _asked(self, tree: Expression) -> str:
        if checks_timers(tree):
            self.checks = self.asks = True
        return self._ask(tree)

    def _truth(self, tree: Expression) -> str:
        match tree:
            case Literal(value):
                return str(value is True)
            case Unary("!", Literal(value)):
                return str(value is False)
            case Unary("!", operand):
                return f"{self._value(operand)} is False"
            case Binary("||", left, right):
                return self._any(self._truth(left), self._truth(right))
            case Binary("&&", left, right) if self._quiet or _is_boolean(left) or not checks_timers(right):
                return self._all(self._truth(left), self._truth(right))
            case Binary("&&", left, right):
                # An undefined left side does not spare the right side its check of a timer.
                first = self._temporary()
                return f"(({first} := {self._value(left)}) is not False and {self._truth(right)} and {first} is True)"
            case Binary(operator, Literal(), right) if operator in _MIRRORED and not isinstance(right, Literal):
                return self._truth(Binary(_MIRRORED[operator], right, tree.left))
            case Binary(operator, Reference() as left, Literal(constant)) if operator in _MIRRORED:
                return self._compare(operator, left, constant)
            case _ if _is_boolean(tree):
                return self._value(tree)
        return f"{self._value(tree)} is True"

    def _any(self, left: str, right: str) -> str:
        if "False" in (left, right):
            return f"({right if left == 'False' else left})"
        return f"({left} or {right})"

    def _all(self, left: str, right: str) -> str:
        never = left == "False" or (self._quiet and right == "False")
        return "False" if never else f"({left} and {right})"

    def _compare(self, operator: str, reference: Reference, constant: int | float | str | bool) -> str:
        """A reference against a constant: the case worth every nanosecond."""
        value, literal = self._reference(reference), ascii(constant)
        is_number = not isinstance(constant, bool | str)
        if operator in ORDER and is_number:
            if reference in self._local:
                self.numbers.add(reference)
                if reference.root != "variable" and isinstance(constant, int) and -_EXACT < constant < _EXACT:
                    # What is measured is mostly Decimal, and Python is slow to compare that with an int.
                    literal = ascii(float(constant))
                return f"n{value} {operator} {literal}"
            first, second = ("int", "float") if isinstance(constant, int) else ("float", "int")
            return f"((type(x := {value}) is {first} or type(x) is {second}) and x {operator} {literal})"
        if operator == "==" and isinstance(constant, bool):
            return f"{value} is {literal}"
        if operator == "==":
            guard = ""
            if reference not in self._local:
                # What is remembered is often still undefined, and Python is slow to compare that.
                guard, value = f"(x := {value}) is not U and ", "x"
            # Python's False is 0; the language's is not.
            more = f" and {value} is not {bool(constant)}" if is_number and constant in (0, 1) else ""
            return f"({guard}{value} == {literal}{more})"
        if operator == "!=" and is_number:
            same_type = f"type(x := {value}) is float or type(x) is int"
        elif operator == "!=":
            same_type = f"type(x := {value}) is {type(constant).__name__}"
        else:
            return f"{BINARY_NAMES[operator]}({value}, {literal}) is True"
        return f"(x != {literal} if {same_type} else x is U or x is None)"

    def _value(self, tree: Expression) -> str:
        match tree:
            case Literal(value):
                return ascii(value)
            case Reference():
                return self._reference(tree)
            case Template(parts):
                return f"join(({''.join(ascii(p) + ', ' if isinstance(p, str) else self._value(p) + ', ' for p in parts)}))"
            case Unary(operator, operand):
                return f"{UNARY_NAMES[operator]}({self._value(operand)})"
            case Binary("||"):
                return self._truth(tree)
            case Binary("&&", left, right):
                first = self._temporary()
                return f"(False if ({first} := {self._value(left)}) is False else both({first}, {self._value(right)}))"
            case Binary(operator, left, right):
                return f"{BINARY_NAMES[operator]}({self._value(left)}, {self._value(right)})"
            case Call("isNull" | "isUndefined", (Literal(),)):
                return "False"
            case Call("isNull", (operand,)):
                return f"({self._value(operand)} is None)"
            case Call("isUndefined", (operand,)):
                return f"({self._value(operand)} is U)"
            case Call(function, (Literal(name),)) if function in ("timeout", "triggerType", "currentInput"):
                return self._question(function, name)
            case Call(function, arguments):
                return f"{FUNCTION_NAMES[function]}({', '.join(map(self._value, arguments))})"

    def _question(self, function: str, name: int | float | str | bool) -> str:
        if not isinstance(name, str):
            return "U"
        if function == "timeout":
            slot = self._timers[name]
            self.tested[slot] = None
            if self._quiet:
                return "False"
            self.checks = True
            return f"(d.f{slot} {'== 3' if self._once else '> 2'} and (k := see(d, {name!a})))"
        if function == "triggerType":
            wanted = {"message": True, "timer": False}.get(name.lower())
            if wanted is None or self._is_message is not None:
                return str(wanted is not None and wanted is self._is_message)
            return f"((m is not None) is {wanted})"
        if self._is_message is not None:
            return str(self._is_message and name == self._input_name)
        return f"(m is not None and m.input_name == {name!a})"

    def _reference(self, reference: Reference) -> str:
        slot = self._slots.get(reference)
        if slot is None:
            return "U"
        return slot if reference in self._local else f"d.{slot}"

    def _temporary(self) -> str:
        self._temporaries += 1
        return f"x{self._temporaries}"


def is_never_absent(tree: Expression) -> bool:
    """Whether the expression's value can be neither undefined nor null."""
    return isinstance(tree, Literal) or _is_boolean(tree)


def _is_boolean(tree: Expression) -> bool:
    match tree:
        case Literal(value):
            return isinstance(value, bool)
        case Binary("||"):
            return True
        case Call(function, (Literal(str()),)):
            return function in ("timeout", "triggerType", "currentInput")
        case Call(function):
            return function in ("isNull", "isUndefined")
    return False


def checks_timers(tree: Expression) -> bool:
    """Whether evaluating the expression may consume an expiry."""
    return any(isinstance(node, Call) and node.function == "timeout" for node in walk(tree))


def _depth(tree: Expression) -> int:
    return 1 + max(map(_depth, children(tree)), default=0)
