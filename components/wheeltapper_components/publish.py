"""
Publishes what was built: artifacts to S3, component versions to AWS IoT Greengrass, a deployment to a thing group.

Safe to repeat: what is there with the same contents is left alone, and a version that is there with other contents is
refused, since devices would find checksums that do not fit. A nucleus lite takes deployments through thing groups only.
"""

import base64
import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from wheeltapper.clock import Clock
from wheeltapper.errors import SettingsError, UnavailableError, WheeltapperError
from wheeltapper_components.build import Built
from wheeltapper_components.recipe_lint import lint
from wheeltapper_models.component import BUCKET_PLACEHOLDER, version_rank

CONTENT_TAG = "wheeltapper-sha256"
# A deployment document beyond this was seen to fail on nucleus lite.
LITE_DOCUMENT_BYTES = 5_000
_READY_S = 300.0
_POLL_S = 2.0
Json = dict[str, Any]
Call = Callable[..., Any]


class Publication(msgspec.Struct, frozen=True, kw_only=True):
    """
    What to publish, and to whom.

    Args:
        built: the components, as ``built_in`` finds them.
        prefix: folder in the bucket; short, since a nucleus lite has little room for addresses.
        thing_group: name or ARN; empty publishes without a deployment.
        merge: component name → what its configuration says otherwise on these devices.
        reset: component name → JSON pointers that go back to the recipe's defaults; ``/accessControl`` always does.
        replace: components of the group's last deployment that are not named here are removed from its devices.
        per_minute: how many devices begin the deployment in a minute.
        abort_percent: cancel the rest when so many of the devices that have tried it have failed.
    """

    built: Sequence[Built]
    bucket: str
    prefix: str = ""
    thing_group: str = ""
    name: str = "wheeltapper"
    merge: Mapping[str, Json] = {}
    reset: Mapping[str, Sequence[str]] = {}
    replace: bool = False
    per_minute: int = 100
    abort_percent: float = 10.0

    def key(self, built: Built, file: Path) -> str:
        """Where an artifact lies in the bucket."""
        return "/".join(filter(None, [self.prefix.strip("/"), built.name, built.version, file.name]))

    def recipe(self, built: Built) -> bytes:
        """The recipe with the artifacts' addresses in the bucket."""
        recipe = json.loads(built.recipe.read_text())
        for manifest in recipe["Manifests"]:
            for artifact in manifest["Artifacts"]:
                file = built.artifacts / artifact["Uri"].rsplit("/", 1)[-1]
                artifact["Uri"] = f"s3://{self.bucket}/{self.key(built, file)}"
        return json.dumps(recipe, separators=(",", ":"), ensure_ascii=False).encode()


def built_in(folder: Path) -> list[Built]:
    """
    What ``component build`` and ``model export`` have left in a folder: of each component the highest version.

    Raises:
        SettingsError: there is nothing, or a recipe would not hold.
    """
    built: list[Built] = []
    paths = sorted((folder / "recipes").glob("*.json"))
    for path in paths:
        recipe = json.loads(path.read_text())
        name, version = str(recipe["ComponentName"]), str(recipe["ComponentVersion"])
        built.append(Built(name, version, path, folder / "artifacts" / name / version))
    if not built:
        raise SettingsError(f"{folder}: holds no recipes; run: wheeltapper component build --out {folder}")
    for finding in lint(paths):
        if finding.severity == "error":
            raise SettingsError(f"{finding.file}: {finding.where}: {finding.message}")
    newest = {one.name: one for one in sorted(built, key=lambda one: version_rank(one.version))}
    return [newest[name] for name in sorted(newest)]


