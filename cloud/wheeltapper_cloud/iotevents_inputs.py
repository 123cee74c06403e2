"""Inputs and their routings, tags and logging options: one method per operation."""

from typing import Any

from wheeltapper_cloud.iotevents_account import (
    LOGGING,
    MODEL_KINDS,
    Account,
    Call,
    after_token,
    checked_tags,
    cut_page,
    not_found,
    page_size,
    page_token,
)
from wheeltapper_cloud.iotevents_references import inputs_of, property_input
from wheeltapper_cloud.store import Kind, Resource
from wheeltapper_cloud.wire import ServiceError

_KINDS: dict[str, Kind] = {kind: kind for kind in ("input", *MODEL_KINDS)}


class Inputs:
    """The operations on inputs."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._store = account.store

    def create_input(self, call: Call) -> dict[str, Any]:
        name = call.request["inputName"]
        tags = checked_tags(call.request)
        with self._account.lock:
            self._account.must_be_new("input", name)
            most = self._account.settings.limits.inputs
            if most and self._store.count("input") >= most:
                raise ServiceError("InvalidRequestException", f"Number of inputs exceeds the limit {most}")
            body = {member: value for member, value in call.request.items() if member != "tags"}
            found = self._store.add("input", name, body, tags)
            self._account.declare_inputs()
        return {"inputConfiguration": self._configuration(found)}

    def describe_input(self, call: Call) -> dict[str, Any]:
        found = self._account.resource("input", call.request["inputName"])
        definition = found.body["inputDefinition"]
        return {"input": {"inputConfiguration": self._configuration(found), "inputDefinition": definition}}

    def update_input(self, call: Call) -> dict[str, Any]:
        name = call.request["inputName"]
        with self._account.lock:
            self._account.resource("input", name)
            found = self._store.replace("input", name, call.request)
            self._account.declare_inputs()
        return {"inputConfiguration": self._configuration(found)}

    def delete_input(self, call: Call) -> dict[str, Any]:
        name = call.request["inputName"]
        with self._account.lock:
            self._account.resource("input", name)
            users = [found.name for found in self._models() if name in inputs_of(found)]
            if users:
                raise ServiceError("ResourceInUseException", f"Input of name: {name} is used by {', '.join(users[:5])}")
            self._store.remove("input", name)
            self._account.declare_inputs()
        return {}

    def list_inputs(self, call: Call) -> dict[str, Any]:
        found = self._store.page("input", after_token("ListInputs", call.request), page_size(call.request) + 1)
        page, token = cut_page("ListInputs", call.request, found, "name")
        return {"inputSummaries": [self._configuration(one) for one in page], **token}

    def list_input_routings(self, call: Call) -> dict[str, Any]:
        identifier = call.request["inputIdentifier"]
        if len(identifier) != 1:
            raise ServiceError("InvalidRequestException", "inputIdentifier must have exactly one member")
        if "iotEventsInputIdentifier" in identifier:
            name = identifier["iotEventsInputIdentifier"]["inputName"]
            self._account.resource("input", name)
        else:
            place = identifier["iotSiteWiseInputIdentifier"].get("iotSiteWiseAssetModelPropertyIdentifier")
            if place is None:
                raise ServiceError("InvalidRequestException", "iotSiteWiseInputIdentifier names no property")
            name = property_input(place["assetModelId"], place["propertyId"])
        return self._routed_page(call.request, [found for found in self._models() if name in inputs_of(found)])

    def _routed_page(self, request: dict[str, Any], routed: list[Resource]) -> dict[str, Any]:
        resources = sorted({self._account.arn(found.kind, found.name): found.name for found in routed}.items())
        after = after_token("ListInputRoutings", request)
        rest = [(arn, name) for arn, name in resources if arn > after]
        page = rest[: page_size(request)]
        answer: dict[str, Any] = {"routedResources": [{"name": name, "arn": arn} for arn, name in page]}
        if len(rest) > len(page):
            answer["nextToken"] = page_token("ListInputRoutings", page[-1][0])
        return answer

    def _models(self) -> list[Resource]:
        return [found for kind in MODEL_KINDS for found in self._store.latest(kind)]

    def _configuration(self, found: Resource) -> dict[str, Any]:
        configuration = {
            "inputName": found.name,
            "inputArn": self._account.arn("input", found.name),
            "creationTime": found.created_ms,
            "lastUpdateTime": found.updated_ms,
            "status": "ACTIVE",
        }
        if "inputDescription" in found.body:
            configuration["inputDescription"] = found.body["inputDescription"]
        return configuration


class Tags:
    """The operations on the tags of any resource."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._store = account.store

    def tag_resource(self, call: Call) -> dict[str, Any]:
        tags = checked_tags(call.request)
        with self._account.lock:
            kind, name = self._named(call)
            if len(self._store.tags(kind, name) | tags) > 50:
                raise ServiceError("LimitExceededException", "A resource can have at most 50 tags")
            self._store.tag(kind, name, tags)
        return {}

    def untag_resource(self, call: Call) -> dict[str, Any]:
        with self._account.lock:
            self._store.untag(*self._named(call), call.request["tagKeys"])
        return {}

    def list_tags_for_resource(self, call: Call) -> dict[str, Any]:
        tags = self._store.tags(*self._named(call))
        return {"tags": [{"key": key, "value": value} for key, value in tags.items()]}

    def _named(self, call: Call) -> tuple[Kind, str]:
        """The resource that a request's ARN names."""
        arn = call.request["resourceArn"]
        written, _, name = arn.rsplit(":", 1)[-1].partition("/")
        kind = _KINDS.get(written)
        if not arn.startswith("arn:") or kind is None or not name:
            raise ServiceError("InvalidRequestException", f"Invalid resource ARN: {arn[:256]}")
        if self._account.arn(kind, name) != arn:
            raise not_found(kind, name)
        return kind, self._account.resource(kind, name).name


class Logging:
    """The operations on the account's logging options."""

    def __init__(self, account: Account) -> None:
        self._account = account

    def put_logging_options(self, call: Call) -> dict[str, Any]:
        options = call.request["loggingOptions"]
        with self._account.lock:
            self._account.store.set_option(LOGGING, options)
            self._account.evaluations.apply(options)
        return {}

    def describe_logging_options(self, call: Call) -> dict[str, Any]:
        options = self._account.store.option(LOGGING)
        if options is None:
            raise ServiceError("ResourceNotFoundException", "Logging options not found")
        return {"loggingOptions": options}
