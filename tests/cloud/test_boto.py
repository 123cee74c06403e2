"""The real boto3, of this environment and of others on PATH, and the AWS CLI, against a companion over loopback."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.companion import serving
from wheeltapper.cli import main
from wheeltapper.clock import SystemClock
from wheeltapper_cloud.boto import VARIABLES, install, variables
from wheeltapper_cloud.keys import KeyStore
from wheeltapper_cloud.wire import Operations

SCRIPT = Path(__file__).parents[1] / "every_operation.py"


def environment(home: Path, **more: str) -> dict[str, str]:
    """A process environment with credentials, a home of its own and nothing else of AWS."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    credentials = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "thing", "AWS_EC2_METADATA_DISABLED": "true"}
    return {**kept, **credentials, "HOME": str(home), **more}


def run(command: list[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=110, check=False)


def old_interpreter() -> str:
    """A Python on PATH whose boto3 still holds the service models."""
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        found = shutil.which("python3", path=folder)
        if found is None:
            continue
        asked = run([found, "-c", "import boto3; print(boto3.__version__)"], dict(os.environ))
        if asked.returncode == 0 and tuple(map(int, asked.stdout.split(".")[:2])) < (1, 44):
            return found
    pytest.skip("no interpreter on PATH has a boto3 that still holds the service models")


def test_every_operation_answers_the_boto3_that_lacks_the_services(tmp_path):
    with serving(tmp_path / "data") as cloud:
        done = run([sys.executable, str(SCRIPT)], environment(tmp_path, **variables(cloud.url)))

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["operations"] == sorted(Operations().by_name)


def test_every_operation_answers_the_boto3_that_still_has_the_services(tmp_path):
    interpreter = old_interpreter()
    with serving(tmp_path / "data") as cloud:
        redirect = {name: value for name, value in variables(cloud.url).items() if name != "AWS_DATA_PATH"}
        done = run([interpreter, str(SCRIPT)], environment(tmp_path, **redirect))

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["operations"] == sorted(Operations().by_name)


def test_every_operation_answers_when_signed_with_a_key(tmp_path):
    made = KeyStore(tmp_path / "data", SystemClock()).create("ops")
    credentials = {"AWS_ACCESS_KEY_ID": made.access_key_id, "AWS_SECRET_ACCESS_KEY": made.secret_access_key}
    with serving(tmp_path / "data") as cloud:
        env = environment(tmp_path, **variables(cloud.url), **credentials)
        done = run([sys.executable, str(SCRIPT)], env)
        wrong = run([sys.executable, str(SCRIPT)], {**env, "AWS_SECRET_ACCESS_KEY": "guessed"})

    assert done.returncode == 0, done.stderr
    assert "InvalidSignatureException" in wrong.stderr


def test_the_aws_cli_creates_an_input_and_feeds_it(tmp_path):
    aws = shutil.which("aws")
    if aws is None:
        pytest.skip("the AWS CLI is not on PATH")
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "config").write_text("[default]\ncli_binary_format = raw-in-base64-out\n")  # as release 1 does
    message = '[{"messageId": "1", "inputName": "In", "payload": "{\\"v\\": 1}"}]'
    with serving(tmp_path / "data") as cloud:
        env = environment(tmp_path, **variables(cloud.url))
        definition = '{"attributes": [{"jsonPath": "v"}]}'
        made = run([aws, "iotevents", "create-input", "--input-name", "In", "--input-definition", definition], env)
        fed = run([aws, "iotevents-data", "batch-put-message", "--messages", message], env)
        listed = run([aws, "iotevents", "list-inputs", "--output", "json"], env)

    assert (made.returncode, fed.returncode, listed.returncode) == (0, 0, 0), made.stderr + fed.stderr + listed.stderr
    assert json.loads(fed.stdout) == {"BatchPutMessageErrorEntries": []}
    assert [one["inputName"] for one in json.loads(listed.stdout)["inputSummaries"]] == ["In"]


def test_installed_models_are_found_without_a_data_path(tmp_path):
    env = environment(tmp_path)
    done = run([sys.executable, "-m", "wheeltapper.cli", "boto", "install", "--json"], env)
    asked = run([sys.executable, "-c", "import boto3; print(boto3.Session().get_available_services())"], env)

    assert "AWS_DATA_PATH" not in json.loads(done.stdout)
    assert "'iotevents'" in asked.stdout
    assert "'iotevents-data'" in asked.stdout


def test_without_an_endpoint_the_dead_host_is_not_called(tmp_path):
    install(tmp_path / "models")
    code = "import boto3; boto3.client('iotevents').list_inputs()"
    env = environment(tmp_path, AWS_DATA_PATH=str(tmp_path / "models"), AWS_DEFAULT_REGION="us-east-1")
    done = run([sys.executable, "-c", code], env)

    assert "wheeltapper boto env" in done.stderr


