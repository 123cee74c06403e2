"""The commands of this room: ``cloud serve``, ``cloud keys``, ``boto``, and those of its other modules."""

import argparse
import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from wheeltapper.cli import Commands
from wheeltapper_cloud.operators_options import seconds_of

if TYPE_CHECKING:
    from wheeltapper_cloud.keys import AccessKey, KeyStore, NewKey

# Modules with a ``register`` of their own; the latter handle models, whose package an image of this room alone lacks.
_OTHERS = ("operators", "trigger")
_OF_MODELS = ("exports", "registry")


def register(commands: Commands) -> None:
    """Add this room's commands."""
    cloud = commands.group("cloud", help="the cloud companion: AWS IoT Events on your own machine")
    _register_serve(cloud)
    _register_messages(cloud)
    _register_keys(cloud.group("keys", help="access keys for those who call the cloud companion"))
    _register_boto(commands.group("boto", help="let boto3 and the AWS CLI find the cloud companion"))
    with_models = importlib.util.find_spec("wheeltapper_models") is not None
    for name in (*_OTHERS, *(_OF_MODELS if with_models else ())):
        importlib.import_module(f"wheeltapper_cloud.{name}").register(commands)


def _register_serve(cloud: Commands) -> None:
    parser = cloud.add(
        "serve",
        _serve,
        help="serve the operations of AWS IoT Events, judge messages and act",
        example="wheeltapper cloud serve --data-dir ./cloud-data --broker mqtt://127.0.0.1:1883 --config cloud.toml",
    )
    parser.add_argument("--host", help="address to listen on (default: 127.0.0.1); any other needs access keys")
    parser.add_argument("--port", type=int, help="port to listen on (default: 8600); 0 takes a free one")
    parser.add_argument("--certificate", type=Path, metavar="PEM", help="serve HTTPS with this certificate")
    parser.add_argument("--private-key", type=Path, metavar="PEM", help="the key of --certificate")
    _add_data_dir(parser)
    parser.add_argument("--broker", metavar="URL", help="mqtt://host:port to listen to and publish on (default: none)")
    parser.add_argument(
        "--config", type=Path, metavar="TOML", help="cloud.toml: inputs, models, rules, actions, limits"
    )
    parser.add_argument(
        "--log-level",
        default="INFO",
        choices=("DEBUG", "INFO", "WARNING", "ERROR"),
        help="the least that is logged (default: INFO)",
    )


def _register_messages(cloud: Commands) -> None:
    parser = cloud.add(
        "messages",
        _print_messages,
        help="print the messages that the journal remembers, for detector backtest and simulate",
        example="wheeltapper cloud messages --data-dir ./cloud-data --since 7d > messages.jsonl\n"
        "wheeltapper detector backtest new.json --against old.json --messages messages.jsonl",
    )
    _add_data_dir(parser)
    parser.add_argument("--since", type=seconds_of, metavar="TIME", help="the last 90s, 10m, 8h, 7d … (default: all)")
    parser.add_argument("--input", default="", metavar="NAME", help="of this input only")
    parser.add_argument(
        "--arrival",
        action="store_true",
        help="give the times of arrival instead of the messages' own, where they have one",
    )


def _register_keys(keys: Commands) -> None:
    create = keys.add(
        "create",
        _create_key,
        help="make an access key and show its secret once",
        example='eval "$(wheeltapper cloud keys create ops)"\n'
        "wheeltapper cloud keys create contractor --days 90 --out contractor.env",
    )
    create.add_argument("name", nargs="?", default="", help="whose it is; named in the audit trail")
    create.add_argument(
        "--days", type=_days, metavar="N", help="how long it can be used (default: until it is revoked)"
    )
    create.add_argument(
        "--out", type=Path, metavar="FILE", help="write the variables to a new file, 0600, instead of showing them"
    )
    listing = keys.add("list", _list_keys, help="show the access keys", example="wheeltapper cloud keys list --json")
    revoke = keys.add(
        "revoke", _revoke_key, help="forget an access key", example="wheeltapper cloud keys revoke WTAKQ7M2XN5TB3LDZJRA"
    )
    revoke.add_argument("id", help="the access key's id")
    for parser in (create, listing, revoke):
        _add_data_dir(parser)
        parser.add_argument("--json", action="store_true", help="print JSON")


def _days(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= 36_500):
        raise argparse.ArgumentTypeError("must be a number of days from 1 to 36500")
    return int(text)


