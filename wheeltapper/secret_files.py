"""Files that hold secrets: what others may read is no secret, and is refused with the fix."""

from pathlib import Path

from wheeltapper.errors import SettingsError


def check_private(path: Path, what: str) -> None:
    """
    See that nobody but its owner may read a file.

    Args:
        path: the file.
        what: the setting that names it.

    Raises:
        SettingsError: it cannot be read, or others may read it, too.
    """
    try:
        path.open("rb").close()
        mode = path.stat().st_mode
    except OSError as error:
        raise SettingsError(f"{what} {path}: cannot be read: {error.strerror}") from error
    if mode & 0o077:
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
