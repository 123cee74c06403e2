"""
What operators ask and do over HTTP, beside AWS's operations: alarms of every kind, detectors, actions, the audit trail.

``/wheeltapper/…`` answers JSON. Whoever may call the AWS operations may call these, signed for the service ``iotevents``;
the name under which an act is recorded is the access key's, or, where no key is needed, the one that the caller gives.
"""

import functools
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from wheeltapper.detector.handle import Kind
from wheeltapper.judge import (
    ActionRecord,
    AlarmOperation,
    AlarmRecord,
    AlarmView,
    Deployment,
    Judge,
    Refusal,
    ShelfOperation,
    Shelved,
)
from wheeltapper.messages import Alarm
from wheeltapper_cloud.guard import Guard
from wheeltapper_cloud.iotevents import service_error
from wheeltapper_cloud.received import is_unread, read_body, signed_request
from wheeltapper_cloud.records import Records
from wheeltapper_cloud.wire import ServiceError

_SERVICE = "iotevents"
_LIMIT = 1000
_BODY_LIMIT = 64 * 1024
_LONGEST_S = 31_622_400
_SNOOZED, _DISABLED = "SNOOZE_DISABLED", "DISABLED"
# An operator's word, and AWS's for what is done; AWS has no word for unshelve.
_OPERATIONS = {
    "ack": "acknowledge",
    "shelve": "snooze",
    "unshelve": "unshelve",
    "snooze": "snooze",
    "disable": "disable",
    "enable": "enable",
    "reset": "reset",
}
_REPLAYED = ("parked", "failed", "undelivered")
_STATUSES = ("pending", "delivered", *_REPLAYED)
_KINDS: tuple[Kind, ...] = ("detector", "alarm")

_ON_NO_SHELF: dict[str, Any] = {
    "suppressed": None,
    "shelved_state": "",
    "shelved_ms": None,
    "shelved_until_ms": None,
    "shelved_by": "",
    "shelved_note": "",
}

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
    def snooze_s(self) -> int:
        """For how long."""
        seconds = self.body.get("snooze_s")
        if type(seconds) is not int or not 0 < seconds <= _LONGEST_S:
            raise ServiceError(
                "InvalidRequestException",
                f"snooze_s must be a number of seconds from 1 to {_LONGEST_S}, which is 366 d; disable has no end",
            )
        return seconds

    @property
    def limit(self) -> int:
        """How many entries are wanted at the most."""
        text = self.query.get("limit", "250")
        if not (text.isascii() and text.isdigit() and 0 < int(text[:9]) <= _LIMIT):
            raise ServiceError("InvalidRequestException", f"limit must be a number from 1 to {_LIMIT}")
        return int(text)


class _Keyed(msgspec.Struct):
    key: str | None = None


class _Flow(msgspec.Struct):
    enabled: bool = False


class _Capabilities(msgspec.Struct, rename="camel"):
    acknowledge_flow: _Flow | None = None


class _Capable(msgspec.Struct, rename="camel"):
    alarm_capabilities: _Capabilities | None = None


