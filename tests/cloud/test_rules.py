import json

import pytest

from wheeltapper.errors import MessageError, SettingsError
from wheeltapper.topics import filters_overlap, matches
from wheeltapper_cloud.rules import Rule, RuleSettings


def test_a_nested_payload_and_its_own_time_are_found(tmp_path):
    rule = Rule(RuleSettings(filter="a", input="I", payload="d.reported", message_id="meta.id", timestamp="meta.at"))
    payload = json.dumps({"d": {"reported": {"t": 1}}, "meta": {"id": 17, "at": 1234.9}}).encode()

    (message,) = rule.read("a", payload, 0)

    assert (json.loads(message.payload), message.message_id, message.time_ms) == ({"t": 1}, "17", 1234)


@pytest.mark.parametrize(
    ("head", "message_id", "time_ms"),
    [
        ({"message_id": "x", "time_ms": 5}, "x", 5),
        ({"message_id": 5, "time_ms": "7"}, "5", 7),
        ({"message_id": None, "time_ms": None}, "", None),
        ({"message_id": {"a": 1}, "time_ms": [1]}, "", None),
        ({"message_id": "x" * 500, "time_ms": -1}, "", None),
        ({}, "", None),
    ],
)
def test_ids_and_times_of_the_wrong_kind_are_as_good_as_none(head, message_id, time_ms):
    (message,) = Rule(RuleSettings(filter="a", input="I")).read("a", json.dumps(head).encode(), 0)

    assert (message.message_id, message.time_ms) == (message_id, time_ms)


@pytest.mark.parametrize(
    ("paths", "head", "message_id", "time_ms"),
    [
        ({"message_id": "time_ms"}, {"time_ms": 7}, "7", 7),
        ({"message_id": 'a"b'}, {'a"b': "x", "time_ms": 7}, "x", 7),
        ({"message_id": "", "timestamp": ""}, {" ": "x", "  ": 7}, "", None),
    ],
)
def test_id_and_time_may_be_read_from_members_of_any_name_or_from_none(paths, head, message_id, time_ms):
    (message,) = Rule(RuleSettings(filter="a", input="I", **paths)).read("a", json.dumps(head).encode(), 0)

    assert (message.message_id, message.time_ms) == (message_id, time_ms)


def test_filters_that_share_a_topic_overlap():
    assert filters_overlap("a/#", "a")
    assert filters_overlap("+/b", "a/+")
    assert not filters_overlap("a/b/c", "a/+")
    assert not filters_overlap("#", "$aws/rules/a/#")
    assert not filters_overlap("+/b", "$aws/b")


def test_a_filter_covers_what_passes_nothing_else():
    assert matches("a/#", "a")
    assert matches("a/+/c", "a/b/c")
    assert not matches("a/+", "a/#")
    assert not matches("+/b", "a/+")
    assert not matches("#", "$aws/rules/a/#")


@pytest.mark.parametrize(
    ("rule", "named"),
    [
        ({"filter": "a"}, "input"),
        ({"input": "I", "filter": "a/#/b"}, "a/#/b"),
        ({"input": "I", "filter": "a/b+"}, "whole level"),
        ({"input": "I", "sql": "SELECT * FROM ''"}, "FROM"),
        ({"input": "I", "sql": "SELECT * WHERE a = 1"}, "basic_ingest"),
        ({"input": "I", "filter": "a", "share": "a/b"}, "share"),
        ({"input": "I", "filter": "a", "basic_ingest": "#"}, "basic_ingest"),
        ({"input": "I", "filter": "a", "message_id": "${topic(2)"}, "template"),
    ],
)
def test_a_rule_that_cannot_work_is_refused_by_name(rule, named):
    with pytest.raises(SettingsError, match=named):
        Rule(RuleSettings(**rule))


def test_basic_ingest_reaches_a_rule_by_name_beside_its_topic():
    both = Rule(RuleSettings(sql="SELECT * FROM 'dt/+'", input="I", basic_ingest="Motors"))
    alone = Rule(RuleSettings(sql="SELECT topic(2) AS id", input="I", basic_ingest="Motors"))

    (message,) = alone.read("$aws/rules/Motors/dt/m1", b"{}", 0)

    assert both.filters == ["dt/+", "$aws/rules/Motors/#"]
    assert alone.filters == ["$aws/rules/Motors/#"]
    assert json.loads(message.payload) == {"id": "m1"}


