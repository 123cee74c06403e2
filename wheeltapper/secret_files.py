"""Files that hold secrets: what others may read is no secret, and is refused with the fix."""

import os
from pathlib import Path

from wheeltapper.errors import SettingsError


def check_private(path: Path, what: str) -> None:
    """
    See that nobody but its owner may read a file.

    What root lays out for a service that is not root, as orchestrators mount secrets, the service's group may read, too.

    Args:
        path: the file.
        what: the setting that names it.

    Raises:
        SettingsError: it cannot be read, or others may read it, too.
    """
    try:
        path.open("rb").close()
        found = path.stat()
    except OSError as error:
        raise SettingsError(f"{what} {path}: cannot be read: {error.strerror}") from error
    of_roots = found.st_uid == 0 and os.geteuid() != 0
    if found.st_mode & (0o037 if of_roots else 0o077):
        raise SettingsError(f"{what} {path}: holds a secret that others may read; run: chmod 600 {path}")


def read_secret(path: Path, what: str) -> str:
    """
    The text of a file that nobody but its owner may read, without blanks around it.

    Args:
        path: the file.
        what: the setting that names it.

    Raises:
        SettingsError: it cannot be read, is not text, or others may read it, too.
    """
    check_private(path, what)
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SettingsError(f"{what} {path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{what} {path}: is not text") from error
