import contextlib
import sys
from itertools import product

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wheeltapper.errors import SettingsError
from wheeltapper_cloud import iotsql_operators, iotsql_patterns
from wheeltapper_cloud.iotsql import Context, parse_statement, parse_template
from wheeltapper_cloud.iotsql_functions import FUNCTIONS
from wheeltapper_cloud.iotsql_values import UNDEFINED, TooMuchWorkError

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
        ("length([1, 2])", 5),
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


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        # conversions: only what AWS's own pattern of a number takes
        ("'5E-1' * 2", 1),
        ("'1_000' * 1", UNDEFINED),
        ("' 5 ' * 1", UNDEFINED),
        ("'+5' * 1", UNDEFINED),
        ("'inf' * 1", UNDEFINED),
        ("true + 1", UNDEFINED),
        ("nothing + 1", UNDEFINED),
        ("'a' + nothing", UNDEFINED),
        ("cast(nothing AS String)", UNDEFINED),
        ("'a' + [1, 'b']", 'a[1,"b"]'),
        # decimals of 34 digits, and whole numbers as Int
        ("0.1 + 0.2", 0.3),
        ("(71.6 - 32) * 5 / 9", 22),
        ("1.1 * 1.1", 1.21),
        ("10.0", 10),
        ("0.1 + 0.2 = 0.3", True),
        ("-7 % 4", -3),
        ("5.5 % 0", UNDEFINED),
        ("9999999999999999999999999999999999 + 1", 1e34),
        # = and <> convert nothing but Int to Decimal
        ("t = '21'", False),
        ("t <> '21'", True),
        ("on = 'true'", False),
        ("nothing = null", True),
        ("nothing <> null", False),
        ("nothing = 1", False),
        ("on = 1", False),
        ("[1, 2] = [1, 2.0]", True),
        ("[1, 2] = [2, 1]", False),
        ("[true] = [1]", False),
        ("{'a': 1, 'b': 2} = {'b': 2, 'a': 1}", True),
        ("absent <> 1", UNDEFINED),
        ("'10' > '9'", True),
        ("'a' > 'b'", UNDEFINED),
        ("on > 0", UNDEFINED),
        # logic
        ("'TRUE' AND on", True),
        ("'yes' OR on", UNDEFINED),
        ("NOT 'false'", True),
        ("NOT NOT NOT on", False),
        ("NOT 1", UNDEFINED),
        # collections
        ("t IN [1, 21]", True),
        ("'c' IN ['a', 'b']", False),
        ("2 IN (nested.list)", True),
        ("absent IN [1]", UNDEFINED),
        ("t IN t", UNDEFINED),
        ("get('abc', 1)", "b"),
        ("get({'a': 'b'}, 'a')", "b"),
        ("get(nested.list, '1')", 2),
        ("get(nested.list, 0.6)", 2),
        ("get(nested.list, -1)", UNDEFINED),
        ("get(*, 'name')", "m1"),
        ("nested.list[0]", 1),
        ("{'latitude': get([47.606, -122.332], 0)}.latitude", 47.606),
        ("concat()", UNDEFINED),
        ("concat(1)", "1"),
        ("concat([1, 2, 3], 4)", [1, 2, 3, 4]),
        ("concat([1], 'hello', [4, 5])", [1, "hello", 4, 5]),
        ("concat(1, 'hello')", "1hello"),
        ("concat('a', nothing)", UNDEFINED),
        ("concat([1], nothing)", [1, None]),
        ("concat([1], absent)", UNDEFINED),
        ("transform('enrichArray', {'k': t}, [{'a': 3}, {'b': 4}])", [{"a": 3, "k": 21}, {"b": 4, "k": 21}]),
        ("get_or_default(absent, 7)", 7),
        ("get_or_default(nothing, 'x')", "x"),
        ("get_or_default(t, 7)", 21),
        # CASE
        ("CASE absent WHEN 1 THEN 'a' ELSE 'b' END", UNDEFINED),
        ("CASE t WHEN '21' THEN 'a' END", UNDEFINED),
        # cast
        ("cast('12' AS Nvarchar)", "12"),
        ("cast(12 AS Text)", "12"),
        ("cast(1e-7 AS String)", "1E-7"),
        ("cast(2.5e300 AS String)", "2.5E+300"),
        ("cast(1e22 AS String)", "10000000000000000000000"),
        ("cast(1e40 AS Int)", UNDEFINED),
        ("cast('1.5' AS Double)", 1.5),
        ("cast(true AS Decimal)", 1),
        ("cast(true AS Int)", 1),
        ("cast(0 AS Boolean)", False),
        ("cast(2.5 AS Bool)", True),
        ("cast('no' AS Boolean)", UNDEFINED),
        ("cast('2.9' AS Int)", 2),
        # text
        ("lpad('hello', 2)", "  hello"),
        ("lpad(1, 3)", "   1"),
        ("rpad('hello', 2.9)", "hello  "),
        ("lpad('x', -5)", "x"),
        ("length(lpad('x', 5000))", 1001),
        ("lpad('x', 'y')", UNDEFINED),
        ("substring('012345', 2.745)", "2345"),
        ("substring(123, 2)", "3"),
        ("substring('012345', -1)", "012345"),
        ("substring(true, 1.2)", "rue"),
        ("substring(false, -2.411E247)", "false"),
        ("substring('012345', -50, 50)", "012345"),
        ("substring('012345', 3, 1)", ""),
        ("substring('012345', '2')", "2345"),
        ("substring('abc', 9)", ""),
        ("indexof('abcd', 'bc')", 1),
        ("indexof('abcd', 'x')", -1),
        ("length(false)", 5),
        ("numbytes('€')", 3),
        ("lower(['HELLO'])", '["hello"]'),
        ("ltrim(' h i ')", "h i "),
        ("rtrim(' h i ')", " h i"),
        ("trim(' hi ')", "hi"),
        ("chr(65)", "A"),
        ("chr(300)", UNDEFINED),
        ("replace('abcdabcd', 'b', 'x')", "axcdaxcd"),
        ("startswith(nothing, 'a')", UNDEFINED),
        ("endswith('cat', 'at')", True),
        ("regexp_matches('aaaa', 'a{2,}')", True),
        (r"regexp_matches('m7', '^m\d$')", True),
        (r"regexp_matches('m7', '^m\\d$')", True),
        (r"'a\'b'", "a'b"),
        (r"'a\\b'", "a\\b"),
        ("regexp_replace('abcd', 'b(.*)d', '$1')", "ac"),
        (r"regexp_replace('a.b', '\.', '\$')", "a$b"),
        ("regexp_substr('hihihello', '(hi)*')", "hihi"),
        ("regexp_matches('21', 21)", True),
        ("regexp_matches('abc', name + '[')", UNDEFINED),
        ("regexp_matches(nothing, 'a')", UNDEFINED),
        (r"regexp_matches('٣', '\d')", False),
        ("regexp_replace('ab-12', '(?<letters>[a-z]+)-([0-9]+)', '$2${letters}')", "12ab"),
        ("regexp_replace('ab', '(a)|(b)', '[$1]')", "[a][]"),
        ("regexp_replace('ab', '(a)', '$10')", "a0b"),
        ("regexp_replace('ab', 'a', '$0$0')", "aab"),
        ("regexp_replace('ab', 'a', '$1')", UNDEFINED),
        ("regexp_replace('ab', 'a', 'x$')", UNDEFINED),
        ("regexp_replace('ab', 'a', '${b}')", UNDEFINED),
        ("regexp_replace('héé', 'é*', '-')", "-h--"),
        ("regexp_substr('abc', 'x')", UNDEFINED),
        ("md5('hello')", "5d41402abc4b2a76b9719d911017c592"),
        # numbers
        ("round(-1.5)", -2),
        ("round(0.49999999999999994)", 0),
        ("round(1e30)", 1e30),
        ("trunc(2.888, 2)", 2.88),
        ("trunc(0.29, 2)", 0.29),
        ("trunc(2.00, 5)", 2),
        ("trunc(2.5, -3)", 2),
        ("ceil(-1.2)", -1),
        ("floor('-1.2')", -2),
        ("bitand(13, 5)", 5),
        ("bitor(8, 5)", 13),
        ("bitxor(13, 5)", 8),
        ("bitand('x', 1)", UNDEFINED),
        ("abs(nothing)", UNDEFINED),
        ("atan2(1, 0)", 1.5707963267948966),
        ("cosh(2.3)", 5.037220649268761),
        ("sinh(2.3)", 4.936961805545957),
        ("tanh(2.3)", 0.9800963962661914),
        ("remainder(8, 3)", 2),
        ("power(10, 400)", UNDEFINED),
        ("sign(-7)", -1),
        ("log(100)", 2),
        ("nanvl(8, 3)", 8),
        ("nanvl('x', 3)", "x"),
        ("nanvl(nothing, 3)", 3),
        ("isUndefined(floor([1, 2, 3]))", True),
        ("isNull(absent)", False),
        ("sql_version()", "2016-03-23"),
        # times
        ("parse_time(\"yyyy.MM.dd G 'at' HH:mm:ss z\", 100000000, 'America/Belize')", "1970.01.01 AD at 21:46:40 CST"),
        ("parse_time(\"yyyy-MM-dd'T'HH:mm:ss.SSS'Z'\", timestamp())", "2023-11-14T22:13:20.000Z"),
        ("parse_time('EEEE, d MMMM yy h:mm a Z', 1700000000123, '+01:00')", "Tuesday, 14 November 23 11:13 PM +0100"),
        ("parse_time('yyyy', 'x')", UNDEFINED),
        ("parse_time('yyyy', 0, 'Mars/Olympus')", UNDEFINED),
        ("parse_time('yyyy', 1e30)", UNDEFINED),
        ("time_to_epoch('2020-04-03 09:45:18 UTC+01:00', 'yyyy-MM-dd HH:mm:ss VV')", 1585903518000),
        ("time_to_epoch('18 December 2015', 'dd MMMM yyyy')", 1450396800000),
        ("time_to_epoch('2007-12-03 10:15:30.592 America/Los_Angeles', 'yyyy-MM-dd HH:mm:ss.SSS z')", 1196705730592),
        ("time_to_epoch('2024-05-06T07:08:09Z', \"yyyy-MM-dd'T'HH:mm:ssX\")", 1714979289000),
        ("time_to_epoch('06/05/24 07:08 PM', 'dd/MM/yy hh:mm a')", 1715022480000),
        ("time_to_epoch('2024-02-30', 'yyyy-MM-dd')", UNDEFINED),
        ("time_to_epoch('soon', 'yyyy-MM-dd')", UNDEFINED),
        ("time_to_epoch('2024 " + "a" * 300 + "', 'yyyy z')", UNDEFINED),
        # encoded
        ("decode('eyAidGVtcGVyYXR1cmUiOiAzMyB9Cg==', 'base64').temperature", 33),
        ("decode('aGk=', 'base64')", "hi"),
        ("decode('aGk', 'base64')", "hi"),
        ("decode('a', 'base64')", None),
        ("decode('!', 'base64')", None),
        ("encode(21, 'base64')", "MjE="),
    ],
)
def test_expressions_as_the_documentation_of_aws_has_them(expression, expected):
    found = value(expression)

    assert (type(found), found) == (type(expected), expected)


