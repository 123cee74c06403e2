"""``wheeltapper component``: check recipes, build what is deployed, publish it."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from wheeltapper.cli import Commands

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from wheeltapper_components.build import Built, Plan
    from wheeltapper_components.recipe import Finding

_COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}


def register(commands: Commands) -> None:
    """Add ``component lint``, ``build`` and ``publish``."""
    component = commands.group("component", "check, build and publish what Greengrass deploys")
    _register_lint(component)
    _register_build(component)
    _register_publish(component)


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


def _register_build(component: Commands) -> None:
    parser = component.add(
        "build",
        _build,
        help="build recipes and artifacts, with every wheel, ready for a local deployment or for publish",
        example="wheeltapper component build --out dist/greengrass --model 'models/motor=motor-*'\n"
        "wheeltapper component build --out dist/greengrass --machine aarch64 --python 3.11 --detector machine_health.json",
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--out", type=Path, metavar="DIR", help="gets recipes/ and artifacts/")
    where.add_argument("--gdk", type=Path, metavar="FOLDER", help="build this component's folder for the GDK CLI")
    content = parser.add_argument_group("what goes in")
    content.add_argument(
        "--model",
        nargs="+",
        action="extend",
        default=[],
        metavar="FOLDER[=THINGS]",
        help="a model to serve, and patterns of its things (default: the shipped motor model, for every thing)",
    )
    content.add_argument(
        "--model-version", default="", metavar="V", help="version of model components; else their cards'"
    )
    content.add_argument(
        "--detector",
        nargs="+",
        action="extend",
        default=[],
        type=Path,
        metavar="FILE",
        help="detector and alarm models",
    )
    content.add_argument("--config", type=Path, metavar="FILE", help="TOML or JSON: a table for each component's name")
    content.add_argument(
        "--version", default="", metavar="V", help="version of the components (default: wheeltapper's)"
    )
    content.add_argument(
        "--only", choices=("inference", "detector", "model"), action="append", help="build not all three"
    )
    content.add_argument(
        "--key", type=Path, metavar="PEM", help="ed25519 key that signs models which are not signed yet"
    )
    device = parser.add_argument_group("the device (default: this machine)")
    device.add_argument("--machine", "--platform", default="", metavar="M", help="as uname -m prints: x86_64, aarch64")
    device.add_argument("--python", nargs="+", default=[], metavar="3.x", help="its Python; several may be named")
    device.add_argument("--glibc", default="2.34", metavar="2.x", help="its glibc or an older one (default: 2.34)")
    device.add_argument(
        "--wheels", type=Path, metavar="DIR", help="take wheels from this folder and ask no package index"
    )
    parser.add_argument("--json", action="store_true", help="print what was built as JSON")


def _register_publish(component: Commands) -> None:
    parser = component.add(
        "publish",
        _publish,
        help="upload what was built to S3, create component versions and deploy them to a thing group",
        example="wheeltapper component publish --bucket my-artifacts --thing-group gateways --dry-run\n"
        "wheeltapper component publish --bucket my-artifacts --thing-group gateways --merge site.toml",
    )
    parser.add_argument(
        "--from",
        dest="folder",
        type=Path,
        default=Path("dist/greengrass"),
        metavar="DIR",
        help="what build has written (default: dist/greengrass)",
    )
    parser.add_argument("--bucket", required=True, help="the bucket of artifacts")
    parser.add_argument("--prefix", default="", help="folder in the bucket")
    parser.add_argument("--thing-group", default="", metavar="NAME", help="name or ARN; without it nothing is deployed")
    parser.add_argument("--name", default="wheeltapper", help="the deployment's name")
    parser.add_argument("--merge", type=Path, metavar="FILE", help="TOML or JSON: a table for each component's name")
    parser.add_argument(
        "--reset",
        nargs="+",
        action="extend",
        default=[],
        metavar="COMPONENT=/POINTER",
        help="back to the recipe's defaults",
    )
    parser.add_argument("--replace", action="store_true", help="remove components that the last deployment had besides")
    parser.add_argument("--per-minute", type=int, default=100, metavar="N", help="devices that begin in a minute (100)")
    parser.add_argument(
        "--abort-percent", type=float, default=10.0, metavar="P", help="failed devices that cancel the rest (10)"
    )
    parser.add_argument("--region", default=None, help="AWS region; else the usual settings of the AWS CLI")
    parser.add_argument("--dry-run", action="store_true", help="print every request and send none")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


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


def _build(options: argparse.Namespace) -> int:
    import shutil

    from wheeltapper_components.build import build

    plan = _plan(options)
    if options.out is not None:
        built = build(plan, options.out)
    else:
        out = options.gdk / "greengrass-build"
        shutil.rmtree(out / "recipes", ignore_errors=True)
        built = build(plan, out)
        built = [one._replace(recipe=one.recipe.rename(out / "recipes" / "recipe.json")) for one in built]
    if options.json:
        import json

        rows = [{"name": one.name, "version": one.version, "recipe": str(one.recipe)} for one in built]
        print(json.dumps(rows, indent=2))
    else:
        _show_built(built, options.out)
    return 0


def _plan(options: argparse.Namespace) -> "Plan":
    from importlib.resources import files

    from wheeltapper import __version__
    from wheeltapper.errors import SettingsError
    from wheeltapper_components.build import DETECTOR, INFERENCE, MODEL, Plan, read_configuration
    from wheeltapper_components.build_model import ModelSource
    from wheeltapper_components.build_wheels import Device, this_device

    parts = options.only or [INFERENCE, DETECTOR, MODEL]
    if options.gdk is not None:
        parts = [options.gdk.resolve().name]
        if parts[0] not in (INFERENCE, DETECTOR, MODEL):
            raise SettingsError(
                f"--gdk {options.gdk}: must be components/inference, components/detector or components/model"
            )
    models = [ModelSource.parse(text, options.model_version) for text in options.model]
    if not models:
        models = [
            ModelSource(Path(str(files("wheeltapper_models") / "shipped" / "motor")), version=options.model_version)
        ]
    here = this_device()
    return Plan(
        device=Device(tuple(options.python) or here.pythons, options.machine or here.machine, options.glibc),
        models=models,
        detectors=options.detector,
        configuration={} if options.config is None else read_configuration(options.config),
        version=options.version or __version__,
        parts=parts,
        key=_signing_key(options.key),
        wheels=options.wheels,
    )


def _signing_key(path: Path | None) -> "Ed25519PrivateKey | None":
    from wheeltapper_models.signing import read_key

    return None if path is None else read_key(path)


def _show_built(built: "Sequence[Built]", out: Path | None) -> None:
    for one in built:
        size = sum(file.stat().st_size for file in one.files())
        print(f"{one.name} {one.version}: {one.recipe} ({len(one.files())} artifacts, {size / 1e6:.1f} MB)")
    if out is not None:
        chosen = " ".join(f"--add-component {one.name}={one.version}" for one in built)
        print(f"deploy here:  ggl-cli deploy --recipe-dir {out}/recipes --artifacts-dir {out}/artifacts {chosen}")


def _publish(options: argparse.Namespace) -> int:
    import json
    from functools import cache

    from wheeltapper.clock import SystemClock
    from wheeltapper_components.build import read_configuration
    from wheeltapper_components.publish import Publication, Publisher, built_in, check_names, rehearse

    publication = Publication(
        built=built_in(options.folder),
        bucket=options.bucket,
        prefix=options.prefix,
        thing_group=options.thing_group,
        name=options.name,
        merge={} if options.merge is None else read_configuration(options.merge),
        reset=_pointers(options.reset),
        replace=options.replace,
        per_minute=options.per_minute,
        abort_percent=options.abort_percent,
    )
    check_names(publication)
    if options.dry_run:
        print(json.dumps(rehearse(publication, options.region or "REGION"), indent=2, ensure_ascii=False))
        return 0
    import boto3

    client = cache(boto3.session.Session(region_name=options.region).client)
    result = Publisher(publication, client, SystemClock(), lambda line: print(line, file=sys.stderr)).run()
    print(json.dumps(result, indent=None if options.json else 2))
    return 0


def _pointers(texts: "Sequence[str]") -> dict[str, list[str]]:
    from wheeltapper.errors import SettingsError

    found: dict[str, list[str]] = {}
    for text in texts:
        name, _, pointer = text.partition("=")
        if not pointer.startswith("/"):
            raise SettingsError(
                f"--reset {text}: must be COMPONENT=/POINTER, such as com.wheeltapper.Inference=/models"
            )
        found.setdefault(name, []).append(pointer)
    return found
