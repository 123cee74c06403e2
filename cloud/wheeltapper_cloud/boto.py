"""
Gives boto3 and the AWS CLI back the two services that AWS took out of them.

boto3 up to 1.43 still holds their models and redirects by ``AWS_ENDPOINT_URL_IOT_EVENTS``; boto3 from 1.44 needs the models
from a folder that it searches and redirects by ``AWS_ENDPOINT_URL_IOTEVENTS``. The wrong name silently calls a host that
no longer answers, so both are always set.
"""

import configparser
import os
import shlex
from importlib.resources import as_file, files
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass

from wheeltapper.errors import SettingsError
from wheeltapper_cloud.guard import is_loopback
from wheeltapper_cloud.wire import MODELS

SEARCHED = Path("~/.aws/models")
_SHIPPED = files("wheeltapper_cloud") / "service_models"
VARIABLES = (
    "AWS_ENDPOINT_URL_IOT_EVENTS",
    "AWS_ENDPOINT_URL_IOT_EVENTS_DATA",
    "AWS_ENDPOINT_URL_IOTEVENTS",
    "AWS_ENDPOINT_URL_IOTEVENTS_DATA",
)
_REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")


def install(folder: Path | None = None) -> list[Path]:
    """
    Copy the service models to where botocore looks for them.

    Args:
        folder: a folder to be named in ``AWS_DATA_PATH``; default is ``~/.aws/models``, which botocore searches anyway.

    Returns:
        The files written.

    Raises:
        SettingsError: the folder cannot be written.
    """
    target = (folder or SEARCHED).expanduser()
    written = []
    try:
        for service, version in MODELS.items():
            place = target / service / version
            place.mkdir(parents=True, exist_ok=True)
            with as_file(_SHIPPED / service / version) as source:
                for file in sorted(source.iterdir()):
                    (place / file.name).write_bytes(file.read_bytes())
                    written.append(place / file.name)
    except OSError as error:
        raise SettingsError(f"{target}: {error.strerror}; choose another with --dir") from error
    return written


def variables(endpoint: str, folder: Path | None = None) -> dict[str, str]:
    """
    What to export so that boto3 of any release and the AWS CLI call ``endpoint``.

    Args:
        endpoint: for example ``http://127.0.0.1:8600``.
        folder: where the models were installed, if not in ``~/.aws/models``; where none is given and they are not there,
            the package's own folder is named.

    Raises:
        SettingsError: the endpoint is no URL, or the folder lacks the models.
    """
    _check_url(endpoint)
    found = dict.fromkeys(VARIABLES, endpoint)
    if folder is not None and not _holds_models(folder.expanduser()):
        raise SettingsError(f"{folder}: holds no service models; run: wheeltapper boto install --dir {folder}")
    if folder is None and not _holds_models(SEARCHED.expanduser()):
        folder = Path(str(_SHIPPED))
    if folder is not None:
        others = [part for part in os.environ.get("AWS_DATA_PATH", "").split(os.pathsep) if part]
        path = str(folder.expanduser().absolute())
        found["AWS_DATA_PATH"] = os.pathsep.join([path, *(part for part in others if part != path)])
    return found | _regions() | _past_the_proxy(endpoint)


def _regions() -> dict[str, str]:
    """
    A region where clients would find none; boto3 reads one variable, other SDKs the other.

    One that a file names is left to it, so that the program's other clients stay where they are.
    """
    region = next((os.environ[name] for name in _REGIONS if os.environ.get(name)), "")
    if not region and not _is_region_in_file():
        region = "us-east-1"
    return {name: region for name in _REGIONS if region and not os.environ.get(name)}


def _is_region_in_file() -> bool:
    """Whether the profile in use has a region in AWS's own settings."""
    profile = os.environ.get("AWS_PROFILE", "default")
    settings = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        settings.read(Path(os.environ.get("AWS_CONFIG_FILE", "~/.aws/config")).expanduser(), encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError, OSError):
        return False
    return any(settings.has_option(section, "region") for section in (profile, f"profile {profile}"))


def placeholders(endpoint: str) -> dict[str, str]:
    """
    Credentials for clients that would find none and so would not even call; for a companion on this machine alone.

    One that has access keys refuses these as it refuses none at all.
    """
    named = ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE")
    if any(os.environ.get(name) for name in named) or not is_loopback(urlsplit(endpoint).hostname or ""):
        return {}
    if any((Path("~/.aws").expanduser() / name).exists() for name in ("credentials", "config")):
        return {}
    return {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any"}


def _holds_models(folder: Path) -> bool:
    return all((folder / service / version / "service-2.json").is_file() for service, version in MODELS.items())


def _check_url(endpoint: str) -> None:
    try:
        parts = urlsplit(endpoint)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and " " not in endpoint
    except ValueError:  # a port that is none
        is_url = False
    if not is_url:
        raise SettingsError(f"{endpoint!r}: is no URL; give --endpoint one such as http://127.0.0.1:8600")


def _past_the_proxy(endpoint: str) -> dict[str, str]:
    """What keeps clients from sending calls for this machine to the proxy that the environment names."""
    parts = urlsplit(endpoint)
    host = parts.hostname or ""
    if not is_loopback(host) or parts.scheme not in getproxies_environment() or proxy_bypass(host):
        return {}
    name = "no_proxy" if "no_proxy" in os.environ else "NO_PROXY"
    return {name: ",".join(filter(None, (os.environ.get(name), host)))}


def exports(values: dict[str, str]) -> str:
    """
    The lines that a shell evaluates.

    >>> exports({"A": "x y"})
    "export A='x y'"
    """
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in values.items())
