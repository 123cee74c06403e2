"""``wheeltapper detector backtest, lint, new, migrate, why``: what the engine tells before and after the fact."""

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wheeltapper.cli import Commands
from wheeltapper.errors import DataError, DefinitionError, SettingsError

if TYPE_CHECKING:
    from wheeltapper.detector.analysis import Finding
    from wheeltapper.detector.readers import Definitions

_TEMPLATES = ("heartbeat", "threshold", "rate-of-change", "deviation")


def register(group: Commands) -> None:
    """Add the commands to the group ``detector``."""
    _register_backtest(group)
    _register_lint(group)
    _register_new(group)
    _register_migrate(group)
    _register_why(group)


def _register_backtest(group: Commands) -> None:
    command = group.add(
        "backtest",
        _run_backtest,
        help="run models over history in event time: alarms, states, and what a new version changes",
        example="wheeltapper detector backtest model.json --messages messages.jsonl\n"
        "wheeltapper detector backtest new.json --against old.json --messages history.parquet \\\n"
        "    --input Pump --time-column time",
    )
    command.add_argument(
        "models", nargs="+", metavar="MODEL", help="files of detector or alarm models; inputs are read past"
    )
    _add_messages(command, required=True)
    command.add_argument(
        "--against", metavar="OLD", help="an older version: tell what the new one gains, loses and moves"
    )
    command.add_argument("--key", help="one detector only, with every change and alarm")
    command.add_argument(
        "--window", type=float, default=3600.0, metavar="SECONDS",
        help="alarms at most this far apart are one alarm, moved (default: %(default)g)",
    )  # fmt: skip
    _add_reading(command)


def _register_lint(group: Commands) -> None:
    command = group.add(
        "lint",
        _run_lint,
        help="check models: AWS's seven analyses, proofs of what cannot happen, and what a recording shows",
        example="wheeltapper detector lint model.json inputs.json\n"
        "wheeltapper detector lint model.json inputs.json --messages recording.jsonl",
    )
    command.add_argument("models", nargs="+", metavar="MODEL", help="files of models and of the inputs they read")
    _add_messages(command, required=False)
    command.add_argument("--level", choices=("error", "warning", "info"), default="info", help="least level shown")
    _add_reading(command)


def _register_new(group: Commands) -> None:
    command = group.add(
        "new",
        _run_new,
        help="write a common model and its input",
        example="wheeltapper detector new heartbeat --input Pump --key thing --seconds 300 --topic alarms/silent\n"
        "wheeltapper detector new threshold --input Pump --key thing --attribute temperature --above 80 --clear 75 \\\n"
        "    --seconds 60 --topic alarms/hot --output hot.json",
    )
    command.add_argument("template", choices=_TEMPLATES, help="what the model watches for")
    command.add_argument("--name", help="of the model (default: the template and the input)")
    command.add_argument("--input", required=True, help="the input whose messages it reads")
    command.add_argument("--key", default="", help="attribute that tells one machine from another")
    command.add_argument("--attribute", help="attribute that is watched")
    command.add_argument("--reference", help="deviation: attribute it should stay near")
    command.add_argument("--above", type=float, help="threshold: alarm above this")
    command.add_argument("--below", type=float, help="threshold: alarm below this")
    command.add_argument("--clear", type=float, help="threshold: the alarm ends here (default: at the limit)")
    command.add_argument("--change", type=float, help="rate-of-change: largest normal step between two messages")
    command.add_argument("--tolerance", type=float, help="deviation: largest normal distance")
    command.add_argument("--seconds", type=int, help="heartbeat: silence that is an alarm; else: how long it must last")
    command.add_argument("--topic", default="", help="MQTT topic for alarms")
    command.add_argument("--sns", default="", help="or an SNS topic's ARN")
    command.add_argument(
        "--output", metavar="FILE", help="write the model here and the input beside it; else print both"
    )


def _register_migrate(group: Commands) -> None:
    command = group.add(
        "migrate",
        _run_migrate,
        help="what an update keeps of running detectors, before it is done",
        example="wheeltapper detector migrate old.json new.json\n"
        "wheeltapper detector migrate old.json new.json --snapshot detectors.jsonl --output migrated.jsonl \\\n"
        "    --state running=on",
    )
    command.add_argument("old", metavar="OLD", help="the model in force")
    command.add_argument("new", metavar="NEW", help="the model to come")
    command.add_argument("--state", action="append", default=[], metavar="OLD=NEW", help="a state was renamed")
    command.add_argument("--snapshot", metavar="FILE", help="detectors' states, JSON Lines: try each of them")
    command.add_argument("--output", metavar="FILE", help="write the states under the new version")
    _add_reading(command)


