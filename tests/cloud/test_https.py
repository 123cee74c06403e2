"""HTTPS with a certificate of the plant's own authority: boto3, operators' commands, and clients that do not trust it."""

import os
import subprocess
import sys

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import SSLError

from tests.loopback import wait_for_port
from wheeltapper.certs import Authority
from wheeltapper.cli import main
from wheeltapper.clock import SystemClock
from wheeltapper_cloud.boto import variables


@pytest.fixture
def secured(tmp_path, monkeypatch):
    """A served companion's address, with the authority's certificate beside."""
    authority = Authority(tmp_path / "certs", SystemClock())
    authority.create()
    folder = authority.issue("cloud", names=["127.0.0.1"])
    certificate, key = folder / "cloud.crt", folder / "cloud.key"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "any")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "any")
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    command = [
        *(sys.executable, "-m", "wheeltapper.cli", "cloud", "serve", "--port", "0"),
        *("--data-dir", str(tmp_path / "data"), "--certificate", str(certificate), "--private-key", str(key)),
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=dict(os.environ)
    )
    try:
        assert process.stdout is not None
        said = process.stdout.readline().strip()
        wait_for_port(int(said.rsplit(":", 1)[1]))
        yield said.removeprefix("listening on "), str(tmp_path / "certs" / "ca" / "ca.crt")
    finally:
        process.kill()
        process.wait()


def test_clients_that_trust_the_authority_are_served_and_no_others(secured, monkeypatch, capsys):
    url, authority = secured
    assert url.startswith("https://127.0.0.1:")

    monkeypatch.setenv("AWS_DATA_PATH", variables(url)["AWS_DATA_PATH"])
    session = boto3.Session(region_name="us-east-1")
    assert session.client("iotevents", endpoint_url=url, verify=authority).list_inputs()["inputSummaries"] == []
    with pytest.raises(SSLError):
        session.client("iotevents", endpoint_url=url, config=Config(retries={"max_attempts": 0})).list_inputs()
    assert main(["alarms", "--server", url]) == 1
    assert "AWS_CA_BUNDLE" in capsys.readouterr().err
    monkeypatch.setenv("AWS_CA_BUNDLE", authority)
    assert main(["alarms", "--server", url, "--json"]) == 0
    assert main(["alarms", "--server", url.replace("127.0.0.1", "localhost")]) == 1
    assert "another name" in capsys.readouterr().err
    monkeypatch.setenv("AWS_CA_BUNDLE", authority + ".absent")
    assert main(["alarms", "--server", url, "--json"]) == 2
    assert "AWS_CA_BUNDLE" in capsys.readouterr().err


def test_whoever_speaks_plain_http_to_https_is_told_so(secured, capsys):
    url, _ = secured

    assert main(["alarms", "--server", url.replace("https", "http")]) == 1
    assert "https" in capsys.readouterr().err
