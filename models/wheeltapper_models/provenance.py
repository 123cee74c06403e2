"""What a card says of the data behind a model: its span and hash, and the rhythm of its rows."""

import hashlib
from collections.abc import Sequence

import numpy as np

from wheeltapper_models.card import Training
from wheeltapper_models.data import Table
from wheeltapper_models.times import iso_of


def training_of(tables: Sequence[Table], excluded_rows: int = 0) -> Training:
    """What was learnt from; one file's hash is its own, several files' the hash of their hashes."""
    hashes = list(dict.fromkeys(table.sha256 for table in tables if table.sha256))
    together = hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
    times = [table.time_ms for table in tables if table.time_ms is not None and len(table.time_ms)]
    return Training(
        rows=sum(map(len, tables)) - excluded_rows,
        sha256=together if hashes else "",
        start=iso_of(min(int(time.min()) for time in times)) if times else "",
        end=iso_of(max(int(time.max()) for time in times)) if times else "",
        sources=list(dict.fromkeys(table.source.rsplit("/", 1)[-1] for table in tables)),
        excluded_rows=excluded_rows,
    )


def labelled_rows_of(tables: Sequence[Table]) -> int:
    """How many rows are known to be abnormal."""
    return sum(int(table.labelled.sum()) for table in tables if table.labelled is not None)


def period_of(tables: Sequence[Table]) -> int:
    """The usual time between two rows, in milliseconds; 0 where there are no times or no usual one."""
    steps = [np.diff(table.time_ms) for table in tables if table.time_ms is not None and len(table) > 1]
    if not steps:
        return 0
    values, counts = np.unique(np.concatenate(steps), return_counts=True)
    best = int(counts.argmax())
    return int(values[best]) if values[best] > 0 and 2 * counts[best] > counts.sum() else 0
