import json

import pytest

from tests.core.judging import START_MS, Bench
from wheeltapper.errors import SettingsError, UnavailableError
from wheeltapper.judge import JudgeSettings, Refusal
from wheeltapper.transport.memory import MemoryBroker
from wheeltapper_cloud.ingest import Ingest
from wheeltapper_cloud.rules import Rule, RuleSettings


class Line:
    """A broker, a rule and a judge."""

    def __init__(self, folder, *rules, settings=None, most_bytes=0):
        self.bench = Bench(folder, settings).with_models()
        self.broker = MemoryBroker()
        self.receiver, self.sender = self.broker.transport(), self.broker.transport()
        self.ingest = Ingest(
            self.receiver, self.bench.judge, [RuleSettings(**rule) for rule in rules], self.bench.clock, most_bytes
        )
        self.ingest.start()
        self.sender.start()
        self.receiver.start()

    def send(self, topic, payload):
        self.sender.publish(topic, payload if isinstance(payload, bytes) else json.dumps(payload).encode())
        self.broker.deliver()


def test_a_topic_feeds_an_input_and_is_acknowledged(tmp_path):
    line = Line(tmp_path, {"filter": "dt/+/data", "input": "Reading"})

    line.send("dt/m1/data", {"id": "m1", "t": 90, "n": 1})

    assert line.bench.state() == "hot"
    assert line.receiver.unacknowledged == 0


def test_a_message_delivered_again_is_recognised_by_its_id(tmp_path):
    line = Line(tmp_path, {"filter": "dt/+/data", "input": "Reading"})
    line.broker.repeat_deliveries = 1

    line.send("dt/m1/data", {"message_id": "a", "id": "m1", "t": 1, "n": 1})

    assert line.bench.judge.statistics().accepted == 1
    assert line.bench.judge.statistics().repeated == 1


def test_what_cannot_be_read_is_counted_acknowledged_and_blocks_nothing(tmp_path):
    line = Line(tmp_path, {"filter": "dt/+/data", "input": "Reading"})

    for garbage in (b"", b"\xff\xfe", b"[]", b"1", b"{", b'"x"', b"[" * 10_000, b'{"a":' * 5_000):
        line.send("dt/m1/data", garbage)
    line.send("dt/m1/data", {"id": "m1", "t": 90})

    assert line.ingest.malformed == 8
    assert line.receiver.unacknowledged == 0
    assert line.bench.state() == "hot"


def test_sql_selects_what_the_input_receives(tmp_path):
    line = Line(
        tmp_path,
        {
            "sql": "SELECT topic(2) AS id, temperature * 2 AS t, seq AS n FROM 'dt/+/data' WHERE temperature > 0",
            "input": "Reading",
            "message_id": "${topic(2)}-${seq}",
        },
    )

    line.send("dt/m7/data", {"temperature": 45, "seq": 5})
    line.send("dt/m8/data", {"temperature": -1, "seq": 6})
    line.send("dt/m7/data", {"temperature": 45, "seq": 5})

    assert line.bench.state("m7") == "hot"
    assert line.bench.state("m8") == ""
    assert line.bench.judge.statistics().repeated == 1
    assert line.ingest.passed_over == 1


def test_nothing_is_acknowledged_that_the_full_disk_refused(tmp_path):
    line = Line(
        tmp_path,
        {"filter": "dt/+/data", "input": "Reading"},
        settings=JudgeSettings(max_page_count=110, keep_bytes=1 << 40),
    )
    with pytest.raises(UnavailableError):
        for number in range(10_000):
            line.bench.put(1.0, n=number, pad=5000)
    kept = []
    line.ingest._retry_later = kept.extend

    line.send("dt/m1/data", {"id": "m1", "t": 90, "pad": "x" * 9000})

    assert line.receiver.unacknowledged == 1
    assert [delivery.topic for delivery, _ in kept] == ["dt/m1/data"]


def test_refused_deliveries_come_back_in_order_before_newer_ones(tmp_path):
    line = Line(tmp_path, {"filter": "dt/+/data", "input": "Reading"})
    asked, kept = [], []
    line.bench.judge.submit_from = asked.append
    line.ingest._retry_later = kept.extend
    for number in range(3):
        line.send("dt/m1/data", {"id": "m1", "n": number})
    messages, done = asked.pop()()
    done([Refusal(index, "unavailable", "full") for index in range(len(messages))])
    line.send("dt/m1/data", {"id": "m1", "n": 3})

    line.ingest._retry(kept)
    messages, done = asked.pop()()
    done([])

    assert [json.loads(message.payload)["n"] for message in messages] == [0, 1, 2, 3]
    assert line.receiver.unacknowledged == 0
    assert line.ingest.received == 4


