"""Whatever is sent, the companion answers, never with 500, and goes on serving."""

import json

from benchmarks.mqtt_raw import RawClient, publish
from tests.companion import serving
from tests.fuzzing import RULES, SOUND, throw, throw_at_rules
from tests.loopback import wait_until
from wheeltapper.transport.settings import BrokerSettings, open_transport
from wheeltapper_cloud.settings import CloudSettings, LimitSettings


def test_two_thousand_odd_requests_leave_the_companion_well(tmp_path):
    with serving(tmp_path, CloudSettings(limits=LimitSettings(detector_models=0))) as cloud:
        statuses = throw(cloud.port, 2_000, seed=7)
        alive = cloud.call("GET", "/health/ready")[0]
        internal = cloud.companion.judge.statistics()

    assert alive == 200
    assert {200, 400, 404} <= set(statuses)
    assert internal.writable


def test_two_thousand_odd_messages_are_taken_and_the_next_is_judged(tmp_path, mosquitto, caplog):
    transport = open_transport(BrokerSettings(url=f"mqtt://127.0.0.1:{mosquitto}", client="bulk"))
    with serving(tmp_path, CloudSettings(rules=RULES), transport=transport) as cloud:
        for uri, sound in SOUND:
            cloud.call("POST", uri, sound)
        throw_at_rules(mosquitto, 2_000, 7, lambda: cloud.companion._ingest.received)

        client = RawClient(mosquitto, "device")
        client.send(publish("plain/m1", json.dumps({"id": "sound", "v": 3}).encode(), 1))

        wait_until(lambda: cloud.companion.judge.detector("m", "sound") is not None)
        client.close()

    assert not [record for record in caplog.records if record.exc_info]
