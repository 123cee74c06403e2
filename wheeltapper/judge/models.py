"""The definitions in force: what the shard judges by, and what telling needs to know of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from wheeltapper.detector.migrate import migrate as migrated
from wheeltapper.detector.runtime import Shard
from wheeltapper.errors import DefinitionError
from wheeltapper.judge.news import Model, read_model
from wheeltapper.judge.settings import JudgeSettings
from wheeltapper.judge.types import Deployment


class Models:
    """Inputs and deployments beside the shard that runs them; owned by the judge's thread."""

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
        present = self._deployments.get(deployment.name)
        if present is not None and present.kind != deployment.kind:
            raise DefinitionError(f"{deployment.name}: is in force as {present.kind} model; choose another name")
        trial = Shard()
        plan = trial.load(msgspec.json.decode(deployment.body), deployment.version)
        if migrate and present is not None:
            self._migrated(deployment.name, plan)

    def load(self, deployment: Deployment, *, migrate: bool = False) -> None:
        """Put a deployment in force; its detectors are gone unless they migrate."""
        name, body = deployment.name, msgspec.json.decode(deployment.body)
        kept = []
        if migrate and name in self._plans:
            kept = self._migrated(name, Shard().load(body, deployment.version))
        self._plans[name] = self._shard.load(body, deployment.version)
        for state in kept:
            self._shard.insert(state)
        self._deployments[deployment.name] = deployment
        self._models[deployment.name] = read_model(deployment, self._settings)

    def _migrated(self, name: str, plan: Any) -> list[Any]:
        """The states of a model's detectors under a new plan; all or none."""
        states = (self._shard.export(name, key) for key in self._shard.keys(name))
        return migrated([state for state in states if state is not None], self._plans[name], plan)

    def unload(self, name: str) -> None:
        """Take a model out of force."""
        self._shard.unload(name)
        self._plans.pop(name, None)
        self._deployments.pop(name, None)
        self._models.pop(name, None)

    def get(self, name: str) -> Model | None:
        """What telling needs of a model in force."""
        return self._models.get(name)

    def deployments(self) -> list[Deployment]:
        """What is in force."""
        return list(self._deployments.values())

    def count(self) -> int:
        """How many detectors and alarms there are."""
        return sum(len(self._shard.keys(name)) for name in self._models)
