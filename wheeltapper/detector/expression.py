"""
The expression language: text to a small tree and back.

The grammar, its precedences and its limits are those of AWS IoT Events where documented, JavaScript's where not. ``parse``
refuses hostile text (too long, too deep, numbers out of range) with one clear error; ``show`` gives text that parses to the
same tree. Trees are plain data: they are evaluated by ``interpreter`` and turned into Python by ``compiler``.

>>> show(parse("1 + 2 * $input.Pump.speed > 7 || timeout('t')"))
'1 + 2 * $input.Pump.speed > 7 || timeout("t")'
"""

import math
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Literal as OneOf
from typing import TypeAlias, cast

from msgspec import Struct

from wheeltapper.errors import DefinitionError

MAX_LENGTH = 65_536
# Trees are walked by recursion; these keep it within Python's bounds wherever the engine is called from.
MAX_DEPTH = 150
MAX_NESTING = 80
INTEGER_MAX = 2**63 - 1

Root: TypeAlias = OneOf["input", "variable", "sitewise"]


class Literal(Struct, frozen=True):
    """A number, a string or a Boolean."""

    value: int | float | str | bool


class Template(Struct, frozen=True):
    """A single-quoted string with ``${expr}`` in it: text and expressions in turn."""

    parts: "tuple[str | Expression, ...]"


class Reference(Struct, frozen=True):
    """
    ``$input.NAME.path``, ``$variable.NAME`` or ``$sitewise.NAME.path``.

    A string in the path is a member, a number an index.
    """

    root: Root
    name: str
    path: tuple[str | int, ...] = ()


class Unary(Struct, frozen=True):
    """``!``, ``~`` or ``-`` before an operand."""

    operator: str
    operand: "Expression"


class Binary(Struct, frozen=True):
    """An operator between two operands."""

    operator: str
    left: "Expression"
    right: "Expression"


class Call(Struct, frozen=True):
    """A function of the language; the type of ``convert`` is its first argument, a ``Literal``."""

    function: str
    arguments: "tuple[Expression, ...]"


Expression: TypeAlias = Literal | Template | Reference | Unary | Binary | Call

# Low to high; all are left-associative.
PRECEDENCE = {
    operator: level
    for level, operators in enumerate(
        ("||", "&&", "|", "^", "&", "== !=", "< <= > >=", "+ -", "* /"),
        start=1,
    )
    for operator in operators.split()
}
UNARY = ("!", "~", "-")