def test_a_query_within_reads_the_items_of_an_array():
    payload = {"e": [{"n": "temperature", "v": 22.5}, {"n": "light", "v": 135}], "d": {"a": 1, "b": 2, "c": [3, 4]}}

    assert select(
        "(SELECT VALUE n FROM e) AS sensors, (SELECT v FROM e WHERE n = 'temperature') AS temperature, "
        "get((SELECT v FROM e WHERE n = 'temperature'), 0).v AS flat, exists (SELECT * FROM d.c AS x WHERE x = 3) AS held, "
        "exists (SELECT * FROM d.c AS x WHERE x = 9) AS missing, (SELECT a, b FROM d) AS pair, "
        "(SELECT * FROM d.c AS x WHERE x > 3) AS large, 'light' IN (SELECT VALUE n FROM e) AS lit",
        payload,
    ) == {
        "sensors": ["temperature", "light"], "temperature": [{"v": 22.5}], "flat": 22.5, "held": True,
        "missing": False, "pair": [{"a": 1, "b": 2}], "large": [4], "lit": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("statement", "payload", "expected"),
    [
        (
            "SELECT get((SELECT *, topic() AS topic FROM *), 0) AS data FROM 'dt/plant/m1'",
            {"foo": "bar"},
            {"data": {"foo": "bar", "topic": "dt/plant/m1"}},
        ),
        (
            "SELECT VALUE *.messages FROM 'dt/plant/m1'",
            {"messages": [{"m": "a"}, {"m": "b"}]},
            [{"m": "a"}, {"m": "b"}],
        ),
        ("SELECT *.a.b FROM 'dt/plant/m1'", {"a": {"b": 1}}, {"b": 1}),
        (
            "SELECT (SELECT * FROM Pos WHERE L1 <> isNull(SELECT VALUE L1 FROM Pos)) AS kept FROM 'dt/plant/m1'",
            {"Pos": [{"L1": 36.903999599999977, "S": 5}, {"S": 7}]},
            {"kept": [{"L1": 36.90399959999998, "S": 5}]},
        ),
        (
            "SELECT s.debug AS s.debug, version FROM 'a' WHERE IsUndefined(s.debug) = False OR IsUndefined(s.b) = False",
            {"s": {"debug": "FALSE"}, "version": "3.1"},
            {"s": {"debug": "FALSE"}, "version": "3.1"},
        ),
        (
            "SELECT VALUE transform('enrichArray', (SELECT a, b FROM d), (SELECT VALUE c FROM d)) FROM 'dt/plant/m1'",
            {"d": {"a": "first", "b": 2, "c": [{"x": 5}, {"x": 10}]}},
            [{"x": 5, "a": "first", "b": 2}, {"x": 10, "a": "first", "b": 2}],
        ),
        (
            "SELECT get((SELECT VALUE data FROM state), 0) AS data FROM 'dt/plant/m1'",
            {"state": {"data": 7}},
            {"data": 7},
        ),
        (
            "SELECT get(get(d, '0'), 'my-key') AS v, d.`0`.\"my-key\" AS w FROM 'a'",
            {"d": {"0": {"my-key": 1}}},
            {"v": 1, "w": 1},
        ),
    ],
)
def test_statements_that_aws_has_run(statement, payload, expected):
    rule = parse_statement(statement)
    context = Context(payload, "dt/plant/m1", 0)

    assert rule.accepts is None or rule.accepts(context)
    assert rule.project(context) == expected