def test_both_spellings_are_always_exported(capsys):
    assert main(["boto", "env", "--endpoint", "http://127.0.0.1:1"]) == 0

    printed = capsys.readouterr().out
    assert all(f"export {name}=http://127.0.0.1:1" in printed for name in VARIABLES)


@pytest.mark.parametrize(
    ("present", "file", "wanted"),
    [
        ({}, "", {"AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1"}),
        ({"AWS_REGION": "eu-west-1"}, "", {"AWS_DEFAULT_REGION": "eu-west-1"}),
        ({"AWS_DEFAULT_REGION": "eu-west-1"}, "", {"AWS_REGION": "eu-west-1"}),
        ({"AWS_REGION": "a", "AWS_DEFAULT_REGION": "b"}, "", {}),
        ({}, "[default]\nregion = eu-west-1\n", {}),
        ({"AWS_PROFILE": "plant"}, "[profile plant]\nregion = eu-west-1\n", {}),
        (
            {"AWS_PROFILE": "plant"},
            "[default]\nregion = eu-west-1\n",
            {"AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1"},
        ),
        ({}, "region = eu-west-1", {"AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1"}),
    ],
)
def test_a_region_is_named_only_where_clients_would_find_none(tmp_path, monkeypatch, present, file, wanted):
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in present.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "config").write_text(file)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))

    found = variables("http://127.0.0.1:1")

    assert {name: value for name, value in found.items() if name.endswith("_REGION")} == wanted


@pytest.mark.parametrize(
    "endpoint", ["127.0.0.1:8600", "localhost", "http://", "http://h:port", "ftp://h", "http://a b", ""]
)
def test_an_endpoint_that_no_client_could_call_is_refused(endpoint, capsys):
    assert main(["boto", "env", "--endpoint", endpoint]) == 2

    told = capsys.readouterr()
    assert told.out == ""
    assert "is no URL; give --endpoint" in told.err


@pytest.mark.parametrize(
    ("present", "endpoint", "wanted"),
    [
        ({}, "http://127.0.0.1:1", {}),
        ({"HTTP_PROXY": "http://p:3128"}, "http://127.0.0.1:1", {"NO_PROXY": "127.0.0.1"}),
        ({"http_proxy": "http://p:3128", "no_proxy": "a.b"}, "http://localhost:1", {"no_proxy": "a.b,localhost"}),
        ({"http_proxy": "http://p:3128", "NO_PROXY": "127.0.0.1"}, "http://127.0.0.1:1", {}),
        ({"https_proxy": "http://p:3128"}, "http://127.0.0.1:1", {}),
        ({"http_proxy": "http://p:3128"}, "http://10.0.0.7:1", {}),
    ],
)
def test_a_proxy_is_not_asked_for_what_this_machine_serves(monkeypatch, present, endpoint, wanted):
    for name in os.environ:
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name, value in present.items():
        monkeypatch.setenv(name, value)

    found = {name: value for name, value in variables(endpoint).items() if name.lower() == "no_proxy"}

    assert found == wanted


def test_a_folder_without_the_models_is_refused_with_what_puts_them_there(tmp_path, capsys):
    folder = str(tmp_path / "models")
    refused = main(["boto", "env", "--dir", folder])
    told = capsys.readouterr()
    installed = main(["boto", "install", "--dir", folder])

    assert (refused, told.out, installed) == (2, "", 0)
    assert f"run: wheeltapper boto install --dir {folder}" in told.err
    assert f"export AWS_DATA_PATH={folder}" in capsys.readouterr().out


def test_the_service_models_hold_no_prose():
    from importlib.resources import files

    for service in (files("wheeltapper_cloud") / "service_models").iterdir():
        for version in service.iterdir():
            for file in version.iterdir():
                assert '"documentation"' not in file.read_text()


@pytest.mark.parametrize(
    ("present", "endpoint", "given"),
    [
        ({}, "http://127.0.0.1:8600", "any"),
        ({}, "https://companion.plant.example:8600", None),
        ({"AWS_ACCESS_KEY_ID": "WTAK"}, "http://127.0.0.1:8600", None),
        ({"AWS_PROFILE": "plant"}, "http://127.0.0.1:8600", None),
    ],
)
def test_credentials_are_made_up_only_where_a_client_would_find_none(tmp_path, present, endpoint, given):
    env = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    command = [sys.executable, "-m", "wheeltapper.cli", "boto", "env", "--json", "--endpoint", endpoint]

    done = run(command, {**env, "HOME": str(tmp_path), **present})

    assert json.loads(done.stdout).get("AWS_ACCESS_KEY_ID") == given
