"""A secret that others may read is refused, with the fix, whichever setting names it."""

import os
from pathlib import Path

import pytest

from wheeltapper.errors import SettingsError
from wheeltapper.secret_files import check_private, read_secret
from wheeltapper.transport.settings import BrokerSettings


def written(folder: Path, mode: int = 0o600, content: bytes = b" engine \n") -> Path:
    path = folder / "secret"
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_secret_is_read_without_the_blanks_around_it(tmp_path: Path, mode: int) -> None:
    settings = BrokerSettings(username="plant", password_file=written(tmp_path, mode))

    settings.check_files()

    assert settings.password() == "engine"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o602])
def test_a_brokers_password_that_others_may_read_is_refused_before_connecting(tmp_path: Path, mode: int) -> None:
    path = written(tmp_path, mode)

    with pytest.raises(SettingsError, match=f"broker password_file {path}.*chmod 600 {path}"):
        BrokerSettings(username="plant", password_file=path).check_files()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can lay out a file of root's")
def test_what_root_lays_out_for_a_service_its_group_may_read_and_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, 0o640)
    monkeypatch.setattr(os, "geteuid", lambda: 1883)

    assert read_secret(path, "x") == "engine"
    path.chmod(0o644)
    with pytest.raises(SettingsError, match="others may read"):
        read_secret(path, "x")


def test_a_key_that_others_may_read_is_refused_and_a_certificate_is_for_everybody(tmp_path: Path) -> None:
    key, certificate = written(tmp_path, 0o644), tmp_path / "device.crt"
    certificate.write_text("public")
    certificate.chmod(0o644)
    settings = BrokerSettings(url="mqtts://plant", ca=certificate, certificate=certificate, key=key)

    with pytest.raises(SettingsError, match=f"broker key {key}.*chmod 600"):
        settings.check_files()
    key.chmod(0o600)

    settings.check_files()


@pytest.mark.parametrize("content", [None, b"\xff\xfe"], ids=["absent", "not text"])
def test_a_secret_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "none" if content is None else written(tmp_path, content=content)

    with pytest.raises(SettingsError, match=f"x {path}"):
        read_secret(path, "x")


def test_a_folder_is_no_secret(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        check_private(tmp_path, "x")