def test_a_bare_number_is_read_by_way_of_its_bytes():
    rule = parse_statement(
        "SELECT decode(encode(*, 'base64'), 'base64') AS value FROM 'a' WHERE decode(encode(*, 'base64'), 'base64') > 50"
    )
    context = Context(80, "a", 0, raw=b"80")

    assert (rule.accepts(context), rule.project(context)) == (True, {"value": 80})


def test_variables_are_set_once_for_all_clauses():
    rule = parse_statement(
        "SET @sensors = device.sensors, @celsius = (@sensors.fahrenheit - 32) * 5 / 9, @id = newuuid(), @name = 'x' "
        "SELECT @celsius AS celsius, @sensors.humidity, @id AS a, @id AS b, @name, "
        "(SELECT VALUE n + @sensors.humidity FROM list) AS sums FROM 'device/data' WHERE @celsius > 20"
    )
    payload = {"device": {"sensors": {"fahrenheit": 75, "humidity": 60}}, "list": [{"n": 1}, {"n": 2}]}
    context = rule.prepare(Context(payload, "device/data", 0))

    selected = rule.project(context)

    assert rule.accepts(context)
    assert selected.pop("a") == selected.pop("b")
    assert selected == {
        "celsius": 23.88888888888889, "humidity": 60, "name": "x", "sums": [61, 62],
    }  # fmt: skip
    assert parse_template("${@sensors.humidity}", rule.variables)(context) == "60"


