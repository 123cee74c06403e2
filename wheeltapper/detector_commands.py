"""``wheeltapper detector …``: evaluate, simulate, back-test and check detector models."""

import argparse

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
        example="wheeltapper detector simulate model.json --messages messages.jsonl\n"
        "wheeltapper detector simulate < cases.jsonl",
    )
    simulate.add_argument(
        "model", nargs="?", help="a detector or alarm model; without it, cases are read from standard input"
    )
    simulate.add_argument(
        "--messages", metavar="FILE", help="JSON Lines: inputName, timestamp (ms), payload, messageId"
    )
    simulate.add_argument("--json", action="store_true", help="print JSON Lines, one object per step")


def _run_eval(options: argparse.Namespace) -> int:
    from wheeltapper.detector_simulation import answer_lines, evaluate_line

    return answer_lines(evaluate_line)


def _run_simulate(options: argparse.Namespace) -> int:
    if options.model is None:
        from wheeltapper.detector_simulation import answer_lines, simulate_line

        return answer_lines(simulate_line)
    from wheeltapper.detector_simulation import simulate_file

    return simulate_file(options)
