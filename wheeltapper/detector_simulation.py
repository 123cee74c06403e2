"""What ``wheeltapper detector eval`` and ``simulate`` read and print."""

import argparse
import base64
import binascii
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from wheeltapper.detector.action import Action, Message, Outcome
from wheeltapper.detector.handle import handle_of
from wheeltapper.detector.readers import read_bytes
from wheeltapper.detector.simulate import Simulation, evaluate_request, simulate_request
from wheeltapper.detector.trace import render
from wheeltapper.errors import DataError, SettingsError
from wheeltapper.messages import UNREADABLE

if TYPE_CHECKING:
    from rich.table import Table


class MessageLine(msgspec.Struct, rename="camel"):
    """A line of a recording; ``timestamp`` is in ms since the epoch."""

    input_name: str
    payload: dict[str, Any]
    timestamp: float
    message_id: str = ""


class BatchMessage(msgspec.Struct, rename="camel"):
    """A message as BatchPutMessage takes it; the AWS CLI takes payloads as JSON or as base64."""

    input_name: str
    payload: str | dict[str, Any]
    message_id: str = ""
    timestamp: dict[str, int] | None = None


class BatchBody(msgspec.Struct):
    """What people keep to send by ``aws iotevents-data batch-put-message --cli-input-json``."""

    messages: list[BatchMessage]


