"""
The account behind the operations: what it holds, what is in force, and how the two are kept the same.

The store is the truth. What is new is written there first and the judge follows; what is deleted leaves the judge first.
Should the process die in between, ``start`` lets the judge catch up, so that what an operation has answered is always so.
"""

import base64
import binascii
import logging
import re
import sqlite3
import threading
from typing import Any, TypeVar

import msgspec

from wheeltapper.clock import Clock
from wheeltapper.errors import DefinitionError, WheeltapperError
from wheeltapper.judge import Deployment, Judge
from wheeltapper_cloud.evaluations import EvaluationLog
from wheeltapper_cloud.settings import CloudSettings
from wheeltapper_cloud.store import REMOVAL, Kind, Resource, Store
from wheeltapper_cloud.wire import ServiceError

log = logging.getLogger(__name__)

PAGE = 250
LOGGING = "logging"
MODEL_KINDS: tuple[Kind, Kind] = ("detectorModel", "alarmModel")

# A version, or a place in a list.
_NUMBER = re.compile("0|[1-9][0-9]{0,17}")

Item = TypeVar("Item")


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """
    One request to an operation.

    Attributes:
        request: its members, read and checked against the service model.
        by: the name of the access key that signed it; empty where none had to.
        migrate: a changed model is to keep its detectors, which AWS cannot be asked for.
    """

    request: dict[str, Any]
    by: str = ""
    migrate: bool = False


class Account:
    """Store, judge and limits of the one account that a server serves."""

    def __init__(
        self, store: Store, judge: Judge, evaluations: EvaluationLog, settings: CloudSettings, clock: Clock
    ) -> None:
        self.store = store
        self.evaluations = evaluations
        self.judge = judge
        self.settings = settings
        self.clock = clock
        self.lock = threading.RLock()
        self._failed: set[tuple[Kind, str]] = set()

    def start(self) -> None:
        """Let the judge catch up with the store."""
        with self.lock:
            self.declare_inputs()
            in_force = {(held.kind, held.name, held.version) for held in self.judge.deployments()}
            self._end_removal({(kind, name) for kind, name, _ in in_force})
            wanted = {
                (_judge_kind(kind), found.name, str(found.version)): found
                for kind in MODEL_KINDS
                for found in self.store.latest(kind)
            }
            names = {key[:2] for key in wanted}
            held = {key[:2] for key in in_force}
            for kind, name in held - names:
                self.judge.withdraw(name, kind=kind)
            for key, found in wanted.items():
                if key not in in_force:
                    self._deploy_again(found, is_update=key[:2] in held)
            self.evaluations.apply(self.store.option(LOGGING))

    def _end_removal(self, held: set[tuple[str, str]]) -> None:
        """Remove what a crash kept from being removed, where its detectors are gone already."""
        begun = self.store.option(REMOVAL)
        if begun is None:
            return
        if (_judge_kind(begun["kind"]), begun["name"]) in held:
            self.store.cancel_removal()
        else:
            self.store.remove(begun["kind"], begun["name"])

    def _deploy_again(self, found: Resource, *, is_update: bool = False) -> None:
        """Put in force what the judge does not have; an update that was cut short, and never answered, may still fail."""
        try:
            self.judge.deploy(_deployment(found), migrate=self.store.migrates(found))
        except DefinitionError as error:
            log.error("%s %s: cannot be put in force: %s", found.kind, found.name, error)
            if is_update:
                self._take_back(found)
            else:
                self._failed.add((found.kind, found.name))

    def status(self, found: Resource) -> str:
        """Whether a version is in force."""
        if found.version != found.latest:
            return "INACTIVE"
        return "FAILED" if (found.kind, found.name) in self._failed else "ACTIVE"

    def arn(self, kind: Kind, name: str) -> str:
        """The name by which all of AWS knows a resource."""
        server = self.settings.server
        return f"arn:aws:iotevents:{server.region}:{server.account}:{kind}/{name}"

    def inputs(self) -> dict[str, list[str]]:
        """Input → the paths of its attributes."""
        return {
            found.name: [attribute["jsonPath"] for attribute in found.body["inputDefinition"]["attributes"]]
            for found in self.store.latest("input")
        }

    def declare_inputs(self) -> None:
        """Tell the judge which inputs there are."""
        self.judge.declare_inputs(self.inputs())

    def resource(self, kind: Kind, name: str, version: str | None = None) -> Resource:
        """
        What there is of that name.

        Raises:
            ServiceError: ResourceNotFoundException.
        """
        found = None
        if version is None:
            found = self.store.get(kind, name)
        elif _NUMBER.fullmatch(version):
            found = self.store.get(kind, name, int(version))
        if found is None:
            raise not_found(kind, name, version)
        return found

    def must_be_new(self, kind: Kind, name: str) -> None:
        """
        Refuse a name that is taken.

        Raises:
            ServiceError: ResourceAlreadyExistsException.
        """
        if self.store.get(kind, name) is not None:
            raise ServiceError(
                "ResourceAlreadyExistsException",
                f"{TITLES[kind]} of name: {name} already exists",
                resourceId=name,
                resourceArn=self.arn(kind, name),
            )

    def enact(self, kind: Kind, name: str, body: dict[str, Any], tags: dict[str, str], call: Call) -> Resource:
        """Keep a version of a model and put it in force; neither, where the judge cannot take it."""
        found = self.store.add(kind, name, body, tags, migrate=call.migrate)
        try:
            self.judge.deploy(_deployment(found), migrate=call.migrate, by=call.by)
        except WheeltapperError:
            self._take_back(found)
            raise
        self._failed.discard((kind, name))
        return found

    def _take_back(self, found: Resource) -> None:
        """Forget a version that is not in force; where that fails, it has failed, and a start tries again."""
        try:
            if found.version == 1:
                self.store.remove(found.kind, found.name)
            else:
                self.store.remove_version(found.kind, found.name, found.version)
        except sqlite3.Error:
            self._failed.add((found.kind, found.name))
            raise

    def retire(self, kind: Kind, name: str, by: str) -> None:
        """
        Forget a model, its versions and its detectors: out of force first, so that nothing unheard of goes on.

        Raises:
            ServiceError: ResourceNotFoundException.
        """
        found = self.resource(kind, name)
        self.store.begin_removal(kind, name)
        try:
            self.judge.withdraw(name, kind=_judge_kind(kind), by=by)
        except WheeltapperError:
            self.store.cancel_removal()
            raise
        try:
            self.store.remove(kind, name)
        except sqlite3.Error:
            self._deploy_again(found)
            raise
        self._failed.discard((kind, name))


