"""The expressions of AWS IoT SQL: recursive descent, one method per level of precedence, to closures."""

from typing import Any

from wheeltapper_cloud.iotsql_functions import CASTS, FUNCTIONS
from wheeltapper_cloud.iotsql_operators import (
    Context,
    Expression,
    added,
    arithmetic,
    compared,
    indexed,
    logical,
    member,
    negated,
    topic,
)
from wheeltapper_cloud.iotsql_tokens import TokenReader, unquote
from wheeltapper_cloud.iotsql_values import UNDEFINED, equal

_MAX_DEPTH = 64
_KEYWORDS = {"select", "value", "from", "where", "as", "and", "or", "not", "in", "case", "when", "then", "else", "end"}


class ExpressionParser(TokenReader):
    """Reads expressions, lowest precedence first."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def _expression(self) -> Expression:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise self._error(f"nested deeper than {_MAX_DEPTH}")
        left = self._conjunction()
        while self._take_word("or"):
            left = logical(left, self._conjunction(), lambda a, b: a or b)
        self._depth -= 1
        return left

    def _conjunction(self) -> Expression:
        left = self._negation()
        while self._take_word("and"):
            left = logical(left, self._negation(), lambda a, b: a and b)
        return left

    def _negation(self) -> Expression:
        negations = 0
        while self._take_word("not"):
            negations += 1
        operand = self._comparison()
        for _ in range(negations % 2 + (2 if negations else 0)):
            operand = negated(operand)
        return operand

    def _comparison(self) -> Expression:
        left = self._sum()
        while True:
            if sign := self._take_sign("=", "<>", "!=", "<", "<=", ">", ">="):
                left = compared(sign, left, self._sum())
            elif self._peek_word() == "in":
                self._place += 1
                left = self._membership(left)
            else:
                return left

    def _membership(self, left: Expression) -> Expression:
        if self._take_sign("("):
            members = self._list(")")
            return lambda context: any(equal(left(context), member(context)) is True for member in members)
        container = self._sum()

        def contained(context: Context) -> Any:
            items = container(context)
            if not isinstance(items, list):
                return UNDEFINED
            value = left(context)
            return any(equal(value, item) is True for item in items)

        return contained

    def _sum(self) -> Expression:
        left = self._product()
        while sign := self._take_sign("+", "-"):
            left = added(left, self._product()) if sign == "+" else arithmetic("-", left, self._product())
        return left

    def _product(self) -> Expression:
        left = self._unary()
        while sign := self._take_sign("*", "/", "%"):
            left = arithmetic(sign, left, self._unary())
        return left

    def _unary(self) -> Expression:
        if self._take_sign("-"):
            return arithmetic("-", lambda _context: 0, self._unary_operand())
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
                value = member(value, unquote(text))
            elif self._take_sign("["):
                index = self._expression()
                self._expect_sign("]")
                value = indexed(value, index)
            else:
                return value

    def _primary(self) -> Expression:
        kind, text = self._tokens[self._place]
        self._place += 1
        if kind == "number":
            number = int(text) if text.isdigit() else float(text)
            return lambda _context: number
        if kind == "string":
            literal = unquote(text)
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
            members[unquote(text)] = self._expression()
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
        return member(lambda context: context.payload, unquote(text))

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
                held = condition(context) if subject is None else equal(subject(context), condition(context))
                if held is True:
                    return value(context)
            return otherwise(context)

        return choose

    def _call(self, name: str) -> Expression:
        arguments = self._list(")")
        if name == "topic" and len(arguments) <= 1:
            return topic(arguments[0] if arguments else None)
        if name == "timestamp" and not arguments:
            return lambda context: context.time_ms
        if name not in FUNCTIONS:
            raise self._error(f"function {name}() is not supported")
        function, fewest, most = FUNCTIONS[name]
        if not fewest <= len(arguments) <= most:
            raise self._error(f"{name}() takes {fewest if fewest == most else f'{fewest} to {most}'} arguments")
        return lambda context: function(*[argument(context) for argument in arguments])
