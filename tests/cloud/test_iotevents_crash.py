"""Models that are created, updated and deleted while the server is killed: what was answered is so, the rest is whole."""

import base64
import http.client
import json
import os
import random
import threading
from typing import Any

from tests.companion import start
from tests.loopback import free_port

KILLS = 60 if os.environ.get("WHEELTAPPER_LONG") else 3
CLIENTS = 4
REMEMBER = {"setVariable": {"variableName": "x", "value": "$input.In.v"}}
EVENT = {"eventName": "e", "condition": "$input.In.v > 1", "actions": [REMEMBER]}
BODY = {
    "roleArn": "arn:aws:iam::123456789012:role/r",
    "detectorModelDefinition": {
        "initialStateName": "A",
        "states": [{"stateName": "A", "onInput": {"events": [EVENT]}}],
    },
}

# A model's version, 0 where there is none, and its detector's variable, None where there is no detector.
Standing = tuple[int, int | None]


class Client:
    """Works on a model and a detector of its own, and knows where they stand."""

    def __init__(self, port: int, number: int) -> None:
        self._port = port
        self._random = random.Random(number)
        self._name, self._key = f"m{number}", f"k{number}"
        self.standing: Standing = (0, None)
        self.unanswered: Standing | None = None
        self.answered = 0
        self.refused: list[Any] = []

    def work(self) -> None:
        """Until the server is gone."""
        try:
            while True:
                self._step()
        except (OSError, http.client.HTTPException):
            return

    def _step(self) -> None:
        version, value = self.standing
        number = self.answered + 2
        acts: list[tuple[Standing, str, str, Any]] = [
            ((version, number), "POST", "/inputs/messages", {"messages": [self._message(number)]}),
            ((version + 1, None), "POST", f"/detector-models/{self._name}", BODY),
            ((version + 1, value), "POST", f"/detector-models/{self._name}?migrate=true", BODY),
            ((0, None), "DELETE", f"/detector-models/{self._name}", None),
        ]
        create = ((1, None), "POST", "/detector-models", {**BODY, "detectorModelName": self._name, "key": "id"})
        self.unanswered, *request = self._random.choice(acts) if version else create
        status, answer = self._call(*request)
        if status not in (200, 204):
            self.refused.append(answer)
        self.standing, self.unanswered = self.unanswered, None
        self.answered += 1

    def _message(self, number: int) -> dict[str, Any]:
        payload = base64.b64encode(json.dumps({"id": self._key, "v": number}).encode()).decode()
        return {"messageId": f"{self._name}-{number}", "inputName": "In", "payload": payload}

    def look(self) -> Standing:
        """Where the server says that they stand."""
        status, found = self._call("GET", f"/detector-models/{self._name}")
        if status == 404:
            return 0, None
        configuration = found["detectorModel"]["detectorModelConfiguration"]
        assert configuration["status"] == "ACTIVE"
        status, found = self._call("GET", f"/detectors/{self._name}/keyValues/?keyValue={self._key}")
        value = int(found["detector"]["state"]["variables"][0]["value"]) if status == 200 else None
        return int(configuration["detectorModelVersion"]), value

    def _call(self, method: str, uri: str, body: Any = None) -> tuple[int, Any]:
        return call(self._port, method, uri, body)


def call(port: int, method: str, uri: str, body: Any = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, uri, None if body is None else json.dumps(body).encode())
        response = connection.getresponse()
        text = response.read()
        return response.status, json.loads(text) if text else None
    finally:
        connection.close()


def test_models_stand_as_answered_whenever_the_server_is_killed(tmp_path):
    port, when = free_port(), random.Random(5)
    clients = [Client(port, number) for number in range(CLIENTS)]
    server = start(port, tmp_path)
    attributes = {"attributes": [{"jsonPath": "id"}, {"jsonPath": "v"}]}
    call(port, "POST", "/inputs", {"inputName": "In", "inputDefinition": attributes})
    wrong = []
    try:
        for _ in range(KILLS):
            threads = [threading.Thread(target=client.work) for client in clients]
            for thread in threads:
                thread.start()
            threads[0].join(when.uniform(0.05, 0.6))
            server.kill()
            server.wait()
            for thread in threads:
                thread.join()
            server = start(port, tmp_path)
            for client in clients:
                found = client.look()
                if found not in (client.standing, client.unanswered):
                    wrong.append((found, client.standing, client.unanswered))
                client.standing, client.unanswered = found, None
    finally:
        server.kill()
        server.wait()

    assert not wrong
    assert [client.refused for client in clients] == [[]] * CLIENTS
    assert sum(client.answered for client in clients) > 0