TITLES = {"input": "Input", "detectorModel": "DetectorModel", "alarmModel": "AlarmModel"}


def not_found(kind: Kind, name: str, version: str | None = None) -> ServiceError:
    """The error for what is not there."""
    of_version = f" and version: {version}" if version is not None else ""
    return ServiceError("ResourceNotFoundException", f"{TITLES[kind]} of name: {name}{of_version} not found")


def page_token(operation: str, last: str) -> str:
    """An opaque token that continues a list after ``last``."""
    return base64.urlsafe_b64encode(msgspec.json.encode([operation, last])).decode()


def after_token(operation: str, request: dict[str, Any]) -> str:
    """
    Where a list goes on; empty at its beginning.

    Raises:
        ServiceError: the token is not one of this operation's.
    """
    token = request.get("nextToken")
    if not token:  # programs begin their loops with an empty one
        return ""
    try:
        found = msgspec.json.decode(base64.b64decode(token, altchars=b"-_", validate=True), type=tuple[str, str])
    except (binascii.Error, ValueError, msgspec.DecodeError) as error:
        raise ServiceError("InvalidRequestException", "Invalid nextToken") from error
    if found[0] != operation:
        raise ServiceError("InvalidRequestException", "Invalid nextToken")
    return found[1]


def after_number(operation: str, request: dict[str, Any]) -> int:
    """
    Where a list that goes by numbers goes on; 0 at its beginning.

    Raises:
        ServiceError: the token is not one of this operation's.
    """
    after = after_token(operation, request) or "0"
    if not _NUMBER.fullmatch(after):
        raise ServiceError("InvalidRequestException", "Invalid nextToken")
    return int(after)


def cut_page(
    operation: str, request: dict[str, Any], items: list[Item], last_of: str
) -> tuple[list[Item], dict[str, str]]:
    """A page of at most ``maxResults`` of the items, and the token's member where more follow."""
    limit = page_size(request)
    if len(items) <= limit:
        return items, {}
    kept = items[:limit]
    return kept, {"nextToken": page_token(operation, str(getattr(kept[-1], last_of)))}


def page_size(request: dict[str, Any]) -> int:
    """How many items a page may hold."""
    return int(request.get("maxResults", PAGE))


def checked_tags(request: dict[str, Any]) -> dict[str, str]:
    """
    A request's tags, by key.

    Raises:
        ServiceError: a key is reserved or occurs twice, or there are more than 50.
    """
    given = request.get("tags", [])
    tags = {tag["key"]: tag["value"] for tag in given}
    if len(tags) != len(given):
        raise ServiceError("InvalidRequestException", "Tag keys must be unique")
    if any(key.lower().startswith("aws:") for key in tags):
        raise ServiceError("InvalidRequestException", "Tag keys that begin with aws: are reserved")
    if len(tags) > 50:
        raise ServiceError("InvalidRequestException", "A resource can have at most 50 tags")
    return tags


def _judge_kind(kind: Kind) -> Any:
    return "alarm" if kind == "alarmModel" else "detector"


def _deployment(found: Resource) -> Deployment:
    return Deployment(
        name=found.name,
        version=str(found.version),
        kind=_judge_kind(found.kind),
        body=msgspec.Raw(msgspec.json.encode(found.body)),
    )
