"""
A detector model that runs: one engine per plan, compiled or interpreted, over detectors that others keep.

``step`` is the whole of it as a function: it changes nothing that it is given.
"""

from collections.abc import Callable
from typing import TypeAlias

from wheeltapper.detector.action import Action, Message, Outcome
from wheeltapper.detector.compiler import Handlers, compile_plan
from wheeltapper.detector.instance import PENDING, Detector, detector_class
from wheeltapper.detector.interpreter import Pass, enter_first, remember, run_pass
from wheeltapper.detector.plan import Plan
from wheeltapper.detector.settings import DEFAULTS, EngineSettings
from wheeltapper.detector.trace import Recorder, Trace

# A message, or the name of a timer that has expired.
TriggerLike: TypeAlias = Message | str


class Engine:
    """
    Runs the detectors of one plan.

    Attributes:
        handlers: per state, what a trigger calls: one function per input of the plan, in its order,
            ``(detector, payload, now, message)``, and last one for timers, ``(detector, timer, now)``. Each gives a ``Pass``
            when anything happened that others may see or a timer may now end earlier than the detector's ``wake``, else
            None. The detector's ``on`` always is the entry of its state.
    """

    def __init__(self, plan: Plan, settings: EngineSettings = DEFAULTS, *, interpreted: bool = False) -> None:
        self.plan = plan
        self.settings = settings
        self.detector_class = detector_class(plan)
        self.interpreted = interpreted
        if interpreted:
            plain: list[Callable[..., Pass | None]] = [*(self._message for _ in plan.inputs), self._timer]
            self.handlers: Handlers = [list(plain) for _ in plan.states]
        else:
            self.handlers = compile_plan(plan, settings)

    def create(self, key: str, now: float) -> Detector:
        """A detector in the initial state, which it has not entered yet: see ``enter``."""
        detector = self.detector_class(key, now)
        detector.on = self.handlers[detector.s]
        return detector

    def enter(self, detector: Detector, message: Message, now: float, recorder: Recorder | None = None) -> Pass:
        """The first half of creation: remember the message and run onEnter of the initial state."""
        remember(detector, message)
        run = Pass(detector, now, self.settings, message, notes=recorder)
        enter_first(run)
        return run

    def run(self, detector: Detector, trigger: TriggerLike, now: float, recorder: Recorder | None = None) -> Pass:
        """One pass, interpreted, whatever the engine's way."""
        if isinstance(trigger, str):
            detector.mark_timer(trigger, PENDING)
            run = Pass(detector, now, self.settings, timer=trigger, notes=recorder)
        else:
            remember(detector, trigger)
            run = Pass(detector, now, self.settings, trigger, notes=recorder)
        run_pass(run)
        detector.updated = now
        detector.on = self.handlers[detector.s]
        return run

    def outcome(self, run: Pass, *, created: bool = False, trace: Trace | None = None) -> Outcome | None:
        """What others see of a pass; None where there is nothing to see."""
        if not (created or run.event is not None or run.actions or run.failures or trace is not None):
            return None
        states = self.plan.states
        event = run.event
        return Outcome(
            model=self.plan.name,
            version=self.plan.version,
            key=run.detector.key,
            time_ms=run.time_ms,
            created=created,
            from_state="" if created else states[run.from_state].name,
            state=states[run.detector.s].name if event is None else states[event.next_state].name,
            event="" if event is None else event.name,
            condition="" if event is None else event.text,
            values=run.values,
            actions=run.actions,
            failures=run.failures,
            trace=trace,
        )

    def _message(self, detector: Detector, payload: object, now: float, message: Message) -> Pass:
        return self.run(detector, message, now)

    def _timer(self, detector: Detector, timer: str, now: float) -> Pass:
        return self.run(detector, timer, now)


def step(
    engine: Engine, detector: Detector | None, trigger: TriggerLike, now: float, *, key: str = ""
) -> tuple[Detector, list[Action], list[Trace]]:
    """
    One trigger given to one detector, as a pure function.

    Args:
        engine: runs the detector's model.
        detector: left as it is; None to create one, which makes two passes: entering its state, and the message.
        trigger: a message, or the name of a timer that has expired.
        now: seconds since the epoch.
        key: of a new detector.

    Returns:
        The detector afterwards, the actions to carry out, and the trace of each pass.
    """
    actions: list[Action] = []
    traces: list[Trace] = []
    if detector is None:
        after = engine.create(key, now)
        if isinstance(trigger, Message):
            recorder = Recorder(after, trigger)
            run = engine.enter(after, trigger, now, recorder)
            actions += run.actions
            traces.append(recorder.finish(run.time_ms, run.trigger, run.failures))
    else:
        after = engine.create(detector.key, now)
        after.adopt(detector.export())
    recorder = Recorder(after, None if isinstance(trigger, str) else trigger)
    run = engine.run(after, trigger, now, recorder)
    traces.append(recorder.finish(run.time_ms, run.trigger, run.failures))
    return after, actions + run.actions, traces