def test_the_account_is_the_one_that_owns_the_rule():
    rule = parse_statement("SELECT AccountId() AS account FROM 'a'")

    assert rule.project(Context({}, "a", 0, account="123456789012")) == {"account": "123456789012"}


@pytest.mark.parametrize("pattern", ["(x+x+)+y", "(x|x)*y", "^(x+)+$", "(.*x){20}y"])
def test_no_pattern_backtracks(pattern):
    found = value(f"regexp_matches(name, '{pattern}')", {"name": "x" * 5000 + "z"})

    assert found is False


@pytest.mark.parametrize(
    "expression",
    [
        "regexp_matches(a, '(a|b)*a(a|b){500}')",
        "regexp_replace(a, '.', a)",
        "regexp_replace(a, 'x*y|x', '')",
        "replace(a, 'x', a)",
        "transform('enrichArray', {'b': a}, c)",
    ],
)
def test_what_would_hold_up_the_messages_behind_it_is_given_up(expression):
    payload = {"a": "x" * 100_000, "c": [{}] * 1000}

    with pytest.raises(TooMuchWorkError):
        value(expression, payload)


@pytest.mark.parametrize(
    "statement",
    [
        "SET @e = e SELECT (SELECT VALUE (SELECT VALUE 1 FROM @e) FROM @e) AS v FROM 'a'",
        "SET @big = big SELECT (SELECT VALUE @big FROM e) AS v FROM 'a'",
        "SET @big = big SELECT length(SELECT VALUE @big + '' FROM e) AS v FROM 'a'",
    ],
)
def test_queries_that_multiply_what_a_variable_holds_are_given_up(statement):
    rule = parse_statement(statement)
    context = rule.prepare(Context({"e": [1] * 1000, "big": "x" * 10_000}, "a", 0))

    with pytest.raises(TooMuchWorkError):
        rule.project(context)