def _register_why(group: Commands) -> None:
    command = group.add(
        "why",
        _run_why,
        help="why an alarm was raised: replay the journal to that moment",
        example="wheeltapper detector why --data-dir /var/lib/wheeltapper ALARM_ID\n"
        "wheeltapper detector why --data-dir /var/lib/wheeltapper --at -10s ALARM_ID",
    )
    # Lets ``--at -10s`` be a value, as argparse lets ``-10`` be one.
    command._negative_number_matcher = re.compile(r"-\d+(\.\d+)?(ms|s|m|h|d)?$")
    command.add_argument("alarm", metavar="ALARM_ID", help="as the alarm list shows it")
    command.add_argument("--data-dir", required=True, metavar="DIR", help="where the server or gateway keeps judge.db")
    command.add_argument(
        "--at",
        default="0s",
        metavar="OFFSET",
        help="also every pass from this long before the alarm, such as -10s or -5m",
    )
    command.add_argument("--json", action="store_true", help="print the traces as JSON Lines")


def _add_messages(command: argparse.ArgumentParser, *, required: bool) -> None:
    command.add_argument("--messages", required=required, metavar="FILE", help="history: JSON Lines, CSV or Parquet")
    command.add_argument("--input", default="", metavar="NAME", help="the input that a CSV or Parquet file holds")
    command.add_argument("--time-column", default="", metavar="COLUMN", help="where such a file keeps the time")


def _add_reading(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--parameter", action="append", default=[], metavar="K=V", help="a parameter of a CloudFormation template"
    )
    command.add_argument("--json", action="store_true", help="print JSON")


# -- definitions


def read_files(paths: Sequence[str], parameters: Sequence[str]) -> "Definitions":
    """
    Every definition in some files; what was left out or assumed is said on standard error.

    Raises:
        DataError: a file cannot be read.
        DefinitionError: a file holds no definition.
    """
    from wheeltapper.detector.readers import Definitions, read_bytes

    found = Definitions([], [], [], [])
    given = dict(pair(each, "--parameter") for each in parameters)
    for path in paths:
        found.add(read_bytes(_bytes_of(path), name=Path(path).name.split(".")[0], parameters=given))
    for remark in found.remarks:
        print(f"note: {remark}", file=sys.stderr)
    return found


def _bytes_of(path: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def pair(text: str, option: str) -> tuple[str, str]:
    """
    The two sides of ``K=V``.

    >>> pair("Stage=prod", "--parameter")
    ('Stage', 'prod')
    """
    name, separator, value = text.partition("=")
    if not name or not separator:
        raise SettingsError(f"{option} {text!r}: must be NAME=VALUE")
    return name, value


def _models_of(found: "Definitions", where: str) -> list[dict[str, Any]]:
    models = [*found.detector_models, *found.alarm_models]
    if not models:
        raise DefinitionError(f"{where}: holds inputs only, no detector or alarm model")
    return models


def _one_model(path: str, parameters: Sequence[str]) -> dict[str, Any]:
    models = _models_of(read_files([path], parameters), path)
    if len(models) > 1:
        raise DefinitionError(f"{path}: holds {len(models)} models; one is expected")
    return models[0]


# -- commands


def _run_backtest(options: argparse.Namespace) -> int:
    from wheeltapper.backtesting import backtest

    models = _models_of(read_files(options.models, options.parameter), ", ".join(options.models))
    against = None if options.against is None else _one_model(options.against, options.parameter)
    return backtest(options, models, against)


def _run_lint(options: argparse.Namespace) -> int:
    import msgspec

    from wheeltapper.detector.lint import lint
    from wheeltapper.detector.readers import attributes_of

    found = read_files(options.models, options.parameter)
    inputs = {body["inputName"]: attributes_of(body) for body in found.inputs} or None
    levels = ("ERROR", "WARNING", "INFO")
    shown = levels[: levels.index(options.level.upper()) + 1]
    errors = 0
    told = []
    for body in _models_of(found, ", ".join(options.models)):
        findings = lint(body, inputs, _recording(options) if "alarmRule" not in body else None)
        errors += sum(each.level == "ERROR" for each in findings)
        name = body.get("detectorModelName") or body.get("alarmModelName")
        told.append((str(name), [each for each in findings if each.level in shown]))
    if options.json:
        for name, findings in told:
            for each in findings:
                print(
                    msgspec.json.encode({"model": name, **each.result(), "rule": each.rule, "why": each.why}).decode()
                )
    else:
        _show_findings(told)
    return 1 if errors else 0


def _recording(options: argparse.Namespace) -> Iterator[Any] | None:
    if options.messages is None:
        return None
    from wheeltapper.backtesting import followed
    from wheeltapper.history import all_messages, read_history

    chunks = read_history(Path(options.messages), input_name=options.input, time_column=options.time_column)
    return all_messages(followed(chunks, "reading"))


def _show_findings(told: "list[tuple[str, list[Finding]]]") -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    colours = {"ERROR": "bold red", "WARNING": "yellow", "INFO": "cyan"}
    for name, findings in told:
        counts = ", ".join(
            f"{sum(each.level == level for each in findings)} {level.lower()}" for level in ("ERROR", "WARNING", "INFO")
        )
        console.print(Text(f"{name}: {counts}", "bold"))
        for each in findings:
            rule = f" [{each.rule}]" if each.rule else ""
            console.print(
                Text.assemble((f"{each.level:8}", colours[each.level]), f"{each.type}: {each.message}", (rule, "dim"))
            )
            if each.why:
                console.print(Text(f"        {each.why}", "dim"))
            if each.locations:
                console.print(Text(f"        at {', '.join(each.locations)}", "dim"))


def _run_new(options: argparse.Namespace) -> int:
    import msgspec

    from wheeltapper.detector import templates

    name = options.name or f"{options.template}_{options.input}"
    shape = templates.Shape(name=name, input_name=options.input, key=options.key, topic=options.topic, sns=options.sns)
    made = _make(options, shape)
    model, given = (msgspec.json.format(msgspec.json.encode(each), indent=2) for each in (made.model, made.input))
    if options.output is None:
        print(f"[\n{model.decode()},\n{given.decode()}\n]")
        return 0
    path = Path(options.output)
    beside = path.with_name(f"{path.stem}.input.json")
    try:
        path.write_bytes(model + b"\n")
        beside.write_bytes(given + b"\n")
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}") from error
    print(f"{path}: detector model {name}\n{beside}: input {options.input}")
    return 0


