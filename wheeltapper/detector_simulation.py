"""What ``wheeltapper detector eval`` and ``simulate`` read and print."""

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from wheeltapper.detector.action import Action, Message, Outcome
from wheeltapper.detector.readers import read_text
from wheeltapper.detector.simulate import Simulation, evaluate_request, simulate_request
from wheeltapper.detector.trace import render
from wheeltapper.errors import DataError, SettingsError

if TYPE_CHECKING:
    from rich.table import Table


class MessageLine(msgspec.Struct, rename="camel"):
    """A line of a recording; ``timestamp`` is in ms since the epoch."""

    input_name: str
    payload: dict[str, Any]
    timestamp: float
    message_id: str = ""


def evaluate_lines() -> int:
    """``eval``: one answer per line of standard input."""
    return _answer_lines(evaluate_request)


def simulate_lines() -> int:
    """``simulate`` without a model: one answer per line of standard input."""
    return _answer_lines(simulate_request)


def _answer_lines(answer: Callable[[dict[str, Any]], dict[str, Any]]) -> int:
    decoder = msgspec.json.Decoder(dict[str, Any])
    for number, line in enumerate(sys.stdin.buffer, start=1):
        if not line.strip():
            continue
        try:
            answered = answer(decoder.decode(line))
        except msgspec.DecodeError as error:
            raise DataError(f"standard input, line {number}: {error}") from error
        except KeyError as error:
            raise DataError(f"standard input, line {number}: lacks {error}") from error
        except (AttributeError, TypeError, ValueError) as error:
            raise DataError(f"standard input, line {number}: not of the described form: {error}") from error
        sys.stdout.buffer.write(msgspec.json.encode(answered) + b"\n")
        sys.stdout.buffer.flush()
    return 0


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
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read: {error}") from error
    found = read_text(text, name=path.stem)
    for remark in found.remarks:
        print(f"{path}: {remark}", file=sys.stderr)
    models = {body.get("detectorModelName"): body for body in found.detector_models}
    models |= {body.get("alarmModelName"): body for body in found.alarm_models}
    if name is None and len(models) == 1:
        return next(iter(models.values()))
    if name not in models:
        known = ", ".join(str(known) for known in models) or "none"
        raise SettingsError(f"{path}: choose one model with --name; it holds: {known}")
    return models[name]


def _read_messages(name: str) -> Iterator[tuple[float, Message]]:
    decoder = msgspec.json.Decoder(MessageLine)
    try:
        with sys.stdin.buffer if name == "-" else Path(name).open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                try:
                    given = decoder.decode(line)
                except msgspec.DecodeError as error:
                    raise DataError(f"{name}, line {number}: {error}") from error
                time_ms = int(given.timestamp)
                yield time_ms / 1000.0, Message(given.input_name, given.payload, given.message_id, time_ms)
    except OSError as error:
        raise SettingsError(f"{name}: cannot be read: {error}") from error


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
    for state in simulation.shard.detectors(simulation.name):
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
