"""``wheeltapper model registry``: which versions there are, where they come from, which one is live, and the release key."""

import argparse
import getpass
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from wheeltapper.cli import Commands
from wheeltapper.errors import SettingsError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from wheeltapper_cloud.registry_store import Registry, Version

KEY_FILE = "release.pem"


def register(commands: Commands) -> None:
    """Add the group."""
    from wheeltapper_cloud.exports import GROUP_HELP

    registry = commands.group("model", GROUP_HELP).group("registry", help="versions of models, and which one is live")
    key = registry.add(
        "key", _key, help="make the key that signs released models", example="wheeltapper model registry key"
    )
    key.add_argument("--out", type=Path, metavar="PEM", help="where to (default: release.pem in the registry's folder)")
    add = registry.add(
        "add",
        _add,
        help="register a model's folder",
        example="wheeltapper model registry add models/pump --note 'retrained'",
    )
    add.add_argument("model", metavar="FOLDER", help="holds model.onnx and card.json")
    add_release(add)
    listing = registry.add(
        "list", _list, help="show models and their versions", example="wheeltapper model registry list --json"
    )
    listing.add_argument("name", nargs="?", default="", help="one model only")
    show = registry.add(
        "show",
        _show,
        help="show a version's lineage and its model's promotions",
        example="wheeltapper model registry show pump:1.2.0",
    )
    show.add_argument("model", metavar="NAME[:VERSION]", help="default version: the live one, else the newest")
    promote = registry.add(
        "promote",
        _promote,
        help="make a version the live one",
        example='wheeltapper model registry promote pump 1.2.0 --note "40 days without a false alarm"',
    )
    promote.add_argument("name", help="the model")
    promote.add_argument("version", help="the version to make live")
    rollback = registry.add(
        "rollback",
        _roll_back,
        help="make the version live that was live before",
        example='wheeltapper model registry rollback pump --release --note "false alarms at low load"',
    )
    rollback.add_argument("name", help="the model")
    rollback.add_argument(
        "--release",
        action="store_true",
        help="register its contents under a higher version: gateways take the highest that they have",
    )
    for parser in (promote, rollback):
        _add_person(parser)
    _add_key(rollback)
    for parser in (key, add, listing, show, promote, rollback):
        add_common(parser)


