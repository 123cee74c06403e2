"""
A stand-in for the Greengrass nucleus: a real Unix socket for the real client, in the profiles classic and lite.

It enforces what recipes allow, has the limits that were measured, and fails on cue: ``drop_connections``,
``forget_tokens``, ``deafen``, ``broker_away``.
"""

import base64
import contextlib
import itertools
import json
import re
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from tests.components import event_stream as wire
from wheeltapper.topics import matches

Profile = Literal["classic", "lite"]
Json = dict[str, Any]

PUBSUB, MQTT, SHADOW = "aws.greengrass.ipc.pubsub", "aws.greengrass.ipc.mqttproxy", "aws.greengrass.ShadowManager"
LITE_FRAME, LITE_CORE_PAYLOAD, CLASSIC_CORE_PAYLOAD, LITE_SUBSCRIPTIONS = 10_000, 4_850, 128 * 1024, 99
LITE_OPERATIONS = {
    "SubscribeToTopic",
    "PublishToTopic",
    "SubscribeToIoTCore",
    "PublishToIoTCore",
    "GetConfiguration",
    "UpdateConfiguration",
    "SubscribeToConfigurationUpdate",
    "UpdateState",
}


class RefusedError(Exception):
    """An error shape by its name."""


class HangUpError(Exception):
    """The nucleus hangs up."""


class Component:
    """A component that may connect: its token, its configuration and what it is allowed."""

    def __init__(self, name: str, token: str, recipe: Json) -> None:
        self.name = name
        self.token = token
        self.configuration: Json = json.loads(json.dumps(recipe["ComponentConfiguration"]["DefaultConfiguration"]))
        self.access: Json = self.configuration.pop("accessControl", {})
        self.states: list[str] = []


class Stream:
    """A subscription: one stream of one connection."""

    def __init__(self, kind: str, topic: str, stream: int, link: "Conversation") -> None:
        self.kind = kind
        self.topic = topic
        self.stream = stream
        self.link = link


