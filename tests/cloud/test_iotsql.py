import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wheeltapper.errors import SettingsError
from wheeltapper_cloud.iotsql import Context, parse_statement, parse_template
from wheeltapper_cloud.iotsql_values import UNDEFINED

STATEMENT = "SELECT %s FROM 'dt/+/+'"
CONDITION = "SELECT * FROM 'a' WHERE %s"
PAYLOAD = {
    "t": 21,
    "name": "m1",
    "on": True,
    "nested": {"a": {"b": 7}, "list": [1, 2, {"c": 3}]},
    "nothing": None,
    "f": 2.5,
}


def select(text, payload=PAYLOAD, topic="dt/plant/m1", time_ms=1_700_000_000_000):
    return parse_statement(STATEMENT % text).project(Context(payload, topic, time_ms))


def value(expression, payload=PAYLOAD):
    return select(f"{expression} AS v", payload).get("v", UNDEFINED)


def holds(condition, payload=PAYLOAD):
    rule = parse_statement(CONDITION % condition)
    return rule.accepts(Context(payload, "dt/plant/m1", 0))


def test_the_star_passes_the_payload_as_it_is():
    rule = parse_statement("SELECT * FROM 'dt/+/data'")

    assert rule.everything
    assert rule.topic_filter == "dt/+/data"
    assert rule.accepts is None


def test_columns_join_the_star_and_missing_ones_are_left_out():
    assert select("*, topic(3) AS motor, absent") == {**PAYLOAD, "motor": "m1"}


def test_columns_are_called_as_paths_and_functions_are():
    assert select("nested.a.b, t, upper(name), t + 1, nested.a AS 'inner', topic()") == {
        "b": 7, "t": 21, "upper": "M1", "col3": 22, "inner": {"b": 7}, "topic": "dt/plant/m1",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("-t", -21),
        ("2 - -3", 5),
        ("7 / 2", 3.5),
        ("6 / 2", 3),
        ("7 % 4", 3),
        ("5 / 0", UNDEFINED),
        ("'a' + 1", "a1"),
        ("t + '5'", "215"),
        ("t * '2'", 42),
        ("t > '20'", True),
        ("name = 'm1'", True),
        ("name <> 'm2'", True),
        ("name != 'm1'", False),
        ("21.0 = t", True),
        ("absent = 1", UNDEFINED),
        ("nothing", None),
        ("isNull(nothing)", True),
        ("isUndefined(absent)", True),
        ("nested.list[2].c", 3),
        ("get(nested.list, 0)", 1),
        ("get(nested.list, 9)", UNDEFINED),
        ("nested.a", {"b": 7}),
        ("{'x': t, 'y': absent}", {"x": 21}),
        ("[t, name]", [21, "m1"]),
        ("NOT on", False),
        ("NOT NOT on", True),
        ("true AND false OR true", True),
        ("t IN (1, 21)", True),
        ("t in nested.list", False),
        ("1 in nested.list", True),
        ("CASE t WHEN 20 THEN 'a' WHEN 21 THEN 'b' ELSE 'c' END", "b"),
        ("CASE WHEN t > 30 THEN 'hot' ELSE 'cold' END", "cold"),
        ("cast('12' AS Int) + 1", 13),
        ("cast(t AS String)", "21"),
        ("cast('x' as decimal)", UNDEFINED),
        ("concat(name, '-', t)", "m1-21"),
        ("substring(name, 1)", "1"),
        ("substring('012345', 1, 3)", "12"),
        ("regexp_matches(name, '^m')", True),
        ("regexp_replace('abc', 'b(.)', '$1')", "ac"),
        ("startswith(topic(), 'dt/')", True),
        ("round(2.5)", 3),
        ("trunc(2.567, 2)", 2.56),
        ("floor(f)", 2),
        ("mod(7, 4)", 3),
        ("power(2, 10)", 1024),
        ("abs('-5.5')", 5.5),
        ("sqrt(-1)", UNDEFINED),
        ("timestamp()", 1_700_000_000_000),
        ("length('abc')", 3),
        ("topic(1)", "dt"),
        ("topic(9)", UNDEFINED),
        ("encode('a', 'base64')", "YQ=="),
        ('"quoted"', "quoted"),
        ("'it''s'", "it's"),
        ("`name`", "m1"),
    ],
)
def test_expressions(expression, expected):
    assert value(expression) == expected or value(expression) is expected


def test_every_uuid_is_new():
    assert value("newuuid()") != value("newuuid()")


def test_a_condition_that_has_no_value_does_not_hold():
    assert not holds("absent > 1")
    assert not holds("absent = 1 OR true")
    assert holds("t > 20 AND nested.a.b = 7")


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("SELECT aws_lambda('x', a) FROM 'a'", r"aws_lambda\(\)"),
        ("SELECT get_thing_shadow('x', 'y') FROM 'a'", "get_thing_shadow"),
        ("SELECT * FROM 'a' GROUP BY b", "GROUP"),
        ("SELECT * FROM a", "quotes"),
        ("SELECT * FROM 'a' WHERE", "ends too early"),
        ("SELECT * 'a'", "FROM"),
        ("SELECT cast(a AS Date) FROM 'a'", "Date"),
        ("SELECT abs() FROM 'a'", "arguments"),
        ("SELECT a ? b FROM 'a'", "cannot read"),
        ("SET @x = 1 SELECT * FROM 'a'", "SELECT"),
        ("SELECT " + "(" * 500 + "1" + ")" * 500 + " FROM 'a'", "nested deeper"),
        ("SELECT " + "-" * 5000 + "1 FROM 'a'", "nested deeper"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(statement, named):
    with pytest.raises(SettingsError, match=named):
        parse_statement(statement)


def test_a_template_is_text_with_expressions():
    assert parse_template("${topic(3)}-${t}")(Context(PAYLOAD, "dt/plant/m1", 0)) == "m1-21"
    assert parse_template("${absent}")(Context(PAYLOAD, "a", 0)) is UNDEFINED


@given(st.text(max_size=80))
def test_any_text_is_read_or_refused(text):
    with contextlib.suppress(SettingsError):
        parse_statement(STATEMENT % text + " WHERE " + text).project(Context(PAYLOAD, "a", 0))
