"""
AWS IoT topic rules: ``SELECT … FROM 'topic/filter' WHERE …`` read once and compiled to closures.

The part that rules on JSON messages use: ``*``, aliases, nested paths, indexes, literals, objects and arrays, arithmetic,
comparison, AND/OR/NOT, IN, CASE, cast, topic(), timestamp() and the functions of ``iotsql_functions``. What is not
supported is refused by name when the rule is read, never ignored.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from wheeltapper_cloud.iotsql_expressions import ExpressionParser
from wheeltapper_cloud.iotsql_operators import Context, Expression
from wheeltapper_cloud.iotsql_tokens import unquote
from wheeltapper_cloud.iotsql_values import UNDEFINED, to_boolean, to_string

__all__ = ["Context", "Expression", "Select", "parse_statement", "parse_template"]

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
    return _StatementParser(text).statement()


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
        parser = _StatementParser(found.group(1))
        pieces.append(parser.whole_expression())
        place = found.end()
    pieces.append(text[place:])

    def evaluate(context: Context) -> Any:
        parts = [piece if isinstance(piece, str) else to_string(piece(context)) for piece in pieces]
        return UNDEFINED if UNDEFINED in parts else "".join(parts)

    return evaluate


class _StatementParser(ExpressionParser):
    """Reads the clauses of a statement."""

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
        return Select(unquote(text), everything, project, accepts)

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
            return unquote(text), expression
        return self._implied_name(start, number), expression

    def _implied_name(self, start: int, number: int) -> str:
        """A path is called by its last member, a function by its name, anything else by its number."""
        words = [text for kind, text in self._tokens[start : self._place] if kind == "name"]
        signs = {text for kind, text in self._tokens[start : self._place] if kind == "sign"}
        if words and signs <= {"."}:
            return unquote(words[-1])
        if words and self._tokens[start + 1] == ("sign", "("):
            return str(words[0].lower())
        return f"col{number}"
