"""
Carries out actions: at least once, each with its id, again after a failure, parked after too many.

What to do for which action is the host's to say: a route gives an executor for an action, or none, and then the action is
recorded as undelivered. A target that is away altogether (a broker without connection) does not use up attempts.
"""

import heapq
import itertools
import logging
import random
import threading
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple, Protocol

import msgspec

from wheeltapper.clock import Clock
from wheeltapper.errors import UnavailableError, WheeltapperError
from wheeltapper.judge.host import Judge
from wheeltapper.judge.types import Action
from wheeltapper.messages import ActionReport

log = logging.getLogger(__name__)

# How soon to look again for a target that is away; looking costs little.
_AWAY_S = 0.2


class Result(NamedTuple):
    """
    What became of one attempt.

    ``retry`` counts as an attempt and is tried again later; ``away`` is tried again and does not count; ``failed`` is a
    refusal that would only be repeated; ``undelivered`` has nobody to go to.
    """

    outcome: Literal["delivered", "retry", "away", "failed", "undelivered"]
    detail: str = ""


Outcome = Literal["delivered", "undelivered", "failed", "parked"]

Settled = Callable[[Result], None]


class Executor(Protocol):
    """Does one kind of action."""

    @property
    def immediate(self) -> bool:
        """Whether ``execute`` returns at once and may be called on the judge's thread."""

    def execute(self, action: Action, settled: Settled) -> None:
        """
        Try once; call ``settled`` exactly once, now or later, from any thread.

        Raises:
            UnavailableError: as good as a retry.
            WheeltapperError: as good as failed.
        """


Route = Callable[[Action], Executor | None]


class DeliverySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    Attributes:
        threads: how many actions whose executors block are tried side by side.
        attempts: how often before an action is parked.
        first_delay_s, longest_delay_s: pauses double between these, with jitter.
        memory: actions held in memory; more wait on disk.
    """

    threads: int = 4
    attempts: int = 10
    first_delay_s: float = 1.0
    longest_delay_s: float = 300.0
    memory: int = 5_000


class Delivery:
    """
    The queue between the judge and the executors.

    Args:
        route: the executor for an action, None where nothing is mapped.
        report: told what became of every action of a definition (not of Wheeltapper's own news).
    """

    def __init__(
        self,
        route: Route,
        clock: Clock,
        settings: DeliverySettings | None = None,
        *,
        report: Callable[[ActionReport], None] | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._route = route
        self._clock = clock
        self._settings = settings or DeliverySettings()
        self._report = report
        self._jitter = jitter
        self._judge: Judge | None = None
        self._due: list[tuple[float, int, Action]] = []
        self._attempts: dict[str, int] = {}
        self._numbers = itertools.count()
        self._overflowed = False
        self._wake = threading.Condition()
        self._stop = False
        self._threads: list[threading.Thread] = []

    def attach(self, judge: Judge) -> None:
        """Say whom to tell; before the judge starts."""
        self._judge = judge

    def start(self) -> None:
        """Begin to work on the actions whose executors block, and on what is tried again."""
        for number in range(self._settings.threads):
            thread = threading.Thread(target=self._work, name=f"delivery-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def close(self) -> None:
        """Stop; what is not settled stays pending on disk."""
        with self._wake:
            self._stop = True
            self._wake.notify_all()
        for thread in self._threads:
            thread.join(timeout=10.0)

    def take(self, actions: Iterable[Action]) -> None:
        """New actions, from the judge's thread; never blocks."""
        blocking: list[Action] = []
        for action in self._remember(actions):
            executor = self._route(action)
            if executor is None or executor.immediate:
                self._try(action, executor)
            else:
                blocking.append(action)
        if blocking:
            self._schedule(blocking, self._clock.monotonic())

    def _remember(self, actions: Iterable[Action]) -> list[Action]:
        """Those that are new and find room; under one lock for all, for which the broker's thread waits to settle others."""
        fresh = []
        with self._wake:
            for action in actions:
                if self._stop or action.id in self._attempts:
                    continue
                if len(self._attempts) >= self._settings.memory:
                    self._overflowed = True
                    continue
                self._attempts[action.id] = 0
                fresh.append(action)
        return fresh

    def run_due(self) -> int:
        """Try everything that is due now, on the caller's thread; gives how many were tried."""
        tried = 0
        while (action := self._next_due()) is not None:
            self._try(action, self._route(action))
            tried += 1
        self._refill()
        return tried

    @property
    def waiting(self) -> int:
        """Actions in memory that are not settled."""
        return len(self._attempts)

    def _schedule(self, actions: Iterable[Action], at: float) -> None:
        with self._wake:
            for action in actions:
                heapq.heappush(self._due, (at, next(self._numbers), action))
            self._wake.notify_all()

    def _next_due(self) -> Action | None:
        with self._wake:
            if self._due and self._due[0][0] <= self._clock.monotonic():
                return heapq.heappop(self._due)[2]
            return None

    def _work(self) -> None:
        while True:
            with self._wake:
                if self._stop:
                    return
                pause = self._due[0][0] - self._clock.monotonic() if self._due else 1.0
                if pause > 0:
                    self._wake.wait(min(pause, 1.0))
            self.run_due()

    def _try(self, action: Action, executor: Executor | None) -> None:
        if executor is None:
            self._settle(action, Result("undelivered", "nothing is mapped to it and no account is configured"))
            return
        try:
            executor.execute(action, lambda result: self._settle(action, result))
        except UnavailableError as error:
            self._settle(action, Result("retry", str(error)))
        except WheeltapperError as error:
            self._settle(action, Result("failed", str(error)))
        except Exception as error:
            log.exception("action %s %s: failed", action.type, action.target)
            self._settle(action, Result("retry", f"{type(error).__name__}: {error}"))

    def _settle(self, action: Action, result: Result) -> None:
        settings = self._settings
        if result.outcome == "away":
            self._schedule([action], self._clock.monotonic() + _AWAY_S)
            return
        with self._wake:
            if action.id not in self._attempts:
                return
            attempts = self._attempts.pop(action.id) + 1
            again = result.outcome == "retry" and attempts < settings.attempts
            if again:
                self._attempts[action.id] = attempts
        if again:
            delay = min(settings.first_delay_s * 2 ** (attempts - 1), settings.longest_delay_s)
            self._schedule([action], self._clock.monotonic() + delay * (0.5 + self._jitter() / 2))
            return
        status: Outcome = "parked" if result.outcome == "retry" else result.outcome
        self._tell(action, status, attempts, result.detail)

    def _tell(self, action: Action, status: Outcome, attempts: int, detail: str) -> None:
        if status != "delivered":
            log.warning(
                "action %s %s of %s %s: %s: %s", action.type, action.target, action.model, action.key, status, detail
            )
        if self._judge is not None:
            self._judge.settle(action.id, status, attempts=attempts, detail=detail)
        if self._report is not None and action.type != "publish":
            self._report(self._report_of(action, status, detail))

    def _report_of(self, action: Action, outcome: Outcome, detail: str) -> ActionReport:
        return ActionReport(
            message_id=action.id,
            thing=action.thing,
            time_ms=self._clock.time_ms(),
            detector=action.model,
            key=action.key,
            type=action.type,
            target=action.target,
            outcome=outcome,
            detail=detail,
        )

    def _refill(self) -> None:
        """Fetch what was left on disk for want of memory."""
        with self._wake:
            if not self._overflowed or len(self._attempts) > self._settings.memory // 2 or self._judge is None:
                return
            self._overflowed = False
        after = (0, "")
        while pending := self._judge.pending_actions(after):
            self.take(pending)
            after = (pending[-1].time_ms, pending[-1].id)
            if self._overflowed:
                return
