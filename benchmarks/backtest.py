"""
Back-testing a Parquet file: columns against one row at a time, messages per second on one core.

The model is the pump detector of AWS's predictive-maintenance sample; the file holds a fleet of motors that run and rest.

    python benchmarks/backtest.py [--model MODEL.json] [--rows 2000000] [--keys 1000] [--interval 1] [--run 600]
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from wheeltapper.detector.backtest import Report, Runner
from wheeltapper.detector.backtest_columns import ColumnRunner
from wheeltapper.detector.readers import read_text
from wheeltapper.history import all_messages, read_history

MODEL = Path(__file__).resolve().parents[2] / "shared/examples/detector-models/repo-iml-detector-model.json"
INPUT = "IoTImlPumpData"


def make_file(path: Path, rows: int, keys: int, interval_s: float, run_s: float) -> None:
    """Motors in turn, one row each per interval; each runs and rests for about ``run_s`` at a time."""
    chance = np.random.default_rng(4)
    motor = np.arange(rows) % keys
    second = np.arange(rows) // keys * interval_s
    phase = chance.uniform(0, 2 * run_s, keys)[motor]
    running = ((second + phase) // run_s).astype(int) % 2 == 0
    columns = {
        "time": pa.array((1_700_000_000_000 + second * 1000).astype(np.int64), pa.timestamp("ms")),
        "motorID": pa.array([f"motor-{each}" for each in range(keys)]).take(pa.array(motor)),
        "TT01": np.where(running, chance.normal(60, 5, rows), chance.normal(5, 1, rows)),
        **{f"TT{number:02d}": chance.normal(60, 5, rows) for number in range(2, 11)},
        "PT01": chance.normal(30, 3, rows),
        "FT01": chance.normal(170, 8, rows),
    }
    pq.write_table(pa.table(columns), path, row_group_size=500_000)


def by_columns(body: dict, path: Path) -> tuple[Report, int]:
    runner = ColumnRunner(body)
    wanted = {"motorID", *(str(ref.path[0]) for given in runner.plan.inputs for ref in given.references)}
    for chunk in read_history(path, input_name=INPUT, time_column="time", wanted=wanted):
        runner.feed_columns(chunk.batch)
    return runner.finish(), runner.passes


def by_rows(body: dict, path: Path) -> Report:
    runner = Runner(body)
    runner.feed(all_messages(read_history(path, input_name=INPUT, time_column="time")))
    return runner.finish()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--keys", type=int, default=1_000)
    parser.add_argument("--interval", type=float, default=1.0, help="seconds between two messages of a motor")
    parser.add_argument("--run", type=float, default=600.0, help="seconds a motor runs, and rests")
    options = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    body = read_text(options.model.read_text(), name=options.model.stem).detector_models[0]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "history.parquet"
        make_file(path, options.rows, options.keys, options.interval, options.run)
        start = time.process_time()
        fast, passes = by_columns(body, path)
        columns_s = time.process_time() - start
        start = time.process_time()
        slow = by_rows(body, path)
        rows_s = time.process_time() - start
    alarms, changes, _ = fast.totals()
    print(f"{options.rows:,} messages, {options.keys:,} motors, every {options.interval:g} s; {path.name}, one core")
    print(f"columns      {options.rows / columns_s:12,.0f} msg/s  ({passes:,} passes of the engine)")
    print(f"row by row   {options.rows / rows_s:12,.0f} msg/s")
    print(f"ratio        {rows_s / columns_s:12.1f}")
    print(f"same result  {fast == slow}  ({changes:,} state changes, {alarms:,} alarms)")


if __name__ == "__main__":
    main()
