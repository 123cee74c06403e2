"""
AWS IoT topic rules: ``SELECT … FROM 'topic/filter' WHERE …`` read once and compiled to closures.

The part that rules on JSON messages use: ``*``, aliases, nested paths, indexes, literals, objects and arrays, arithmetic,
comparison, AND/OR/NOT, IN, EXISTS, CASE, cast, queries within, SET, topic(), timestamp() and the functions of
``iotsql_functions``, as in SQL version 2016-03-23. What is not supported is refused by name when the rule is read.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from wheeltapper.errors import SettingsError
from wheeltapper_cloud.iotsql_operators import Context, Expression, Variables, everything
from wheeltapper_cloud.iotsql_select import SelectParser
from wheeltapper_cloud.iotsql_tokens import unquote
from wheeltapper_cloud.iotsql_values import UNDEFINED, to_boolean, to_string

__all__ = ["Context", "Expression", "Select", "parse_statement", "parse_template"]

_HOLE = re.compile(r"""\$\{((?:[^{}'"]|'[^']*'|"[^"]*")*)\}""")
_LONGEST_NAME = 65  # of a variable, with the sign before it
_MOST_VARIABLES = 10


class Select(NamedTuple):
    """
    A rule's statement.

    What the others take is what ``prepare`` gives.

    Attributes:
        topic_filter: of the FROM clause; empty where there is none, as in a rule for Basic Ingest.
        everything: the payload passes as it is (``SELECT *`` and nothing else).
        project: the result of the SELECT clause; Undefined where there is none.
        accepts: whether the WHERE clause holds; None where there is none.
        any_bytes: nothing of the payload is looked at but its bytes, so it need not be JSON.
        variables: of the SET clause, each with its number.
        definitions: what the variables are set to, in their order.
    """

    topic_filter: str
    everything: bool
    project: Expression
    accepts: Callable[[Context], bool] | None
    any_bytes: bool = False
    variables: Mapping[str, int] = {}
    definitions: Sequence[Expression] = ()

    def prepare(self, context: Context) -> Context:
        """
        The same, with the variables of the SET clause.

        Raises:
            TooMuchWorkError: what they make of the message is too long, or takes too long; so with what the others give.
        """
        if not self.definitions:
            return context
        variables = Variables(len(context.raw))
        context = context._replace(variables=variables)
        for definition in self.definitions:
            variables.values.append(variables.bounded(definition(context)))
        return context


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


def parse_template(text: str, variables: Mapping[str, int] | None = None) -> Expression:
    """
    Read a substitution template, text with ``${expression}`` in it.

    Args:
        text: the template.
        variables: of the rule's SET clause.

    Raises:
        SettingsError: an expression is not of the supported part, or does not end.

    >>> parse_template("m-${topic(2)}")(Context({}, "dt/7", 0))
    'm-7'
    """
    pieces: list[str | Expression] = []
    place = 0
    for found in _HOLE.finditer(text):
        pieces.append(text[place : found.start()])
        parser = _StatementParser(found.group(1), variables)
        pieces.append(parser.whole_expression())
        place = found.end()
    pieces.append(text[place:])
    if any(isinstance(piece, str) and "${" in piece for piece in pieces):
        raise SettingsError(f"template {text[:80]!r}: a ${{ without its }}")

    def evaluate(context: Context) -> Any:
        parts = [piece if isinstance(piece, str) else to_string(piece(context)) for piece in pieces]
        return UNDEFINED if UNDEFINED in parts else "".join(parts)

    return evaluate


def _bounded(project: Expression) -> Expression:
    """A projection that refuses what came to be many times as long as the message."""

    def projected(context: Context) -> Any:
        result = project(context)
        return result if context.variables is None else context.variables.bounded(result)

    return projected


class _StatementParser(SelectParser):
    """Reads the clauses of a statement."""

    def __init__(self, text: str, variables: Mapping[str, int] | None = None) -> None:
        super().__init__(text)
        self._variables.update(variables or {})

    def statement(self) -> Select:
        definitions = self._definitions()
        self._expect_word("select")
        project = self._projection()
        topic_filter = ""
        if self._peek_word() != "where" and self._tokens[self._place][0] != "end":
            self._expect_word("from")
            kind, text = self._tokens[self._place]
            if kind != "string":
                raise self._error("FROM must name one topic filter in quotes")
            self._place += 1
            topic_filter = unquote(text)
            if "${" in topic_filter:
                raise self._error("FROM takes no ${…}; write + for the level, and compare topic(n) in WHERE")
        condition = self._condition()
        self._finish()
        accepts: Callable[[Context], bool] | None = None
        if condition is not None:
            accepts = lambda context: to_boolean(condition(context)) is True  # noqa: E731
        if definitions:
            project = _bounded(project)
        return Select(
            topic_filter,
            project is everything,
            project,
            accepts,
            any_bytes=not self._reads_payload,
            variables=self._variables,
            definitions=definitions,
        )

    def _definitions(self) -> list[Expression]:
        """``SET @name = expression, …``, of which each may use those before it."""
        definitions: list[Expression] = []
        if not self._take_word("set"):
            return definitions
        while True:
            kind, name = self._tokens[self._place]
            if kind != "variable" or len(name) > _LONGEST_NAME:
                raise self._error(
                    f"SET must name a variable, such as @celsius, of at most {_LONGEST_NAME - 1} characters"
                )
            if name in self._variables:
                raise self._error(f"{name} is set twice")
            if len(definitions) == _MOST_VARIABLES:
                raise self._error(f"SET sets more than {_MOST_VARIABLES} variables, which is AWS's limit")
            self._place += 1
            self._expect_sign("=")
            definitions.append(self._whole())
            self._variables[name] = len(self._variables)
            if not self._take_sign(","):
                return definitions

    def whole_expression(self) -> Expression:
        expression = self._whole()
        self._finish()
        return expression
