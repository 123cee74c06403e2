"""
Settings: a TOML file, then the environment, then the command line, each over the one before.

A room describes its settings as one frozen Struct of Structs; this module fills it. Relative paths in the file are relative
to the file's folder, all others to the working directory. A member that does not exist is refused by its name, so that a
misspelling cannot pass.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec

from wheeltapper.errors import SettingsError

Settings = TypeVar("Settings", bound=msgspec.Struct)


class _Typed(str):
    """Text that does not come from the file: a path in it is relative to the working directory."""

    __slots__ = ()


def load(
    kind: type[Settings],
    path: Path | None,
    *,
    prefix: str = "",
    environment: Mapping[str, str] | None = None,
    overrides: Mapping[tuple[str, ...], Any] | None = None,
) -> Settings:
    """
    Fill a Struct of settings.

    Args:
        kind: the Struct; its defaults are what nobody says otherwise.
        path: the TOML file; None is an empty one.
        prefix: of the variables that count: with ``WHEELTAPPER_DEVICE__``, ``WHEELTAPPER_DEVICE__BROKER__URL`` is ``url`` in
            ``[broker]``.
        environment: the variables.
        overrides: the place of a member, such as ``("broker", "url")`` → its value; None is no override.

    Raises:
        SettingsError: the file cannot be read, or a member is unknown or not valid; names it.
    """
    values = _read(path) if path is not None else {}
    for name, text in (environment or {}).items():
        if prefix and name.startswith(prefix):
            set_member(values, tuple(name.removeprefix(prefix).lower().split("__")), _Typed(text))
    for place, value in (overrides or {}).items():
        if value is not None:
            set_member(values, place, _Typed(value) if isinstance(value, str | Path) else value)
    folder = path.absolute().parent if path is not None else Path.cwd()
    return convert(kind, values, str(path) if path is not None else "settings", folder)


def convert(kind: type[Settings], values: Mapping[str, Any], where: str, folder: Path) -> Settings:
    """
    Settings from plain data; numbers and booleans may be written as strings, relative paths are relative to ``folder``.

    Raises:
        SettingsError: a member is unknown or not valid; begins with ``where`` and names it.
    """

    def decode(wanted: type, value: object) -> object:
        if wanted is Path and isinstance(value, str) and value:
            return (Path.cwd() if isinstance(value, _Typed) else folder) / value
        if value == "":
            raise ValueError("Expected a path, got nothing; leave the member out where there is none")
        raise ValueError(f"Expected `{wanted.__name__}`, got `{type(value).__name__}`")

    try:
        return cast(Settings, _plain(msgspec.convert(values, kind, strict=False, dec_hook=decode)))
    except msgspec.ValidationError as error:
        raise SettingsError(f"{where}: {error}") from error


def _plain(value: Any) -> Any:
    """The same with every text a plain one: no encoder takes another."""
    if isinstance(value, _Typed):
        return str(value)
    if isinstance(value, dict):
        return {name: _plain(member) for name, member in value.items()}
    if isinstance(value, msgspec.Struct):
        members = {name: _plain(getattr(value, name)) for name in value.__struct_fields__}
        return msgspec.structs.replace(value, **members)
    return value


def set_member(values: dict[str, Any], place: tuple[str, ...], value: Any) -> None:
    """
    Set one member of nested tables, making those that are missing.

    Raises:
        SettingsError: the place leads through something that is no table.

    >>> values = {"broker": {"url": "mqtt://a"}}
    >>> set_member(values, ("broker", "client_id"), "b"); values
    {'broker': {'url': 'mqtt://a', 'client_id': 'b'}}
    """
    table = values
    for section in place[:-1]:
        inner = table.setdefault(section, {})
        if not isinstance(inner, dict):
            raise SettingsError(f"{'.'.join(place)}: {section} is not a table")
        table = inner
    table[place[-1]] = value


def _read(path: Path) -> dict[str, Any]:
    try:
        values = msgspec.toml.decode(path.read_bytes())
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not TOML: {error}") from error
    if not isinstance(values, dict):
        raise SettingsError(f"{path}: not a table of settings")
    return values