# What a request of another form than the described one makes the answering trip over.
_MALFORMED = (msgspec.DecodeError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


def evaluate_lines() -> int:
    """``eval``: one answer per line of standard input."""
    return _answer_lines(evaluate_request, lambda id_, what: {"id": id_, "result": {"$error": what}})


def simulate_lines() -> int:
    """``simulate`` without a model: one answer per line of standard input."""
    return _answer_lines(simulate_request, lambda id_, what: {"id": id_, "$error": what})


def _answer_lines(answer: Callable[[dict[str, Any]], dict[str, Any]], refuse: Callable[[Any, str], Any]) -> int:
    """Answer every line, also one that is no request; that there was one is told at the end."""
    decoder = msgspec.json.Decoder(dict[str, Any])
    refused = ""
    for number, line in enumerate(sys.stdin.buffer, start=1):
        if not line.strip():
            continue
        try:
            answered = msgspec.json.encode(answer(decoder.decode(line)))
        except _MALFORMED as error:
            what = _what_is_wrong(error)
            answered = msgspec.json.encode(refuse(_id_of(line), what))
            refused = refused or f"standard input, line {number}: {what}"
        sys.stdout.buffer.write(answered + b"\n")
        sys.stdout.buffer.flush()
    if refused:
        raise DataError(refused)
    return 0


def _id_of(line: bytes) -> Any:
    """The id of a request that could not be answered; the standard library reads numbers and texts that msgspec refuses."""
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return request.get("id") if isinstance(request, dict) else None


def _what_is_wrong(error: Exception) -> str:
    if isinstance(error, msgspec.DecodeError):
        return str(error)
    return f"lacks {error}" if isinstance(error, KeyError) else f"not of the described form: {error}"


def simulate_file(options: argparse.Namespace) -> int:
    """``simulate MODEL --messages FILE``: run a recording through one model and print what happens."""
    if options.messages is None:
        raise SettingsError("simulate: --messages FILE is missing; it says what to run the model on")
    simulation = Simulation(_read_one_model(Path(options.model), options.name))
    passes = _passes(simulation, _read_messages(options.messages), options.after)
    if options.json:
        for _, outcome in passes:
            print(msgspec.json.encode(outcome).decode())
    elif options.trace:
        for _, outcome in passes:
            print(render(outcome.trace) if outcome.trace is not None else _alarm_text(outcome), end="\n\n")
    else:
        _print_table(simulation, passes)
    return 0


def _read_one_model(path: Path, name: str | None) -> dict[str, Any]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    found = read_bytes(data, name=path.stem)
    for remark in found.remarks:
        print(f"{path}: {remark}", file=sys.stderr)
    models = {body.get("detectorModelName"): body for body in found.detector_models}
    for body in found.alarm_models:
        alarm = body.get("alarmModelName")
        models[handle_of("alarm", str(alarm)) if alarm in models else alarm] = body
    if name is None and len(models) == 1:
        return next(iter(models.values()))
    if name not in models:
        known = ", ".join(str(known) for known in models) or "none"
        raise SettingsError(f"{path}: choose one model with --name; it holds: {known}")
    return models[name]


def _read_messages(name: str) -> Iterator[tuple[float, Message]]:
    decoder = msgspec.json.Decoder(MessageLine)
    is_first = True
    try:
        with sys.stdin.buffer if name == "-" else Path(name).open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                try:
                    given = decoder.decode(line)
                except UNREADABLE as error:
                    batch = _batch_in(line + file.read()) if is_first else None
                    if batch is None:
                        raise DataError(f"{name}, line {number}: {error}") from error
                    yield from _batch_messages(batch, name)
                    return
                is_first = False
                time_ms = int(given.timestamp)
                yield time_ms / 1000.0, Message(given.input_name, given.payload, given.message_id, time_ms)
    except OSError as error:
        raise SettingsError(f"{name}: cannot be read: {error}") from error


def _batch_in(text: bytes) -> BatchBody | None:
    try:
        return msgspec.json.decode(text, type=BatchBody)
    except UNREADABLE:
        return None


def _batch_messages(batch: BatchBody, name: str) -> Iterator[tuple[float, Message]]:
    """The messages of a batch; one without a time comes a second after the one before."""
    time_ms = -1000
    for number, given in enumerate(batch.messages, start=1):
        time_ms = (given.timestamp or {}).get("timeInMillis", time_ms + 1000)
        try:
            payload = given.payload if isinstance(given.payload, dict) else _payload_of(given.payload)
        except UNREADABLE as error:
            raise DataError(f"{name}, message {number}: payload is not a JSON object: {error}") from error
        yield time_ms / 1000.0, Message(given.input_name, payload, given.message_id, time_ms)


def _payload_of(text: str) -> dict[str, Any]:
    """
    >>> _payload_of('{"v": 1}'), _payload_of("eyJ2IjogMX0=")
    ({'v': 1}, {'v': 1})
    """
    try:
        decoded: str | bytes = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        decoded = text
    return msgspec.json.decode(decoded, type=dict[str, Any])


def _passes(
    simulation: Simulation, messages: Iterator[tuple[float, Message]], after_s: float
) -> Iterator[tuple[float, Outcome]]:
    """Every pass with its time in seconds since the first message; messages out of order run at the latest time seen."""
    start: float | None = None
    now = 0.0
    for when, message in messages:
        start = when if start is None else start
        now = max(now, when)
        for outcome in simulation.put(message, now, trace=True):
            yield outcome.time_ms / 1000.0 - start, outcome
    if start is not None and after_s > 0:
        for outcome in simulation.shard.advance(now + after_s, trace=True):
            yield outcome.time_ms / 1000.0 - start, outcome


def _print_table(simulation: Simulation, passes: Iterator[tuple[float, Outcome]]) -> None:
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    table = _table()
    count = actions = 0
    for seconds, outcome in passes:
        count += 1
        actions += len(outcome.actions)
        table.add_row(f"{seconds:.3f}", *_cells(outcome))
    console.print(table)
    finals: dict[str, int] = {}
    for state in simulation.shard.detectors(simulation.model):
        finals[state.state] = finals.get(state.state, 0) + 1
    where = ", ".join(f"{number} in {state}" for state, number in finals.items()) or "no detectors"
    console.print(f"{count} passes, {actions} actions; {where}")


def _table() -> "Table":
    from rich.table import Table

    table = Table()
    table.add_column("seconds", justify="right")
    for name in ("trigger", "key", "state", "variables", "timers", "actions"):
        table.add_column(name, overflow="fold")
    return table


def _cells(outcome: Outcome) -> tuple[str, str, str, str, str, str]:
    from rich.markup import escape

    trace = outcome.trace
    state = outcome.state
    if outcome.from_state != outcome.state or outcome.event:
        state = f"{outcome.from_state or '(new)'} → {outcome.state}" + (f" ({outcome.event})" if outcome.event else "")
    did = [_action_text(action) for action in outcome.actions] + [f"failed: {failure}" for failure in outcome.failures]
    if trace is None:
        cells = (outcome.event or "message", outcome.key, state, "", "", "\n".join(did))
    else:
        trigger = f"timer {trace.trigger.timer_name}"
        if trace.trigger.type == "Message":
            trigger = f"{trace.trigger.input_name} {trace.trigger.message_id}".rstrip()
        running = [timer for timer in trace.timers if timer.status == "running"]
        timers = [f"{timer.name} in {timer.due - outcome.time_ms / 1000:g} s" for timer in running]
        variables = [f"{name} = {value!r}" for name, value in trace.variables.items()]
        cells = (trigger, outcome.key, state, "\n".join(variables), "\n".join(timers), "\n".join(did))
    return tuple(escape(cell) for cell in cells)  # type: ignore[return-value]  # as many as there were


def _action_text(action: Action) -> str:
    said = " ".join(str(value) for value in action.parameters.values())
    return f"{action.type} {said}" + (f" {action.payload}" if action.payload is not None else "")


def _alarm_text(outcome: Outcome) -> str:
    why = f": {outcome.condition} with {outcome.values}" if outcome.condition else ""
    return f"{outcome.model} {outcome.key}: {outcome.from_state or '(new)'} → {outcome.state} {outcome.event}{why}"
