"""What ``wheeltapper detector eval`` and ``simulate`` read and print."""

import sys
from collections.abc import Callable
from typing import Any

import msgspec

from wheeltapper.detector.simulate import evaluate_request, simulate_request
from wheeltapper.errors import DataError


def answer_lines(answer: Callable[[dict[str, Any]], dict[str, Any]]) -> int:
    """
    One JSON line out for each JSON line in, in order.

    Raises:
        DataError: a line is not a JSON object, or lacks what it must have.
    """
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
        sys.stdout.buffer.write(msgspec.json.encode(answered) + b"\n")
        sys.stdout.buffer.flush()
    return 0


evaluate_line = evaluate_request
simulate_line = simulate_request