@pytest.mark.parametrize("grown", ["concat(%s)", "[%s]"])
def test_variables_that_multiply_one_another_are_given_up(grown):
    sets = ", ".join(f"@{b} = {grown % ', '.join([f'@{a}'] * 40)}" for a, b in ("ab", "bc", "cd", "de"))
    rule = parse_statement(f"SET @a = name, {sets} SELECT * FROM 'a' WHERE @e = @d")  # noqa: S608

    with pytest.raises(TooMuchWorkError):
        rule.prepare(Context(PAYLOAD, "a", 0))


def test_queries_that_read_a_variable_for_every_row_are_given_up_when_their_time_is_up(monkeypatch):
    rule = parse_statement("SET @l = l SELECT (SELECT VALUE n FROM e WHERE -1 IN @l) AS v FROM 'a'")
    context = Context({"e": [{"n": 1}], "l": [1, 2]}, "a", 0)
    assert rule.project(rule.prepare(context)) == {"v": []}

    monkeypatch.setattr(iotsql_operators, "_MOST_CPU_S", -1.0)
    with pytest.raises(TooMuchWorkError, match="too many rows"):
        rule.project(rule.prepare(context))


@pytest.mark.parametrize("pattern", [r"(a)\12", r"\C", r"[\v]", r"\v", "[]a[b]]", r"\Q[\E[[]"])
def test_a_pattern_that_java_reads_otherwise_is_refused(pattern):
    with pytest.raises(ValueError, match="read otherwise than on AWS"):
        iotsql_patterns.check(pattern)


@pytest.mark.parametrize(
    ("text", "pattern"),
    [("(USD", r"\(?USD"), ("U(", "[(?U]+"), ("[a&&", r"\Q[a&&\E"), ("a&&b", "a&&b"), ("]", "[]]"), (r"\v", r"\\v")],
)
def test_signs_that_stand_for_themselves_are_no_reason_to_refuse_a_pattern(text, pattern):
    iotsql_patterns.check(pattern)

    assert iotsql_patterns.matches(text, f"^(?:{pattern})$")