# Function → number of arguments.
FUNCTIONS = {
    "timeout": 1,
    "convert": 2,
    "isNull": 1,
    "isUndefined": 1,
    "triggerType": 1,
    "currentInput": 1,
    "startsWith": 2,
    "endsWith": 2,
    "contains": 2,
    "bitor": 2,
    "bitand": 2,
    "bitxor": 2,
    "bitnot": 1,
}
TYPES = {"string": "String", "boolean": "Boolean", "decimal": "Decimal"}

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<number>[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)(?![A-Za-z0-9_])
    | (?P<root>\$(?:input|variable|sitewise)\b)
    | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<operator>\|\||&&|==|!=|<=|>=|[|^&<>+\-*/!~().,\[\]}])
    | (?P<backtick>`[^`]+`)
    | (?P<quote>['"])
    | (?P<end>\Z)
    )""",
    re.VERBOSE | re.ASCII,
)
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
# The text up to what may end or interrupt a string.
_PLAIN = {"'": re.compile(r"[^'\\$]*"), '"': re.compile(r'[^"\\]*')}
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}


def parse(text: str, *, path: str = "") -> Expression:
    """
    The tree of one expression.

    Args:
        text: the expression as a definition holds it.
        path: where it stands in the definition, for the error.

    Raises:
        DefinitionError: the text is not an expression, or exceeds a limit.
    """
    if len(text) > MAX_LENGTH:
        raise DefinitionError(f"expression has {len(text)} characters; at most {MAX_LENGTH} are allowed", path=path)
    return _Parser(text, path).whole()


def parse_or_none(text: str) -> Expression | None:
    """The tree, or None where the text is not an expression and stands for itself."""
    try:
        return parse(text)
    except DefinitionError:
        return None


class _Parser:
    """Operator-precedence parsing over a cursor; every rule gives a tree and its depth."""

    def __init__(self, text: str, path: str) -> None:
        self._text = text
        self._path = path
        self._nesting = 0
        self._end = 0
        self._kind = ""
        self._lexeme = ""
        self._start = 0

    def whole(self) -> Expression:
        self._advance()
        tree, _ = self._expression(1)
        if self._kind != "end":
            raise self._unexpected("an operator or the end")
        return tree

    def _advance(self) -> None:
        match = _TOKEN.match(self._text, self._end)
        if match is None:
            shown = self._text[self._end : self._end + 20].strip()
            raise self._error(f"cannot read {shown!r}")
        self._kind = cast(str, match.lastgroup)
        self._lexeme = match[self._kind]
        self._start = match.start(self._kind)
        self._end = match.end()

    def _error(self, what: str) -> DefinitionError:
        shown = self._text if len(self._text) <= 60 else self._text[:57] + "…"
        return DefinitionError(f"{what} at character {self._start + 1} of {shown!r}", path=self._path)

    def _unexpected(self, wanted: str) -> DefinitionError:
        return self._error(f"expected {wanted}, found {self._lexeme!r}" if self._lexeme else f"expected {wanted}")

    def _expect(self, operator: str) -> None:
        if self._lexeme != operator or self._kind != "operator":
            raise self._unexpected(repr(operator))
        self._advance()

    def _deeper(self, depth: int) -> int:
        if depth >= MAX_DEPTH:
            raise self._error(f"more than {MAX_DEPTH} levels of operators")
        return depth + 1

    def _expression(self, lowest: int) -> tuple[Expression, int]:
        self._nesting += 1
        if self._nesting > MAX_NESTING:
            raise self._error(f"nested more than {MAX_NESTING} deep")
        left, depth = self._unary()
        while self._kind == "operator" and PRECEDENCE.get(self._lexeme, 0) >= lowest:
            operator = self._lexeme
            self._advance()
            right, right_depth = self._expression(PRECEDENCE[operator] + 1)
            left, depth = Binary(operator, left, right), self._deeper(max(depth, right_depth))
        self._nesting -= 1
        return left, depth

    def _unary(self) -> tuple[Expression, int]:
        operators = []
        while self._kind == "operator" and self._lexeme in UNARY:
            operators.append(self._lexeme)
            self._deeper(len(operators))
            self._advance()
        tree, depth = self._primary()
        for operator in reversed(operators):
            tree, depth = Unary(operator, tree), self._deeper(depth)
        return tree, depth

    def _primary(self) -> tuple[Expression, int]:
        match self._kind:
            case "number":
                return self._number(), 1
            case "quote":
                return self._string()
            case "root":
                return self._reference(), 1
            case "name":
                return self._word()
            case "operator" if self._lexeme == "(":
                self._advance()
                tree, depth = self._expression(1)
                self._expect(")")
                return tree, depth
        raise self._unexpected("a value")

    def _number(self) -> Literal:
        digits = self._lexeme
        if digits.isdigit():
            if len(digits) > 19 or int(digits) > INTEGER_MAX:
                raise self._error(f"integer of {len(digits)} digits is out of range")
            value: int | float = int(digits)
        else:
            value = float(digits)
            if not math.isfinite(value):
                raise self._error("number is out of range")
        self._advance()
        return Literal(value)

    def _word(self) -> tuple[Expression, int]:
        word = self._lexeme
        if word in ("true", "false"):
            self._advance()
            return Literal(word == "true"), 1
        if word not in FUNCTIONS:
            raise self._error(f"unknown name {word[:40]!r}: strings stand in quotes, variables begin with $variable.")
        self._advance()
        self._expect("(")
        arguments: list[Expression] = []
        deepest = 0
        while not (self._kind == "operator" and self._lexeme == ")"):
            if arguments:
                self._expect(",")
            argument, depth = self._argument(word, len(arguments))
            arguments.append(argument)
            deepest = max(deepest, depth)
        if len(arguments) != FUNCTIONS[word]:
            raise self._error(f"{word} takes {FUNCTIONS[word]} argument(s), not {len(arguments)}")
        self._advance()
        return Call(word, tuple(arguments)), self._deeper(deepest)

    def _argument(self, function: str, place: int) -> tuple[Expression, int]:
        keyword = TYPES.get(self._lexeme.lower()) if self._kind == "name" else None
        if function == "convert" and place == 0 and keyword is not None:
            self._advance()
            return Literal(keyword), 1
        return self._expression(1)

    def _reference(self) -> Reference:
        root = cast(Root, self._lexeme[1:])
        self._advance()
        steps: list[str | int] = []
        while self._kind == "operator" and self._lexeme in (".", "["):
            member = self._lexeme == "."
            self._advance()
            if member:
                if self._kind not in ("name", "backtick"):
                    raise self._unexpected("a name")
                steps.append(self._lexeme.strip("`"))
                self._advance()
                continue
            if self._kind != "number" or not self._lexeme.isdigit():
                raise self._unexpected("an index")
            steps.append(cast(int, self._number().value))
            self._expect("]")
        if not steps or not isinstance(steps[0], str):
            raise self._unexpected(f"'.' and a name after ${root}")
        if len(steps) > MAX_NESTING:
            raise self._error(f"reference has more than {MAX_NESTING} steps")
        return Reference(root, steps[0], tuple(steps[1:]))

    def _string(self) -> tuple[Expression, int]:
        """Read from just behind the opening quote; in single quotes ``${`` begins an expression."""
        quote, opening = self._lexeme, self._start
        parts: list[str | Expression] = []
        plain: list[str] = []
        deepest = 0
        place = self._end
        while True:
            end = cast(re.Match[str], _PLAIN[quote].match(self._text, place)).end()
            plain.append(self._text[place:end])
            stop = self._text[end : end + 1]
            if stop == quote:
                self._end = end + 1
                break
            if stop == "\\" and end + 1 < len(self._text):
                escaped = self._text[end + 1]
                plain.append(_ESCAPES.get(escaped, escaped))
                place = end + 2
            elif stop == "$" and self._text[end + 1 : end + 2] == "{":
                if plain := ["".join(plain)] if any(plain) else []:
                    parts.append(plain[0])
                plain = []
                tree, depth, place = self._substitution(end + 2)
                parts.append(tree)
                deepest = max(deepest, depth)
            elif stop == "$":
                plain.append("$")
                place = end + 1
            else:
                self._start = opening
                raise self._error("string is not closed")
        self._advance()
        text = "".join(plain)
        if not parts:
            return Literal(text), 1
        return Template((*parts, text) if text else tuple(parts)), self._deeper(deepest)

    def _substitution(self, place: int) -> tuple[Expression, int, int]:
        self._end = place
        self._advance()
        tree, depth = self._expression(1)
        if self._kind != "operator" or self._lexeme != "}":
            raise self._unexpected("'}'")
        return tree, depth, self._end


