"""
What operators ask and do over HTTP, beside AWS's operations: alarms of every kind, detectors, actions, the audit trail.

``/wheeltapper/…`` answers JSON. Whoever may call the AWS operations may call these, signed for the service ``iotevents``;
the name under which an act is recorded is the access key's, or, where no key is needed, the one that the caller gives.
"""

import functools
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from wheeltapper.errors import WheeltapperError
from wheeltapper.judge import ActionRecord, AlarmOperation, AlarmRecord, Judge
from wheeltapper_cloud.guard import Guard
from wheeltapper_cloud.iotevents import service_error
from wheeltapper_cloud.signature import SignedRequest
from wheeltapper_cloud.wire import ServiceError

_SERVICE = "iotevents"
_LIMIT = 1000
_BODY_LIMIT = 64 * 1024
_OPERATIONS = {"ack": "acknowledge", "snooze": "snooze", "disable": "disable", "enable": "enable", "reset": "reset"}
_STATUSES = ("pending", "delivered", "undelivered", "failed", "parked")

_encode = msgspec.json.Encoder().encode

Answer = Callable[["Asked"], Any]


class Asked(msgspec.Struct):
    """A request that was let in."""

    path: dict[str, str]
    query: Mapping[str, str]
    body: dict[str, Any]
    by: str

    @property
    def who(self) -> str:
        """
        Under which name an act is recorded.

        Raises:
            ServiceError: neither an access key nor the caller says.
        """
        name = self.by or self.body.get("by")
        if not isinstance(name, str) or not 0 < len(name) <= 128:
            raise ServiceError("InvalidRequestException", "say who acts: by must be a name of 1 to 128 characters")
        return name

    @property
    def note(self) -> str:
        """Why, at most 256 characters."""
        note = self.body.get("note", "")
        if not isinstance(note, str) or len(note) > 256:
            raise ServiceError("InvalidRequestException", "note must be a text of at most 256 characters")
        return note

    @property
    def limit(self) -> int:
        """How many entries are wanted at the most."""
        text = self.query.get("limit", "250")
        if not text.isdigit() or not 0 < int(text) <= _LIMIT:
            raise ServiceError("InvalidRequestException", f"limit must be a number from 1 to {_LIMIT}")
        return int(text)