def _register_boto(boto: Commands) -> None:
    install = boto.add(
        "install",
        _install,
        help="put the service models where botocore finds them",
        example='eval "$(wheeltapper boto install)"',
    )
    env = boto.add(
        "env",
        _env,
        help="print the variables that send boto3 and the AWS CLI to the cloud companion",
        example='eval "$(wheeltapper boto env --endpoint http://127.0.0.1:8600)"',
    )
    for parser in (install, env):
        parser.add_argument("--dir", type=Path, help="folder of the service models (default: ~/.aws/models)")
        parser.add_argument("--endpoint", default="http://127.0.0.1:8600", metavar="URL", help="the cloud companion")
        parser.add_argument("--json", action="store_true", help="print JSON")


def _add_data_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data-dir", type=Path, metavar="DIR", help="where data is kept (default: ~/.local/share/wheeltapper/cloud)"
    )


def _serve(options: argparse.Namespace) -> int:
    from wheeltapper.logs import set_up
    from wheeltapper_cloud.serve import serve
    from wheeltapper_cloud.settings import default_data_dir, load

    set_up(options.log_level)
    given = {
        ("server", "host"): options.host,
        ("server", "port"): options.port,
        ("server", "certificate"): options.certificate,
        ("server", "private_key"): options.private_key,
        ("broker",): options.broker,
    }
    serve(load(options.config, os.environ, given), options.data_dir or default_data_dir())
    return 0


def _print_messages(options: argparse.Namespace) -> int:
    from wheeltapper_cloud.recorded import print_recorded

    return print_recorded(options)


def _create_key(options: argparse.Namespace) -> int:
    from wheeltapper_cloud.keys import write_new

    def keep(made: "NewKey") -> None:
        write_new(options.out, f"{_shown(made, as_json=options.json)}\n".encode())

    made = _keys(options).create(options.name, options.days, None if options.out is None else keep)
    if options.out is None:
        print(_shown(made, as_json=options.json))
    else:
        print(f"{made.access_key_id}: id and secret are in {options.out}")
    return 0


def _shown(made: "NewKey", *, as_json: bool) -> str:
    """JSON, or what a shell evaluates; a session token left over from AWS would make every signature another one."""
    if as_json:
        found = {"AccessKeyId": made.access_key_id, "SecretAccessKey": made.secret_access_key, "Name": made.name}
        return json.dumps(found)
    return (
        f"export AWS_ACCESS_KEY_ID={made.access_key_id}\nexport AWS_SECRET_ACCESS_KEY={made.secret_access_key}\n"
        "unset AWS_SESSION_TOKEN"
    )


def _list_keys(options: argparse.Namespace) -> int:
    store = _keys(options)
    keys = store.all()
    if options.json:
        rows = [
            {
                "AccessKeyId": key.access_key_id,
                "Name": key.name,
                "CreatedMs": key.created_ms,
                "ExpiresMs": key.expires_ms,
            }
            for key in keys
        ]
        print(json.dumps(rows))
        return 0
    from wheeltapper_cloud.tables import moment, show, table_of

    lines = [
        (key.access_key_id, key.name, moment(key.created_ms), _expiry(key, expired=store.expired(key))) for key in keys
    ]
    empty = (
        "no key can be used: nobody may call; make one: wheeltapper cloud keys create NAME"
        if store.required()
        else "no key yet: programs on this machine may call without one; make one: wheeltapper cloud keys create NAME"
    )
    show(table_of(("access key", "name", "created", "expires"), lines, empty))
    return 0


def _expiry(key: "AccessKey", *, expired: bool) -> str:
    from wheeltapper_cloud.tables import moment

    return "" if key.expires_ms is None else f"expired {moment(key.expires_ms)}" if expired else moment(key.expires_ms)


def _revoke_key(options: argparse.Namespace) -> int:
    store = _keys(options)
    store.revoke(options.id)
    print(json.dumps({"AccessKeyId": options.id}) if options.json else f"revoked {options.id}")
    if not options.json and not store.all():
        print(
            "no key is left: nobody may call until you make one; without keys.json, programs on this machine may again"
        )
    return 0


def _keys(options: argparse.Namespace) -> "KeyStore":
    from wheeltapper.clock import SystemClock
    from wheeltapper_cloud.keys import KeyStore
    from wheeltapper_cloud.settings import default_data_dir

    return KeyStore(options.data_dir or default_data_dir(), SystemClock())


def _install(options: argparse.Namespace) -> int:
    from wheeltapper_cloud.boto import install

    for path in install(options.dir):
        print(f"wrote {path}", file=sys.stderr)
    return _env(options)


def _env(options: argparse.Namespace) -> int:
    from wheeltapper_cloud.boto import exports, placeholders, variables

    found = variables(options.endpoint, options.dir) | placeholders(options.endpoint)
    print(json.dumps(found) if options.json else exports(found))
    return 0
