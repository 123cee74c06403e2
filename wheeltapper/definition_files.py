"""Files of definitions that settings name, read in whatever form they were kept; the log says what is left out of them."""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from wheeltapper.detector.readers import PARAMETER, Definitions, read_bytes
from wheeltapper.errors import DefinitionError, SettingsError

log = logging.getLogger(__name__)


def read_definition_file(path: Path, parameters: Mapping[str, str], table: str) -> Definitions:
    """
    The definitions in a file.

    Args:
        path: JSON or YAML; see ``readers``.
        parameters: values for the parameters of a template.
        table: where the settings name parameters.

    Raises:
        SettingsError: it cannot be read or understood, or lacks a parameter; says which file and why.
    """
    try:
        found = read_bytes(path.read_bytes(), name=path.stem, parameters=parameters)
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    except DefinitionError as error:
        raise SettingsError(f"{path}: {in_settings(str(error), table)}") from error
    for remark in found.remarks:
        if not remark.where.startswith(PARAMETER):  # one that this file does not use may be for another
            log.warning("%s: %s", path, in_settings(str(remark), table))
    return found


def in_settings(said: str, table: str) -> str:
    """
    What a reader says of a template's parameters, with the settings' table in place of the command's option.

    >>> in_settings("no default; pass --parameter Stage=…", "parameters")
    'no default; put into [parameters] Stage=…'
    """
    return said.replace("pass --parameter ", f"put into [{table}] ").replace("(--parameter ", f"([{table}] ")


def warn_of_unused(parameters: Iterable[str], found: Iterable[Definitions], table: str) -> None:
    """Say which parameters none of the files uses."""
    unused = {f"{PARAMETER}{name}" for name in parameters}
    for definitions in found:
        unused &= {remark.where for remark in definitions.remarks}
    for where in sorted(unused):
        log.warning("[%s] %s: given, but no file of models uses it", table, where.removeprefix(PARAMETER))
