"""The data plane: messages, detectors, alarms; one method per operation."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

from wheeltapper.detector.expression import Literal, show
from wheeltapper.errors import DefinitionError, UnavailableError
from wheeltapper.judge import AlarmOperation, AlarmView, DetectorUpdate, DetectorView, Message, Refusal
from wheeltapper_cloud.iotevents_account import Account, Call, after_token, cut_page, not_found, page_size
from wheeltapper_cloud.store import Kind, Resource
from wheeltapper_cloud.wire import ServiceError

ALARM_BATCH = 10
LONGEST_TIMER_S = 31_622_400

_CODES = {
    "not found": "ResourceNotFoundException",
    "invalid": "InvalidRequestException",
    "unavailable": "ServiceUnavailableException",
}

Entry = dict[str, Any]


class Messages:
    """Messages for inputs."""

    def __init__(self, account: Account) -> None:
        self._account = account

    async def batch_put_message(self, call: Call) -> dict[str, Any]:
        """Answered when every message that was taken is durable and applied; waits without holding a thread."""
        entries: list[Entry] = call.request["messages"]
        limits = self._account.settings.limits
        _check_batch(entries, "messageId", limits.batch)
        most = limits.message_bytes
        taken, refusals = [], []
        for place, entry in enumerate(entries):
            if most and len(entry["payload"]) > most:
                refusals.append(Refusal(place, "invalid", f"Message payload exceeds the limit {most} bytes"))
            else:
                taken.append(place)
        found = await self._submitted([_message(entries[place]) for place in taken]) if taken else []
        refusals += [_of_message(entries, Refusal(taken[one.index], one.reason, one.detail)) for one in found]
        return {"BatchPutMessageErrorEntries": _error_entries(entries, refusals, "messageId")}

    async def _submitted(self, messages: list[Message]) -> Sequence[Refusal]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Sequence[Refusal]] = loop.create_future()

        def settle(refusals: Sequence[Refusal]) -> None:
            if not future.done():
                future.set_result(refusals)

        def done(refusals: Sequence[Refusal]) -> None:
            with contextlib.suppress(RuntimeError):  # the server has stopped and its loop is closed
                loop.call_soon_threadsafe(settle, refusals)

        self._account.judge.submit(messages, done)
        return await future


class Detectors:
    """The operations on detectors."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._judge = account.judge

    def describe_detector(self, call: Call) -> dict[str, Any]:
        model, key = call.request["detectorModelName"], call.request.get("keyValue", "")
        found = self._judge.detector(model, key)
        if found is None:
            raise _no_instance(self._account, "detectorModel", call.request)
        return {"detector": _detector(found)}

    def list_detectors(self, call: Call) -> dict[str, Any]:
        model = call.request["detectorModelName"]
        self._account.resource("detectorModel", model)
        after = after_token("ListDetectors", call.request) if call.request.get("nextToken") else None
        state, limit = call.request.get("stateName"), page_size(call.request) + 1
        found = self._judge.detectors(model, state=state, after=after, limit=limit)
        page, token = cut_page("ListDetectors", call.request, found, "key")
        return {"detectorSummaries": [_detector_summary(one) for one in page], **token}

    def batch_update_detector(self, call: Call) -> dict[str, Any]:
        entries: list[Entry] = call.request["detectors"]
        _check_batch(entries, "messageId")
        model = _models(self._account, "detectorModel")
        refusals = _apply(
            entries,
            lambda entry: _update(entry, model(entry["detectorModelName"])),
            lambda updates: self._judge.update_detectors(updates, by=call.by),
        )
        return {"batchUpdateDetectorErrorEntries": _error_entries(entries, refusals, "messageId")}

    def batch_delete_detector(self, call: Call) -> dict[str, Any]:
        entries: list[Entry] = call.request["detectors"]
        _check_batch(entries, "messageId")
        model = _models(self._account, "detectorModel")
        refusals = _apply(
            entries,
            lambda entry: (model(entry["detectorModelName"]).name, entry.get("keyValue", "")),
            lambda targets: self._judge.delete_detectors(targets, by=call.by),
        )
        return {"batchDeleteDetectorErrorEntries": _error_entries(entries, refusals, "messageId")}


