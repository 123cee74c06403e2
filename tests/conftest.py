"""What tests of every room share: the reference data beside the checkout, and a real broker."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.mosquitto import Mosquitto, find_mosquitto

# How long an example takes says how busy the machine is, and nothing of what is tested.
settings.register_profile("wheeltapper", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("wheeltapper")


def _absent(what: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} is absent, and CI must have it")
    pytest.skip(f"{what} is absent")


@pytest.fixture(autouse=True)
def _nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands print as into a pipe: those who run tests side by side may name a width."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of specifications, conformance cases and data that lies beside the checkout."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        _absent("the shared folder")
    return folder


@pytest.fixture(scope="session")
def mosquitto_path() -> str:
    """The mosquitto executable."""
    path = find_mosquitto()
    if path is None:
        _absent("mosquitto")
    assert path is not None
    return path


@pytest.fixture
def mosquitto(mosquitto_path: str, tmp_path: Path) -> Iterator[int]:
    """A mosquitto of its own for one test; gives its port on 127.0.0.1."""
    with contextlib.closing(Mosquitto(tmp_path)) as broker:
        yield broker.port
