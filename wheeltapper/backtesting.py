"""What ``wheeltapper detector backtest`` does and prints."""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from wheeltapper.clock import SystemClock
from wheeltapper.detector.action import Message
from wheeltapper.detector.backtest import AlarmRunner, Difference, KeyHistory, Report, Runner, compare, make_runner
from wheeltapper.detector.dedup import RecentIds
from wheeltapper.detector.settings import DEFAULTS
from wheeltapper.history import Chunk, all_messages, read_history

AnyRunner = Runner | AlarmRunner

_ROWS = 20


def backtest(
    options: argparse.Namespace, models: Sequence[Mapping[str, Any]], against: Mapping[str, Any] | None
) -> int:
    """Run every model over the history, and print the reports."""
    bodies = [*models, *([against] if against is not None else [])]
    columnar = Path(options.messages).suffix.lower() not in (".jsonl", ".ndjson", ".json", ".log", ".gz")
    runners = [_runner(body, options.key, columnar) for body in bodies]
    chunks = read_history(
        Path(options.messages),
        input_name=options.input,
        time_column=options.time_column,
        wanted=_wanted(runners),
        texts=_keys(runners),
    )
    if columnar:
        import pyarrow.compute
        import pyarrow.csv
        import pyarrow.parquet  # noqa: F401 loaded before the clock starts
    clock = SystemClock()
    started = clock.monotonic()
    rows = repeated = 0
    recent = RecentIds(DEFAULTS.dedup_window_s)
    for chunk in followed(chunks, "back-testing"):
        fresh = _fresh(chunk.messages, recent)
        repeated += len(chunk.messages) - len(fresh)
        rows += _feed(runners, Chunk(chunk.done, chunk.total, fresh, chunk.batch))
    if repeated:
        print(
            f"note: {repeated:,} messages repeat an id within {DEFAULTS.dedup_window_s:g} s; ignored", file=sys.stderr
        )
    reports = [runner.finish() for runner in runners]
    seconds = max(clock.monotonic() - started, 1e-9)
    old = reports.pop() if against is not None else None
    differences = [[*compare(old, each, window_ms=int(options.window * 1000))] if old else [] for each in reports]
    if options.json:
        for report, found in zip(reports, differences, strict=True):
            print(msgspec.json.encode(_as_json(report, found, old is not None, rows, rows / seconds)).decode())
        return 0
    console = Console(highlight=False)
    for report, found in zip(reports, differences, strict=True):
        _show(console, report, options.key)
        if old is not None:
            _show_differences(console, found)
    console.print(f"{rows:,} messages in {seconds:.1f} s: {rows / seconds:,.0f} msg/s", style="dim")
    return 0


def _fresh(messages: list[Message], recent: RecentIds) -> list[Message]:
    """The messages without those that AWS would have ignored as repeats."""
    return [each for each in messages if recent.accept(each.input_name, each.message_id, (each.time_ms or 0) / 1000)]


def _runner(body: Mapping[str, Any], key: str | None, columnar: bool) -> AnyRunner:
    if not columnar:
        return make_runner(body, only=key)
    from wheeltapper.detector.backtest_columns import ColumnRunner

    return make_runner(body, only=key, detector_runner=ColumnRunner)


def _wanted(runners: Sequence[AnyRunner]) -> set[str]:
    """The first steps of every attribute that some model reads."""
    found = _keys(runners)
    for runner in runners:
        for given in runner.plan.inputs:
            found |= {str(reference.path[0]) for reference in given.references if reference.path}
    return found


def _keys(runners: Sequence[AnyRunner]) -> set[str]:
    return {".".join(runner.plan.key) for runner in runners if runner.plan.key} | {
        runner.plan.key[0] for runner in runners if runner.plan.key
    }


def _feed(runners: Sequence[AnyRunner], chunk: Chunk) -> int:
    if chunk.batch is None:
        for runner in runners:
            runner.feed(chunk.messages)
        return len(chunk.messages)
    from wheeltapper.detector.backtest_columns import ColumnRunner

    for runner in runners:
        if isinstance(runner, ColumnRunner):
            runner.feed_columns(chunk.batch)
        else:
            runner.feed(all_messages(iter([chunk])))
    return len(chunk.batch)


def followed(chunks: Iterator[Chunk], what: str) -> Iterator[Chunk]:
    """The same pieces, with a progress bar and the time left on standard error where that is a terminal."""
    if not sys.stderr.isatty():
        yield from chunks
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=None)
        for chunk in chunks:
            yield chunk
            progress.update(task, completed=chunk.done, total=chunk.total)


