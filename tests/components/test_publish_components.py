"""Publishing, with every request checked by botocore's own model of AWS."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.stub import ANY, Stubber

from tests.components.small_models import write_small_model
from wheeltapper import cli
from wheeltapper.clock import ManualClock
from wheeltapper.errors import SettingsError, UnavailableError, WheeltapperError
from wheeltapper_components import build as build_module
from wheeltapper_components.build import Plan, build
from wheeltapper_components.build_model import ModelSource
from wheeltapper_components.build_wheels import Device
from wheeltapper_components.publish import (
    CONTENT_TAG,
    Publication,
    Publisher,
    built_in,
    component_request,
    contents_of,
    deployment_request,
    upload_request,
)

GROUP = "arn:aws:iot:eu-central-1:123456789012:thinggroup/gateways"
MODEL = "com.wheeltapper.Model.motor"


class Cloud:
    """Stubbed clients, in the order in which they are called."""

    def __init__(self) -> None:
        self._clients = {
            service: boto3.client(service, region_name="eu-central-1", aws_access_key_id="x", aws_secret_access_key="y")
            for service in ("sts", "s3", "greengrassv2")
        }
        self._stubs = {service: Stubber(client) for service, client in self._clients.items()}
        for stub in self._stubs.values():
            stub.activate()
        self.answers(
            "sts", "get_caller_identity", {"Account": "123456789012", "Arn": "arn:aws:iam::123456789012:user/x"}
        )

    def answers(self, service: str, operation: str, response: dict[str, Any], request: Any = None) -> None:
        self._stubs[service].add_response(operation, response, request)

    def refuses(self, service: str, operation: str, code: str) -> None:
        self._stubs[service].add_client_error(operation, code, "as told")

    def client(self, service: str) -> Any:
        return self._clients[service]

    def assert_nothing_left(self) -> None:
        for stub in self._stubs.values():
            stub.assert_no_pending_responses()


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    return Cloud()


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    def gather(_checkout: Path, _device: Device, folder: Path, _given: Path | None) -> None:
        (folder / "a-1-py3-none-any.whl").write_bytes(b"a")

    monkeypatch.setattr(build_module, "gather", gather)
    model = write_small_model(tmp_path / "motor", "1.2.0")
    build(Plan(device=Device(("3.11",), "x86_64"), models=[ModelSource(model)]), tmp_path / "out")
    return tmp_path / "out"


def model_only(out: Path, **settings: Any) -> Publication:
    built = [one for one in built_in(out) if one.name == MODEL]
    return Publication(built=built, bucket="artifacts", **settings)


def run(publication: Publication, cloud: Cloud) -> dict[str, Any]:
    return Publisher(publication, cloud.client, ManualClock(), lambda _line: None).run()


def state(name: str, publication: Publication | None = None, **more: Any) -> dict[str, Any]:
    tags = {} if publication is None else {CONTENT_TAG: contents_of(publication, publication.built[0])}
    return {"status": {"componentState": name, **more}, "tags": tags}


def uploads(cloud: Cloud, publication: Publication) -> None:
    for built in publication.built:
        for file in built.files():
            request = upload_request(publication, built, file)
            cloud.refuses("s3", "head_object", "404")
            cloud.answers("s3", "put_object", {}, request | {"Body": ANY})


def creation(cloud: Cloud, publication: Publication) -> None:
    answer = {"componentName": MODEL, "componentVersion": "1.2.0", "creationTimestamp": 0, "status": {}}
    cloud.answers(
        "greengrassv2", "create_component_version", answer, component_request(publication, publication.built[0])
    )


def test_a_new_version_is_uploaded_created_awaited_and_deployed(out: Path, cloud: Cloud) -> None:
    publication = model_only(out, thing_group="gateways", prefix="wt")
    cloud.refuses("greengrassv2", "describe_component", "ResourceNotFoundException")
    uploads(cloud, publication)
    creation(cloud, publication)
    for name in ("REQUESTED", "INITIATED", "DEPLOYABLE"):
        cloud.answers("greengrassv2", "describe_component", state(name))
    others = {"com.example.Other": {"componentVersion": "3.0.0"}}
    cloud.answers("greengrassv2", "list_deployments", {"deployments": [{"deploymentId": "d0"}]})
    cloud.answers("greengrassv2", "get_deployment", {"components": others})
    cloud.answers(
        "greengrassv2", "create_deployment", {"deploymentId": "d1"}, deployment_request(publication, GROUP, others)
    )

    result = run(publication, cloud)

    arn = f"arn:aws:greengrass:eu-central-1:123456789012:components:{MODEL}:versions:1.2.0"
    assert result == {"components": {MODEL: arn}, "deployment": "d1"}
    cloud.assert_nothing_left()


def test_a_repeat_uploads_and_creates_nothing(out: Path, cloud: Cloud) -> None:
    publication = model_only(out)
    for _ in range(2):
        cloud.answers("greengrassv2", "describe_component", state("DEPLOYABLE", publication))

    run(publication, cloud)

    cloud.assert_nothing_left()


def test_files_that_are_there_already_are_not_sent_again(out: Path, cloud: Cloud) -> None:
    publication = model_only(out)
    built = publication.built[0]
    cloud.refuses("greengrassv2", "describe_component", "ResourceNotFoundException")
    for file in built.files():
        there = {"ChecksumSHA256": upload_request(publication, built, file)["ChecksumSHA256"]}
        cloud.answers("s3", "head_object", there)
    creation(cloud, publication)
    cloud.answers("greengrassv2", "describe_component", state("DEPLOYABLE"))

    run(publication, cloud)

    cloud.assert_nothing_left()


def test_a_published_version_with_other_contents_is_refused(out: Path, cloud: Cloud) -> None:
    cloud.answers("greengrassv2", "describe_component", state("DEPLOYABLE"))

    with pytest.raises(SettingsError, match="published with other contents; build with another --version"):
        run(model_only(out), cloud)


def test_another_file_at_the_address_is_refused(out: Path, cloud: Cloud) -> None:
    cloud.refuses("greengrassv2", "describe_component", "ResourceNotFoundException")
    cloud.answers("s3", "head_object", {"ChecksumSHA256": "another"})

    with pytest.raises(SettingsError, match="another file lies there"):
        run(model_only(out), cloud)


def test_a_version_that_fails_tells_why(out: Path, cloud: Cloud) -> None:
    publication = model_only(out)
    cloud.refuses("greengrassv2", "describe_component", "ResourceNotFoundException")
    uploads(cloud, publication)
    creation(cloud, publication)
    cloud.answers("greengrassv2", "describe_component", state("FAILED", message="no", errors={"a": "S3 says 403"}))

    with pytest.raises(WheeltapperError, match="is FAILED: no; S3 says 403"):
        run(publication, cloud)


def test_a_version_that_is_never_ready_ends_the_wait(out: Path, cloud: Cloud) -> None:
    publication = model_only(out)
    for _ in range(160):
        cloud.answers("greengrassv2", "describe_component", state("REQUESTED", publication))

    with pytest.raises(UnavailableError, match="still REQUESTED after 300 s"):
        run(publication, cloud)


def test_what_aws_refuses_is_told_in_its_words(out: Path, cloud: Cloud) -> None:
    cloud.refuses("greengrassv2", "describe_component", "AccessDeniedException")

    with pytest.raises(WheeltapperError, match="greengrassv2 describe_component: AccessDeniedException: as told"):
        run(model_only(out), cloud)


def test_a_deployment_rolls_back_merges_and_resets_access_control(out: Path) -> None:
    publication = Publication(
        built=built_in(out),
        bucket="artifacts",
        merge={"com.wheeltapper.Inference": {"health_s": 30}},
        reset={"com.wheeltapper.Inference": ["/models"]},
    )

    request = deployment_request(publication, GROUP, {})

    update = request["components"]["com.wheeltapper.Inference"]["configurationUpdate"]
    assert update == {"reset": ["/models", "/accessControl"], "merge": '{"health_s":30}'}
    assert "configurationUpdate" not in request["components"][MODEL]
    assert request["deploymentPolicies"]["failureHandlingPolicy"] == "ROLLBACK"
    assert request["clientToken"] == deployment_request(publication, GROUP, {})["clientToken"]
    assert request["clientToken"] != deployment_request(publication, GROUP + "2", {})["clientToken"]


def test_of_two_versions_the_higher_one_is_published(out: Path, tmp_path: Path) -> None:
    for version in ("1.9.0", "1.10.0"):
        model = write_small_model(tmp_path / version, version)
        build(Plan(device=Device(("3.11",), "x86_64"), models=[ModelSource(model)], parts=("model",)), out)

    assert [one.version for one in built_in(out) if one.name == MODEL] == ["1.10.0"]


def test_published_recipes_point_into_the_bucket_and_still_hold(out: Path) -> None:
    publication = Publication(built=built_in(out), bucket="artifacts", prefix="a/b/")

    for built in publication.built:
        recipe = publication.recipe(built)
        assert set(re.findall(r"s3://[^\"]*/", recipe.decode())) == {
            f"s3://artifacts/a/b/{built.name}/{built.version}/"
        }
        assert len(recipe) < 8_196


def test_a_dry_run_prints_every_request_and_needs_no_credentials(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = tmp_path / "site.toml"
    settings.write_text('["com.wheeltapper.Inference"]\nhealth_s = 30\n')
    words = ["component", "publish", "--from", str(out), "--bucket", "artifacts", "--thing-group", "gateways"]

    assert cli.main([*words, "--merge", str(settings), "--dry-run"]) == 0

    printed = json.loads(capsys.readouterr().out)
    operations = [request["operation"] for request in printed]
    assert operations.count("PutObject") == 9
    assert operations.count("CreateComponentVersion") == 3
    assert operations[-1] == "CreateDeployment"
    assert cli.main([*words, "--reset", "com.example=/x", "--dry-run"]) == 2
    assert cli.main([*words, "--reset", "models", "--dry-run"]) == 2
    assert cli.main(["component", "publish", "--from", str(tmp_path), "--bucket", "b"]) == 2