class Publisher:
    """
    Carries a publication out.

    Args:
        client: gives the boto3 client of a service.
        tell: hears what is done, a line at a time.
    """

    def __init__(
        self, publication: Publication, client: Callable[[str], Any], clock: Clock, tell: Callable[[str], None]
    ) -> None:
        self._publication = publication
        self._client = client
        self._clock = clock
        self._tell = tell
        self._never = threading.Event()

    def run(self) -> Json:
        """
        Publish and deploy.

        Returns:
            The ARNs of the component versions, and the deployment's id where there is one.

        Raises:
            SettingsError: no credentials, or a version is published with other contents.
            UnavailableError: AWS cannot be reached, or takes too long.
            WheeltapperError: AWS refuses something; says what.
        """
        identity = self._call("sts", "get_caller_identity")
        partition, account = identity["Arn"].split(":")[1], identity["Account"]
        region = self._client("greengrassv2").meta.region_name
        found: Json = {"components": {}}
        for built in self._publication.built:
            arn = f"arn:{partition}:greengrass:{region}:{account}:components:{built.name}:versions:{built.version}"
            self._publish(built, arn)
            found["components"][built.name] = arn
        group = self._publication.thing_group
        if group:
            target = group if group.startswith("arn:") else f"arn:{partition}:iot:{region}:{account}:thinggroup/{group}"
            found["deployment"] = self._deploy(target)
        return found

    def _publish(self, built: Built, arn: str) -> None:
        digest = contents_of(self._publication, built)
        there = self._call("greengrassv2", "describe_component", missing="ResourceNotFoundException", arn=arn)
        if there is not None:
            if there.get("tags", {}).get(CONTENT_TAG) != digest:
                raise SettingsError(
                    f"{built.name} {built.version}: is published with other contents; build with another --version"
                )
            self._tell(f"{built.name} {built.version}: is published already")
        else:
            for file in built.files():
                self._upload(built, file)
            self._call("greengrassv2", "create_component_version", **component_request(self._publication, built))
            self._tell(f"{built.name} {built.version}: created")
        self._wait_until_deployable(built, arn)

    def _upload(self, built: Built, file: Path) -> None:
        request = upload_request(self._publication, built, file)
        place = {"Bucket": request["Bucket"], "Key": request["Key"]}
        there = self._call("s3", "head_object", missing="404", ChecksumMode="ENABLED", **place)
        if there is not None and there.get("ChecksumSHA256") == request["ChecksumSHA256"]:
            self._tell(f"s3://{request['Bucket']}/{request['Key']}: is there already")
            return
        if there is not None:
            raise SettingsError(
                f"s3://{request['Bucket']}/{request['Key']}: another file lies there; build with another --version"
            )
        with file.open("rb") as body:
            self._call("s3", "put_object", Body=body, **request)
        self._tell(f"s3://{request['Bucket']}/{request['Key']}: uploaded")

    def _wait_until_deployable(self, built: Built, arn: str) -> None:
        deadline = self._clock.monotonic() + _READY_S
        while True:
            status = self._call("greengrassv2", "describe_component", arn=arn)["status"]
            state = status["componentState"]
            if state == "DEPLOYABLE":
                return
            if state in ("FAILED", "DEPRECATED"):
                reasons = "; ".join([status.get("message", ""), *status.get("errors", {}).values()]).strip("; ")
                raise WheeltapperError(f"{built.name} {built.version}: is {state}: {reasons}")
            if self._clock.monotonic() >= deadline:
                raise UnavailableError(
                    f"{built.name} {built.version}: is still {state} after {_READY_S:g} s; run it again"
                )
            self._clock.wait(self._never, _POLL_S)

    def _deploy(self, target: str) -> str:
        others = {} if self._publication.replace else self._deployed(target)
        request = deployment_request(self._publication, target, others)
        size = len(json.dumps(request["components"]))
        if size > LITE_DOCUMENT_BYTES:
            self._tell(f"warning: the deployment is {size} bytes; nucleus lite takes about {LITE_DOCUMENT_BYTES}")
        identity = str(self._call("greengrassv2", "create_deployment", **request)["deploymentId"])
        self._tell(f"{target}: deployment {identity}")
        return identity

    def _deployed(self, target: str) -> Json:
        """What the group's last deployment holds: a new one replaces it as a whole."""
        listed = self._call("greengrassv2", "list_deployments", targetArn=target, historyFilter="LATEST_ONLY")
        for summary in listed.get("deployments", []):
            deployment = self._call("greengrassv2", "get_deployment", deploymentId=summary["deploymentId"])
            return dict(deployment.get("components", {}))
        return {}

    def _call(self, service: str, operation: str, *, missing: str = "", **parameters: Any) -> Any:
        """One call; None where AWS answers with the error ``missing``."""
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, NoRegionError

        try:
            return getattr(self._client(service), operation)(**parameters)
        except ClientError as error:
            code, message = (error.response["Error"].get(name, "") for name in ("Code", "Message"))
            if missing and code == missing:
                return None
            raise WheeltapperError(f"{service} {operation}: {code}: {message}") from error
        except (NoCredentialsError, NoRegionError) as error:
            raise SettingsError(f"{service}: {error}; see: aws configure") from error
        except BotoCoreError as error:
            raise UnavailableError(f"{service} {operation}: {' '.join(str(error).split())}") from error