def test_without_re2_a_rule_with_any_pattern_is_refused_and_not_each_of_its_messages(monkeypatch):
    iotsql_patterns._compiled.cache_clear()
    monkeypatch.setitem(sys.modules, "re2", None)

    with pytest.raises(ModuleNotFoundError, match="re2"):
        parse_statement("SELECT regexp_matches(a, b) AS m FROM 'a'")


def test_an_alias_may_be_a_path_and_name_the_whole_payload():
    assert select("* AS payload, t AS reading.value, name AS reading.source") == {
        "payload": PAYLOAD, "reading": {"value": 21, "source": "m1"},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("columns", "expected"),
    [("value", {"value": 5}), ("value AS v, a", {"v": 5, "a": 1}), ("value + 1 AS v", {"v": 6}), ("VALUE [a]", [1])],
)
def test_an_attribute_may_be_called_value(columns, expected):
    assert select(columns, {"value": 5, "a": 1}) == expected


def test_names_are_written_in_any_script_and_keywords_in_any_case():
    assert select("température aS t", {"température": 5}) == {"t": 5}
    assert holds("value > 4 and Temp = 1", {"value": 5, "Temp": 1})


def test_the_levels_of_a_basic_ingest_topic_are_counted_behind_its_prefix():
    topic = "$aws/rules/BuildingManager/Buildings/Building5/Floor2"

    assert select("topic() AS a, topic(3) AS b, topic('1') AS c", topic=topic) == {
        "a": "Buildings/Building5/Floor2", "b": "Floor2", "c": "Buildings",
    }  # fmt: skip


def test_a_payload_that_is_not_json_can_be_encoded():
    rule = parse_statement("SELECT encode(*, 'base64') AS data, topic(1) AS line FROM 'a'")

    assert rule.any_bytes
    assert rule.project(Context(UNDEFINED, "a", 0, raw=b"\xff\x00")) == {"data": "/wA=", "line": "a"}
    assert parse_statement("SET @p = encode(*, 'base64') SELECT @p AS data FROM 'a'").any_bytes
    assert not parse_statement("SET @p = b SELECT encode(*, 'base64') AS data FROM 'a'").any_bytes
    assert not parse_statement("SELECT encode(*, 'base64') AS data FROM 'a' WHERE b = 1").any_bytes
    assert not parse_statement("SELECT * FROM 'a'").any_bytes


def test_a_rule_for_basic_ingest_alone_needs_no_topic():
    assert parse_statement("SELECT * WHERE t > 1").topic_filter == ""
    assert parse_statement("SELECT *").topic_filter == ""


