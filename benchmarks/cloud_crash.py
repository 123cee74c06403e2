"""
Kill the cloud companion with SIGKILL at random instants under load over HTTP and MQTT, and count what is lost or repeated.

    python benchmarks/cloud_crash.py --kills 200

Every message moves its detector to the other state and publishes the count that the detector has reached. So a lost message
leaves a count out, a message judged twice counts one too many, and an action whose id is not stable shows one count under
two ids.
"""

import argparse
import http.client
import itertools
import json
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.loopback import free_port, wait_for_port
from tests.mosquitto import Mosquitto

KEYS = 5
_STEP = {"setVariable": {"variableName": "count", "value": "$variable.count + 1"}}
_TELL = {"iotTopicPublish": {"mqttTopic": "out/count"}}


def model() -> dict[str, Any]:
    """Two states that every message changes between, counting."""

    def move(name: str, to: str) -> dict[str, Any]:
        moves = [{"eventName": name, "condition": 'currentInput("Tick")', "nextState": to, "actions": [_STEP, _TELL]}]
        return {"transitionEvents": moves}

    start = {"setVariable": {"variableName": "count", "value": "0"}}
    first = {"events": [{"eventName": "start", "condition": "isUndefined($variable.count)", "actions": [start]}]}
    return {
        "detectorModelName": "Counter",
        "roleArn": "arn:aws:iam::123456789012:role/none",
        "key": "key",
        "evaluationMethod": "SERIAL",
        "detectorModelDefinition": {
            "initialStateName": "even",
            "states": [
                {"stateName": "even", "onEnter": first, "onInput": move("to_odd", "odd")},
                {"stateName": "odd", "onInput": move("to_even", "even")},
            ],
        },
    }


class Site:
    """A broker that stays and a companion that is killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._broker = Mosquitto(folder)
        self.broker_port, self.port = self._broker.port, free_port()
        (folder / "counter.json").write_text(json.dumps(model()))
        (folder / "cloud.toml").write_text(
            'models = ["counter.json"]\n[[inputs]]\nname = "Tick"\nattributes = ["key", "n"]\n'
            '[[rules]]\nfilter = "tick/+"\ninput = "Tick"\n[judge]\nsnapshot_interval_s = 0.3\n'
        )
        self._companion: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the companion and wait until it answers."""
        with (self.folder / "companion.log").open("ab") as log:
            self._companion = subprocess.Popen(
                [
                    *(sys.executable, "-m", "wheeltapper.cli", "cloud", "serve", "--port", str(self.port)),
                    *("--data-dir", str(self.folder / "data"), "--config", str(self.folder / "cloud.toml")),
                    *("--broker", f"mqtt://127.0.0.1:{self.broker_port}", "--log-level", "WARNING"),
                ],
                stdout=log,
                stderr=log,
            )
        try:
            wait_for_port(self.port, 300)
        except TimeoutError as error:
            said = (self.folder / "companion.log").read_text()[-2000:]
            raise RuntimeError(f"the companion did not start; it said: {said}") from error

    def wait_for_subscription(self) -> None:
        """Return when the companion hears the broker: it says so of a message that is no JSON."""
        client = paho.Client(CallbackAPIVersion.VERSION2, "probe")
        client.connect("127.0.0.1", self.broker_port)
        client.loop_start()
        while b"tick/probe" not in (self.folder / "companion.log").read_bytes():
            client.publish("tick/probe", b"?", qos=1)
            time.sleep(0.1)
        client.disconnect()
        client.loop_stop()

    def kill(self) -> None:
        """SIGKILL, without any warning."""
        assert self._companion is not None
        self._companion.send_signal(signal.SIGKILL)
        self._companion.wait()

    def close(self) -> None:
        if self._companion is not None and self._companion.poll() is None:
            self._companion.terminate()
            self._companion.wait(120)
        self._broker.close()


class Watcher:
    """Hears everything that the companion publishes."""

    def __init__(self, port: int) -> None:
        self.changes: dict[str, bytes] = {}
        self.repeated_with_another_content = 0
        self.counts: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
        self.heard = 0
        self._client = paho.Client(CallbackAPIVersion.VERSION2, "watcher", clean_session=False)
        self._client.on_message = self._on_message
        self._client.connect("127.0.0.1", port)
        self._client.subscribe([("wt/+/state", 1), ("out/count", 1)])
        self._client.loop_start()

    def _on_message(self, _client: Any, _data: Any, message: paho.MQTTMessage) -> None:
        self.heard += 1
        content = json.loads(message.payload)
        if message.topic == "out/count":
            told = content["payload"]
            count = told["state"]["variables"]["count"]
            self.counts[told["detector"]["keyValue"]][count].add(told["actionExecutionId"])
            return
        known = self.changes.setdefault(content["message_id"], message.payload)
        self.repeated_with_another_content += known != message.payload

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