def upload_request(publication: Publication, built: Built, file: Path) -> Json:
    """What ``PutObject`` is told of a file; S3 refuses bytes that arrive otherwise."""
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").digest()
    return {
        "Bucket": publication.bucket,
        "Key": publication.key(built, file),
        "ChecksumSHA256": base64.b64encode(digest).decode(),
    }


def contents_of(publication: Publication, built: Built) -> str:
    """The SHA-256 of a component: its recipe and every artifact."""
    digest = hashlib.sha256(publication.recipe(built))
    for file in built.files():
        digest.update(upload_request(publication, built, file)["ChecksumSHA256"].encode())
    return digest.hexdigest()


def component_request(publication: Publication, built: Built) -> Json:
    """What ``CreateComponentVersion`` is told; its token makes a repeat harmless."""
    digest = contents_of(publication, built)
    return {"inlineRecipe": publication.recipe(built), "clientToken": digest, "tags": {CONTENT_TAG: digest}}


def deployment_request(publication: Publication, target: str, others: Mapping[str, Any]) -> Json:
    """What ``CreateDeployment`` is told: the components given, beside what the group has already."""
    components = {name: dict(component) for name, component in others.items()}
    for built in publication.built:
        update: Json = {}
        recipe = json.loads(built.recipe.read_text())
        defaults = recipe.get("ComponentConfiguration", {}).get("DefaultConfiguration", {})
        # Else a nucleus keeps the access control of the version before.
        reset = [*publication.reset.get(built.name, ()), *(["/accessControl"] if "accessControl" in defaults else [])]
        if reset:
            update["reset"] = list(dict.fromkeys(reset))
        if merge := publication.merge.get(built.name):
            update["merge"] = json.dumps(merge, separators=(",", ":"), ensure_ascii=False)
        components[built.name] = {"componentVersion": built.version} | (
            {"configurationUpdate": update} if update else {}
        )
    request: Json = {
        "targetArn": target,
        "deploymentName": publication.name,
        "components": components,
        "deploymentPolicies": {
            "failureHandlingPolicy": "ROLLBACK",
            "componentUpdatePolicy": {"action": "NOTIFY_COMPONENTS", "timeoutInSeconds": 60},
            "configurationValidationPolicy": {"timeoutInSeconds": 60},
        },
        "iotJobConfiguration": {
            "jobExecutionsRolloutConfig": {"maximumPerMinute": publication.per_minute},
            "abortConfig": {
                "criteriaList": [
                    {
                        "failureType": "ALL",
                        "action": "CANCEL",
                        "thresholdPercentage": publication.abort_percent,
                        "minNumberOfExecutedThings": 1,
                    }
                ]
            },
            "timeoutConfig": {"inProgressTimeoutInMinutes": 60},
        },
    }
    request["clientToken"] = hashlib.sha256(msgspec.json.encode(request, order="sorted")).hexdigest()
    return request


def rehearse(publication: Publication, region: str) -> list[Json]:
    """Every request that would change something, in order, without asking AWS anything."""
    requests: list[Json] = []
    for built in publication.built:
        for file in built.files():
            request = upload_request(publication, built, file) | {"Body": str(file)}
            requests.append({"service": "s3", "operation": "PutObject", "request": request})
        created = component_request(publication, built)
        created["inlineRecipe"] = json.loads(created["inlineRecipe"])
        requests.append({"service": "greengrassv2", "operation": "CreateComponentVersion", "request": created})
    group = publication.thing_group
    if group:
        target = group if group.startswith("arn:") else f"arn:aws:iot:{region}:ACCOUNT:thinggroup/{group}"
        request = deployment_request(publication, target, {})
        requests.append({"service": "greengrassv2", "operation": "CreateDeployment", "request": request})
    return requests


def check_names(publication: Publication) -> None:
    """
    Refuse settings for components that are not published.

    Raises:
        SettingsError: names them.
    """
    names = {built.name for built in publication.built}
    if unknown := (set(publication.merge) | set(publication.reset)) - names:
        raise SettingsError(f"{', '.join(sorted(unknown))}: not among what is published: {', '.join(sorted(names))}")
    if publication.bucket == BUCKET_PLACEHOLDER:
        raise SettingsError(f"--bucket {BUCKET_PLACEHOLDER}: is the placeholder; name a bucket of yours")
