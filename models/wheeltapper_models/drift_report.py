"""``wheeltapper model drift``: what a DriftMonitor says of a whole file, as a table, JSON and a picture."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from wheeltapper.errors import DataError
from wheeltapper_models.drift import DAY_MS, DriftMonitor, DriftSettings, Finding
from wheeltapper_models.forest_score import read_stream
from wheeltapper_models.score import read_for, score_table
from wheeltapper_models.session import Session
from wheeltapper_models.times import iso_of


class DriftReport(msgspec.Struct, frozen=True):
    """What has drifted in a file, and the periods that were looked at."""

    model: str
    version: str
    rows: int
    findings: list[dict[str, object]]
    periods: list[dict[str, object]]


def watch_file(
    model: Path, data: str, *, time_column: str, settings: DriftSettings
) -> tuple[DriftMonitor, list[Finding]]:
    """
    Score a file and feed every row to a monitor.

    Raises:
        DataError: the file has no times, or is too short to say what is usual.
        ModelError: the model cannot be read, or gives no scores.
    """
    session = Session.load(model, require_card=False)
    card = session.card
    table = read_for(card, data, time_column=time_column)
    if table.time_ms is None:
        raise DataError(f"{data}: drift is judged by time; name its column: --time-column")
    scores = score_table(session, table, stream=read_stream(card, model))
    watched = scores.score
    if card.kind == "forecast":
        watched = np.abs(scores.score - table.column(card.target)[scores.rows])
    sensors = [item.name for item in card.inputs if item.name in table.names]
    monitor = DriftMonitor(sensors, settings)
    values = table.select(sensors).values[scores.rows].tolist()
    findings: list[Finding] = []
    for time_ms, score, row in zip(table.time_ms[scores.rows].tolist(), watched.tolist(), values, strict=True):
        findings += monitor.update(time_ms, score, row)
    if monitor.usual is None:
        periods = settings.period_ms / DAY_MS
        raise DataError(
            f"{data}: holds fewer than {settings.learn_periods} full periods of {periods:g} days, which are needed to say "
            "what is usual; shorten them (--period PT1H) or learn from fewer (--learn 3)"
        )
    return monitor, findings


def report_of(model: Path, monitor: DriftMonitor, findings: Sequence[Finding]) -> DriftReport:
    """The findings and periods, for JSON."""
    card = Session.load(model, require_card=False).card
    told = [{"time": iso_of(finding.time_ms), **msgspec.to_builtins(finding)} for finding in findings]
    periods = [{"start": iso_of(report.start_ms), **msgspec.to_builtins(report)} for report in monitor.reports]
    return DriftReport(card.name, card.version, sum(report.rows for report in monitor.reports), told, periods)


def draw(monitor: DriftMonitor, findings: Sequence[Finding], path: Path) -> None:
    """The chart of cutoffs with its band, and the sensors' distances, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plot

    times = np.array([report.start_ms for report in monitor.reports], dtype="datetime64[ms]")
    low, high = monitor.band()
    figure, (above, below) = plot.subplots(2, 1, figsize=(10, 6), sharex=True, layout="constrained")
    above.axhspan(low, high, color="#dfe8df", label="usual ± 3 σ")
    above.plot(times, [report.cutoff for report in monitor.reports], color="#1f4e79", label="cutoff of the period")
    above.plot(times, [report.score_mean for report in monitor.reports], color="#888888", label="mean score")
    for finding in findings:
        if finding.method == "adwin":
            above.axvline(np.datetime64(finding.time_ms, "ms"), color="#b03a2e", linewidth=0.8)
    above.set_ylabel("score")
    above.legend(loc="upper left", frameon=False)
    for sensor in monitor.sensors:
        below.plot(times, [report.distances.get(sensor, np.nan) for report in monitor.reports], label=sensor)
    below.set_ylabel("KS distance")
    below.set_ylim(0.0, 1.0)
    below.legend(loc="upper left", ncols=4, frameon=False, fontsize="small")
    figure.savefig(path, dpi=120)
    plot.close(figure)


def show(report: DriftReport) -> None:
    """The findings as a table."""
    from rich.console import Console

    from wheeltapper_models.show import table_of

    console = Console()
    console.print(
        f"{report.model} {report.version}: {len(report.periods)} periods, {report.rows} rows", highlight=False
    )
    if not report.findings:
        console.print("nothing has drifted")
        return
    lines = [[str(found[name]) for name in ("time", "method", "detail")] for found in report.findings]
    console.print(table_of("drift", ["time", "method", "what"], lines))