def _make(options: argparse.Namespace, shape: Any) -> Any:
    from wheeltapper.detector import templates

    if options.template == "heartbeat":
        return templates.heartbeat(shape, seconds=_needed(options, "seconds"))
    attribute = _needed(options, "attribute")
    if options.template == "rate-of-change":
        return templates.rate_of_change(shape, attribute=attribute, change=_needed(options, "change"))
    seconds = options.seconds or 0
    if options.template == "threshold":
        return templates.threshold(
            shape, attribute=attribute, above=options.above, below=options.below, clear=options.clear, seconds=seconds
        )
    return templates.deviation(
        shape, attribute=attribute, reference=_needed(options, "reference"),
        tolerance=_needed(options, "tolerance"), seconds=seconds,
    )  # fmt: skip


def _needed(options: argparse.Namespace, name: str) -> Any:
    value = getattr(options, name)
    if value is None:
        raise SettingsError(f"{options.template}: needs --{name}")
    return value


def _run_migrate(options: argparse.Namespace) -> int:
    import msgspec

    from wheeltapper.detector.migrate import migrate, plan_migration
    from wheeltapper.detector.state import decode_state, encode_state

    old, new = (plan_of(_one_model(path, options.parameter)) for path in (options.old, options.new))
    states = dict(pair(each, "--state") for each in options.state)
    plan = plan_migration(old, new, states)
    if options.json:
        print(msgspec.json.encode(plan).decode())
    else:
        _show_migration(plan, old.name)
    if options.snapshot is None:
        return 1 if plan.refusals else 0
    lines = _bytes_of(options.snapshot).splitlines()
    detectors = [state for line in lines if line.strip() and (state := decode_state(line)).model == old.name]
    moved = migrate(detectors, old, new, states)
    print(f"{len(moved):,} of {len(detectors):,} detectors can be taken over", file=sys.stderr)
    if options.output is not None:
        Path(options.output).write_bytes(b"".join(encode_state(state) + b"\n" for state in moved))
    return 0


def plan_of(body: dict[str, Any]) -> Any:
    """The plan of a detector or alarm model's body."""
    from wheeltapper.detector.model import AlarmModel, read_model
    from wheeltapper.detector.plan import make_alarm_plan, make_plan

    model = read_model(body)
    return make_alarm_plan(model) if isinstance(model, AlarmModel) else make_plan(model)


def _show_migration(plan: Any, name: str) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    table = Table(title=f"{escape(name)}: what running detectors keep", title_justify="left")
    for column in ("", "kept", "lost"):
        table.add_column(column)
    kept_states = [before if before == after else f"{before} → {after}" for before, after in plan.states.items()]
    table.add_row("states", escape(", ".join(kept_states)), escape(", ".join(plan.lost_states)))
    table.add_row("variables", ", ".join(plan.variables), ", ".join(plan.lost_variables))
    table.add_row("timers", escape(", ".join(plan.timers)), escape(", ".join(plan.lost_timers)))
    console.print(table)
    for refusal in plan.refusals:
        console.print(f"refused: {refusal}", style="red", markup=False)
    if plan.lost_states:
        console.print("a detector in a lost state is refused; name its successor with --state OLD=NEW", markup=False)
    for warning in plan.warnings:
        console.print(f"note: {warning}", markup=False)


def _run_why(options: argparse.Namespace) -> int:
    from wheeltapper.why import explain

    return explain(Path(options.data_dir), options.alarm, options.at, as_json=options.json)