class OperationsApi:
    """The answers."""

    def __init__(self, judge: Judge, records: Records, guard: Guard) -> None:
        self._judge = judge
        self._records = records
        self._guard = guard

    def routes(self) -> list[Route]:
        """For the server to serve before AWS's operations."""
        table: list[tuple[str, str, Answer]] = [
            ("GET", "/wheeltapper/alarms", self.alarms),
            ("GET", "/wheeltapper/alarms/{id}", self.alarm),
            ("POST", "/wheeltapper/alarms/{id}/{operation}", self.operate),
            ("GET", "/wheeltapper/history/{machine:path}", self.history),
            ("GET", "/wheeltapper/shelf", self.shelf),
            ("GET", "/wheeltapper/models", self.models),
            ("POST", "/wheeltapper/models/{model}/{operation}", self.operate_key),
            ("GET", "/wheeltapper/detectors/{model}", self.detectors),
            ("GET", "/wheeltapper/detectors/{model}/{key:path}", self.detector),
            ("GET", "/wheeltapper/actions", self.actions),
            ("POST", "/wheeltapper/actions/replay", self.replay),
            ("GET", "/wheeltapper/audit", self.audit),
        ]
        return [Route(path, self._endpoint(answer), methods=[method]) for method, path, answer in table]

    def alarms(self, asked: Asked) -> Any:
        """Those that are open, shelved ones last; then, where they are wanted, those that are over, the newest first."""
        found = self._judge.raised_alarms(limit=asked.limit)
        if asked.query.get("closed") == "true":
            found += self._records.over(asked.limit - len(found))
        return {"alarms": [_alarm(each) for each in found]}

    def alarm(self, asked: Asked) -> Any:
        return _alarm(self._found(asked.path["id"]))

    def history(self, asked: Asked) -> Any:
        """Every alarm of a machine that is still remembered."""
        found = self._records.of(asked.path["machine"], asked.query.get("model", ""), asked.limit)
        return {"alarms": [_alarm(each) for each in found]}

    def shelf(self, _asked: Asked) -> Any:
        """What operators have shelved or taken out of service, whether it rings or not; what comes back soonest first."""
        return {"shelf": [_lying(each) for each in self._judge.shelf()]}

    def operate(self, asked: Asked) -> Any:
        """
        Alarms of alarm models change their state, as over AWS's API; those of detector models are laid aside beside it.

        An alarm whose model has no acknowledge flow has no state for it: that somebody has taken it up is put on record.
        """
        operation = _operation(asked)
        found = self._found(asked.path["id"])
        has_state = found.kind == "alarm" and self._judge.alarm(found.model, found.key) is not None
        if operation == "acknowledge" and not (
            has_state and _has_acknowledge_flow(self._deployed(found.model, "alarm"))
        ):
            self._judge.acknowledge(found.id, by=asked.who, note=asked.note)
        elif found.kind == "alarm":
            self._operate_model(asked, found.model, found.key, operation)
        else:
            state = _raised_in(found)
            self._operate_detector(asked, found.model, found.key, operation, state)
            lying = [each for each in self._lying_of(found.handle, found.key) if each.state in ("", state)]
            # One that is over lies there as well, for when it comes again.
            return {**_alarm(self._found(found.id)), **_shelving(lying[0] if lying else None)}
        return _alarm(self._found(found.id))

    def operate_key(self, asked: Asked) -> Any:
        """An alarm, whether it has ever been raised or not: of an alarm model; else every alarm of a detector."""
        model = self._deployed(asked.path["model"], *_kinds(asked.body.get("kind", ""))[::-1])
        operation, key = _operation(asked), asked.body.get("key", "")
        if not isinstance(key, str):
            raise ServiceError("InvalidRequestException", "key must be a text")
        if model.kind == "alarm":
            self._operate_model(asked, model.name, key, operation)
            return self._judge.alarm(model.name, key)
        self._operate_detector(asked, model.name, key, operation)
        view, lying = self._judge.detector(model.name, key), self._lying_of(model.handle, key)
        return {
            "kind": model.kind,
            **({"model": model.name, "key": key, "state": ""} if view is None else msgspec.structs.asdict(view)),
            **_shelving(lying[0] if lying else None),
        }

    def _operate_model(self, asked: Asked, model: str, key: str, operation: Any) -> None:
        if operation == "unshelve":
            view = self._judge.alarm(model, key)
            if view is not None and view.state != _SNOOZED:
                hint = "out of service; enable puts it back" if view.state == _DISABLED else "not shelved"
                raise ServiceError("InvalidRequestException", f"unshelve: {model} {key}".rstrip() + f" is {hint}")
            operation = "enable"
        wanted = AlarmOperation(
            model=model,
            key=key,
            operation=operation,
            snooze_s=asked.snooze_s if operation == "snooze" else None,
            note=asked.note,
            by=asked.who,
        )
        _check(self._judge.operate_alarms([wanted]))

    def _operate_detector(self, asked: Asked, model: str, key: str, operation: Any, state: str = "") -> None:
        if operation in ("acknowledge", "reset"):
            raise ServiceError(
                "InvalidRequestException",
                f"{model} is a detector model: only its own inputs change its state; an alarm that it has raised can be"
                " acknowledged by its id, shelved and taken out of service",
            )
        word: Any = "shelve" if operation == "snooze" else operation
        wanted = ShelfOperation(
            model=model,
            key=key,
            state=state,
            operation=word,
            for_s=asked.snooze_s if word == "shelve" else 0,
            note=asked.note,
            by=asked.who,
        )
        _check(filter(None, [self._judge.shelve(wanted)]))

    def models(self, asked: Asked) -> Any:
        return {
            "models": [
                {"name": found.name, "version": found.version, "kind": found.kind, "key": _key_of(found)}
                for found in self._judge.deployments()
            ]
        }

    def detectors(self, asked: Asked) -> Any:
        state, after = asked.query.get("state"), asked.query.get("after")
        model = self._deployed(asked.path["model"], *_kinds(asked.query.get("kind", "")))
        if model.kind == "alarm":
            return {"detectors": self._alarm_views(model.name, state, after, asked.limit)}
        return {"detectors": self._judge.detectors(model.name, state=state, after=after, limit=asked.limit)}

    def _alarm_views(self, model: str, state: str | None, after: str | None, limit: int) -> list[AlarmView]:
        found: list[AlarmView] = []
        while len(found) < limit:
            page = self._judge.alarms(model, after=after, limit=_LIMIT)
            found += [view for view in page if state in (None, view.state)]
            if len(page) < _LIMIT:
                break
            after = page[-1].key
        return found[:limit]

    def _lying_of(self, handle: str, key: str) -> list[Shelved]:
        return [each for each in self._judge.shelf() if (each.handle, each.key) == (handle, key)]

    def detector(self, asked: Asked) -> Any:
        """One detector or alarm, and what of it lies on the shelf."""
        model, key = self._deployed(asked.path["model"], *_kinds(asked.query.get("kind", ""))), asked.path["key"]
        look = self._judge.alarm if model.kind == "alarm" else self._judge.detector
        found = (look(model.name, "") if key == "-" else None) or look(model.name, key)
        if found is None:
            keyed = _key_of(model)
            if key == "-" and keyed:
                raise ServiceError(
                    "ResourceNotFoundException", f"model {model.name}: name a detector: the key is {keyed}"
                )
            raise ServiceError("ResourceNotFoundException", f"detector {model.name} {key}: does not exist")
        lying = self._lying_of(model.handle, found.key)
        return {**msgspec.structs.asdict(found), "shelf": [_lying(each) for each in lying]}

    def actions(self, asked: Asked) -> Any:
        wanted: list[Any] = [each for each in asked.query.get("status", "").split(",") if each]
        if not set(wanted) <= set(_STATUSES):
            raise ServiceError("InvalidRequestException", f"status must be of {', '.join(_STATUSES)}")
        return {"actions": [_action(found) for found in self._judge.actions(wanted, limit=asked.limit)]}

    def replay(self, asked: Asked) -> Any:
        """Those named, or all of some statuses; parked ones where nothing else is said."""
        ids = asked.body.get("ids")
        if ids is None:
            statuses: Any = asked.body.get("statuses", ["parked"])
            if not isinstance(statuses, list) or not statuses or not all(each in _REPLAYED for each in statuses):
                raise ServiceError("InvalidRequestException", f"statuses must be of {', '.join(_REPLAYED)}")
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

    def _deployed(self, name: str, *kinds: Kind) -> Deployment:
        """The model of a name: of the first of the kinds that there is."""
        found = {each.kind: each for each in self._judge.deployments() if each.name == name}
        for kind in kinds:
            if kind in found:
                return found[kind]
        raise ServiceError("ResourceNotFoundException", f"model {name}: is not in force")

    def _endpoint(self, answer: Answer) -> Callable[[Request], Awaitable[Response]]:
        return functools.partial(self._answered, answer)

    async def _answered(self, answer: Answer, request: Request) -> Response:
        try:
            asked = await self._admitted(request)
            content = _encode(await run_in_threadpool(answer, asked))
            return Response(content, media_type="application/json")
        except ClientDisconnect:
            return Response()
        except Exception as error:  # the edge of a request: every failure is an answer
            refusal = service_error(error)
            headers = {"connection": "close"} if is_unread(refusal) else None
            return Response(refusal.body(), refusal.status, headers, media_type="application/json")

    async def _admitted(self, request: Request) -> Asked:
        body = await read_body(request.scope, request.receive, _BODY_LIMIT)
        by = self._guard.admit(signed_request(request.scope, body), _SERVICE)
        try:
            content = msgspec.json.decode(body or b"{}", type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError) as error:
            raise ServiceError("InvalidRequestException", f"the body must be a JSON object: {error}") from error
        return Asked(dict(request.path_params), request.query_params, content, by)


