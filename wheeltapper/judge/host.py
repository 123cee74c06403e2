"""
The judge: a durable host around the pure detector engine, for the cloud and the gateway alike.

Everything that can change a detector (messages, deployments, operators' commands, the clock reading at which timers fire)
is written to the journal and synced before it is applied, and applied in the order written. So a restart, however
sudden, loads the last snapshot, replays the rest and stands exactly where it stood. One thread owns the engine and the
journal; every method may be called from any thread.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from wheeltapper.clock import Clock
from wheeltapper.judge.settings import JudgeSettings
from wheeltapper.judge.types import (
    AlarmOperation,
    AlarmView,
    Deployment,
    DetectorUpdate,
    DetectorView,
    Done,
    Message,
    Refusal,
    Statistics,
)


class Judge:
    """
    Detectors that survive anything.

    >>> judge = Judge(Path("/var/lib/wheeltapper"), clock, JudgeSettings(), on_pending=delivery.wake)  # doctest: +SKIP
    >>> judge.start(); judge.declare_inputs({"Reading": ["TT01"]}); judge.deploy(deployment)  # doctest: +SKIP
    >>> judge.put([Message("Reading", b'{"TT01": 71.5}')])  # doctest: +SKIP
    []
    """

    def __init__(
        self, data_dir: Path, clock: Clock, settings: JudgeSettings, *, on_pending: Callable[[], None] | None = None
    ) -> None:
        """
        Args:
            data_dir: holds ``judge.db``; made if missing; one process at a time.
            on_pending: called on the judge's thread when actions wait for delivery (see ``pending_actions``).
        """
        raise NotImplementedError

    def start(self) -> None:
        """
        Recover and begin to judge.

        Raises:
            UnavailableError: the data directory cannot be written, or another process holds it.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Apply what was submitted, take a snapshot, stop; harmless when repeated."""
        raise NotImplementedError

    # --- definitions -------------------------------------------------------------------------------------------------

    def declare_inputs(self, inputs: Mapping[str, Sequence[str]]) -> None:
        """Replace the set of inputs (name → attribute paths) that messages may name; durable."""
        raise NotImplementedError

    def deploy(self, deployment: Deployment, *, migrate: bool = False) -> None:
        """
        Put a definition in force, replacing any version of the same name and kind; durable when this returns.

        Its detectors are deleted, as AWS does, or with ``migrate`` keep state, variables and timers whose names still exist.

        Raises:
            DefinitionError: the definition is not valid, or cannot take over the detectors.
            UnavailableError: the journal cannot be written.
        """
        raise NotImplementedError

    def withdraw(self, name: str, *, kind: str = "detector") -> None:
        """Take a model and its detectors out of force; harmless when it is not in force."""
        raise NotImplementedError

    def deployments(self) -> list[Deployment]:
        """What is in force."""
        raise NotImplementedError

    # --- messages ----------------------------------------------------------------------------------------------------

    def submit(self, messages: Sequence[Message], done: Done) -> None:
        """Hand over a batch without waiting; ``done`` is called when it is durable and applied."""
        raise NotImplementedError

    def put(self, messages: Sequence[Message]) -> list[Refusal]:
        """
        Hand over a batch and wait until it is durable and applied.

        Raises:
            UnavailableError: nothing of it could be written (disk full, closing); send it again later.
        """
        raise NotImplementedError

    # --- operators ---------------------------------------------------------------------------------------------------

    def update_detectors(self, updates: Sequence[DetectorUpdate]) -> list[Refusal]:
        """BatchUpdateDetector: durable and applied on return; creates a detector that is not there."""
        raise NotImplementedError

    def delete_detectors(self, targets: Sequence[tuple[str, str]]) -> list[Refusal]:
        """BatchDeleteDetector: (model, key) pairs; durable and applied on return."""
        raise NotImplementedError

    def operate_alarms(self, operations: Sequence[AlarmOperation]) -> list[Refusal]:
        """Acknowledge, disable, enable, reset, snooze; durable and applied on return."""
        raise NotImplementedError

    # --- queries, consistent with what is applied --------------------------------------------------------------------

    def detector(self, model: str, key: str = "") -> DetectorView | None:
        """One detector of a detector model."""
        raise NotImplementedError

    def detectors(
        self, model: str, *, state: str | None = None, after: str | None = None, limit: int = 250
    ) -> list[DetectorView]:
        """A page of a model's detectors in order of their keys, beginning after the key ``after``."""
        raise NotImplementedError

    def alarm(self, model: str, key: str = "") -> AlarmView | None:
        """One alarm of an alarm model."""
        raise NotImplementedError

    def alarms(self, model: str, *, after: str | None = None, limit: int = 250) -> list[AlarmView]:
        """A page of an alarm model's alarms in order of their keys."""
        raise NotImplementedError

    def statistics(self) -> Statistics:
        """Counters and depths; does not wait for the judge's thread."""
        raise NotImplementedError
