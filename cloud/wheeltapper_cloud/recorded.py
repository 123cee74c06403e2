"""``wheeltapper cloud messages``: what the journal remembers, as the history that back-tests read."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from wheeltapper.clock import SystemClock
from wheeltapper.errors import DataError
from wheeltapper.journal import read_rows
from wheeltapper.judge import rows
from wheeltapper.judge.host import DATABASE
from wheeltapper_cloud.settings import default_data_dir

_encode = msgspec.json.Encoder().encode


class Line(msgspec.Struct, rename="camel", omit_defaults=True):
    """One message of a history; ``timestamp`` in milliseconds."""

    input_name: str
    timestamp: int
    payload: msgspec.Raw
    message_id: str = ""


def recorded(database: Path, after_ms: int = 0, input_name: str = "", *, arrival: bool = False) -> Iterator[Line]:
    """
    The messages of a journal in the order of their arrival, also beside a running companion.

    Args:
        database: a ``judge.db``.
        after_ms: those that arrived before are left out.
        input_name: of this input only; of every input where it is empty.
        arrival: a message's time is that of its arrival, even where it has one of its own.

    Raises:
        DataError: there is no journal.
    """
    if not database.is_file():
        raise DataError(f"{database}: no such file; --data-dir is where the companion keeps its journal")
    for row in read_rows(database):
        if row.kind != rows.MESSAGES or row.now_ms < after_ms:
            continue
        for each in rows.decode_messages(row.entries):
            if input_name in ("", each.input):
                time_ms = row.now_ms if arrival or each.time_ms is None else each.time_ms
                yield Line(each.input, time_ms, msgspec.Raw(each.payload), each.message_id)


def print_recorded(options: argparse.Namespace) -> int:
    """Run the command."""
    after_ms = 0 if options.since is None else SystemClock().time_ms() - options.since * 1000
    database = (options.data_dir or default_data_dir()) / DATABASE
    for each in recorded(database, after_ms, options.input, arrival=options.arrival):
        sys.stdout.write(_encode(each).decode() + "\n")
    return 0