def _operation(asked: Asked) -> Any:
    operation = _OPERATIONS.get(asked.path["operation"])
    if operation is None:
        raise ServiceError("InvalidRequestException", f"operation must be one of {', '.join(_OPERATIONS)}")
    return operation


def _check(refused: Iterable[Refusal]) -> None:
    for each in refused:
        code = "ResourceNotFoundException" if each.reason == "not found" else "InvalidRequestException"
        raise ServiceError(code, each.detail)


def _kinds(wanted: Any) -> tuple[Kind, ...]:
    """Which kinds of model are meant, detector models first."""
    if wanted not in ("", *_KINDS):
        raise ServiceError("InvalidRequestException", f"kind must be one of {', '.join(_KINDS)}")
    return tuple(kind for kind in _KINDS if wanted in ("", kind))


def _key_of(model: Deployment) -> str:
    return msgspec.json.decode(model.body, type=_Keyed).key or ""


def _has_acknowledge_flow(model: Deployment) -> bool:
    capabilities = msgspec.json.decode(model.body, type=_Capable).alarm_capabilities
    flow = None if capabilities is None else capabilities.acknowledge_flow
    return flow is not None and flow.enabled


def _alarm(found: AlarmRecord) -> dict[str, Any]:
    """An alarm as it stands, and who has shelved it until when; ``note`` is the one of whoever did something last."""
    content = msgspec.structs.asdict(found)
    content["alarm"] = content.pop("body")
    del content["sequence"], content["shelved"]
    shelving = _shelving(found.shelved)
    if found.state == _SNOOZED and found.cleared_ms is None:
        shelving = {**shelving, "suppressed": "shelved"}
    note = found.note if found.shelved is None else found.shelved.note
    return {**content, **shelving, "note": note, "acknowledged_note": found.note}


def _raised_in(found: AlarmRecord) -> str:
    """The state that is the alarm; one that is over has gone on to another."""
    return msgspec.json.decode(found.body, type=Alarm).state


def _shelving(lying: Shelved | None) -> dict[str, Any]:
    if lying is None:
        return _ON_NO_SHELF
    return {
        "suppressed": "out_of_service" if lying.until_ms is None else "shelved",
        "shelved_state": lying.state,
        "shelved_ms": lying.since_ms,
        "shelved_until_ms": lying.until_ms,
        "shelved_by": lying.by,
        "shelved_note": lying.note,
    }


def _lying(entry: Shelved) -> dict[str, Any]:
    return {"kind": entry.kind, "model": entry.model, "key": entry.key, "state": entry.state, **_shelving(entry)}


def _action(found: ActionRecord) -> dict[str, Any]:
    content = msgspec.structs.asdict(found)
    action = msgspec.structs.asdict(content.pop("action"))
    action["payload"] = action["payload"].decode("utf-8", "replace")
    return {**action, **content}