def _as_json(report: Report, differences: list[Difference], compared: bool, rows: int, speed: float) -> dict[str, Any]:
    alarms, changes, seconds = report.totals()
    told: dict[str, Any] = {
        "model": report.model,
        "messages": rows,
        "messagesRead": report.messages,
        "messagesOfOtherInputs": report.other,
        "messagesWithoutKey": report.keyless,
        "messagesLate": report.late,
        "messagesPerSecond": round(speed),
        "alarms": alarms,
        "stateChanges": changes,
        "secondsInState": seconds,
        "failures": report.failures,
        "keys": {key: _key_as_json(each) for key, each in sorted(report.keys.items())},
    }
    if compared:
        told["against"] = {
            "gained": sum(len(each.gained) for each in differences),
            "lost": sum(len(each.lost) for each in differences),
            "moved": sum(len(each.moved) for each in differences),
            "same": sum(each.same for each in differences),
            "keys": {each.key: msgspec.to_builtins(each) for each in differences},
        }
    return told


def _key_as_json(history: KeyHistory) -> dict[str, Any]:
    return {
        "state": history.state,
        "secondsInState": history.seconds,
        "alarms": [msgspec.to_builtins(each) for each in history.alarms],
        "changes": [msgspec.to_builtins(each) for each in history.changes],
    }


def _show(console: Console, report: Report, key: str | None) -> None:
    alarms, changes, seconds = report.totals()
    console.print(
        f"[bold]{escape(report.model)}[/]: {len(report.keys):,} detectors, {alarms:,} alarms, {changes:,} state changes, "
        f"{report.messages:,} messages read"
    )
    for count, what in (
        (report.other, "were of inputs that the model does not read"),
        (report.keyless, "had no usable key"),
        (report.late, "were older than the last one of their detector, and judged at its time"),
    ):
        if count:
            console.print(f"  {count:,} {what}")
    for failure, times in report.failures.items():
        console.print(f"  {times:,} times: {failure}", markup=False)
    total = sum(seconds.values()) or 1.0
    table = Table("state", "time in it", "share", title="all detectors", title_justify="left")
    for state, spent in sorted(seconds.items(), key=lambda each: -each[1]):
        table.add_row(escape(state), _duration(spent), f"{spent / total:.1%}")
    console.print(table)
    _show_keys(console, report)
    if key is not None and key in report.keys:
        _show_timeline(console, report.keys[key])


def _show_keys(console: Console, report: Report) -> None:
    table = Table("key", "alarms", "changes", "state now", "last alarm")
    ranked = sorted(report.keys.values(), key=lambda each: (-len(each.alarms), -len(each.changes), each.key))
    for each in ranked[:_ROWS]:
        last = f"{_time(each.alarms[-1].time_ms)} {escape(each.alarms[-1].name)}" if each.alarms else ""
        changes = sum(1 for change in each.changes if change.from_state)
        table.add_row(each.key or "(one detector)", f"{len(each.alarms):,}", f"{changes:,}", escape(each.state), last)
    console.print(table)
    if len(ranked) > _ROWS:
        console.print(f"  … and {len(ranked) - _ROWS:,} more; --json tells all", style="dim")


def _show_timeline(console: Console, history: KeyHistory) -> None:
    table = Table("time", "what", title=f"detector {history.key}", title_justify="left")
    rows = [(each.time_ms, 1, f"alarm: {each.name} ({', '.join(each.actions)})") for each in history.alarms]
    for change in history.changes:
        text = (
            f"{change.from_state} → {change.state} ({change.event})"
            if change.from_state
            else f"created in {change.state}"
        )
        rows.append((change.time_ms, 0, text))
    for time_ms, _, text in sorted(rows):
        table.add_row(_time(time_ms), escape(text))
    console.print(table)


def _show_differences(console: Console, differences: list[Difference]) -> None:
    gained, lost, moved = (
        [(each.key, item) for each in differences for item in getattr(each, name)]
        for name in ("gained", "lost", "moved")
    )
    same = sum(each.same for each in differences)
    console.print(
        f"  against the old version: {same:,} alarms stay, {len(gained):,} gained, {len(lost):,} lost, {len(moved):,} moved"
    )
    table = Table("key", "", "time", "alarm")
    for sign, found in (("gained", gained), ("lost", lost)):
        for key, alarm in found[:_ROWS]:
            table.add_row(key, sign, _time(alarm.time_ms), escape(alarm.name))
    for key, pair in moved[:_ROWS]:
        apart = (pair.new.time_ms - pair.old.time_ms) / 1000
        table.add_row(
            key, "moved", _time(pair.new.time_ms), f"{escape(pair.new.name)}, {abs(apart):g} s {_direction(apart)}"
        )
    if table.row_count:
        console.print(table)


def _direction(apart: float) -> str:
    return "later" if apart > 0 else "earlier"


def _time(time_ms: int) -> str:
    try:
        return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(sep=" ", timespec="seconds").removesuffix("+00:00")
    except (OverflowError, ValueError, OSError):
        return f"{time_ms} ms"


def _duration(seconds: float) -> str:
    """
    A duration for people.

    >>> _duration(59.5), _duration(7_265), _duration(90_000)
    ('59.5 s', '2:01:05', '1 d 1:00:00')
    """
    if seconds < 60:
        return f"{seconds:.3g} s"
    days, rest = divmod(round(seconds), 86_400)
    clock = f"{rest // 3600}:{rest % 3600 // 60:02d}:{rest % 60:02d}"
    return f"{days} d {clock}" if days else clock
