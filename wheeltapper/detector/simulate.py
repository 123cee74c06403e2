"""
Virtual time: one expression against given values, one model against given steps.

These are the contracts of ``wheeltapper detector eval`` and ``wheeltapper detector simulate`` on JSON Lines; nothing sleeps,
and nothing leaves.
"""

from collections.abc import Iterable
from typing import Any

from wheeltapper.detector.action import Action, Message, Outcome, Trigger
from wheeltapper.detector.dedup import RecentIds
from wheeltapper.detector.expression import Expression, Reference, parse
from wheeltapper.detector.interpreter import evaluate
from wheeltapper.detector.plan import AlarmPlan, input_name_of, payload_path
from wheeltapper.detector.readers import read_document
from wheeltapper.detector.runtime import Shard
from wheeltapper.detector.settings import DEFAULTS, EngineSettings
from wheeltapper.detector.state import AlarmState
from wheeltapper.detector.values import UNDEFINED, Operand, follow
from wheeltapper.errors import DefinitionError


class Surroundings:
    """What an expression sees that stands alone."""

    def __init__(self, request: dict[str, Any], settings: EngineSettings) -> None:
        self.settings = settings
        kind, name = request.get("trigger") or ("Message", "")
        is_message = kind.lower() == "message"
        self.trigger = Trigger("Message", input_name=name) if is_message else Trigger("Timer", timer_name=name)
        self._inputs = request.get("inputs") or {}
        self._variables = request.get("variables") or {}
        self._expired = set(request.get("expiredTimers") or ())

    def reference(self, reference: Reference) -> Operand:
        if reference.root == "variable":
            return UNDEFINED if reference.path else follow(self._variables, (reference.name,))
        return follow(self._inputs.get(input_name_of(reference)), payload_path(reference))

    def timeout(self, name: str) -> bool:
        expired = name in self._expired
        if self.settings.timeout_once_per_check:
            self._expired.discard(name)
        return expired

    def note(self, tree: Expression, value: Operand) -> None:
        pass


def evaluate_request(request: dict[str, Any], settings: EngineSettings = DEFAULTS) -> dict[str, Any]:
    """
    Answer one line of ``eval``.

    >>> evaluate_request({"id": 1, "expr": "$variable.n / 2", "variables": {"n": 7}})
    {'id': 1, 'result': 4}
    """
    try:
        value = evaluate(parse(request["expr"]), Surroundings(request, settings))
    except DefinitionError as error:
        return {"id": request.get("id"), "result": {"$error": str(error)}}
    return {"id": request.get("id"), "result": {"$undefined": True} if value is UNDEFINED else value}


class Simulation:
    """One model in virtual time, with the duplicates of message ids ignored."""

    def __init__(self, model: dict[str, Any], settings: EngineSettings = DEFAULTS) -> None:
        self.shard = Shard(settings)
        self.model = self.shard.load(model).handle
        self._settings = settings
        self._recent = RecentIds(settings.dedup_window_s)

    def put(self, message: Message, now: float, *, trace: bool = False) -> list[Outcome]:
        """Timers due by ``now``, then the message, unless its id repeats."""
        outcomes = list(self.shard.advance(now, trace=trace))
        scope = message.input_name if self._settings.dedup_scope == "input" else ""
        if self._recent.accept(scope, message.message_id, now):
            outcomes += self.shard.put(message, now, trace=trace)
        return outcomes

    def step(self, step: dict[str, Any]) -> dict[str, Any]:
        """Take one step of the contract and describe what there is afterwards."""
        now = float(step["t"])
        outcomes = list(self.shard.advance(now))
        refusal = ""
        try:
            outcomes += self._do(step, now)
        except DefinitionError as error:
            refusal = str(error)
        entry = self._describe(outcomes)
        if refusal:
            entry["error"] = refusal
        return entry

    def _do(self, step: dict[str, Any], now: float) -> list[Outcome]:
        if (put := step.get("put")) is not None:
            if not isinstance(put.get("payload"), dict):
                raise DefinitionError("payload: not a JSON object; the message is not evaluated")
            return self.put(Message(put["inputName"], put["payload"], put.get("messageId") or ""), now)
        if (update := step.get("update")) is not None:
            state = update["state"]
            variables = {given["name"]: given["value"] for given in state.get("variables") or ()}
            timers = {given["name"]: given["seconds"] for given in state.get("timers") or ()}
            key = update.get("keyValue") or ""
            self.shard.update_detector(self.model, key, state["stateName"], variables, timers, now)
        if (operation := step.get("op")) is not None:
            return self._operate(operation, step, now)
        return []

    def _operate(self, operation: str, step: dict[str, Any], now: float) -> list[Outcome]:
        """An operation without a key is meant for every alarm there is."""
        key = step.get("keyValue")
        keys = self.shard.keys(self.model) if key is None else [key]
        duration_s = step.get("snoozeDuration") or 0
        note = step.get("note") or ""
        return [
            self.shard.operate_alarm(self.model, key, operation, now, note=note, snooze_s=duration_s) for key in keys
        ]

    def _describe(self, outcomes: Iterable[Outcome]) -> dict[str, Any]:
        actions = [describe_action(action) for outcome in outcomes for action in outcome.actions]
        members: dict[str, Any] = {}
        for state in self.shard.detectors(self.model):
            if isinstance(state, AlarmState):
                members[state.key] = {"stateName": state.state}
            else:
                running = {timer.name: timer.due for timer in state.timers if timer.status == "running"}
                members[state.key] = {"state": state.state, "variables": state.variables, "timers": running}
        is_alarm = isinstance(self.shard.plan(self.model), AlarmPlan)
        return {"alarms" if is_alarm else "detectors": members, "actions": actions}


def describe_action(action: Action) -> dict[str, Any]:
    """An action as the contract of ``simulate`` writes it."""
    described = {
        "key": action.key,
        "type": action.type,
        "event": action.event,
        "state": action.state,
        "variables": action.variables,
        **action.parameters,
    }
    if action.payload is not None:
        described["payload"] = action.payload
    return described


def simulate_request(request: dict[str, Any], settings: EngineSettings = DEFAULTS) -> dict[str, Any]:
    """Answer one line of ``simulate``; its model may be written in any form that ``readers`` knows."""
    try:
        simulation = Simulation(_only_model(request["model"]), settings)
    except DefinitionError as error:
        return {"id": request.get("id"), "$error": str(error)}
    return {"id": request.get("id"), "trace": [simulation.step(step) for step in request["steps"]]}


def _only_model(document: Any) -> dict[str, Any]:
    found = read_document(document, name="model")
    models = found.detector_models + found.alarm_models
    if len(models) != 1:
        raise DefinitionError(f"model: holds {len(models)} models, must hold one")
    return models[0]
