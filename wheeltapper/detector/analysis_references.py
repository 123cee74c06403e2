"""Analyses of names: timers and variables that are used but never set, inputs that do not exist."""

import re
from collections.abc import Iterator

from wheeltapper.detector import expression as ex
from wheeltapper.detector.analysis_findings import Finding, Inputs
from wheeltapper.detector.analysis_survey import Survey, timers_of

_INPUT_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9_]{0,127}")


def set_names(laid_out: Survey, kind: str, member: str) -> set[str]:
    """The timers or variables that some action sets."""
    return {step.name(member) for rule in laid_out.rules for step in rule.steps if step.kind == kind}


def data(laid_out: Survey) -> Iterator[Finding]:
    """Timers and variables that expressions use and no action sets."""
    timers = set_names(laid_out, "setTimer", "timerName")
    variables = set_names(laid_out, "setVariable", "variableName")
    broken: dict[tuple[str, str], list[str]] = {}
    for path, _, tree in laid_out.trees():
        for name in timers_of(tree):
            if name not in timers:
                broken.setdefault(("timer", name), []).append(path)
        for reference in ex.references(tree):
            if reference.root == "variable" and reference.name not in variables:
                broken.setdefault(("variable", reference.name), []).append(path)
    for (kind, name), paths in broken.items():
        yield Finding(
            "referenced-data",
            "ERROR",
            f"Detected broken {kind.title()}: {kind} {name} is used in an expression but is never set.",
            tuple(dict.fromkeys(paths)),
        )


def resources(laid_out: Survey, inputs: Inputs | None) -> Iterator[Finding]:
    """Inputs that have an illegal name or do not exist."""
    for name, paths in laid_out.input_names().items():
        if not _INPUT_NAME.fullmatch(name):
            yield Finding(
                "referenced-resource",
                "ERROR",
                f"Detector Model Definition contains invalid InputName: {name}",
                tuple(paths),
            )
        elif inputs is not None and name not in inputs:
            yield Finding(
                "referenced-resource",
                "ERROR",
                f"Detector Model Definition contains reference to Input '{name}' that does not exist.",
                tuple(paths),
            )
