"""The definitions in force: what the shard judges by, and what telling needs to know of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from wheeltapper.detector.migrate import migrate as migrated
from wheeltapper.detector.runtime import Shard
from wheeltapper.judge.news import Model, read_model
from wheeltapper.judge.settings import JudgeSettings
from wheeltapper.judge.types import Deployment


class Models:
    """Inputs and deployments, by handle, beside the shard that runs them; owned by the judge's thread."""

    def __init__(self, shard: Shard, settings: JudgeSettings) -> None:
        self._shard = shard
        self._settings = settings
        self._deployments: dict[str, Deployment] = {}
        self._models: dict[str, Model] = {}
        self._plans: dict[str, Any] = {}
        self.inputs: dict[str, list[str]] = {}

    def declare(self, inputs: Mapping[str, Sequence[str]]) -> None:
        """Replace the inputs."""
        self.inputs = {name: list(paths) for name, paths in inputs.items()}

    def check(self, deployment: Deployment, *, migrate: bool = False) -> None:
        """
        See that a deployment can come into force.

        Raises:
            DefinitionError: it cannot.
        """
        plan = Shard().load(msgspec.json.decode(deployment.body), deployment.version)
        if migrate and deployment.handle in self._plans:
            self._migrated(deployment.handle, plan)

    def load(self, deployment: Deployment, *, migrate: bool = False) -> None:
        """Put a deployment in force; its detectors are gone unless they migrate."""
        handle, body = deployment.handle, msgspec.json.decode(deployment.body)
        kept = []
        if migrate and handle in self._plans:
            kept = self._migrated(handle, Shard().load(body, deployment.version))
        self._plans[handle] = self._shard.load(body, deployment.version)
        for state in kept:
            self._shard.insert(state)
        self._deployments[handle] = deployment
        self._models[handle] = read_model(deployment, self._settings)

    def _migrated(self, handle: str, plan: Any) -> list[Any]:
        """The states of a model's detectors under a new plan; all or none."""
        states = (self._shard.export(handle, key) for key in self._shard.keys(handle))
        return migrated([state for state in states if state is not None], self._plans[handle], plan)

    def unload(self, handle: str) -> None:
        """Take a model out of force."""
        self._shard.unload(handle)
        self._plans.pop(handle, None)
        self._deployments.pop(handle, None)
        self._models.pop(handle, None)

    def get(self, handle: str) -> Model | None:
        """What telling needs of a model in force."""
        return self._models.get(handle)

    def deployments(self) -> list[Deployment]:
        """What is in force."""
        return list(self._deployments.values())

    def count(self) -> int:
        """How many detectors and alarms there are."""
        return sum(len(self._shard.keys(handle)) for handle in self._models)