@pytest.mark.parametrize(
    "rules",
    [
        [{"input": "I"}],
        [{"input": "I", "filter": "a", "sql": "SELECT * FROM 'a'"}],
        [{"input": "I", "filter": "dt/m1/+"}, {"input": "J", "filter": "dt/+/data"}],
    ],
)
def test_rules_that_cannot_work_are_refused(tmp_path, rules):
    with pytest.raises(SettingsError):
        Line(tmp_path, *rules)


def test_one_topic_can_feed_several_inputs(tmp_path):
    line = Line(tmp_path, {"filter": "dt/+", "input": "Reading"}, {"sql": "SELECT * FROM 'dt/+'", "input": "Nowhere"})

    line.send("dt/m1", {"id": "m1", "t": 90})

    assert line.bench.state() == "hot"
    assert line.ingest.malformed == 1


def test_a_filter_that_another_covers_shares_its_subscription(tmp_path):
    line = Line(
        tmp_path,
        {"filter": "dt/#", "input": "Nowhere"},
        {"sql": "SELECT id, t FROM 'dt/+/data'", "input": "Reading"},
        {"filter": "dt/m1/#", "input": "Elsewhere"},
    )

    line.send("dt/m1/data", {"id": "m1", "t": 90})
    line.send("dt/m2", {"id": "m2", "t": 90})

    assert list(line.receiver._handlers) == ["dt/#"]
    assert line.ingest.received == 2
    assert line.ingest.malformed == 3  # for inputs that are not there
    assert (line.bench.state("m1"), line.bench.state("m2")) == ("hot", "")


def test_a_rule_that_fails_on_a_message_holds_up_no_other(tmp_path, monkeypatch):
    line = Line(tmp_path, {"sql": "SELECT *, topic(2) AS id FROM 'dt/+'", "input": "Reading"})
    read = Rule.read
    monkeypatch.setattr(
        Rule, "read", lambda rule, topic, *rest: read(rule, topic, *rest) if topic != "dt/bad" else 1 / 0
    )

    line.send("dt/bad", {"t": 90})
    line.send("dt/m1", {"t": 90})

    assert line.bench.state("m1") == "hot"
    assert line.receiver.unacknowledged == 0
    assert line.ingest.malformed == 1


def test_a_message_longer_than_allowed_is_dropped(tmp_path):
    line = Line(tmp_path, {"filter": "dt/+", "input": "Reading"}, most_bytes=40)

    line.send("dt/m1", {"id": "m1", "t": 90, "pad": "x" * 40})
    line.send("dt/m2", {"id": "m2", "t": 90})

    assert (line.bench.state("m1"), line.bench.state("m2")) == ("", "hot")
    assert (line.ingest.malformed, line.receiver.unacknowledged) == (1, 0)


def test_what_was_buffered_offline_is_judged_as_it_happened_where_the_clock_is_the_messages(tmp_path):
    hour_ago = START_MS - 3_600_000
    rule = {"filter": "dt/+", "input": "Reading", "timestamp": "at"}
    line = Line(tmp_path, rule, settings=JudgeSettings(clock="event"))

    line.send("dt/m1", {"id": "m1", "t": 90, "at": hour_ago})
    hot = line.bench.state()
    line.send("dt/m1", {"id": "m1", "t": 20, "at": hour_ago + 61_000})
    line.send("dt/m1", {"id": "m1", "t": 20, "at": hour_ago - 5_000})

    assert (hot, line.bench.state()) == ("hot", "cold")
    assert line.bench.judge.statistics().accepted == 3


def test_what_two_rules_make_of_one_message_for_one_input_is_no_repeat(tmp_path):
    line = Line(
        tmp_path,
        {"filter": "dt/#", "input": "Reading"},
        {"sql": "SELECT id, message_id, t + 1 AS t FROM 'dt/+'", "input": "Reading"},
    )
    line.broker.repeat_deliveries = 1

    line.send("dt/m1", {"message_id": "a", "id": "m1", "t": 1})

    statistics = line.bench.judge.statistics()
    assert (statistics.accepted, statistics.repeated) == (2, 2)
