"""
Carries out actions: at least once, each with its id, again after a failure, parked after too many.

What to do for which action is the host's to say: a route gives an executor for an action, or none, and then the action is
recorded as undelivered. A target that is away altogether (a broker without connection) does not use up attempts. Attempts
are counted on disk, before an executor that blocks begins one: what kills the process again and again is parked, too.
"""

import heapq
import itertools
import logging
import random
import threading
from collections import deque
from collections.abc import Callable, Container, Iterable
from typing import Annotated, Literal, NamedTuple, Protocol

import msgspec

from wheeltapper.clock import Clock
from wheeltapper.errors import UnavailableError, WheeltapperError
from wheeltapper.judge.host import Judge
from wheeltapper.judge.types import Action
from wheeltapper.messages import ActionReport

log = logging.getLogger(__name__)

# How soon to look again for a target that is away; looking costs little, unless very many wait for it.
_AWAY_S = 0.2
_CROWD = 500
_DOUBLINGS = 60
_PAUSE_S = 1.0
_CLOSING_S = 10.0


class Result(NamedTuple):
    """
    What became of one attempt.

    ``retry`` counts as an attempt and is tried again later; ``away`` is tried again and does not count; ``failed`` is a
    refusal that would only be repeated; ``undelivered`` has nobody to go to; ``parked`` was tried often enough already.
    """

    outcome: Literal["delivered", "retry", "away", "failed", "undelivered", "parked"]
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


AtLeastOne = Annotated[int, msgspec.Meta(ge=1)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]


class DeliverySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    Attributes:
        threads: half as many actions are tried side by side by each executor that blocks, whatever becomes of the others'.
        attempts: how often before an action is parked.
        first_delay_s, longest_delay_s: pauses double between these, with jitter.
        memory: actions held in memory, and as many pieces of news; more wait on disk.
    """

    threads: AtLeastOne = 8
    attempts: AtLeastOne = 10
    first_delay_s: NotNegative = 1.0
    longest_delay_s: NotNegative = 300.0
    memory: AtLeastOne = 5_000


class _Held(msgspec.Struct, gc=False):
    """An action in memory, or a piece of news: how often it was tried before, and what came of the last time."""

    action: Action
    news: bool
    attempts: int = 0
    detail: str = ""


class _Lane(msgspec.Struct):
    """One blocking executor's own threads, so that targets that hang delay no other."""

    busy: int = 0
    waiting: deque[_Held] = msgspec.field(default_factory=deque)


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
        self._due: list[tuple[float, int, _Held]] = []
        self._held: dict[str, _Held] = {}
        # News and actions have room of their own: news that waits for a broker must keep no alarm's e-mail back.
        self._count = {True: 0, False: 0}
        self._left_out: set[bool] = set()
        # What was finished while more was being fetched, which the fetched rows still show as pending.
        self._finished: set[str] | None = None
        self._earlier: dict[str, int] | None = None
        self._recalling = threading.Lock()
        self._lanes: dict[Executor, _Lane] = {}
        self._numbers = itertools.count()
        self._wake = threading.Condition()
        self._stop = False
        self._thread: threading.Thread | None = None
        self._lane_threads: set[threading.Thread] = set()

    def attach(self, judge: Judge) -> None:
        """Say whom to tell; before the judge starts."""
        self._judge = judge

    def start(self) -> None:
        """Begin to work on the actions whose executors block, and on what is tried again."""
        self._thread = threading.Thread(target=self._work, name="delivery", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop; what is not settled stays pending on disk."""
        with self._wake:
            self._stop = True
            self._wake.notify_all()
        until = self._clock.monotonic() + _CLOSING_S
        if self._thread is not None:
            self._thread.join(_CLOSING_S)
        with self._wake:
            lanes = list(self._lane_threads)
        for thread in lanes:
            thread.join(timeout=max(until - self._clock.monotonic(), 0.0))

    def take(self, actions: Iterable[Action]) -> None:
        """New actions, from the judge's thread; never blocks."""
        self._begin(self._remember(actions))

    def _begin(self, fresh: Iterable[_Held]) -> None:
        blocking = [held for held in fresh if not self._try_at_once(held)]
        if blocking:
            self._schedule(blocking, self._clock.monotonic())

    def run_due(self) -> int:
        """Try everything that is due now, on the caller's thread; gives how many were tried."""
        self._recall()
        tried = 0
        while (held := self._next_due()) is not None:
            self._try(held)
            tried += 1
        self._refill()
        return tried

    @property
    def waiting(self) -> int:
        """Actions in memory that are not settled."""
        return len(self._held)

    def _remember(self, actions: Iterable[Action], finished: Container[str] = ()) -> list[_Held]:
        """Those that are new and find room; under one lock for all, for which the broker's thread waits to settle others."""
        fresh: list[_Held] = []
        all_held, count, room = self._held, self._count, self._settings.memory
        with self._wake:
            if self._stop:
                return fresh
            for action in actions:
                if action.id in all_held or action.id in finished:
                    continue
                news = action.type == "publish"
                if count[news] >= room:
                    self._left_out.add(news)
                    continue
                all_held[action.id] = held = _Held(action, news)
                count[news] += 1
                fresh.append(held)
        return fresh

    def _forget(self, held: _Held) -> None:
        with self._wake:
            del self._held[held.action.id]
            self._count[held.news] -= 1
            if self._finished is not None:
                self._finished.add(held.action.id)

    def _schedule(self, waiting: Iterable[_Held], at: float) -> None:
        with self._wake:
            for held in waiting:
                heapq.heappush(self._due, (at, next(self._numbers), held))
            self._wake.notify_all()

    def _next_due(self) -> _Held | None:
        with self._wake:
            if self._due and self._due[0][0] <= self._clock.monotonic():
                return heapq.heappop(self._due)[2]
            return None

    def _work(self) -> None:
        while True:
            with self._wake:
                if self._stop:
                    return
                pause = self._due[0][0] - self._clock.monotonic() if self._due else _PAUSE_S
                if pause > 0:
                    self._wake.wait(min(pause, _PAUSE_S))
            try:
                self.run_due()
            except Exception:
                log.exception("delivery: failed; going on")
                with self._wake:
                    self._wake.wait(_PAUSE_S)

    def _try_at_once(self, held: _Held) -> bool:
        """Try what blocks nobody; False where it is for the threads, who also see what is wrong with a route."""
        try:
            executor = self._route(held.action)
            if executor is not None and not executor.immediate:
                return False
        except Exception:
            return False
        self._execute(held, executor)
        return True

    def _try(self, held: _Held) -> None:
        if self._earlier:
            held.attempts += self._earlier.pop(held.action.id, 0)
        if held.attempts >= self._settings.attempts:
            detail = held.detail or "the process ended during the last attempt"
            self._finish(held, "parked", f"given up after {held.attempts} attempts: {detail}")
            return
        try:
            executor = self._route(held.action)
            blocks = executor is not None and not executor.immediate
        except Exception as error:
            self._failed(held, error)
            return
        if executor is None or not blocks:
            self._execute(held, executor)
            return
        turn = self._enter(held, executor)
        if turn is not None and self._thread is None:
            self._work_off(turn, executor)
        elif turn is not None:
            thread = threading.Thread(target=self._work_off, args=(turn, executor), name="delivery-lane", daemon=True)
            with self._wake:
                self._lane_threads.add(thread)
            try:
                thread.start()
            except RuntimeError as error:
                log.warning("delivery: no thread to be had, others wait: %s", error)
                with self._wake:
                    self._lane_threads.discard(thread)
                self._work_off(turn, executor)

    def _work_off(self, first: _Held, executor: Executor) -> None:
        """Try an action, and then what waits in its executor's lane."""
        turn: _Held | None = first
        while turn is not None:
            try:
                self._note(turn, turn.attempts + 1)
                self._execute(turn, executor)
            except Exception:
                log.exception("delivery: failed; going on")
                self._schedule([turn], self._clock.monotonic() + _PAUSE_S)
            turn = self._leave(executor)
        with self._wake:
            self._lane_threads.discard(threading.current_thread())

    def _enter(self, held: _Held, executor: Executor) -> _Held | None:
        """The action, where the executor's lane has a place; where it is full, whoever is in it takes the action along."""
        with self._wake:
            lane = self._lanes.setdefault(executor, _Lane())
            if lane.busy >= max(self._settings.threads // 2, 1):
                lane.waiting.append(held)
                return None
            lane.busy += 1
            return held

    def _leave(self, executor: Executor) -> _Held | None:
        """The next action in the lane; where there is none, the place is free."""
        with self._wake:
            lane = self._lanes[executor]
            if lane.waiting and not self._stop:
                return lane.waiting.popleft()
            lane.busy -= 1
            if not lane.busy:
                del self._lanes[executor]
            return None

    def _execute(self, held: _Held, executor: Executor | None) -> None:
        if executor is None:
            self._settle(held, Result("undelivered", "nothing is mapped to it and no account is configured"))
            return
        unheard = iter((True,))

        def settled(result: Result) -> None:
            if next(unheard, False):
                self._settle(held, result)

        try:
            executor.execute(held.action, settled)
        except UnavailableError as error:
            settled(Result("retry", str(error)))
        except WheeltapperError as error:
            settled(Result("failed", str(error)))
        except Exception as error:
            if next(unheard, False):
                self._failed(held, error)

    def _failed(self, held: _Held, error: Exception) -> None:
        """A fault of ours, which may pass."""
        log.error("action %s %s: failed", held.action.type, held.action.target, exc_info=error)
        self._settle(held, Result("retry", f"{type(error).__name__}: {error}"))

    def _settle(self, held: _Held, result: Result) -> None:
        settings = self._settings
        if result.outcome == "away":
            crowd = max(len(self._held) / _CROWD, 1.0)
            self._schedule([held], self._clock.monotonic() + _AWAY_S * crowd)
            return
        held.attempts += 1
        held.detail = result.detail
        if result.outcome != "retry":
            self._finish(held, result.outcome, result.detail)
        elif held.attempts >= settings.attempts:
            self._finish(held, "parked", result.detail)
        else:
            self._note(held, held.attempts)
            doubled = min(held.attempts - 1, _DOUBLINGS)
            delay = min(settings.first_delay_s * 2**doubled, settings.longest_delay_s)
            self._schedule([held], self._clock.monotonic() + delay * (0.5 + self._jitter() / 2))

    def _note(self, held: _Held, attempts: int) -> None:
        """Have it on disk that so many attempts were begun."""
        if self._judge is not None:
            self._judge.settle(held.action.id, "pending", attempts=attempts, detail=held.detail)

    def _finish(self, held: _Held, status: Outcome, detail: str) -> None:
        action = held.action
        if status != "delivered":
            log.warning(
                "action %s %s of %s %s: %s: %s", action.type, action.target, action.model, action.key, status, detail
            )
        if self._judge is not None:
            self._judge.settle(action.id, status, attempts=held.attempts, detail=detail)
        self._forget(held)
        if self._report is None or held.news:
            return
        try:
            self._report(self._report_of(action, status, detail))
        except Exception:
            log.exception("action %s %s: what became of it could not be told", action.type, action.target)

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

    def _recall(self) -> None:
        """Learn, once, how often what waits on disk was tried before this process."""
        if self._earlier is not None or self._judge is None:
            return
        with self._recalling:
            if self._earlier is None:
                try:
                    self._earlier = self._judge.attempts()
                except Exception as error:
                    log.warning("delivery: earlier attempts are not known yet: %s", error)

    def _refill(self) -> None:
        """Fetch what was left on disk for want of memory."""
        with self._wake:
            kinds = {kind for kind in self._left_out if self._count[kind] <= self._settings.memory // 2}
            if not kinds or self._judge is None or self._finished is not None:
                return
            self._left_out -= kinds
            finished: set[str] = set()
            self._finished = finished
        try:
            self._fetch(self._judge, kinds, finished)
        except BaseException:
            with self._wake:
                self._left_out |= kinds
            raise
        finally:
            with self._wake:
                self._finished = None

    def _fetch(self, judge: Judge, kinds: set[bool], finished: Container[str]) -> None:
        after = (0, "")
        while not kinds <= self._left_out and (pending := judge.pending_actions(after)):
            wanted = [action for action in pending if (action.type == "publish") in kinds]
            self._begin(self._remember(wanted, finished))
            after = (pending[-1].time_ms, pending[-1].id)
