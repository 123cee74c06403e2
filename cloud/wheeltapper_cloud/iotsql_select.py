"""The SELECT clause of AWS IoT SQL: what a rule makes of a message, and a query within of the items of an array."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from wheeltapper_cloud.iotsql_expressions import ExpressionParser
from wheeltapper_cloud.iotsql_operators import Context, Expression, everything
from wheeltapper_cloud.iotsql_tokens import unquote
from wheeltapper_cloud.iotsql_values import UNDEFINED, to_boolean

# Before these signs VALUE is the keyword, before the other signs and these words it is an attribute of that name.
_BEGINNINGS = {"-", "*", "(", "[", "{"}
_FOLLOWERS = {"from", "as", "where", "in", "and", "or"}


class _Column(NamedTuple):
    """One of the SELECT clause: where it goes; nowhere, where its members go into the result themselves."""

    path: list[str]
    value: Expression


class SelectParser(ExpressionParser):
    """Reads SELECT clauses."""

    def _projection(self) -> Expression:
        """What stands between SELECT and FROM; ``everything`` where that is the star alone."""
        if self._starts_value():
            return self._star() or self._whole()
        columns = [self._column(0)]
        while self._take_sign(","):
            columns.append(self._column(len(columns)))
        if len(columns) == 1 and columns[0] == ([], everything):
            return everything
        return _projected(columns)

    def _starts_value(self) -> bool:
        if self._peek_word() != "value":
            return False
        kind, text = self._tokens[self._place + 1]
        if (
            kind == "end"
            or (kind == "sign" and text not in _BEGINNINGS)
            or (kind == "name" and text.lower() in _FOLLOWERS)
        ):
            return False
        return self._take_word("value")

    def _column(self, number: int) -> _Column:
        start = self._place
        value = self._star() or self._whole()
        starred = self._tokens[self._place - 1] == ("sign", "*")
        if not self._take_word("as"):
            return _Column([] if starred else [self._implied_name(start, number)], value)
        path = [self._take_name("AS must be followed by a name")]
        while self._take_sign("."):
            path.append(self._take_name("a member's name must follow the point"))
        return _Column(path, value)

    def _implied_name(self, start: int, number: int) -> str:
        """A path is called by its last member, a function by its name, anything else by its number."""
        words = [text for kind, text in self._tokens[start : self._place] if kind == "name"]
        signs = {text for kind, text in self._tokens[start : self._place] if kind == "sign"}
        if words and signs <= {".", "*"}:
            return unquote(words[-1])
        if words and self._tokens[start + 1] == ("sign", "("):
            return words[0].lower()
        if self._tokens[start][0] == "variable" and start + 1 == self._place:
            return self._tokens[start][1][1:]
        return f"col{number}"

    def _condition(self) -> Expression | None:
        return self._whole() if self._take_word("where") else None

    def _subquery(self) -> Expression:
        """``SELECT … FROM array [AS item] [WHERE …]``: an array; what is none counts as an array of one."""
        counted = self._operators
        self._expect_word("select")
        project = self._projection()
        self._expect_word("from")
        source = self._star() or self._sum()
        alias = self._take_name("AS must be followed by a name") if self._take_word("as") else ""
        condition = self._condition()
        self._operators = counted

        def query(context: Context) -> Any:
            found = source(context)
            if found is UNDEFINED or found is None:
                return UNDEFINED
            items = found if isinstance(found, list) else [found]
            _message, topic, time_ms, _raw, _alias, account, variables = context
            within: Iterable[Context] = [
                Context(item, topic, time_ms, b"", alias, account, variables) for item in items
            ]
            if variables is not None:
                within = variables.paced(within)
            rows = (project(item) for item in within if condition is None or to_boolean(condition(item)) is True)
            kept = rows if variables is None else variables.held(rows)
            return [row for row in kept if row is not UNDEFINED]

        return query


def _projected(columns: list[_Column]) -> Expression:
    def project(context: Context) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for path, expression in columns:
            value = expression(context)
            if not path:
                result.update(value if isinstance(value, dict) else {})
            elif value is not UNDEFINED:
                _put(result, path, value)
        return result

    return project


def _put(result: dict[str, Any], path: list[str], value: Any) -> None:
    """Set a member; objects on the way to it are copied, because they may be the message's own."""
    for name in path[:-1]:
        held = result.get(name)
        result[name] = dict(held) if isinstance(held, dict) else {}
        result = result[name]
    result[path[-1]] = value