def show(tree: Expression) -> str:
    """Text that parses to the same tree."""
    match tree:
        case Literal(value):
            return _show_value(value)
        case Template(parts):
            return "'" + "".join(_quote(p, "'") if isinstance(p, str) else f"${{{show(p)}}}" for p in parts) + "'"
        case Reference():
            return show_reference(tree)
        case Unary(operator, operand):
            return operator + (f"({show(operand)})" if isinstance(operand, Binary) else show(operand))
        case Binary(operator, left, right):
            level = PRECEDENCE[operator]
            return f"{_show_operand(left, level)} {operator} {_show_operand(right, level + 1)}"
        case Call("convert", (Literal(str(name)), value)) if name in TYPES.values():
            return f"convert({name}, {show(value)})"
        case Call(function, arguments):
            return f"{function}({', '.join(map(show, arguments))})"


@lru_cache(maxsize=4096)
def show_reference(reference: Reference) -> str:
    """
    A reference as it is written.

    >>> show_reference(Reference("input", "Pump", ("motor temp", "values", 2)))
    '$input.Pump.`motor temp`.values[2]'
    """
    steps = (f"[{step}]" if isinstance(step, int) else "." + _show_name(step) for step in reference.path)
    return f"${reference.root}.{_show_name(reference.name)}{''.join(steps)}"


def walk(tree: Expression) -> Iterator[Expression]:
    """Every node of the tree, in the order of the text, parents before children."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        waiting.extend(reversed(children(node)))


def children(tree: Expression) -> tuple[Expression, ...]:
    """The nodes directly below."""
    match tree:
        case Template(parts):
            return tuple(part for part in parts if not isinstance(part, str))
        case Unary(_, operand):
            return (operand,)
        case Binary(_, left, right):
            return (left, right)
        case Call(_, arguments):
            return arguments
    return ()


def references(tree: Expression) -> list[Reference]:
    """The references of the tree, each once, in the order of the text."""
    return list(dict.fromkeys(node for node in walk(tree) if isinstance(node, Reference)))


def _show_operand(tree: Expression, lowest: int) -> str:
    text = show(tree)
    return f"({text})" if isinstance(tree, Binary) and PRECEDENCE[tree.operator] < lowest else text


def _show_value(value: int | float | str | bool) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{_quote(value, chr(34))}"'
    return repr(value)


def _show_name(name: str) -> str:
    return name if _IDENTIFIER.fullmatch(name) else f"`{name}`"


def _quote(text: str, quote: str) -> str:
    text = text.replace("\\", "\\\\").replace(quote, "\\" + quote)
    text = text.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
    return text.replace("${", "\\${") if quote == "'" else text
