"""
Node-RED doing the cloud companion's job, as a flow that its users would write: MQTT in, a function, MQTT out.

The function keeps one small state machine a motor in its context, in memory; nothing of it is durable. It is run where
``node-red`` is on the path, or in the ``node_modules/.bin`` of the folder that NODE_RED names.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

from tests.loopback import free_port, wait_for_port

COUNTED = "nodered/count"
COUNT_EVERY = 1000

_JUDGE = """
const motors = context.get('motors') || {};
const reading = msg.payload;
let motor = motors[reading.motorID];
if (!motor) { motor = motors[reading.motorID] = {state: 'initialize'}; context.set('motors', motors); }
const before = motor.state;
if (before === 'initialize') motor.state = 'motor_off';
else if (before === 'motor_off' && reading.TT01 > 10) motor.state = 'motor_on';
else if (before === 'motor_on' && reading.TT01 <= 10) motor.state = 'motor_off';
const count = (context.get('count') || 0) + 1;
context.set('count', count);
const told = before === motor.state ? null : {
    topic: 'wt/' + reading.motorID + '/state',
    payload: {detector: 'Pump', key: reading.motorID, from_state: before, state: motor.state, time_ms: reading.time_ms,
              event: before === 'initialize' ? 'init_complete' : motor.state === 'motor_on' ? 'motor_start' : 'motor_stop'}};
const counted = count % %EVERY% ? null : {topic: '%COUNTED%', payload: count};
return [[told, counted].filter(Boolean)];
"""


def find_node_red() -> str | None:
    """The program, None where it is not installed."""
    folder = os.environ.get("NODE_RED")
    return shutil.which("node-red", path=f"{folder}/node_modules/.bin" if folder else None)


class NodeRed:
    """A Node-RED of its own beside a broker."""

    def __init__(self, folder: Path, program: str, broker_port: int) -> None:
        folder.mkdir()
        port = free_port()
        (folder / "settings.js").write_text(
            f"module.exports = {{uiHost: '127.0.0.1', uiPort: {port}, flowFile: 'flows.json',"
            " logging: {console: {level: 'error'}}}\n"
        )
        (folder / "flows.json").write_text(json.dumps(_flow(broker_port)))
        self._process = subprocess.Popen(
            [program, "--userDir", str(folder)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_for_port(port, 60)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(30)


def _flow(broker_port: int) -> list[dict[str, object]]:
    code = _JUDGE.replace("%EVERY%", str(COUNT_EVERY)).replace("%COUNTED%", COUNTED)
    broker = {
        "id": "broker",
        "type": "mqtt-broker",
        "broker": "127.0.0.1",
        "port": str(broker_port),
        "clientid": "node-red",
    }
    hear = {"type": "mqtt in", "topic": "dt/+/data", "qos": "1", "datatype": "json", "wires": [["judge"]]}
    return [
        {"id": "flow", "type": "tab", "label": "pumps"},
        {**broker, "autoConnect": True, "cleansession": True, "keepalive": "60", "protocolVersion": "4"},
        {"id": "hear", "z": "flow", "broker": "broker", "inputs": 0, **hear},
        {"id": "judge", "z": "flow", "type": "function", "func": code, "outputs": 1, "wires": [["tell"]]},
        {"id": "tell", "z": "flow", "type": "mqtt out", "topic": "", "qos": "1", "broker": "broker", "wires": []},
    ]
