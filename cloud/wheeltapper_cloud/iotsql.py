"""
AWS IoT topic rules: ``SELECT … FROM 'topic/filter' WHERE …`` read once and compiled to closures.

The part that rules on JSON messages use: ``*``, aliases, nested paths, indexes, literals, objects and arrays, arithmetic,
comparison, AND/OR/NOT, IN, CASE, cast, topic(), timestamp() and the functions of ``iotsql_functions``. What is not
supported is refused by name when the rule is read, never ignored.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from wheeltapper.errors import SettingsError
from wheeltapper_cloud.iotsql_functions import CASTS, FUNCTIONS, UNDEFINED, to_boolean, to_number, to_string, whole


class Context(NamedTuple):
    """What an expression may look at: the message, its topic, the clock."""

    payload: Any
    topic: str
    time_ms: int


Expression = Callable[[Context], Any]

_MAX_TEXT = 256 * 1024
_MAX_DEPTH = 64
_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)|(?P<string>'(?:[^'\\]|''|\\.)*'|\"(?:[^\"\\]|\\.)*\")"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*|`[^`]+`)|(?P<sign><>|!=|<=|>=|[-+*/%=<>().,\[\]{}:]))",
    re.DOTALL,
)
_KEYWORDS = {"select", "value", "from", "where", "as", "and", "or", "not", "in", "case", "when", "then", "else", "end"}
_REFUSED_WORDS = {"set", "unnest", "group", "order", "join", "limit", "having", "union"}


class Select(NamedTuple):
    """
    A rule's statement.

    Attributes:
        topic_filter: of the FROM clause.
        everything: the payload passes as it is (``SELECT *`` and nothing else).
        project: the result of the SELECT clause; Undefined where there is none.
        accepts: whether the WHERE clause holds; None where there is none.
    """

    topic_filter: str
    everything: bool
    project: Expression
    accepts: Callable[[Context], bool] | None


def parse_statement(text: str) -> Select:
    """
    Read a rule.

    Raises:
        SettingsError: not a statement of the supported part; says where and what.

    >>> rule = parse_statement("SELECT temperature * 2 AS double, topic(2) AS motor FROM 'dt/+' WHERE temperature > 10")
    >>> rule.project(Context({"temperature": 21}, "dt/m1", 0))
    {'double': 42, 'motor': 'm1'}
    """
    return _Parser(text).statement()


def parse_template(text: str) -> Expression:
    """
    Read a substitution template, text with ``${expression}`` in it.

    >>> parse_template("m-${topic(2)}")(Context({}, "dt/7", 0))
    'm-7'
    """
    pieces: list[str | Expression] = []
    place = 0
    for found in re.finditer(r"\$\{((?:[^{}']|'[^']*')*)\}", text):
        pieces.append(text[place : found.start()])
        parser = _Parser(found.group(1))
        pieces.append(parser.whole_expression())
        place = found.end()
    pieces.append(text[place:])

    def evaluate(context: Context) -> Any:
        parts = [piece if isinstance(piece, str) else to_string(piece(context)) for piece in pieces]
        return UNDEFINED if UNDEFINED in parts else "".join(parts)

    return evaluate


class _Parser:
    """Recursive descent, one method per level of precedence."""

    def __init__(self, text: str) -> None:
        if len(text) > _MAX_TEXT:
            raise SettingsError(f"topic rule: longer than {_MAX_TEXT} characters")
        self._text = text
        self._tokens = list(self._scan())
        self._place = 0
        self._depth = 0

    def _scan(self) -> Any:
        place = 0
        text = self._text.rstrip().rstrip(";")
        while place < len(text):
            found = _TOKEN.match(text, place)
            if found is None:
                if not text[place:].strip():
                    break
                raise self._error(f"cannot read {text[place:].strip()[:20]!r}")
            kind = str(found.lastgroup)
            yield kind, found.group(kind)
            place = found.end()
        yield "end", ""

    def _error(self, what: str) -> SettingsError:
        return SettingsError(f"topic rule {' '.join(self._text.split())[:80]!r}: {what}")

    # --- tokens ------------------------------------------------------------------------------------------------------

    def _peek_word(self) -> str:
        kind, text = self._tokens[self._place]
        return text.lower() if kind == "name" else ""

    def _take_word(self, word: str) -> bool:
        if self._peek_word() == word:
            self._place += 1
            return True
        return False

    def _take_sign(self, *signs: str) -> str:
        kind, text = self._tokens[self._place]
        if kind == "sign" and text in signs:
            self._place += 1
            return str(text)
        return ""

    def _expect_sign(self, sign: str) -> None:
        if not self._take_sign(sign):
            raise self._error(f"{sign!r} expected before {self._tokens[self._place][1]!r}")

    def _expect_word(self, word: str) -> None:
        if not self._take_word(word):
            raise self._error(f"{word.upper()} expected before {self._tokens[self._place][1]!r}")

    # --- clauses -----------------------------------------------------------------------------------------------------

    def statement(self) -> Select:
        self._expect_word("select")
        everything, project = self._projection()
        self._expect_word("from")
        kind, text = self._tokens[self._place]
        if kind != "string":
            raise self._error("FROM must name one topic filter in quotes")
        self._place += 1
        accepts: Callable[[Context], bool] | None = None
        if self._take_word("where"):
            condition = self._expression()
            accepts = lambda context: to_boolean(condition(context)) is True  # noqa: E731
        self._finish()
        return Select(_unquote(text), everything, project, accepts)

    def whole_expression(self) -> Expression:
        expression = self._expression()
        self._finish()
        return expression

    def _finish(self) -> None:
        if self._tokens[self._place][0] != "end":
            word = self._tokens[self._place][1]
            raise self._error(f"{word.upper() if word.lower() in _REFUSED_WORDS else repr(word)} is not supported here")

    def _projection(self) -> tuple[bool, Expression]:
        if self._take_word("value"):
            return False, self._expression()
        columns: list[tuple[str | None, Expression]] = [self._column(0)]
        while self._take_sign(","):
            columns.append(self._column(len(columns)))
        everything = len(columns) == 1 and columns[0][0] is None

        def project(context: Context) -> Any:
            result: dict[str, Any] = {}
            for name, expression in columns:
                value = expression(context)
                if name is None:
                    if isinstance(value, dict):
                        result.update(value)
                elif value is not UNDEFINED:
                    result[name] = value
            return result

        return everything, project

    def _column(self, number: int) -> tuple[str | None, Expression]:
        if self._take_sign("*"):
            return None, lambda context: context.payload
        start = self._place
        expression = self._expression()
        if self._tokens[self._place - 1] == ("sign", "*"):
            return None, expression
        if self._take_word("as"):
            kind, text = self._tokens[self._place]
            if kind not in ("name", "string"):
                raise self._error("AS must be followed by a name")
            self._place += 1
            return _unquote(text), expression
        return self._implied_name(start, number), expression

    def _implied_name(self, start: int, number: int) -> str:
        """A path is called by its last member, a function by its name, anything else by its number."""
        words = [text for kind, text in self._tokens[start : self._place] if kind == "name"]
        signs = {text for kind, text in self._tokens[start : self._place] if kind == "sign"}
        if words and signs <= {"."}:
            return _unquote(words[-1])
        if words and self._tokens[start + 1] == ("sign", "("):
            return str(words[0].lower())
        return f"col{number}"

    # --- expressions, lowest precedence first ------------------------------------------------------------------------

    def _expression(self) -> Expression:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise self._error(f"nested deeper than {_MAX_DEPTH}")
        left = self._conjunction()
        while self._take_word("or"):
            left = _logical(left, self._conjunction(), lambda a, b: a or b)
        self._depth -= 1
        return left

    def _conjunction(self) -> Expression:
        left = self._negation()
        while self._take_word("and"):
            left = _logical(left, self._negation(), lambda a, b: a and b)
        return left

    def _negation(self) -> Expression:
        negations = 0
        while self._take_word("not"):
            negations += 1
        operand = self._comparison()
        for _ in range(negations % 2 + (2 if negations else 0)):
            operand = _negated(operand)
        return operand

    def _comparison(self) -> Expression:
        left = self._sum()
        while True:
            if sign := self._take_sign("=", "<>", "!=", "<", "<=", ">", ">="):
                left = _compared(sign, left, self._sum())
            elif self._peek_word() == "in":
                self._place += 1
                left = self._membership(left)
            else:
                return left

    def _membership(self, left: Expression) -> Expression:
        if self._take_sign("("):
            members = self._list(")")
            return lambda context: any(_equal(left(context), member(context)) is True for member in members)
        container = self._sum()

        def contained(context: Context) -> Any:
            items = container(context)
            if not isinstance(items, list):
                return UNDEFINED
            value = left(context)
            return any(_equal(value, item) is True for item in items)

        return contained

    def _sum(self) -> Expression:
        left = self._product()
        while sign := self._take_sign("+", "-"):
            left = _added(left, self._product()) if sign == "+" else _arithmetic("-", left, self._product())
        return left

    def _product(self) -> Expression:
        left = self._unary()
        while sign := self._take_sign("*", "/", "%"):
            left = _arithmetic(sign, left, self._unary())
        return left

    def _unary(self) -> Expression:
        if self._take_sign("-"):
            return _arithmetic("-", lambda _context: 0, self._unary_operand())
        return self._unary_operand()

    def _unary_operand(self) -> Expression:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise self._error(f"nested deeper than {_MAX_DEPTH}")
        value = self._postfix(self._unary() if self._tokens[self._place] == ("sign", "-") else self._primary())
        self._depth -= 1
        return value

    def _postfix(self, value: Expression) -> Expression:
        while True:
            if self._take_sign("."):
                if self._take_sign("*"):
                    return value
                kind, text = self._tokens[self._place]
                if kind not in ("name", "string"):
                    raise self._error("a member's name must follow the point")
                self._place += 1
                value = _member(value, _unquote(text))
            elif self._take_sign("["):
                index = self._expression()
                self._expect_sign("]")
                value = _indexed(value, index)
            else:
                return value

    def _primary(self) -> Expression:
        kind, text = self._tokens[self._place]
        self._place += 1
        if kind == "number":
            number = int(text) if text.isdigit() else float(text)
            return lambda _context: number
        if kind == "string":
            literal = _unquote(text)
            return lambda _context: literal
        if kind == "sign":
            return self._bracketed(text)
        if kind == "name":
            return self._named(text)
        raise self._error("ends too early")

    def _bracketed(self, sign: str) -> Expression:
        if sign == "(":
            inner = self._expression()
            self._expect_sign(")")
            return inner
        if sign == "[":
            items = self._list("]")
            return lambda context: [value for item in items if (value := item(context)) is not UNDEFINED]
        if sign == "{":
            return self._object()
        raise self._error(f"{sign!r} is not expected here")

    def _list(self, closing: str) -> list[Expression]:
        items: list[Expression] = []
        if self._take_sign(closing):
            return items
        while True:
            items.append(self._expression())
            if not self._take_sign(","):
                self._expect_sign(closing)
                return items

    def _object(self) -> Expression:
        members: dict[str, Expression] = {}
        while not self._take_sign("}"):
            kind, text = self._tokens[self._place]
            if kind not in ("name", "string"):
                raise self._error("an object's member needs a name")
            self._place += 1
            self._expect_sign(":")
            members[_unquote(text)] = self._expression()
            if not self._take_sign(","):
                self._expect_sign("}")
                break
        return lambda context: {
            name: value for name, member in members.items() if (value := member(context)) is not UNDEFINED
        }

    def _named(self, text: str) -> Expression:
        word = text.lower()
        if self._tokens[self._place] == ("sign", "("):
            self._place += 1
            return self._cast() if word == "cast" else self._call(word)
        if word in ("true", "false", "null"):
            literal = {"true": True, "false": False, "null": None}[word]
            return lambda _context: literal
        if word == "undefined":
            return lambda _context: UNDEFINED
        if word == "case":
            return self._case()
        if word in _KEYWORDS:
            raise self._error(f"{word.upper()} is not expected here")
        return _member(lambda context: context.payload, _unquote(text))

    def _cast(self) -> Expression:
        value = self._expression()
        self._expect_word("as")
        word = self._peek_word()
        if word not in CASTS:
            raise self._error(
                f"cast to {self._tokens[self._place][1]!r} is not supported; String, Int, Decimal, Boolean are"
            )
        self._place += 1
        self._expect_sign(")")
        convert = CASTS[word]
        return lambda context: convert(value(context))

    def _case(self) -> Expression:
        subject = None if self._peek_word() == "when" else self._expression()
        branches: list[tuple[Expression, Expression]] = []
        while self._take_word("when"):
            condition = self._expression()
            self._expect_word("then")
            branches.append((condition, self._expression()))
        otherwise: Expression = lambda _context: UNDEFINED  # noqa: E731
        if self._take_word("else"):
            otherwise = self._expression()
        self._expect_word("end")

        def choose(context: Context) -> Any:
            for condition, value in branches:
                held = condition(context) if subject is None else _equal(subject(context), condition(context))
                if held is True:
                    return value(context)
            return otherwise(context)

        return choose

    def _call(self, name: str) -> Expression:
        arguments = self._list(")")
        if name == "topic" and len(arguments) <= 1:
            return _topic(arguments[0] if arguments else None)
        if name == "timestamp" and not arguments:
            return lambda context: context.time_ms
        if name not in FUNCTIONS:
            raise self._error(f"function {name}() is not supported")
        function, fewest, most = FUNCTIONS[name]
        if not fewest <= len(arguments) <= most:
            raise self._error(f"{name}() takes {fewest if fewest == most else f'{fewest} to {most}'} arguments")
        return lambda context: function(*[argument(context) for argument in arguments])


def _unquote(text: str) -> str:
    if text[0] == "'":
        return re.sub(r"\\(.)", r"\1", text[1:-1].replace("''", "'"), flags=re.DOTALL)
    if text[0] == '"':
        return re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL)
    return text.strip("`")


def _member(value: Expression, name: str) -> Expression:
    def member(context: Context) -> Any:
        container = value(context)
        return container.get(name, UNDEFINED) if isinstance(container, dict) else UNDEFINED

    return member


def _indexed(value: Expression, index: Expression) -> Expression:
    get = FUNCTIONS["get"][0]
    return lambda context: get(value(context), index(context))


def _topic(level: Expression | None) -> Expression:
    """topic() is the topic, topic(1) its first level."""
    if level is None:
        return lambda context: context.topic

    def at(context: Context) -> Any:
        number = to_number(level(context))
        levels = context.topic.split("/")
        return levels[number - 1] if isinstance(number, int) and 1 <= number <= len(levels) else UNDEFINED

    return at


def _logical(left: Expression, right: Expression, combine: Callable[[bool, bool], bool]) -> Expression:
    def evaluate(context: Context) -> Any:
        a, b = to_boolean(left(context)), to_boolean(right(context))
        return UNDEFINED if a is UNDEFINED or b is UNDEFINED else combine(a, b)

    return evaluate


def _negated(operand: Expression) -> Expression:
    def evaluate(context: Context) -> Any:
        value = to_boolean(operand(context))
        return UNDEFINED if value is UNDEFINED else not value

    return evaluate


def _equal(left: Any, right: Any) -> Any:
    if left is UNDEFINED or right is UNDEFINED:
        return UNDEFINED
    if isinstance(left, bool) or isinstance(right, bool):
        a, b = to_boolean(left), to_boolean(right)
        return False if a is UNDEFINED or b is UNDEFINED else a is b
    if isinstance(left, int | float) != isinstance(right, int | float):
        left, right = to_number(left), to_number(right)
        return False if left is UNDEFINED or right is UNDEFINED else left == right
    return bool(type(left) is type(right) or isinstance(left, int | float)) and left == right


def _compared(sign: str, left: Expression, right: Expression) -> Expression:
    if sign == "=":
        return lambda context: _equal(left(context), right(context))
    if sign in ("<>", "!="):

        def differs(context: Context) -> Any:
            equal = _equal(left(context), right(context))
            return UNDEFINED if equal is UNDEFINED else not equal

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


def _added(left: Expression, right: Expression) -> Expression:
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


def _arithmetic(sign: str, left: Expression, right: Expression) -> Expression:
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
