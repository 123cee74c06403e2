"""Any statement is read or refused, and what is read makes messages of any message, or drops it by name."""
# ruff: noqa: S608 - statements of a language of our own

import json
import os
import random

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from wheeltapper.errors import MessageError, SettingsError
from wheeltapper_cloud.iotsql_functions import FUNCTIONS
from wheeltapper_cloud.rules import Rule, RuleSettings

EXAMPLES = 200_000 if os.environ.get("WHEELTAPPER_LONG") else 1_000
NAMES = ("a", "b", "c", "value", "`a b`", "é")
LEAVES = (
    *NAMES, "a.b", "a.b.c", "b[0]", "a.`a b`", 'c."a-b"', "topic()", "topic(2)", "timestamp()", "newuuid()", "@x", "@x.a",
    "0", "1", "-1", "2.5", "1e300", "1e-300", "9" * 34, "true", "null", "undefined", "''", "'12'", '"é"', r"'a\'b'",
    "'(a+)+$'", "'^[a-z]*'", "'(a|b)*c'", "'$1'", r"'\d'", "'('", "'base64'", "'enrichArray'", "'yyyy-MM-dd'", "'UTC'",
)  # fmt: skip
OPERATORS = ("+", "-", "*", "/", "%", "=", "<", ">", "<>", "!=", "<=", ">=", " AND ", " OR ", " IN ")
TYPES = ("String", "Int", "Decimal", "Boolean")
WORDS = (
    *LEAVES, *OPERATORS, "SELECT", "FROM", "WHERE", "SET", "AS", "VALUE", "CASE", "WHEN", "THEN", "END", "NOT", "exists",
    "(", ")", "[", "]", "{", "}", ",", ".", ":", "'dt/+'", "cast", "upper(", "get(", "--", "/*", "#", "@", "'", '"', ";",
)  # fmt: skip
TEXTS = (
    "",
    "12",
    "-1.5E-3",
    "TRUE",
    "YQ==",
    "a" * 300,
    "2024-01-02",
    "Europe/Berlin",
    "é\n",
    "a\\$1",
    "[",
    "UTC+25",
    "'",
)
NUMBERS = (0, 1, -1, 2, 7, 2**63, 10**33, -(10**40), 0.5, -2.5, 1e15, 1e-7, 1e300, 5e-324, -0.0)
fuzzed = settings(max_examples=EXAMPLES, deadline=None)


class Fuzzer:
    """Makes statements and payloads from a seed; most of the statements can be read."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def statement(self) -> str:
        """With every clause, or words in any order."""
        pick = self._random
        if pick.random() < 0.2:
            return "SELECT " + " ".join(pick.choices(WORDS, k=pick.randrange(30)))
        columns = [f"{self.expression()} AS v.w", *(self.expression() for _ in range(pick.randrange(3)))]
        stars = pick.choice(("*, ", "", "a.*, "))
        where = pick.choice(("", f" WHERE {self.expression()}", f" WHERE {self.expression()} OR isNull(null)"))
        first = self.expression(2).replace("@x", pick.choice(NAMES))
        return f"SET @x = {first} SELECT {stars}{', '.join(columns)} FROM 'dt/+'{where}"

    def expression(self, depth: int = 4) -> str:
        pick = self._random
        if depth == 0 or pick.random() < 0.2:
            return pick.choice(LEAVES)
        a, b, c = (self.expression(depth - 1) for _ in range(3))
        name = pick.choice(sorted(FUNCTIONS))
        _function, fewest, most = FUNCTIONS[name]
        called = f"{name}({', '.join((a, b, c)[: pick.randint(fewest, min(most, 3))])})"
        return pick.choice(
            (
                f"({a}{pick.choice(OPERATORS)}{b})", f"({a} {pick.choice(OPERATORS)} {b})", called, called, called,
                f"cast({a} AS {pick.choice(TYPES)})", f"(CASE {a} WHEN {b} THEN {c} ELSE {a} END)", f"[{a}, {b}, {c}]",
                f"{{'a': {a}, 'b c': {b}}}", f"{{'a': {a}}}.a", f"[{a}, {b}][{c}]", f"(NOT {a})", f"(- {a})",
                f"({a} IN ({b}, {c}))", f"(SELECT VALUE {a} FROM {b} AS a WHERE {c})", f"(SELECT {a}, * FROM {b})",
                f"exists (SELECT * FROM {a} WHERE {b})",
            )
        )  # fmt: skip

    def payload(self) -> bytes:
        names = ("a", "b", "c", "value", "a b", "é")
        return json.dumps({name: self._value(3) for name in names if self._random.random() < 0.8}).encode()

    def _value(self, depth: int) -> object:
        pick = self._random
        if depth and pick.random() < 0.4:
            items = [self._value(depth - 1) for _ in range(pick.randrange(4))]
            return items if pick.random() < 0.5 else dict(zip(("a", "b", "a b", "a-b"), items, strict=False))
        return pick.choice((None, True, False, *NUMBERS, *TEXTS))


@fuzzed
@given(st.integers(0, 2**64))
def test_a_statement_is_read_or_refused_in_a_line_and_no_message_breaks_what_is_read(seed):
    fuzzer = Fuzzer(seed)
    try:
        rule = Rule(RuleSettings(sql=fuzzer.statement(), input="I", message_id="${@x}-${a}"))
    except SettingsError as refused:
        assert "\n" not in str(refused)
        return
    for _ in range(3):
        try:
            messages = rule.read("dt/1", fuzzer.payload(), 1_700_000_000_000)
        except MessageError as dropped:
            assert str(dropped).startswith("dt/1: ")
            continue

        assert all(isinstance(msgspec.json.decode(message.payload), dict) for message in messages)
