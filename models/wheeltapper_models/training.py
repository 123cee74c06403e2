"""What training data were: spans, hashes and the time between rows, for the card."""

import hashlib
from collections.abc import Sequence

import numpy as np

from wheeltapper_models.card import Training
from wheeltapper_models.data import Table
from wheeltapper_models.times import iso_of


def describe_training(tables: Sequence[Table]) -> Training:
    """The card's account of the rows that were learnt from."""
    files = {table.source: table.sha256 for table in tables}
    whole = hashlib.sha256()
    for digest in files.values():
        whole.update(bytes.fromhex(digest))
    times = [
        (int(table.time_ms[0]), int(table.time_ms[-1])) for table in tables if table.time_ms is not None and len(table)
    ]
    excluded = sum(int(table.labelled.sum()) for table in tables if table.labelled is not None)
    return Training(
        rows=sum(len(table) for table in tables),
        sha256=next(iter(files.values())) if len(files) == 1 else whole.hexdigest(),
        start=iso_of(min(start for start, _ in times)) if times else "",
        end=iso_of(max(end for _, end in times)) if times else "",
        sources=[source.rsplit("/", 1)[-1] for source in files],
        excluded_rows=excluded,
    )


def period_of(tables: Sequence[Table]) -> int:
    """The median time between rows in milliseconds; 0 without times."""
    steps = [np.diff(table.time_ms) for table in tables if table.time_ms is not None and len(table) > 1]
    if not steps:
        return 0
    return int(np.median(np.concatenate(steps)))