class Nucleus:
    """The server; start it with ``with``."""

    def __init__(self, folder: Path, profile: Profile, *, thing: str = "core-1") -> None:
        self.profile = profile
        self.thing = thing
        self.socket_path = folder / "ipc.socket"
        self.components: dict[str, Component] = {}
        self.local: list[tuple[str, bytes]] = []
        self.core: list[tuple[str, bytes]] = []
        self.operations: list[str] = []
        self.deferred: list[Json] = []
        self.connections = 0
        self.shadows: dict[str, bytes] = {}
        self.stays_deaf: str = ""
        """A kind of stream that hears nothing however often it is opened."""
        self._away = False
        self._spool: list[tuple[str, bytes]] = []
        self._streams: list[Stream] = []
        self._links: list[Conversation] = []
        self._tokens: dict[str, Component] = {}
        self._lock = threading.RLock()
        self.changed = threading.Condition(self._lock)
        self._server = socket.socket(socket.AF_UNIX)

    # --- what a test does --------------------------------------------------------------------------------------------

    def __enter__(self) -> "Nucleus":
        self._server.bind(str(self.socket_path))
        self._server.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()
        self.drop_connections()

    def install(self, recipe: Json) -> Component:
        """Deploy a component and give it a token."""
        component = Component(recipe["ComponentName"], f"token-{len(self._tokens)}", recipe)
        self.components[component.name] = component
        self._tokens[component.token] = component
        return component

    def drop_connections(self) -> None:
        """Hang up on everybody; the tokens stay good."""
        for link in list(self._links):
            link.hang_up()

    def forget_tokens(self) -> None:
        """What a restarted ggipcd does: nobody's token is known any more."""
        with self._lock:
            self._tokens.clear()

    def deafen(self, kind: Literal["local", "core"]) -> None:
        """Restart ggpubsubd or iotcored: streams stay open and nothing comes by them any more."""
        with self._lock:
            self._streams = [stream for stream in self._streams if stream.kind != kind]

    @property
    def broker_away(self) -> bool:
        """Whether AWS IoT Core cannot be reached."""
        return self._away

    @broker_away.setter
    def broker_away(self, away: bool) -> None:
        with self._lock:
            self._away = away
            spool, self._spool = (self._spool, []) if not away else ([], self._spool)
            for topic, payload in spool:
                self._publish_core(topic, payload)
            self._tell_status()

    def from_cloud(self, topic: str, payload: bytes) -> None:
        """Publish at AWS IoT Core."""
        with self._lock:
            self._publish_core(topic, payload)

    def publish_local(self, topic: str, payload: bytes, *, as_json: bool = False) -> None:
        """Publish as another component does."""
        with self._lock:
            self._publish_topic(topic, payload, json.loads(payload) if as_json else None)

    def configure(self, name: str, merge: Json) -> None:
        """What a deployment with a merge does: one event for each leaf that changed."""
        with self._lock:
            for path in _merge(self.components[name].configuration, merge):
                event = {"configurationUpdateEvent": {"componentName": name, "keyPath": path}}
                self._emit("config", lambda stream: stream.topic == name, "ConfigurationUpdateEvents", event)

    def ask_to_update(self, deployment: str) -> None:
        """Tell components of a coming update (classic)."""
        event = {"preUpdateEvent": {"deploymentId": deployment, "isGgcRestarting": False}}
        with self._lock:
            self._emit("updates", lambda _stream: True, "ComponentUpdatePolicyEvents", event)

    def wait_for(self, condition: Callable[[], bool], timeout_s: float = 90.0) -> bool:
        """Wait until something the nucleus has seen makes the condition true."""
        with self.changed:
            return self.changed.wait_for(condition, timeout_s)

    @property
    def subscribed(self) -> list[str]:
        """The topics that streams which still hear are subscribed to."""
        return [stream.topic for stream in self._streams]

    # --- connections -------------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            link = Conversation(self, connection)
            with self._lock:
                self._links.append(link)
            threading.Thread(target=link.run, daemon=True).start()

    def forget(self, link: "Conversation") -> None:
        with self.changed:
            self._links = [other for other in self._links if other is not link]
            self._streams = [stream for stream in self._streams if stream.link is not link]
            self.changed.notify_all()

    def unsubscribe(self, link: "Conversation", stream: int) -> None:
        with self.changed:
            self._streams = [one for one in self._streams if (one.link, one.stream) != (link, stream)]
            self.changed.notify_all()

    def admit(self, token: str) -> Component | None:
        with self.changed:
            self.connections += 1
            self.changed.notify_all()
            return self._tokens.get(token)

    # --- operations --------------------------------------------------------------------------------------------------

    def call(self, link: "Conversation", component: Component, stream: int, operation: str, request: Json) -> None:
        """Answer one request."""
        with self.changed:
            self.operations.append(operation)
            handler = getattr(self, "_on_" + re.sub(r"(?<!^)(?=[A-Z])", "_", operation).lower(), None)
            after: Callable[[], None] | None = None
            try:
                if handler is None or (self.profile == "lite" and operation not in LITE_OPERATIONS):
                    raise RefusedError("ServiceError")
                response, after = handler(component, request, link, stream)
            except RefusedError as error:
                link.refuse(stream, str(error))
            else:
                link.answer(stream, operation + "Response", response)
                if after is not None:
                    after()
            self.changed.notify_all()

    def _subscribe(self, kind: str, topic: str, stream: int, link: "Conversation") -> Callable[[], None]:
        if self.profile == "lite" and len(self._streams) >= LITE_SUBSCRIPTIONS:
            raise RefusedError("ServiceError")
        if kind == self.stays_deaf:
            return lambda: None
        return lambda: self._streams.append(Stream(kind, topic, stream, link))

    def _on_subscribe_to_topic(self, component: Component, request: Json, link: "Conversation", stream: int) -> Any:
        self._authorise(component, PUBSUB, "SubscribeToTopic", request["topic"])
        answer = {"topicName": request["topic"]} if self.profile == "classic" else {}
        return answer, self._subscribe("local", request["topic"], stream, link)

    def _on_publish_to_topic(self, component: Component, request: Json, *_: Any) -> Any:
        self._authorise(component, PUBSUB, "PublishToTopic", request["topic"])
        message = request["publishMessage"]
        if "binaryMessage" in message:
            payload = base64.b64decode(message["binaryMessage"]["message"])
            return {}, lambda: self._publish_topic(request["topic"], payload, None)
        content = message["jsonMessage"]["message"]
        return {}, lambda: self._publish_topic(request["topic"], json.dumps(content).encode(), content)

    def _on_subscribe_to_io_t_core(self, component: Component, request: Json, link: "Conversation", stream: int) -> Any:
        self._authorise(component, MQTT, "SubscribeToIoTCore", request["topicName"])
        return {}, self._subscribe("core", request["topicName"], stream, link)

    def _on_publish_to_io_t_core(self, component: Component, request: Json, *_: Any) -> Any:
        topic, payload = request["topicName"], base64.b64decode(request.get("payload", ""))
        self._authorise(component, MQTT, "PublishToIoTCore", topic)
        limit = LITE_CORE_PAYLOAD if self.profile == "lite" else CLASSIC_CORE_PAYLOAD
        if len(payload) > limit:
            raise RefusedError("ServiceError")
        if self._away and (self.profile == "lite" or str(request["qos"]) == "0"):
            raise RefusedError("ServiceError")
        if self._away:
            self._spool.append((topic, payload))
            return {}, None
        return {}, lambda: self._publish_core(topic, payload)

    def _on_get_configuration(self, component: Component, request: Json, *_: Any) -> Any:
        owner = self.components[request.get("componentName") or component.name]
        value: Any = owner.configuration
        path = request.get("keyPath") or []
        for key in path:
            if not isinstance(value, dict) or key not in value:
                raise RefusedError("ResourceNotFoundError")
            value = value[key]
        return {"componentName": owner.name, "value": value if isinstance(value, dict) else {path[-1]: value}}, None

    def _on_subscribe_to_configuration_update(
        self, component: Component, request: Json, link: "Conversation", stream: int
    ) -> Any:
        return {}, self._subscribe("config", request.get("componentName") or component.name, stream, link)

    def _on_update_state(self, component: Component, request: Json, *_: Any) -> Any:
        component.states.append(request["state"])
        return {}, None

    def _on_subscribe_to_component_updates(
        self, component: Component, _request: Json, link: "Conversation", stream: int
    ) -> Any:
        return {}, self._subscribe("updates", component.name, stream, link)

    def _on_defer_component_update(self, _component: Component, request: Json, *_: Any) -> Any:
        self.deferred.append(request)
        return {}, None

    def _on_subscribe_to_io_t_core_connection_status(
        self, component: Component, _request: Json, link: "Conversation", stream: int
    ) -> Any:
        subscribe = self._subscribe("status", component.name, stream, link)

        def tell() -> None:
            subscribe()
            self._tell_status()

        return {}, tell

    def _on_update_thing_shadow(self, component: Component, request: Json, *_: Any) -> Any:
        name = request.get("shadowName") or ""
        topic = f"$aws/things/{request['thingName']}/shadow" + (f"/name/{name}" if name else "")
        self._authorise(component, SHADOW, "UpdateThingShadow", topic)
        self.shadows[name] = base64.b64decode(request["payload"])
        return {"payload": request["payload"]}, None

    # --- delivery ----------------------------------------------------------------------------------------------------

    def _publish_topic(self, topic: str, payload: bytes, content: Any) -> None:
        self.local.append((topic, payload))
        kind = "binaryMessage" if content is None else "jsonMessage"
        body = base64.b64encode(payload).decode() if content is None else content
        event = {kind: {"message": body, "context": {"topic": topic}}}
        self._emit("local", lambda one: matches(one.topic, topic), "SubscriptionResponseMessage", event)
        self.changed.notify_all()

    def _publish_core(self, topic: str, payload: bytes) -> None:
        self.core.append((topic, payload))
        event = {"message": {"topicName": topic, "payload": base64.b64encode(payload).decode()}}
        self._emit("core", lambda one: matches(one.topic, topic), "IoTCoreMessage", event)
        self.changed.notify_all()

    def _tell_status(self) -> None:
        event = {"connectionStatusEvent": {"status": "DISCONNECTED" if self._away else "CONNECTED"}}
        self._emit("status", lambda _stream: True, "IoTCoreConnectionStatusEvent", event)

    def _emit(self, kind: str, wanted: Callable[[Stream], bool], shape: str, event: Json) -> None:
        for stream in list(self._streams):
            if stream.kind == kind and wanted(stream):
                stream.link.answer(stream.stream, shape, event)

    # --- authorisation -----------------------------------------------------------------------------------------------

    def _authorise(self, component: Component, service: str, operation: str, topic: str) -> None:
        for policy in component.access.get(service, {}).values():
            if not {operation, f"aws.greengrass#{operation}", "*"} & set(policy["operations"]):
                continue
            for resource in policy["resources"]:
                if self._allows(service, resource.replace("{iot:thingName}", self.thing), topic):
                    return
        raise RefusedError("UnauthorizedError")

    def _allows(self, service: str, resource: str, topic: str) -> bool:
        if "?" in resource.replace("${?}", ""):
            return False
        if resource == topic or (service == MQTT and matches(resource, topic) and not set("+#") & set(topic)):
            return True
        pieces = re.split(r"(\$\{[*?$]\}|\*)", resource)
        pattern = "".join(
            ".*" if piece == "*" else re.escape(piece.strip("${}") if "${" in piece else piece) for piece in pieces
        )
        return re.fullmatch(pattern, topic) is not None