class Alarms:
    """The operations on alarms."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._judge = account.judge

    def describe_alarm(self, call: Call) -> dict[str, Any]:
        model, key = call.request["alarmModelName"], call.request.get("keyValue", "")
        found = self._judge.alarm(model, key)
        if found is None:
            raise _no_instance(self._account, "alarmModel", call.request)
        return {"alarm": _alarm(found)}

    def list_alarms(self, call: Call) -> dict[str, Any]:
        model = call.request["alarmModelName"]
        self._account.resource("alarmModel", model)
        after = after_token("ListAlarms", call.request) if call.request.get("nextToken") else None
        found = self._judge.alarms(model, after=after, limit=page_size(call.request) + 1)
        page, token = cut_page("ListAlarms", call.request, found, "key")
        return {"alarmSummaries": [_alarm_head(one) | {"stateName": one.state} for one in page], **token}

    def batch_acknowledge_alarm(self, call: Call) -> dict[str, Any]:
        return self._operate(call, "acknowledge")

    def batch_disable_alarm(self, call: Call) -> dict[str, Any]:
        return self._operate(call, "disable")

    def batch_enable_alarm(self, call: Call) -> dict[str, Any]:
        return self._operate(call, "enable")

    def batch_reset_alarm(self, call: Call) -> dict[str, Any]:
        return self._operate(call, "reset")

    def batch_snooze_alarm(self, call: Call) -> dict[str, Any]:
        return self._operate(call, "snooze")

    def _operate(self, call: Call, operation: Any) -> dict[str, Any]:
        entries: list[Entry] = call.request[f"{operation}ActionRequests"]
        _check_batch(entries, "requestId", ALARM_BATCH)
        model = _models(self._account, "alarmModel")

        def operation_of(entry: Entry) -> AlarmOperation:
            snooze_s = entry.get("snoozeDuration")
            if snooze_s is not None and not 0 < snooze_s <= LONGEST_TIMER_S:
                raise DefinitionError(f"snoozeDuration must be 1 to {LONGEST_TIMER_S} seconds")
            return AlarmOperation(
                model=model(entry["alarmModelName"]).name,
                key=entry.get("keyValue", ""),
                operation=operation,
                snooze_s=snooze_s,
                note=entry.get("note", ""),
                by=call.by,
            )

        refusals = _apply(entries, operation_of, self._judge.operate_alarms)
        return {"errorEntries": _error_entries(entries, refusals, "requestId")}


def _check_batch(entries: list[Entry], id_member: str, most: int = 0) -> None:
    if most and len(entries) > most:
        raise ServiceError("InvalidRequestException", f"Number of entries in the batch exceeds the limit {most}")
    if len({entry[id_member] for entry in entries}) != len(entries):
        raise ServiceError("InvalidRequestException", f"Every {id_member} must be unique within the batch")


def _models(account: Account, kind: Kind) -> Callable[[str], Resource]:
    """Finds models by name, each once, or raises ``not_found``."""
    return cache(partial(account.resource, kind))


def _apply(
    entries: list[Entry], made: Callable[[Entry], Any], act: Callable[[Sequence[Any]], Sequence[Refusal]]
) -> list[Refusal]:
    """Act on every entry that can be made into what the judge takes; refuse the others."""
    refusals, places, wanted = [], [], []
    for place, entry in enumerate(entries):
        try:
            wanted.append(made(entry))
            places.append(place)
        except ServiceError as error:
            refusals.append(Refusal(place, "not found", error.message))
        except DefinitionError as error:
            refusals.append(Refusal(place, "invalid", str(error)))
    for refusal in act(wanted) if wanted else ():
        place = places[refusal.index]
        detail = _absent(entries[place]) if refusal.reason == "not found" else refusal.detail
        refusals.append(Refusal(place, refusal.reason, detail))
    return refusals


def _error_entries(entries: list[Entry], refusals: Sequence[Refusal], id_member: str) -> list[dict[str, str]]:
    if refusals and len(refusals) == len(entries) and all(refusal.reason == "unavailable" for refusal in refusals):
        raise UnavailableError(refusals[0].detail)
    return [
        {
            id_member: entries[refusal.index][id_member],
            "errorCode": _CODES[refusal.reason],
            "errorMessage": refusal.detail,
        }
        for refusal in sorted(refusals, key=lambda refusal: refusal.index)
    ]


def _of_message(entries: list[Entry], refusal: Refusal) -> Refusal:
    if refusal.reason != "unknown input":
        return refusal
    return Refusal(refusal.index, "not found", not_found("input", entries[refusal.index]["inputName"]).message)


def _message(entry: Entry) -> Message:
    time_ms = entry.get("timestamp", {}).get("timeInMillis")
    return Message(entry["inputName"], entry["payload"], entry["messageId"], time_ms)


def _update(entry: Entry, model: Resource) -> DetectorUpdate:
    if ("key" in model.body) != ("keyValue" in entry):
        needs = (
            f"has the key {model.body['key']!r}: give keyValue" if "key" in model.body else "has no key: omit keyValue"
        )
        raise DefinitionError(f"detector model {model.name!r} {needs}")
    state = entry["state"]
    for timer in state["timers"]:
        if not 0 < timer["seconds"] <= LONGEST_TIMER_S:
            raise DefinitionError(f"timer '{timer['name']}' must run for 1 to {LONGEST_TIMER_S} seconds")
    return DetectorUpdate(
        model=model.name,
        key=entry.get("keyValue", ""),
        state=state["stateName"],
        variables={variable["name"]: variable["value"] for variable in state["variables"]},
        timers={timer["name"]: timer["seconds"] for timer in state["timers"]},
    )


def _no_instance(account: Account, kind: Kind, entry: Entry) -> ServiceError:
    name = entry[f"{kind}Name"]
    if account.store.get(kind, name) is None:
        return not_found(kind, name)
    return ServiceError("ResourceNotFoundException", _absent(entry))


def _absent(entry: Entry) -> str:
    """What is said of a detector or an alarm that a request names and that is not there."""
    what, model = (
        ("Detector", entry["detectorModelName"]) if "detectorModelName" in entry else ("Alarm", entry["alarmModelName"])
    )
    of_key = f" and key value: {entry['keyValue']}" if "keyValue" in entry else ""
    return f"{what} of model: {model}{of_key} not found"


def _detector_head(found: DetectorView) -> dict[str, Any]:
    head = {
        "detectorModelName": found.model,
        "detectorModelVersion": found.version,
        "creationTime": found.created_ms,
        "lastUpdateTime": found.updated_ms,
    }
    return head | ({"keyValue": found.key} if found.key else {})


def _detector_summary(found: DetectorView) -> dict[str, Any]:
    return _detector_head(found) | {"state": {"stateName": found.state}}


def _detector(found: DetectorView) -> dict[str, Any]:
    return _detector_head(found) | {
        "state": {
            "stateName": found.state,
            "variables": [{"name": name, "value": show(Literal(value))} for name, value in found.variables.items()],
            "timers": [{"name": name, "timestamp": expiry_ms} for name, expiry_ms in found.timers.items()],
        }
    }


def _alarm_head(found: AlarmView) -> dict[str, Any]:
    head = {
        "alarmModelName": found.model,
        "alarmModelVersion": found.version,
        "creationTime": found.created_ms,
        "lastUpdateTime": found.updated_ms,
    }
    return head | ({"keyValue": found.key} if found.key else {})


def _alarm(found: AlarmView) -> dict[str, Any]:
    alarm = _alarm_head(found) | {"alarmState": _alarm_state(found)}
    return alarm | ({"severity": found.severity} if found.severity is not None else {})


def _alarm_state(found: AlarmView) -> dict[str, Any]:
    state: dict[str, Any] = {"stateName": found.state}
    if found.rule is not None:
        state["ruleEvaluation"] = {"simpleRuleEvaluation": _rule(found.rule)}
    if found.customer_action is not None:
        state["customerAction"] = _customer_action(found.customer_action)
    if found.system_event is not None:
        change = {"triggerType": found.system_event}
        state["systemEvent"] = {"eventType": "STATE_CHANGE", "stateChangeConfiguration": change}
    return state


def _rule(rule: dict[str, Any]) -> dict[str, str]:
    """The values that the API spells as text."""
    return {
        "inputPropertyValue": _text(rule["inputProperty"]),
        "operator": rule["operator"],
        "thresholdValue": _text(rule["threshold"]),
    }


def _text(value: Any) -> str:
    return value if isinstance(value, str) else show(Literal(value))


def _customer_action(action: dict[str, Any]) -> dict[str, Any]:
    name = str(action["action"])
    configuration = {}
    if action.get("note"):
        configuration["note"] = action["note"]
    if name == "snooze":
        configuration["snoozeDuration"] = action["snooze_s"]
    return {"actionName": name.upper(), f"{name}ActionConfiguration": configuration}