def add_common(parser: argparse.ArgumentParser) -> None:
    """Options of every command on the registry."""
    parser.add_argument(
        "--data-dir", type=Path, metavar="DIR", help="where data is kept (default: ~/.local/share/wheeltapper/cloud)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def add_release(parser: argparse.ArgumentParser) -> None:
    """Options of commands that register a version."""
    parser.add_argument("--model-version", default="", metavar="V", help="else the card's, or the next patch")
    _add_key(parser)
    _add_person(parser)


def open_registry(options: argparse.Namespace) -> "Registry":
    """The registry that the options name."""
    from wheeltapper.clock import SystemClock
    from wheeltapper_cloud.registry_store import Registry

    return Registry(_folder(options), SystemClock())


def add_model(registry: "Registry", options: argparse.Namespace) -> "Version":
    """
    Register the folder that the options name, signed.

    Raises:
        SettingsError: there is no key, and nobody said that none is wanted.
    """
    return registry.add(
        Path(options.model),
        options.by,
        key=_signing_key(options),
        version=options.model_version,
        note=options.note,
    )


def _folder(options: argparse.Namespace) -> Path:
    from wheeltapper_cloud.settings import default_data_dir

    return Path(options.data_dir or default_data_dir()) / "models"


def _signing_key(options: argparse.Namespace) -> "Ed25519PrivateKey | None":
    from wheeltapper_models.signing import read_key

    if options.unsigned:
        return None
    path = options.key or _folder(options) / KEY_FILE
    if options.key is None and not path.exists():
        raise SettingsError(f"{path}: there is no release key; run: wheeltapper model registry key; or give --unsigned")
    return read_key(path)


def _add_key(parser: argparse.ArgumentParser) -> None:
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--key", type=Path, metavar="PEM", help="the release key (default: the registry's)")
    choice.add_argument("--unsigned", action="store_true", help="do not sign; gateways with trusted keys refuse it")


def _add_person(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--as", dest="by", default=_user(), metavar="NAME", help="your name (default: this user's)")
    parser.add_argument("--note", default="", help="why; kept with it")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())


def _key(options: argparse.Namespace) -> int:
    from wheeltapper_models.manifest import key_id
    from wheeltapper_models.signing import create_key, public_path

    path = options.out or _folder(options) / KEY_FILE
    found = {"key": str(path), "public": str(public_path(path)), "id": key_id(create_key(path).public_key())}
    if options.json:
        print(json.dumps(found))
    else:
        print(f"made {found['key']} (keep it secret) and {found['public']} (id {found['id']})")
        print(f"gateways trust it when {public_path(path).name} lies in the folder that watch.trusted_keys names")
    return 0


def _add(options: argparse.Namespace) -> int:
    version = add_model(open_registry(options), options)
    return _say(options, version, f"{version.name} {version.version}: registered")


def _list(options: argparse.Namespace) -> int:
    registry = open_registry(options)
    names = [options.name] if options.name else registry.names()
    rows = [(version, registry.live(name) == version.version) for name in names for version in registry.versions(name)]
    if options.json:
        print(json.dumps([_plain(version) | {"live": live} for version, live in rows]))
        return 0
    from rich.console import Console
    from rich.table import Table

    from wheeltapper.times import iso_of

    table = Table("model", "version", "live", "registered", "by", "signed with", "scores", "note")
    for version, live in rows:
        scores = ", ".join(f"{name} {value:.4g}" for name, value in version.scores.items())
        when = iso_of(version.registered_ms)
        mark = "●" if live else ""
        cells = (version.name, version.version, mark, when, version.registered_by, version.signed_with, scores)
        table.add_row(*cells, version.note)
    Console().print(table)
    return 0


def _show(options: argparse.Namespace) -> int:
    from wheeltapper.times import iso_of

    registry = open_registry(options)
    name, _, version = options.model.partition(":")
    found = registry.find(name, version)
    journal = registry.promotions(name)
    if options.json:
        promotions = [entry._asdict() for entry in journal]
        print(json.dumps(_plain(found) | {"live": registry.live(name) == found.version, "promotions": promotions}))
        return 0
    from rich.console import Console
    from rich.table import Table

    lineage = Table(f"{found.name} {found.version}", "", show_header=True)
    for label, value in {
        "live version": registry.live(name) or "none",
        "files": str(registry.files(found)),
        "model SHA-256": found.model_sha256,
        "data SHA-256": found.data_sha256,
        "trained with": ", ".join(f"{part} {release}" for part, release in found.code.items()),
        "scores": ", ".join(f"{score} {value:.4g}" for score, value in found.scores.items()),
        "signed with": found.signed_with or "nobody",
        "registered": f"{iso_of(found.registered_ms)} by {found.registered_by} {found.note}",
    }.items():
        lineage.add_row(label, value)
    history = Table("when", "what", "version", "by", "note")
    for entry in journal:
        history.add_row(iso_of(entry.at_ms), entry.what, entry.version, entry.by, entry.note)
    for table in (lineage, history):
        Console().print(table)
    return 0


def _promote(options: argparse.Namespace) -> int:
    version = open_registry(options).promote(options.name, options.version, options.by, options.note)
    return _say(options, version, f"{version.name} {version.version}: is live")


def _roll_back(options: argparse.Namespace) -> int:
    key = _signing_key(options) if options.release else None
    registry = open_registry(options)
    version = registry.roll_back(options.name, options.by, options.note)
    if options.release:
        version = registry.release_again(version, options.by, key=key)
    return _say(options, version, f"{version.name} {version.version}: is live")


def _say(options: argparse.Namespace, version: "Version", line: str) -> int:
    print(json.dumps(_plain(version)) if options.json else line)
    return 0


def _plain(version: "Version") -> dict[str, Any]:
    return msgspec.structs.asdict(version)
