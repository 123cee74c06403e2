"""
The wheels that a component brings along, so that a device installs without network and without surprises.

What is locked for the gateway is downloaded for the device's platform, by hash; this package's own wheel is built beside it.
The archive holds the wheels as they are, sorted and without times, so that equal wheels give equal bytes.
"""

import os
import platform
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from wheeltapper.errors import MissingExtraError, SettingsError, UnavailableError

# The earliest time that a zip can hold.
EPOCH = (1980, 1, 1, 0, 0, 0)
_OLDEST_GLIBC = 5
_REQUIREMENT = re.compile(r"[A-Za-z0-9]")


class Device(NamedTuple):
    """
    What the wheels must run on.

    Args:
        pythons: versions, such as ``3.11``; the wheelhouse serves every one of them.
        machine: as ``uname -m`` prints it.
        glibc: the device has this release or a later one.
    """

    pythons: tuple[str, ...]
    machine: str
    glibc: str = "2.34"

    def check(self) -> None:
        """
        Raises:
            SettingsError: a version is not written as one, or too old.
        """
        for version in self.pythons:
            found = re.fullmatch(r"3\.(\d+)", version)
            if found is None or int(found.group(1)) < 11:
                raise SettingsError(f"--python {version}: must be 3.11 or newer, written as 3.11")
        if not re.fullmatch(r"2\.\d+", self.glibc):
            raise SettingsError(f"--glibc {self.glibc}: must be a release such as 2.34; ldd --version prints it")


def this_device() -> Device:
    """This Python on this machine."""
    return Device((f"{sys.version_info.major}.{sys.version_info.minor}",), platform.machine())


def gather(checkout: Path, device: Device, folder: Path, given: Path | None = None) -> None:
    """
    Put every wheel that the gateway needs into a folder.

    Args:
        checkout: where ``pyproject.toml`` and ``requirements/gateway.txt`` lie.
        given: take the wheels from here, wheeltapper's own among them, and ask no index.

    Raises:
        SettingsError: there is no lock, or no wheel for the device.
        UnavailableError: the index cannot be reached.
    """
    device.check()
    lock = checkout / "requirements" / "gateway.txt"
    try:
        locked = lock.read_text()
    except OSError as error:
        raise SettingsError(
            f"{lock}: cannot be read: {error.strerror}; run this in a checkout of wheeltapper"
        ) from error
    source = [] if given is None else ["--no-index", "--find-links", str(given.absolute())]
    for version in device.pythons:
        _download(requirements_for(locked, version, device.machine), version, device, folder, source)
    _own_wheel(checkout, folder, given)


def requirements_for(locked: str, python: str, machine: str) -> str:
    """
    The requirements of a lock that apply to a device, their markers resolved; each keeps its hashes.

    pip alone judges markers by the Python that it runs in, not by the one it downloads for.
    """
    try:
        from packaging.markers import Marker
    except ModuleNotFoundError as error:
        raise MissingExtraError("gateway", "packaging") from error
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "platform_machine": machine,
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "extra": "",
    }
    wanted: list[str] = []
    for block in re.split(r"\n(?=\S)", locked.strip()):
        if not _REQUIREMENT.match(block):
            continue
        first, *rest = block.split("\n")
        name, _, marker = first.removesuffix("\\").partition(";")
        if marker.strip() and not Marker(marker.strip()).evaluate(environment):
            continue
        hashes = [line for line in rest if line.strip().startswith("--hash")]
        wanted.append("\n".join([f"{name.strip()} \\", *hashes]))
    return "\n".join(wanted) + "\n"


def archive(folder: Path, target: Path) -> None:
    """The wheels of a folder as one zip; the same wheels give the same bytes."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as zipped:
        for wheel in sorted(folder.glob("*.whl")):
            entry = zipfile.ZipInfo(wheel.name, EPOCH)
            entry.external_attr = 0o644 << 16
            entry.create_system = 3
            zipped.writestr(entry, wheel.read_bytes())


def _download(requirements: str, python: str, device: Device, folder: Path, source: Sequence[str]) -> None:
    newest = int(device.glibc.split(".")[1])
    tags = [f"manylinux_2_{minor}_{device.machine}" for minor in range(newest, _OLDEST_GLIBC - 1, -1)]
    tags += [f"manylinux2014_{device.machine}", f"manylinux2010_{device.machine}", f"linux_{device.machine}"]
    platforms = [option for tag in tags for option in ("--platform", tag)]
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "requirements.txt"
        file.write_text(requirements)
        what = ["--only-binary=:all:", "--implementation", "cp", "--python-version", python, *platforms]
        _pip(
            [
                "download",
                "--no-deps",
                "--require-hashes",
                *what,
                *source,
                "--dest",
                str(folder),
                "--requirement",
                str(file),
            ],
            f"wheels for Python {python} on {device.machine}",
        )


def _own_wheel(checkout: Path, folder: Path, given: Path | None) -> None:
    from wheeltapper import __version__

    if given is None:
        _pip(["wheel", "--no-deps", "--wheel-dir", str(folder), str(checkout)], "wheeltapper's own wheel")
        return
    name = f"wheeltapper-{__version__}-py3-none-any.whl"
    try:
        (folder / name).write_bytes((given / name).read_bytes())
    except OSError as error:
        raise SettingsError(
            f"--wheels {given}: holds no {name}; run: pip wheel --no-deps --wheel-dir {given} {checkout}"
        ) from error


def _pip(arguments: Sequence[str], what: str) -> None:
    # The fixed date makes the wheel's entries the same on every build.
    environment = os.environ | {"SOURCE_DATE_EPOCH": "315532800", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    run = subprocess.run(
        [sys.executable, "-m", "pip", "--quiet", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    if run.returncode == 0:
        return
    reasons = [line for line in run.stderr.splitlines() if line.startswith("ERROR")] or run.stderr.splitlines()[-1:]
    reason = " ".join(" ".join(reasons).split())
    if "No module named pip" in run.stderr:
        raise SettingsError(f"{sys.executable}: has no pip; run: {sys.executable} -m ensurepip")
    if re.search(r"connection|Temporary failure|timed out|Network is unreachable", run.stderr, re.IGNORECASE):
        raise UnavailableError(f"{what}: the package index cannot be reached; retry, or give --wheels: {reason}")
    raise SettingsError(f"{what}: {reason}")