class Conversation:
    """One connection."""

    _numbers = itertools.count(1)

    def __init__(self, nucleus: Nucleus, connection: socket.socket) -> None:
        self.number = next(self._numbers)
        self._nucleus = nucleus
        self._connection = connection
        self._component: Component | None = None
        self._lock = threading.Lock()

    def run(self) -> None:
        try:
            while (data := self._read()) is not None:
                self._handle(wire.parse(data))
        except (OSError, ValueError, HangUpError):
            pass
        finally:
            self._nucleus.forget(self)
            self.hang_up()

    def hang_up(self) -> None:
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()

    def answer(self, stream: int, shape: str, content: Json) -> None:
        """A response or an event."""
        data = wire.frame(
            wire.MESSAGE,
            0,
            stream,
            json.dumps(content).encode(),
            content_type="application/json",
            service_model_type=f"aws.greengrass#{shape}",
        )
        self._send(data)

    def refuse(self, stream: int, shape: str) -> None:
        """An error; lite's has no message."""
        body = {"_message": "", "_errorCode": shape}
        if self._nucleus.profile == "classic":
            body |= {"message": f"{shape} from the stand-in", "_service": "aws.greengrass#GreengrassCoreIPC"}
        data = wire.frame(
            wire.ERROR,
            wire.TERMINATE,
            stream,
            json.dumps(body).encode(),
            content_type="application/json",
            service_model_type=f"aws.greengrass#{shape}",
        )
        self._send(data)

    def _send(self, data: bytes) -> None:
        if self._nucleus.profile == "lite" and len(data) > LITE_FRAME:
            self.hang_up()
            return
        with self._lock, contextlib.suppress(OSError):
            self._connection.sendall(data)

    def _read(self) -> bytes | None:
        prelude = self._read_exactly(12)
        if prelude is None:
            return None
        length = wire.length_of(prelude)
        if self._nucleus.profile == "lite" and length > LITE_FRAME:
            raise HangUpError
        rest = self._read_exactly(length - 12)
        return None if rest is None else prelude + rest

    def _read_exactly(self, size: int) -> bytes | None:
        parts = bytearray()
        while len(parts) < size:
            part = self._connection.recv(size - len(parts))
            if not part:
                return None
            parts += part
        return bytes(parts)

    def _handle(self, frame: wire.Frame) -> None:
        if frame.type == wire.CONNECT:
            self._connect(json.loads(frame.payload))
        elif frame.type == wire.PING:
            self._send(wire.frame(wire.PING_RESPONSE, 0, 0, frame.payload))
        elif frame.type == wire.MESSAGE and frame.flags & wire.TERMINATE:
            self._nucleus.unsubscribe(self, frame.stream)
        elif frame.type == wire.MESSAGE and self._component is not None:
            operation = str(frame.headers["operation"]).removeprefix("aws.greengrass#")
            self._nucleus.call(self, self._component, frame.stream, operation, json.loads(frame.payload or b"{}"))
        else:
            raise HangUpError

    def _connect(self, request: Json) -> None:
        self._component = self._nucleus.admit(request.get("authToken", ""))
        if self._component is not None:
            self._send(wire.frame(wire.CONNECT_ACK, wire.ACCEPTED, 0))
            return
        if self._nucleus.profile == "classic":
            self._send(wire.frame(wire.CONNECT_ACK, 0, 0))
        raise HangUpError


def _merge(target: Json, merge: Json, path: tuple[str, ...] = ()) -> list[list[str]]:
    changed: list[list[str]] = []
    for key, value in merge.items():
        if isinstance(value, dict) and isinstance(target.get(key), dict):
            changed += _merge(target[key], value, (*path, key))
        elif target.get(key) != value:
            target[key] = value
            changed.append([*path, key])
    return changed