def test_each_item_of_a_batch_is_a_message_with_an_id_of_its_own():
    sql = "SELECT VALUE transform('enrichArray', {'line': topic(2)}, readings) FROM 'dt/+'"
    rule = Rule(RuleSettings(sql=sql, input="I", batch=True, message_id="seq"))
    payload = json.dumps({"seq": 7, "time_ms": 5, "readings": [{"t": 1}, {"t": 2}]}).encode()

    messages = rule.read("dt/a", payload, 0)

    assert [(json.loads(each.payload), each.message_id, each.time_ms) for each in messages] == [
        ({"t": 1, "line": "a"}, "7-0", 5), ({"t": 2, "line": "a"}, "7-1", 5),
    ]  # fmt: skip


@pytest.mark.parametrize("rule", [{"filter": "a"}, {"sql": "SELECT * FROM 'a'"}])
def test_a_batch_may_be_the_whole_payload(rule):
    messages = Rule(RuleSettings(input="I", batch=True, **rule)).read("a", b'[{"t":1},{"t":2}]', 0)

    assert [each.payload for each in messages] == [b'{"t":1}', b'{"t":2}']


def test_an_item_of_a_batch_that_is_no_object_spoils_it():
    rule = Rule(RuleSettings(filter="a", input="I", payload="readings", batch=True))

    with pytest.raises(MessageError, match="no object"):
        rule.read("a", b'{"readings": [{"t": 1}, 2]}', 0)


def test_an_id_may_be_made_of_the_variables_and_the_account():
    sql = "SET @line = topic(2) SELECT t, @line AS line, accountid() AS account FROM 'dt/+' WHERE @line <> 'z'"
    rule = Rule(RuleSettings(sql=sql, input="I", message_id="${@line}-${seq}"), account="111122223333")

    (message,) = rule.read("dt/a", b'{"t": 1, "seq": 7}', 0)

    assert json.loads(message.payload) == {"t": 1, "line": "a", "account": "111122223333"}
    assert message.message_id == "a-7"
    assert rule.read("dt/z", b"{}", 0) == ()


def test_the_input_may_be_made_of_the_message():
    rule = Rule(RuleSettings(filter="dt/+", input="${kind}_${topic(2)}"))

    (message,) = rule.read("dt/1", b'{"kind": "Pump"}', 0)

    assert message.input == "Pump_1"
    with pytest.raises(MessageError, match="has no value"):
        rule.read("dt/1", b"{}", 0)


def test_a_message_that_would_take_too_long_is_dropped_by_name():
    rule = Rule(RuleSettings(sql="SELECT replace(a, 'x', a) AS a FROM 'a'", input="I"))

    with pytest.raises(MessageError, match="dt/1: the rule for input 'I': replacing 'x'"):
        rule.read("dt/1", json.dumps({"a": "x" * 5000}).encode(), 0)


def test_whole_numbers_are_integers_as_in_the_version_of_2016():
    (message,) = Rule(RuleSettings(sql="SELECT t, u FROM 'a'", input="I")).read("a", b'{"t": 10.0, "u": 0.10}', 0)

    assert message.payload == b'{"t":10,"u":0.1}'


def test_bytes_that_are_not_json_pass_where_nothing_looks_into_them():
    rule = Rule(RuleSettings(sql="SELECT encode(*, 'base64') AS data FROM 'a'", input="I"))
    strict = Rule(RuleSettings(sql="SELECT t FROM 'a'", input="I"))

    (message,) = rule.read("a", b"\xff\x00", 0)

    assert json.loads(message.payload) == {"data": "/wA="}
    with pytest.raises(MessageError, match="not JSON"):
        strict.read("a", b"\xff\x00", 0)


@pytest.mark.parametrize("payload", [b'{"t": 1e999}', b'{"t": [-1e999]}', b'{"t": ' + b"[" * 5000, b"\xff"])
def test_numbers_out_of_range_and_endless_nesting_are_malformed(payload):
    rule = Rule(RuleSettings(sql="SELECT *, topic(1) AS line FROM 'a'", input="I"))

    with pytest.raises(MessageError):
        rule.read("a", payload, 0)
