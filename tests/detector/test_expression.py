"""The expression language: what parses, how it prints, what it is worth."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wheeltapper.detector.expression import (
    FUNCTIONS,
    PRECEDENCE,
    UNARY,
    Binary,
    Call,
    Expression,
    Literal,
    Reference,
    Template,
    Unary,
    parse,
    references,
    show,
)
from wheeltapper.detector.settings import EngineSettings
from wheeltapper.detector.simulate import evaluate_request
from wheeltapper.errors import DefinitionError

names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,5}", fullmatch=True) | st.text("ab -.ü$", min_size=1, max_size=5)
literals = st.builds(
    Literal,
    st.integers(0, 2**63 - 1)
    | st.floats(min_value=0, allow_nan=False, allow_infinity=False).map(abs)
    | st.booleans()
    | st.text(max_size=8),
)
steps = st.lists(names | st.integers(0, 9), max_size=3).map(tuple)
roots = st.sampled_from(["input", "variable", "sitewise"])
leaves: st.SearchStrategy[Expression] = literals | st.builds(Reference, roots, names, steps)


def _call(function: str, arguments: list[Expression]) -> Call:
    return Call(function, tuple(arguments[: FUNCTIONS[function]]))


def _merge_texts(parts: list[Any]) -> tuple[Any, ...]:
    """Neighbouring texts are one text; a template has at least one expression."""
    merged: list[Any] = []
    for part in parts:
        if isinstance(part, str) and merged and isinstance(merged[-1], str):
            merged[-1] += part
        elif part != "":
            merged.append(part)
    return (*merged, Literal(1)) if all(isinstance(part, str) for part in merged) else tuple(merged)


def _grow(inner: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
    return (
        st.builds(Unary, st.sampled_from(UNARY), inner)
        | st.builds(Binary, st.sampled_from(sorted(PRECEDENCE)), inner, inner)
        | st.builds(_call, st.sampled_from(sorted(FUNCTIONS)), st.lists(inner, min_size=2, max_size=2))
        | st.builds(Template, st.lists(inner | st.text("a${}'\\\n ", max_size=6), max_size=4).map(_merge_texts))
    )


trees = st.recursive(leaves, _grow, max_leaves=12)


@given(trees)
def test_printing_and_parsing_give_the_same_tree(tree: Expression) -> None:
    assert repr(parse(show(tree))) == repr(tree)


def value(text: str, **given: Any) -> Any:
    return evaluate_request({"expr": text, **given})["result"]


UNDEFINED = {"$undefined": True}
PAYLOAD = {"n": 7, "d": 2.5, "z": None, "s": "offline", "t": True, "o": {"a b": 1}, "l": [1, {"x": 2}], "big": 10**25}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        # Precedence and association.
        ("10 - 4 - 3", 3),
        ("2 * 3 + 4 * 5", 26),
        ("1 | 6 ^ 3 & 5", 1 | (6 ^ (3 & 5))),
        ("1 + 1 == 2 && 3 > 2 == true", True),
        ("!false && false", False),
        ("-2 * -3", 6),
        ("--5", 5),
        # Numbers.
        ("7 / 2", 4),
        ("-7 / 2", -4),
        ("7 / 3", 2),
        ("7 / 2.0", 3.5),
        ("1 / 0", UNDEFINED),
        ("1.0 / 0.0", UNDEFINED),
        ("9223372036854775807 + 1", UNDEFINED),
        ("-9223372036854775807 - 1", -(2**63)),
        ("1e308 * 10.0", UNDEFINED),
        ("1e2", 100.0),
        ("1 == 1.0", True),
        ("$input.I.big > 1", True),
        ("$input.I.big + 1", UNDEFINED),
        # Strings.
        ("'a' < 'b'", True),
        ("'a' + 1", UNDEFINED),
        (r"'it\'s' + \"\n\"".replace('\\"', '"'), "it's\n"),
        ("'line\nbreak'", "line\nbreak"),
        ('"${1}"', "${1}"),
        (r"'\${1}'", "${1}"),
        ("'$aws/things'", "$aws/things"),
        # Undefined and null.
        ("$input.I.no == 1", False),
        ("$input.I.no != 1", True),
        ("$input.I.no != $input.I.no", True),
        ("$input.I.z == $input.I.z", False),
        ("$input.I.z != 1", True),
        ("$input.I.no > 1", UNDEFINED),
        ("!($input.I.no > 1)", UNDEFINED),
        ("$input.I.z + 1", UNDEFINED),
        ("$input.I.no > 1 && false", False),
        ("false && $input.I.no > 1", False),
        ("$input.I.no > 1 && true", UNDEFINED),
        ("$input.I.no > 1 || true", True),
        ("5 || false", False),
        ("5 && true", UNDEFINED),
        ("5 && false", False),
        ("'1' == 1", UNDEFINED),
        ("true == 1", UNDEFINED),
        ("'1' != 1", UNDEFINED),
        ("isNull($input.I.z)", True),
        ("isUndefined($input.I.z)", False),
        ("isUndefined($variable.v)", True),
        ("isUndefined($input.Never.x)", True),
        # Paths.
        ("$input.I.o.`a b`", 1),
        ("$input.I.l[0]", 1),
        ("$input.I.l[1].x", 2),
        ("$input.I.l[2]", UNDEFINED),
        ("$input.I.o", UNDEFINED),
        ("$input.I.o == 1", False),
        ("$input.I.s[0]", UNDEFINED),
        ("$variable.v.x", UNDEFINED),
        # Functions.
        ("startsWith($input.I.s, 'off')", True),
        ("contains($input.I.s, 1)", UNDEFINED),
        ("bitand(13, 5) == bitnot(-6)", True),
        ("bitor(1.0, 2)", UNDEFINED),
        ("~true", UNDEFINED),
        ("convert(String, 2.5)", "2.5"),
        ("convert(STRING, 7)", "7"),
        ("convert(Boolean, 'false')", False),
        ("convert(Boolean, 'no')", UNDEFINED),
        ("convert(Boolean, 1)", UNDEFINED),
        ("convert('dec' + 'imal', '-1.5e1')", -15.0),
        ("convert(Decimal, ' 1')", UNDEFINED),
        ("convert(Decimal, '1e999')", UNDEFINED),
        ("convert('Integer', 1)", UNDEFINED),
        # Templates.
        ("'${1 + 1}${true}'", "2true"),
        ("'${$input.I.d}'", "2.5"),
        ("'${1e21}'", "1000000000000000000000.0"),
        ("'${0.1 + 0.2}'", "0.30000000000000004"),
        ("'a${$input.I.z}'", UNDEFINED),
        ("'${'${'x'}'}'", "x"),
        # Surroundings.
        ('triggerType("TIMER")', False),
        ('currentInput("I")', True),
        ("timeout('t')", False),
        ("timeout($input.I.n)", UNDEFINED),
    ],
)
def test_an_expression_is_worth(text: str, wanted: Any) -> None:
    result = value(text, inputs={"I": PAYLOAD}, variables={}, trigger=["Message", "I"])

    assert result == wanted
    assert type(result) is type(wanted)


@pytest.mark.parametrize(
    ("division", "wanted"), [("half-up", [4, -4, 3]), ("truncate", [3, -3, 2]), ("floor", [3, -4, 2])]
)
def test_integer_division_follows_the_settings(division: Any, wanted: list[int]) -> None:
    settings = EngineSettings(integer_division=division)

    results = [evaluate_request({"expr": text}, settings)["result"] for text in ("7 / 2", "-7 / 2", "8 / 3")]

    assert results == wanted


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "expected a value"),
        ("1 +", "expected a value"),
        ("(1", r"expected '\)'"),
        ("1 2", "expected an operator or the end, found '2'"),
        ("a/b", "unknown name 'a'"),
        ("in(1, 2)", "unknown name 'in'"),
        ("debug", "unknown name 'debug'"),
        ("1 % 2", "cannot read"),
        ("'open", "string is not closed"),
        ("'${1'", "expected '}'"),
        ("contains('a')", r"takes 2 argument\(s\), not 1"),
        ("$input", "expected '.' and a name"),
        ("$input[0]", "expected '.' and a name"),
        ("$aws.x", "cannot read"),
        ("$input.a.", "expected a name"),
        ("$input.a[-1]", "expected an index"),
        ("$input.a-b.c", "unknown name"),
        ("1.", "expected an operator or the end"),
        ("12abc", "cannot read"),
        ("99999999999999999999", "out of range"),
        ("1e999", "out of range"),
        ("true ? 1 : 2", "cannot read"),
        ("null", "unknown name 'null'"),
        ("// x", "expected a value"),
        ("__import__('os')", "unknown name '__import__'"),
    ],
)
def test_what_is_not_an_expression_is_refused_with_its_reason(text: str, complaint: str) -> None:
    with pytest.raises(DefinitionError, match=complaint):
        parse(text, path="here")


def test_an_error_names_the_place_in_the_definition() -> None:
    with pytest.raises(DefinitionError, match=r"^states\[0\]\.x: .* at character 5") as caught:
        parse("1 + )", path="states[0].x")

    assert caught.value.path == "states[0].x"


def test_references_are_listed_once_in_order() -> None:
    tree = parse("$input.b.x > $variable.a && '${$input.b.x}' == $input.b.`y z`[1]")

    assert [(found.root, found.name, found.path) for found in references(tree)] == [
        ("input", "b", ("x",)),
        ("variable", "a", ()),
        ("input", "b", ("y z", 1)),
    ]