def test_a_template_with_a_loose_end_is_refused():
    with pytest.raises(SettingsError, match="template"):
        parse_template("a-${topic(2)")


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
        ("SELECT @x FROM 'a'", "@x has no value; write SET @x"),
        ("SET @x = @y, @y = 1 SELECT @x FROM 'a'", "@y has no value"),
        ("SET @x = 1, @x = 2 SELECT @x FROM 'a'", "@x is set twice"),
        ("SET x = 1 SELECT x FROM 'a'", "SET must name a variable"),
        ("SET @" + "x" * 65 + " = 1 SELECT * FROM 'a'", "64 characters"),
        ("SET @a=1,@b=1,@c=1,@d=1,@e=1,@f=1,@g=1,@h=1,@i=1,@j=1,@k=1 SELECT * FROM 'a'", "more than 10 variables"),
        ("SET @x = 1 SET @y = 2 SELECT @x FROM 'a'", "SELECT expected before 'SET'"),
        ("SELECT * FROM 'dt/${plant}/+'", r"FROM takes no \$\{"),
        ("SELECT * FROM 'a' WHERE b NOT IN (1, 2)", "NOT is not supported here"),
        ("SELECT regexp_matches(a, '^(?!x)') FROM 'a'", r"regexp_matches\(\).*\(\?!"),
        ("SELECT regexp_replace(a, '(b)\\1', 'c') FROM 'a'", r"regexp_replace\(\).*\\1"),
        ("SELECT regexp_substr(a, '[a-z&&[^b]]') FROM 'a'", "brackets within brackets"),
        ("SELECT regexp_substr(a, '(?U)b') FROM 'a'", r"\(\?U\)"),
        ("SELECT regexp_substr(a, '" + "b" * 5000 + "') FROM 'a'", "4096"),
        ("SELECT DISTINCT a FROM 'a'", "DISTINCT is not supported"),
        ("SELECT * FROM topic/#", "quotes"),
        ("SELECT * FROM 'a' WHERE b IS NULL", r"isNull\(\)"),
        ("SELECT * FROM 'a' WHERE b LIKE 'x'", r"regexp_matches\(\)"),
        ("SELECT * FROM 'a' WHERE b BETWEEN 1 AND 2", ">= and <="),
        ("SELECT a -- the sensor\n FROM 'a'", "comments are not supported"),
        ("SELECT /* all */ * FROM 'a'", "comments are not supported"),
        ("SELECT clientid() FROM 'a'", r"clientid\(\).*broker"),
        ("SELECT CASE a ELSE 1 END FROM 'a'", "WHEN"),
        ("SELECT regexp_matches(a, '(') FROM 'a'", r"regexp_matches\(\).*'\('"),
        ("SELECT parse_time('yyyy-QQ', 0) FROM 'a'", r"parse_time\(\).*letter Q"),
        ("SELECT time_to_epoch(a, \"yyyy 'x\") FROM 'a'", r"time_to_epoch\(\).*quote"),
        ("SELECT time_to_epoch(a, 'yyyy" + " " * 300 + "') FROM 'a'", "256 characters"),
        ("SELECT encode(a, 'hex') FROM 'a'", r"encode\(\).*'hex'"),
        (
            "SELECT VALUE decode(*, 'proto', 'bucket', 'a.desc', 'a', 'A') FROM 'a'",
            r"decode\(\).*'proto': only 'base64'",
        ),
        ("SELECT transform('flatten', a, b) FROM 'a'", r"transform\(\).*'flatten'"),
        ("SELECT * + 1 FROM 'a'", "FROM"),
        ("SELECT 1" + " + 1" * 2000 + " FROM 'a'", "operators"),
        ("SELECT a" + ".b" * 2000 + " FROM 'a'", "operators"),
        ("SELECT " + "(" * 500 + "1" + ")" * 500 + " FROM 'a'", "nested deeper"),
        ("SELECT " + "- " * 5000 + "1 FROM 'a'", "nested deeper"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(statement, named):
    with pytest.raises(SettingsError, match=named):
        parse_statement(statement)


def test_a_template_is_text_with_expressions():
    assert parse_template("${topic(3)}-${t}")(Context(PAYLOAD, "dt/plant/m1", 0)) == "m1-21"
    assert parse_template('${regexp_substr(topic(), "[a-z]{2}")}.')(Context({}, "dt/m1", 0)) == "dt."
    assert parse_template("${absent}")(Context(PAYLOAD, "a", 0)) is UNDEFINED


KINDS = [UNDEFINED, None, True, 21, -2.5, 1e300, 10**33, "5", "'(é", [1, "a"], {"a": 1}]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_function_fails_on_any_kind_of_value(name):
    function, fewest, most = FUNCTIONS[name]

    results = [
        function(*arguments) for count in range(fewest, min(most, 3) + 1) for arguments in product(KINDS, repeat=count)
    ]

    assert msgspec.json.encode([result for result in results if result is not UNDEFINED])


@given(st.text(max_size=80))
def test_any_text_is_read_or_refused(text):
    with contextlib.suppress(SettingsError):
        parse_statement(STATEMENT % text + " WHERE " + text).project(Context(PAYLOAD, "a", 0))
