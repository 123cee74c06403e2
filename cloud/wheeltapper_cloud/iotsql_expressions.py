"""The expressions of AWS IoT SQL: recursive descent, one method per level of precedence, to closures."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final

from wheeltapper_cloud import iotsql_patterns
from wheeltapper_cloud.iotsql_functions import CASTS, CHECKS, FUNCTIONS, REFUSED
from wheeltapper_cloud.iotsql_operators import (
    Context,
    Expression,
    Literal,
    account,
    added,
    arithmetic,
    attribute,
    chosen,
    compared,
    contained,
    everything,
    indexed,
    logical,
    member,
    negated,
    time,
    topic,
    variable,
)
from wheeltapper_cloud.iotsql_tokens import TokenReader, unquote
from wheeltapper_cloud.iotsql_values import UNDEFINED, number_of, to_string

_MAX_DEPTH = 64
_MAX_OPERATORS = 256
_KEYWORDS = {"select", "from", "where", "as", "and", "or", "not", "in", "when", "then", "else", "end"}
_OF_MESSAGE: Final[dict[str, Callable[..., Expression]]] = {"accountid": account, "timestamp": time, "topic": topic}
_LITERALS = {"true": True, "false": False, "null": None, "undefined": UNDEFINED}


class ExpressionParser(TokenReader, ABC):
    """Reads expressions, lowest precedence first."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._operators = 0
        self._reads_payload = False
        self._variables: dict[str, int] = {}

    @abstractmethod
    def _subquery(self) -> Expression:
        """A query within, from its SELECT."""

    def _whole(self) -> Expression:
        """An expression that is not part of another."""
        self._operators = 0
        return self._expression()

    def _expression(self) -> Expression:
        self._deeper()
        left = self._conjunction()
        while self._operator(self._take_word("or")):
            left = logical(left, self._conjunction(), lambda a, b: a or b)
        self._depth -= 1
        return left

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise self._error(f"nested deeper than {_MAX_DEPTH}")

    def _operator(self, taken: str | bool) -> str | bool:
        """Count an operator that was taken: each of them is a call on the way to the expression's value."""
        self._operators += bool(taken)
        if self._operators > _MAX_OPERATORS:
            raise self._error(f"more than {_MAX_OPERATORS} operators in one expression")
        return taken

    def _conjunction(self) -> Expression:
        left = self._negation()
        while self._operator(self._take_word("and")):
            left = logical(left, self._negation(), lambda a, b: a and b)
        return left

    def _negation(self) -> Expression:
        negations = 0
        while self._take_word("not"):
            negations += 1
        operand = self._comparison()
        for _ in range(2 - negations % 2 if negations else 0):
            operand = negated(operand)
        return operand

    def _comparison(self) -> Expression:
        left = self._sum()
        while True:
            if sign := self._take_sign("=", "<>", "!=", "<", "<=", ">", ">="):
                left = compared(sign, left, self._sum())
            elif self._take_word("in"):
                left = contained(left, self._container())
            else:
                return left
            self._operator(True)

    def _container(self) -> Expression:
        """What stands behind IN: an array, or a list in parentheses."""
        if not self._take_sign("("):
            return self._sum()
        if self._peek_word() == "select":
            return self._closed(self._subquery())
        members = self._list(")")
        alone = members[0] if len(members) == 1 else Literal(None)

        def items(context: Context) -> object:
            return array if isinstance(array := alone(context), list) else [member(context) for member in members]

        return items

    def _closed(self, inner: Expression) -> Expression:
        self._expect_sign(")")
        return inner

    def _sum(self) -> Expression:
        left = self._product()
        while sign := self._take_sign("+", "-"):
            self._operator(sign)
            left = added(left, self._product()) if sign == "+" else arithmetic("-", left, self._product())
        return left

    def _product(self) -> Expression:
        left = self._unary()
        while sign := self._take_sign("*", "/", "%"):
            self._operator(sign)
            left = arithmetic(sign, left, self._unary())
        return left

    def _unary(self) -> Expression:
        if self._take_sign("-"):
            return arithmetic("-", Literal(0), self._unary_operand())
        return self._unary_operand()

    def _unary_operand(self) -> Expression:
        self._deeper()
        value = self._postfix(self._unary() if self._peek_sign() == "-" else self._primary())
        self._depth -= 1
        return value

    def _postfix(self, value: Expression) -> Expression:
        while sign := self._take_sign(".", "["):
            self._operator(sign)
            if sign == "[":
                value = indexed(value, self._expression())
                self._expect_sign("]")
            elif self._take_sign("*"):
                return value
            else:
                value = member(value, self._take_name("a member's name must follow the point; get() takes any name"))
        return value

    def _primary(self) -> Expression:
        kind, text = self._tokens[self._place]
        self._place += 1
        if kind == "number":
            return Literal(number_of(text))
        if kind == "string":
            return Literal(unquote(text))
        if kind == "sign":
            return self._bracketed(text)
        if kind == "name":
            return self._named(text)
        if kind == "variable":
            return self._variable(text)
        raise self._error("ends too early")

    def _bracketed(self, sign: str) -> Expression:
        if sign == "(":
            return self._closed(self._query_or_expression())
        if sign == "[":
            items = self._list("]")
            return lambda context: [value for item in items if (value := item(context)) is not UNDEFINED]
        if sign == "{":
            return self._object()
        if sign == "*" and self._peek_sign() == ".":
            return self._everything()
        raise self._error(f"{sign!r} is not expected here")

    def _list(self, closing: str) -> list[Expression]:
        items: list[Expression] = []
        if self._take_sign(closing):
            return items
        while True:
            items.append(self._star() or self._query_or_expression())
            if not self._take_sign(","):
                self._expect_sign(closing)
                return items

    def _query_or_expression(self) -> Expression:
        return self._subquery() if self._peek_word() == "select" else self._expression()

    def _star(self) -> Expression | None:
        """``*`` alone, where it may stand: as a column, an argument, or behind FROM."""
        if self._peek_sign() != "*" or self._tokens[self._place + 1] == ("sign", "."):
            return None
        self._place += 1
        return self._everything()

    def _everything(self) -> Expression:
        self._reads_payload = True
        return everything

    def _object(self) -> Expression:
        members: dict[str, Expression] = {}
        while not self._take_sign("}"):
            name = self._take_name("an object's member needs a name")
            self._expect_sign(":")
            members[name] = self._expression()
            if not self._take_sign(","):
                self._expect_sign("}")
                break
        return lambda context: {
            name: value for name, member in members.items() if (value := member(context)) is not UNDEFINED
        }

    def _named(self, text: str) -> Expression:
        word = text.lower()
        if word in _LITERALS:
            return Literal(_LITERALS[word])
        if word == "case":
            return self._case()
        if word in _KEYWORDS:
            raise self._error(f"{word.upper()} is not expected here")
        if self._take_sign("("):
            return {"cast": self._cast, "exists": self._exists}.get(word, lambda: self._call(word))()
        self._reads_payload = True
        return attribute(unquote(text))

    def _variable(self, name: str) -> Expression:
        if name not in self._variables:
            raise self._error(f"{name} has no value; write SET {name} = … before SELECT")
        return variable(self._variables[name])

    def _exists(self) -> Expression:
        rows = self._closed(self._subquery())
        return lambda context: rows(context) not in (UNDEFINED, [])

    def _cast(self) -> Expression:
        value = self._expression()
        self._expect_word("as")
        word = self._peek_word()
        if word not in CASTS:
            raise self._error(
                f"cast to {self._tokens[self._place][1]!r} is not supported; String, Int, Decimal, Boolean are"
            )
        self._place += 1
        convert = CASTS[word]
        return self._closed(lambda context: convert(value(context)))

    def _case(self) -> Expression:
        subject = None if self._peek_word() == "when" else self._expression()
        branches: list[tuple[Expression, Expression]] = []
        while self._take_word("when"):
            condition = self._expression()
            self._expect_word("then")
            branches.append((condition, self._expression()))
        if not branches:
            raise self._error("CASE needs a WHEN")
        otherwise = self._expression() if self._take_word("else") else Literal(UNDEFINED)
        self._expect_word("end")
        return chosen(subject, branches, otherwise)

    def _call(self, name: str) -> Expression:
        star_before, self._reads_payload = self._reads_payload, False
        arguments = self._list(")")
        raw = name == "encode" and arguments[:1] == [everything]
        self._reads_payload = star_before or (self._reads_payload and not raw)
        if name in REFUSED or name not in FUNCTIONS:
            raise self._error(f"function {name}() is not supported{REFUSED.get(name, '')}")
        self._check(name, arguments)
        function, fewest, most = FUNCTIONS[name]
        if not fewest <= len(arguments) <= most:
            raise self._error(f"{name}() takes {fewest if fewest == most else f'{fewest} to {most}'} arguments")
        if name.startswith("regexp_"):
            iotsql_patterns.require()
        if name in _OF_MESSAGE:
            return _OF_MESSAGE[name](*arguments)
        if raw:
            arguments[0] = lambda context: context.raw or to_string(context.payload)
        return lambda context: function(*[argument(context) for argument in arguments])

    def _check(self, name: str, arguments: list[Expression]) -> None:
        """See, where it is known already, that the argument that steers a function can be used."""
        place, check = CHECKS.get(name, (0, None))
        argument = arguments[place] if place < len(arguments) else None
        if check is None or not isinstance(argument, Literal):
            return
        try:
            check(argument.value)
        except ValueError as error:
            raise self._error(f"{name}(): {argument.value!r}: {error}") from error
