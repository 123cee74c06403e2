"""``wheeltapper detector …``: evaluate, simulate, back-test and check detector and alarm models."""

import argparse

from wheeltapper import detector_tools
from wheeltapper.cli import Commands


def register(commands: Commands) -> None:
    """Add this room's commands."""
    group = commands.group("detector", help="detector and alarm models: evaluate, simulate, back-test, check")
    group.add(
        "eval",
        _run_eval,
        help="evaluate expressions, JSON Lines in and out",
        example="""echo '{"id": 1, "expr": "$variable.n > 5", "variables": {"n": 7}}' | wheeltapper detector eval""",
    )
    simulate = group.add(
        "simulate",
        _run_simulate,
        help="run a model on messages in virtual time, without side effects",
        example="wheeltapper detector simulate model.json --messages messages.jsonl --after 600\n"
        "wheeltapper detector simulate model.json --messages messages.jsonl --trace\n"
        "wheeltapper detector simulate < cases.jsonl",
    )
    simulate.add_argument(
        "model",
        nargs="?",
        help="JSON or YAML with a detector or alarm model; without it, cases come from standard input",
    )
    simulate.add_argument(
        "--messages",
        metavar="FILE",
        help="JSON Lines: inputName, timestamp (ms), payload, messageId; or a batch-put-message body; - for standard input",
    )
    simulate.add_argument("--name", help="which model, where the file holds several")
    simulate.add_argument(
        "--after",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="let timers run on after the last message (default: 0)",
    )
    simulate.add_argument("--json", action="store_true", help="print JSON Lines, one object per pass of a detector")
    simulate.add_argument("--trace", action="store_true", help="print why: every condition with its values, as a tree")
    detector_tools.register(group)


def _run_eval(options: argparse.Namespace) -> int:
    from wheeltapper.detector_simulation import evaluate_lines

    return evaluate_lines()


def _run_simulate(options: argparse.Namespace) -> int:
    from wheeltapper.detector_simulation import simulate_file, simulate_lines

    return simulate_lines() if options.model is None else simulate_file(options)