class OperationsApi:
    """The answers."""

    def __init__(self, judge: Judge, guard: Guard) -> None:
        self._judge = judge
        self._guard = guard

    def routes(self) -> list[Route]:
        """For the server to serve before AWS's operations."""
        table: list[tuple[str, str, Answer]] = [
            ("GET", "/wheeltapper/alarms", self.alarms),
            ("GET", "/wheeltapper/alarms/{id}", self.alarm),
            ("POST", "/wheeltapper/alarms/{id}/{operation}", self.operate),
            ("GET", "/wheeltapper/models", self.models),
            ("GET", "/wheeltapper/detectors/{model}", self.detectors),
            ("GET", "/wheeltapper/detectors/{model}/{key}", self.detector),
            ("GET", "/wheeltapper/actions", self.actions),
            ("POST", "/wheeltapper/actions/replay", self.replay),
            ("GET", "/wheeltapper/audit", self.audit),
        ]
        return [Route(path, self._endpoint(answer), methods=[method]) for method, path, answer in table]

    def alarms(self, asked: Asked) -> Any:
        closed = asked.query.get("closed") == "true"
        return {"alarms": [_alarm(found) for found in self._judge.raised_alarms(closed=closed, limit=asked.limit)]}

    def alarm(self, asked: Asked) -> Any:
        return _alarm(self._found(asked.path["id"]))

    def operate(self, asked: Asked) -> Any:
        """Alarms of alarm models change their state, as over AWS's API; those of detector models can be acknowledged."""
        operation = _OPERATIONS.get(asked.path["operation"])
        if operation is None:
            raise ServiceError("InvalidRequestException", f"operation must be one of {', '.join(_OPERATIONS)}")
        found = self._found(asked.path["id"])
        if self._judge.alarm(found.model, found.key) is not None:
            self._operate_model(asked, found, operation)
        elif operation == "acknowledge":
            self._judge.acknowledge(found.id, by=asked.who, note=asked.note)
        else:
            raise ServiceError(
                "InvalidRequestException",
                f"{found.model} is a detector model: its alarms can be acknowledged; only its own inputs change its state",
            )
        return _alarm(self._found(found.id))

    def _operate_model(self, asked: Asked, found: AlarmRecord, operation: Any) -> None:
        snooze_s = asked.body.get("snooze_s")
        if operation == "snooze" and not (isinstance(snooze_s, int) and 0 < snooze_s <= 31_622_400):
            raise ServiceError("InvalidRequestException", "snooze_s must be a number of seconds from 1 to 31622400")
        wanted = AlarmOperation(
            model=found.model,
            key=found.key,
            operation=operation,
            snooze_s=snooze_s if operation == "snooze" else None,
            note=asked.note,
            by=asked.who,
        )
        refused = self._judge.operate_alarms([wanted])
        if refused:
            raise ServiceError("InvalidRequestException", refused[0].detail)

    def models(self, asked: Asked) -> Any:
        return {
            "models": [
                {"name": found.name, "version": found.version, "kind": found.kind}
                for found in self._judge.deployments()
            ]
        }

    def detectors(self, asked: Asked) -> Any:
        state, after = asked.query.get("state"), asked.query.get("after")
        model = asked.path["model"]
        return {"detectors": self._judge.detectors(model, state=state, after=after, limit=asked.limit)}

    def detector(self, asked: Asked) -> Any:
        model, key = asked.path["model"], asked.path["key"]
        found = self._judge.detector(model, "" if key == "-" else key) or self._judge.detector(model, key)
        if found is None:
            raise ServiceError("ResourceNotFoundException", f"detector {model}/{key}: does not exist")
        return found

    def actions(self, asked: Asked) -> Any:
        wanted: list[Any] = [each for each in asked.query.get("status", "").split(",") if each]
        if not set(wanted) <= set(_STATUSES):
            raise ServiceError("InvalidRequestException", f"status must be of {', '.join(_STATUSES)}")
        return {"actions": [_action(found) for found in self._judge.actions(wanted, limit=asked.limit)]}

    def replay(self, asked: Asked) -> Any:
        ids = asked.body.get("ids")
        if ids is None:
            statuses: list[Any] = ["parked"]
            ids = [found.action.id for found in self._judge.actions(statuses, limit=100_000)]
        if not isinstance(ids, list) or not all(isinstance(each, str) for each in ids):
            raise ServiceError("InvalidRequestException", "ids must be a list of actions' ids")
        return {"replayed": self._judge.replay_actions(ids, by=asked.who)}

    def audit(self, asked: Asked) -> Any:
        return {"audit": self._judge.audit_trail(limit=asked.limit)}

    def _found(self, alarm_id: str) -> AlarmRecord:
        found = self._judge.raised_alarm(alarm_id)
        if found is None:
            raise ServiceError("ResourceNotFoundException", f"alarm {alarm_id}: does not exist")
        return found

    def _endpoint(self, answer: Answer) -> Callable[[Request], Awaitable[Response]]:
        return functools.partial(self._answered, answer)

    async def _answered(self, answer: Answer, request: Request) -> Response:
        try:
            asked = await self._admitted(request)
            content = _encode(await run_in_threadpool(answer, asked))
            return Response(content, media_type="application/json")
        except (ServiceError, WheeltapperError) as error:
            refusal = service_error(error)
            return Response(refusal.body(), refusal.status, media_type="application/json")

    async def _admitted(self, request: Request) -> Asked:
        body = b"".join([part async for part in _limited(request)])
        raw = request.scope.get("raw_path") or request.url.path.encode()
        signed = SignedRequest(
            request.method,
            cast(bytes, raw).decode("latin-1").partition("?")[0],
            request.scope["query_string"].decode("latin-1"),
            request.scope["headers"],
            body,
        )
        by = self._guard.admit(signed, _SERVICE)
        try:
            content = msgspec.json.decode(body or b"{}", type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError) as error:
            raise ServiceError("InvalidRequestException", f"the body must be a JSON object: {error}") from error
        return Asked(dict(request.path_params), request.query_params, content, by)


async def _limited(request: Request) -> Any:
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > _BODY_LIMIT:
            raise ServiceError("InvalidRequestException", f"the body exceeds {_BODY_LIMIT} bytes")
        yield part


def _alarm(found: AlarmRecord) -> dict[str, Any]:
    content = msgspec.structs.asdict(found)
    content["alarm"] = content.pop("body")
    content.pop("sequence")
    return content


def _action(found: ActionRecord) -> dict[str, Any]:
    content = msgspec.structs.asdict(found)
    action = msgspec.structs.asdict(content.pop("action"))
    action["payload"] = action["payload"].decode("utf-8", "replace")
    return {**action, **content}
