"""What Prometheus is told: every name is documented, the text is well formed, and what goes wrong is seen in it."""

import json
import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.companion import serving
from tests.core.judging import ALARM, MODEL, deployment
from tests.loopback import wait_until
from wheeltapper.clock import ManualClock
from wheeltapper.judge import Message
from wheeltapper.transport.memory import MemoryBroker
from wheeltapper_cloud.records import Records
from wheeltapper_cloud.upkeep import Upkeep

DOCUMENT = Path(__file__).parents[2] / "docs" / "cloud.md"


@pytest.fixture
def scraped(tmp_path):
    """A companion with a broker, and what its metrics say by name."""
    with serving(tmp_path, transport=MemoryBroker().transport()) as cloud:
        judge = cloud.companion.judge
        judge.declare_inputs({"Reading": []})
        judge.deploy(deployment(MODEL))
        judge.deploy(deployment(ALARM))
        cloud.call("GET", "/inputs")

        def scrape():
            text = cloud.call("GET", "/metrics")[1].decode()
            return text, {
                sample.name: sample.value
                for family in text_string_to_metric_families(text)
                for sample in family.samples
            }

        yield judge, scrape


def test_alarms_and_actions_that_wait_for_people_are_counted(scraped):
    judge, scrape = scraped
    before = scrape()[1]
    judge.put([Message("Reading", json.dumps({"id": "m1", "t": 90, "n": 1}).encode())])
    motor = next(each for each in judge.raised_alarms() if each.model == "Motor")
    judge.acknowledge(motor.id, by="ada")
    wait_until(lambda: judge.actions(["undelivered"]))

    after = scrape()[1]

    assert (before["wheeltapper_alarms_open"], before["wheeltapper_actions_undelivered"]) == (0, 0)
    assert (after["wheeltapper_alarms_open"], after["wheeltapper_alarms_unacknowledged"]) == (2, 1)
    assert after["wheeltapper_actions_undelivered"] == 1
    assert after["wheeltapper_broker_connected"] == 1
    assert after["wheeltapper_disk_free_bytes"] > 0
    assert after["wheeltapper_last_commit_timestamp_seconds"] > 1.7e9


def test_what_cannot_be_found_out_is_left_out_and_the_rest_told(tmp_path):
    broker = MemoryBroker().transport()
    records = Records(None, tmp_path)

    told = Upkeep(lambda: None, records, tmp_path / "gone", ManualClock(), broker).collect()

    assert [each.name for each in told] == ["wheeltapper_broker_connected"]


def test_what_is_scraped_keeps_to_the_text_format(scraped):
    text = scraped[1]()[0]
    names = re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M)

    assert text.endswith("\n")
    assert len({name for name, _ in names}) == len(names)
    assert all(re.search(rf"^# HELP {name} \S", text, re.M) for name, _ in names)
    assert all(name.endswith("_total") for name, kind in names if kind == "counter")
    assert "_created" not in text


def test_every_name_is_documented(scraped):
    documented = DOCUMENT.read_text()
    names = set(re.findall(r"^# TYPE (\S+) ", scraped[1]()[0], re.M))

    assert {name for name in names if f"`{name}`" not in documented} == set()