class Load:
    """Messages over HTTP, each sent again under its id until it is accepted, and over MQTT, each until acknowledged."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._stop = threading.Event()
        self._numbers = itertools.count()
        self.accepted: dict[str, int] = defaultdict(int)
        self._threads = [threading.Thread(target=self._http), threading.Thread(target=self._mqtt)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _http(self) -> None:
        while not self._stop.is_set():
            keys = [f"h{random.randrange(KEYS)}" for _ in range(random.randint(1, 10))]
            messages = [
                {"messageId": f"http-{next(self._numbers)}", "inputName": "Tick", "payload": _base64({"key": key})}
                for key in keys
            ]
            while not self._post({"messages": messages}):
                time.sleep(0.02)
            for key in keys:
                self.accepted[key] += 1
            time.sleep(0.002)

    def _post(self, body: dict[str, Any]) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self._site.port, timeout=10)
        try:
            connection.request("POST", "/inputs/messages", json.dumps(body), {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer = response.read()
            return response.status == 200 and json.loads(answer)["BatchPutMessageErrorEntries"] == []
        except (OSError, http.client.HTTPException, ValueError):
            return False
        finally:
            connection.close()

    def _mqtt(self) -> None:
        client = paho.Client(CallbackAPIVersion.VERSION2, "load")
        client.connect("127.0.0.1", self._site.broker_port)
        client.loop_start()
        while not self._stop.is_set():
            key = f"q{random.randrange(KEYS)}"
            content = {"message_id": f"mqtt-{next(self._numbers)}", "key": key}
            while not _published(client, f"tick/{key}", json.dumps(content)):
                time.sleep(0.1)
            self.accepted[key] += 1
            time.sleep(0.001)
        client.disconnect()
        client.loop_stop()


def _published(client: paho.Client, topic: str, content: str) -> bool:
    try:
        sent = client.publish(topic, content, qos=1)
        sent.wait_for_publish(30)
    except (RuntimeError, ValueError):
        return False
    return sent.is_published()


def _base64(content: dict[str, Any]) -> str:
    import base64

    return base64.b64encode(json.dumps(content).encode()).decode()


def run(folder: Path, kills: int, longest_s: float = 1.0, seed: int = 1) -> dict[str, int]:
    """
    Kill so often and count.

    Returns:
        ``kills``, ``accepted`` messages, ``lost`` and ``judged_twice`` messages, ``changes`` of state heard,
        ``changes_lost`` and ``changes_made_twice``, ``actions`` heard, ``actions_lost`` and ``unstable_ids``, and
        ``heard_twice``, which is allowed.
    """
    chance = random.Random(seed)
    site = Site(folder)
    try:
        watcher = Watcher(site.broker_port)
        site.start()
        site.wait_for_subscription()
        load = Load(site)
        load.start()
        for _ in range(kills):
            time.sleep(chance.uniform(0.02, longest_s))
            site.kill()
            site.start()
        time.sleep(0.5)
        load.stop()
        found = _count(site, watcher, load, kills)
        watcher.close()
        return found
    finally:
        site.close()


def _count(site: Site, watcher: Watcher, load: Load, kills: int) -> dict[str, int]:
    total = sum(load.accepted.values())
    expected = 2 * total + len(load.accepted)
    heard, quiet_since = -1, time.monotonic()
    while time.monotonic() - quiet_since < 60:  # as long as anything still comes
        if watcher.heard != heard:
            heard, quiet_since = watcher.heard, time.monotonic()
        actions = sum(len(counts) for counts in watcher.counts.values())
        if len(watcher.changes) + actions >= expected and sum(_reached(site).values()) >= total:
            break
        time.sleep(0.2)
    reached = _reached(site)
    moves = [json.loads(change) for change in watcher.changes.values()]
    made = sum(1 for move in moves if move["from_state"])
    told = sum(len(counts) for counts in watcher.counts.values())
    differences = {key: reached.get(key, 0) - load.accepted[key] for key in load.accepted}
    return {
        "kills": kills,
        "accepted": total,
        "lost": -sum(min(difference, 0) for difference in differences.values()),
        "judged_twice": sum(max(difference, 0) for difference in differences.values()),
        "changes": made,
        "changes_lost": max(total - made, 0),
        "changes_made_twice": max(made - total, 0) + watcher.repeated_with_another_content,
        "actions": told,
        "actions_lost": sum(
            len(set(range(1, load.accepted[key] + 1)) - watcher.counts[key].keys()) for key in load.accepted
        ),
        "unstable_ids": sum(len(ids) > 1 for counts in watcher.counts.values() for ids in counts.values()),
        "heard_twice": watcher.heard - len(watcher.changes) - told,
    }


def _reached(site: Site) -> dict[str, int]:
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=120)
    connection.request("GET", "/wheeltapper/detectors/Counter?limit=1000")
    detectors = json.loads(connection.getresponse().read())["detectors"]
    connection.close()
    return {detector["key"]: detector["variables"]["count"] for detector in detectors}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = run(Path(folder), options.kills, seed=options.seed)
    print(json.dumps(found))
    bad = ("lost", "judged_twice", "changes_lost", "changes_made_twice", "actions_lost", "unstable_ids")
    return int(any(found[name] for name in bad))


if __name__ == "__main__":
    sys.exit(main())
