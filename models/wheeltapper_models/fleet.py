"""
Many assets in one call: one model each, in parallel processes, resumable, with one report.

Every finished asset is a line of ``fleet.jsonl`` at once; a later run skips those whose data and request are unchanged.
An asset that fails, even by taking its process down, is a line of the report and stops nobody else.
"""

import os
import re
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, as_completed
from functools import lru_cache
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path

import msgspec
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from wheeltapper.errors import DataError, WheeltapperError
from wheeltapper.messages import UNREADABLE
from wheeltapper_models.card import CARD_FILE, sha256_of
from wheeltapper_models.data import Table, read_table
from wheeltapper_models.export import write
from wheeltapper_models.show import table_of
from wheeltapper_models.train import Request, train_tables

JOURNAL = "fleet.jsonl"
REPORT = "fleet.json"
MOST_FAILURES = 20
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Asset(msgspec.Struct, frozen=True):
    """What to train for one asset: the rows of ``files`` where ``column`` is ``value``; all rows without a column."""

    name: str
    files: list[str]
    column: str = ""
    value: str = ""


class Outcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of an asset; ``fingerprint`` is of its data and of what was asked."""

    asset: str
    status: str
    fingerprint: str
    seconds: float = 0.0
    rows: int = 0
    limit: float | None = None
    sha256: str = ""
    error: str = ""


class FleetReport(msgspec.Struct, frozen=True):
    """All assets, and how many were trained now, kept from an earlier run, or failed."""

    trained: int
    kept: int
    failed: int
    seconds: float
    assets: list[Outcome]


def train_fleet(
    request: Request, out: Path, *, asset_column: str = "", jobs: int = 0, restart: bool = False
) -> FleetReport:
    """
    Train one model per file, or per value of a column, each into its folder of ``out``.

    Args:
        request: what is asked for each asset; ``data`` are the files.
        asset_column: splits the rows of all files by its values; empty for one asset per file.
        jobs: processes; 0 for one per processor.
        restart: train again what an earlier run has finished.

    Raises:
        DataError: the assets cannot be told apart. What fails for one asset is in the report instead.
    """
    started = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    assets = _assets(request, asset_column)
    prints = {asset.name: _fingerprint(request, asset) for asset in assets}
    done = {} if restart else _finished(out, prints)
    waiting = [asset for asset in assets if asset.name not in done]
    outcomes = dict(done)
    with (out / JOURNAL).open("w" if restart else "a", encoding="utf-8") as journal, _progress() as progress:
        task = progress.add_task("training", total=len(assets), completed=len(done))
        for outcome in _run(request, waiting, prints, out, jobs or os.cpu_count() or 1):
            outcomes[outcome.asset] = outcome
            journal.write(msgspec.json.encode(outcome).decode() + "\n")
            journal.flush()
            progress.advance(task)
    found = [outcomes[asset.name] for asset in assets]
    failed = sum(outcome.status == "failed" for outcome in found)
    report = FleetReport(
        len(found) - failed - len(done), len(done), failed, round(time.monotonic() - started, 2), found
    )
    (out / REPORT).write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    return report


def show_fleet(report: FleetReport, out: Path) -> None:
    """A report, for people."""
    console = Console()
    failures = [(outcome.asset, outcome.error) for outcome in report.assets if outcome.status == "failed"]
    if failures:
        console.print(table_of("failed", ["asset", "why"], failures[:MOST_FAILURES]))
    if len(failures) > MOST_FAILURES:
        console.print(f"… and {len(failures) - MOST_FAILURES} more in {out / REPORT}")
    console.print(
        f"{report.trained} trained, {report.kept} kept from an earlier run, {report.failed} failed, "
        f"in {report.seconds:.1f} s: {out / REPORT}",
        highlight=False,
    )


def _assets(request: Request, asset_column: str) -> list[Asset]:
    if not asset_column:
        names = _folders([Path(file).stem for file in request.data])
        return [Asset(name, [file]) for name, file in zip(names, request.data, strict=True)]
    values: dict[str, None] = {}
    for file in request.data:
        values.update(dict.fromkeys(_asset_cells(_read(file, request.time_column, asset_column), asset_column)))
    if not values:
        raise DataError(f"--asset-column {asset_column}: names no asset")
    names = _folders(list(values))
    return [Asset(name, request.data, asset_column, value) for name, value in zip(names, values, strict=True)]


def _folders(names: Sequence[str]) -> list[str]:
    """Names that are safe and distinct as folders."""
    found: list[str] = []
    for name in names:
        safe = re.sub(r"[^\w.\-]", "_", name).strip(".") or "asset"
        number = 2
        while (safe if number == 2 else f"{safe}-{number - 1}") in found:
            number += 1
        found.append(safe if number == 2 else f"{safe}-{number - 1}")
    return found


def _asset_cells(table: Table, column: str) -> list[str]:
    if column not in table.text:
        raise DataError(f"{table.source}: has no column {column!r}; it has {', '.join((*table.text, *table.names))}")
    return [cell.strip() for cell in table.text[column]]


def _fingerprint(request: Request, asset: Asset) -> str:
    parts = [msgspec.json.encode(request, order="sorted"), msgspec.json.encode(asset)]
    for file in [*asset.files, *([request.labels] if request.labels else [])]:
        try:
            parts.append(sha256_of(Path(file)).encode())
        except OSError:
            parts.append(b"unreadable")
    return sha256(b"\n".join(parts)).hexdigest()[:16]


def _finished(out: Path, prints: dict[str, str]) -> dict[str, Outcome]:
    """What an earlier run finished that is still wanted and still there."""
    found: dict[str, Outcome] = {}
    try:
        lines = (out / JOURNAL).read_bytes().splitlines()
    except FileNotFoundError:
        return found
    for line in lines:
        try:
            outcome = msgspec.json.decode(line, type=Outcome)
        except UNREADABLE:
            continue  # cut short by the end of an earlier run
        if outcome.status == "trained" and prints.get(outcome.asset) == outcome.fingerprint:
            found[outcome.asset] = outcome
    return {name: outcome for name, outcome in found.items() if (out / name / CARD_FILE).is_file()}


def _run(request: Request, assets: Sequence[Asset], prints: dict[str, str], out: Path, jobs: int) -> Iterator[Outcome]:
    left = {asset.name: asset for asset in assets}
    for name in _THREADS:
        os.environ.setdefault(name, "1")  # one processor per process
    if left:
        try:
            for outcome in _pool(request, list(left.values()), prints, out, min(jobs, len(left))):
                del left[outcome.asset]
                yield outcome
        except BrokenExecutor:
            pass  # an asset took its process down, and the pool with it
    for asset in left.values():
        try:
            yield from _pool(request, [asset], prints, out, 1)
        except BrokenExecutor:
            error = "its process died: out of memory?"
            yield Outcome(asset=asset.name, status="failed", fingerprint=prints[asset.name], error=error)


def _pool(request: Request, assets: Sequence[Asset], prints: dict[str, str], out: Path, jobs: int) -> Iterator[Outcome]:
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        futures: list[Future[Outcome]] = [
            pool.submit(train_asset, request, asset, prints[asset.name], out) for asset in assets
        ]
        for future in as_completed(futures):
            yield future.result()


def train_asset(request: Request, asset: Asset, fingerprint: str, out: Path) -> Outcome:
    """Train one asset and write its model; a failure is an outcome too. Runs in a process of the pool."""
    started = time.monotonic()
    options = msgspec.structs.replace(request.options, name=asset.name)
    try:
        tables = [_rows_of(_read(file, request.time_column, asset.column), asset) for file in asset.files]
        wanted = msgspec.structs.replace(request, options=options)
        trained = train_tables(wanted, [table for table in tables if len(table)])
        write(trained, out / asset.name)
    except WheeltapperError as error:
        return Outcome(asset=asset.name, status="failed", fingerprint=fingerprint, error=str(error))
    except Exception as error:  # one asset's surprise is not the fleet's end
        return Outcome(
            asset=asset.name, status="failed", fingerprint=fingerprint, error=f"{type(error).__name__}: {error}"
        )
    return Outcome(
        asset=asset.name,
        status="trained",
        fingerprint=fingerprint,
        seconds=round(time.monotonic() - started, 3),
        rows=trained.card.training.rows,
        limit=trained.card.limit,
        sha256=trained.card.sha256,
    )


@lru_cache(maxsize=4)
def _read(file: str, time_column: str, asset_column: str) -> Table:
    return read_table(file, time_column=time_column, text_columns=[asset_column] if asset_column else [])


def _rows_of(table: Table, asset: Asset) -> Table:
    if not asset.column:
        return table
    cells = np.array(_asset_cells(table, asset.column))
    return table.pick(np.flatnonzero(cells == asset.value)).without([asset.column])


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)
