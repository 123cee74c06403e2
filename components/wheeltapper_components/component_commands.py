"""``wheeltapper component``: check recipes, build what is deployed, publish it."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from wheeltapper.cli import Commands

if TYPE_CHECKING:
    from wheeltapper_components.recipe import Finding

_COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}


def register(commands: Commands) -> None:
    """Add ``component lint``, ``build`` and ``publish``."""
    component = commands.group("component", "check, build and publish what Greengrass deploys")
    _register_lint(component)


def _register_lint(component: Commands) -> None:
    parser = component.add(
        "lint",
        _lint,
        help="check recipes by the rules of nucleus classic and nucleus lite",
        example="wheeltapper component lint components/inference/recipe.json\n"
        "wheeltapper component lint recipes/*.yaml --nucleus classic --json",
    )
    parser.add_argument("recipes", nargs="+", type=Path, metavar="RECIPE", help="recipe files, JSON or YAML")
    parser.add_argument(
        "--nucleus", choices=("both", "lite", "classic"), default="both", help="where they must hold (default: both)"
    )
    parser.add_argument("--strict", action="store_true", help="warnings fail as well")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def _lint(options: argparse.Namespace) -> int:
    from wheeltapper_components.recipe_lint import lint

    found = lint(options.recipes, options.nucleus)
    if options.json:
        import msgspec

        print(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
    else:
        _show(found, len(options.recipes))
    failing = ("error", "warning") if options.strict else ("error",)
    return 1 if any(finding.severity in failing for finding in found) else 0


def _show(found: "Sequence[Finding]", files: int) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False, soft_wrap=True)
    for finding in found:
        place = f"{finding.file}: {finding.where}" if finding.where else finding.file
        colour = _COLOURS[finding.severity]
        console.print(
            f"{escape(place)}: [{colour}]{finding.severity}[/]: {escape(finding.message)} [dim]({finding.rule})[/]"
        )
    counts = [sum(finding.severity == severity for finding in found) for severity in _COLOURS]
    summary = ", ".join(f"{count} {name}{'s' * (count != 1)}" for count, name in zip(counts, _COLOURS, strict=True))
    print(f"{files} recipe{'s' * (files != 1)}: {summary}", file=sys.stderr)
