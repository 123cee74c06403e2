"""What exploration proves: unreachable states and actions, dead events, timers and variables that go wrong."""

from collections.abc import Iterator

from wheeltapper.detector import expression as ex
from wheeltapper.detector.analysis_findings import Finding
from wheeltapper.detector.analysis_reach import Reach
from wheeltapper.detector.analysis_references import set_names
from wheeltapper.detector.analysis_survey import Rule, Step, Survey, timers_of

INTERNAL = ("setVariable", "setTimer", "resetTimer", "clearTimer")
_BY_HAND = "BatchUpdateDetector alone can bring it about"


def aws_findings(laid_out: Survey, reach: Reach) -> list[Finding]:
    """The structural warnings that need to know what can happen, in AWS's words."""
    return [
        *_unreachable_states(laid_out, reach),
        *_unreachable_actions(laid_out, reach),
        *_reads_on_timers(laid_out, reach),
        *_repeating_timers(laid_out, reach),
        *_read_before_set(laid_out, reach),
    ]


def _unreachable_states(laid_out: Survey, reach: Reach) -> Iterator[Finding]:
    for place, state in enumerate(laid_out.states):
        if state not in reach.states:
            yield Finding(
                "structure",
                "WARNING",
                "A state in your detector model is unreachable. Check the condition that will cause a transition to "
                "the desired state.",
                (f"states[{place}]",),
                why=_why_unreached(laid_out, reach, state),
            )


def _why_unreached(laid_out: Survey, reach: Reach, state: str) -> str:
    incoming = [rule for rule in laid_out.rules if rule.next_state == state]
    if not incoming:
        return f"no transition leads to {state!r} and it is not the initial state"
    reasons = []
    for rule in incoming:
        if rule.state not in reach.states:
            reasons.append(f"{rule.title} starts in a state that is unreachable itself")
        else:
            reasons.append(f"{rule.title} can never fire: {rule.text.strip()}")
    return "; ".join(reasons)


def never_true(rule: Rule, reach: Reach) -> bool:
    """Whether a rule of a reachable state can never fire."""
    return (
        rule.state in reach.states
        and rule.condition is not None
        and "true" not in reach.outcomes.get(rule.path, set())
        and not (rule.life_cycle == "onExit" and rule.path not in reach.outcomes)
    )


def _unreachable_actions(laid_out: Survey, reach: Reach) -> Iterator[Finding]:
    for rule in laid_out.rules:
        if rule.steps and never_true(rule, reach):
            yield Finding(
                "structure",
                "WARNING",
                "An action in your detector model is unreachable. Check the condition that initiates the action.",
                (rule.path,),
                why=f"{rule.title}: {_why_dead(rule, laid_out, reach)}; {_BY_HAND}",
            )


def _why_dead(rule: Rule, laid_out: Survey, reach: Reach) -> str:
    if rule.path not in reach.outcomes:
        earlier = [
            each.name
            for each in laid_out.of(rule.state, "onInput", transitions=True)
            if reach.outcomes.get(each.path) == {"true"}
        ]
        if rule.next_state is not None and earlier:
            return f"transition {earlier[0]!r}, which stands before it, always fires first"
        return "it is never evaluated"
    outcomes = " or ".join(sorted(reach.outcomes[rule.path]))
    return f"no sequence of messages and timers makes {rule.text.strip()} true; it is always {outcomes}"


def _guarded(tree: ex.Expression) -> bool:
    return any(
        isinstance(node, ex.Call) and node.function in ("triggerType", "currentInput", "timeout")
        for node in ex.walk(tree)
    )


def _reads_on_timers(laid_out: Survey, reach: Reach) -> Iterator[Finding]:
    states = {state for state, _ in reach.timer_passes}
    for rule in laid_out.rules:
        if rule.life_cycle != "onInput" or rule.state not in states or rule.condition is None:
            continue
        reads = any(each.root == "input" for each in ex.references(rule.condition))
        if reads and not _guarded(rule.condition):
            timers = sorted(timer for state, timer in reach.timer_passes if state == rule.state)
            yield Finding(
                "structure",
                "INFO",
                "An input attribute is being read, but this may be caused by a timer expiration.",
                (rule.path,),
                why=f"timer {', '.join(map(repr, timers))} may expire in state {rule.state!r}, which evaluates {rule.title} "
                'again on the last message; guard it with triggerType("Message") or currentInput',
            )


def _repeating_timers(laid_out: Survey, reach: Reach) -> Iterator[Finding]:
    for rule in laid_out.rules:
        tested = set(timers_of(rule.condition)) if rule.condition is not None else set()
        stays = rule.next_state is None or rule.next_state == rule.state
        restarted = {step.name("timerName") for step in rule.steps if step.kind in ("setTimer", "resetTimer")}
        sends = [step.kind for step in rule.steps if step.kind not in INTERNAL]
        again = sorted(tested & restarted)
        if again and sends and stays and not never_true(rule, reach):
            yield Finding(
                "structure",
                "WARNING",
                "An expiring timer can cause an unexpected amount of messages to be sent.",
                (rule.path,),
                why=f"{rule.title} sends {', '.join(sends)} when {again[0]!r} expires and starts it again, so it repeats "
                "without any message arriving",
            )


def _read_before_set(laid_out: Survey, reach: Reach) -> Iterator[Finding]:
    """Variables that are certainly unset at some read; a test for being unset is what it looks like."""
    set_somewhere = set_names(laid_out, "setVariable", "variableName")
    for path, rule, tree in laid_out.trees():
        if never_true(rule, reach):
            continue
        for reference in ex.references(tree):
            noted = reach.unset_reads.get((path, reference.name), set()) if reference.root == "variable" else set()
            if noted != {"unset"} or reference.name not in set_somewhere or _tests_for_unset(tree, reference):
                continue
            yield Finding(
                "referenced-data",
                "WARNING",
                "Detected broken Variable: a variable is used in an expression before being set to a value.",
                (path,),
                rule="variable-before-set",
                why=f"$variable.{reference.name} is never set yet when {rule.title} reads it",
            )


def _tests_for_unset(tree: ex.Expression, reference: ex.Reference) -> bool:
    for node in ex.walk(tree):
        if isinstance(node, ex.Call) and node.function == "isUndefined" and reference in node.arguments:
            return True
        if isinstance(node, ex.Binary) and node.operator == "!=" and reference in (node.left, node.right):
            return True
    return False


# -- Wheeltapper's own


def own_findings(laid_out: Survey, reach: Reach) -> list[Finding]:
    """What AWS's analyses never say, each with its proof."""
    return [
        *_dead_transitions(laid_out, reach),
        *_constant_events(laid_out, reach),
        *_timers(laid_out, reach),
        *_idle_steps(laid_out, reach),
        *_maybe_unset(laid_out, reach),
        *_unread_variables(laid_out),
        *_left_running(laid_out, reach),
        *_overtaken(laid_out, reach),
    ]


def _dead_transitions(laid_out: Survey, reach: Reach) -> Iterator[Finding]:
    for rule in laid_out.rules:
        if rule.next_state is not None and not rule.steps and never_true(rule, reach):
            yield Finding(
                "reachability",
                "WARNING",
                f"{rule.title} can never fire",
                (rule.path,),
                rule="dead-transition",
                why=f"{_why_dead(rule, laid_out, reach)}; {_BY_HAND}",
            )


def _constant_events(laid_out: Survey, reach: Reach) -> Iterator[Finding]:
    for rule in laid_out.rules:
        written_true = isinstance(rule.condition, ex.Literal)
        reads = rule.condition is not None and bool(ex.references(rule.condition))
        if reads and not written_true and reach.outcomes.get(rule.path) == {"true"}:
            yield Finding(
                "reachability",
                "INFO",
                f"the condition of {rule.title} always holds",
                (rule.path,),
                rule="always-true",
                why=f"{rule.text.strip()} is true whenever it is evaluated, whatever arrives",
            )


def _timer_steps(laid_out: Survey, kind: str) -> Iterator[tuple[Rule, Step]]:
    for rule in laid_out.rules:
        for step in rule.steps:
            if step.kind == kind:
                yield rule, step


def _tested(laid_out: Survey) -> dict[str, list[Rule]]:
    out: dict[str, list[Rule]] = {}
    for _, rule, tree in laid_out.trees():
        for name in timers_of(tree):
            out.setdefault(name, []).append(rule)
    return out


def _timers(laid_out: Survey, reach: Reach) -> Iterator[Finding]:
    tested = _tested(laid_out)
    may_be_set = set_names(laid_out, "setTimer", "timerName")
    asks_for_timer = any(
        isinstance(node, ex.Call) and node.function == "triggerType"
        for _, _, tree in laid_out.trees()
        for node in ex.walk(tree)
    )
    for timer in sorted(may_be_set - set(tested)):
        paths = tuple(step.path for _, step in _timer_steps(laid_out, "setTimer") if step.name("timerName") == timer)
        yield Finding(
            "timers",
            "INFO" if asks_for_timer else "WARNING",
            f"timer {timer!r} is set, but no condition tests timeout({timer!r})",
            paths,
            rule="timer-never-tested",
            why="its expiry runs one pass of the state it finds, and nothing in the definition asks whether it expired",
        )
    for timer in sorted({step.name("timerName") for _, step in _timer_steps(laid_out, "resetTimer")} - may_be_set):
        paths = tuple(step.path for _, step in _timer_steps(laid_out, "resetTimer") if step.name("timerName") == timer)
        yield Finding(
            "timers",
            "WARNING",
            f"timer {timer!r} is reset, but no action ever sets it",
            paths,
            rule="timer-never-set",
            why="resetTimer repeats the duration of an earlier setTimer; without one it does nothing",
        )


def _idle_steps(laid_out: Survey, reach: Reach) -> Iterator[Finding]:
    set_timers = set_names(laid_out, "setTimer", "timerName")
    for rule in laid_out.rules:
        for step in rule.steps:
            found = reach.found.get(step.path)
            timer = step.name("timerName")
            if step.kind == "resetTimer" and timer in set_timers and found == {"absent"}:
                yield Finding(
                    "timers",
                    "WARNING",
                    f"{rule.title} resets timer {timer!r}, which is never set at that moment: the reset does nothing",
                    (step.path,),
                    rule="reset-without-set",
                    why=f"whenever {rule.text.strip()} holds, {timer!r} has not been set or has been cleared since"
                    f"{_clearers(laid_out, timer)}; only setTimer starts it again",
                )
            if step.kind == "setVariable" and found == {"undefined"}:
                yield Finding(
                    "variables",
                    "WARNING",
                    f"{rule.title} assigns ${'variable.' + step.name('variableName')}, but the value is always undefined",
                    (step.path,),
                    rule="assignment-without-value",
                    why=f"{step.name('value')} cannot be computed whenever the event fires, so the old value stays",
                )


def _clearers(laid_out: Survey, timer: str) -> str:
    names = [f"{rule.name!r}" for rule, step in _timer_steps(laid_out, "clearTimer") if step.name("timerName") == timer]
    return f" (by {', '.join(names)})" if names else ""


def _maybe_unset(laid_out: Survey, reach: Reach) -> Iterator[Finding]:
    set_somewhere = set_names(laid_out, "setVariable", "variableName")
    places: dict[str, list[str]] = {}
    for path, _, tree in laid_out.trees():
        for reference in ex.references(tree):
            if reference.root != "variable" or reference.name not in set_somewhere:
                continue
            noted = reach.unset_reads.get((path, reference.name), set())
            if noted == {"unset", "set"} and reach.exact and not _tests_for_unset(tree, reference):
                places.setdefault(reference.name, []).append(path)
    for name, paths in places.items():
        yield Finding(
            "variables",
            "INFO",
            f"$variable.{name} may be read before it is set",
            tuple(dict.fromkeys(paths)),
            rule="variable-maybe-unset",
            why="there is a sequence of messages that reaches these places while it has no value; an expression with an "
            "unset variable is undefined and counts as false",
        )


def _unread_variables(laid_out: Survey) -> Iterator[Finding]:
    read = {
        reference.name
        for _, _, tree in laid_out.trees()
        for reference in ex.references(tree)
        if reference.root == "variable"
    }
    # The default payload of an action carries every variable.
    if any(
        step.kind not in INTERNAL and not step.body.get("payload") for rule in laid_out.rules for step in rule.steps
    ):
        return
    for name in sorted(set_names(laid_out, "setVariable", "variableName") - read):
        paths = tuple(
            step.path for _, step in _timer_steps(laid_out, "setVariable") if step.name("variableName") == name
        )
        yield Finding(
            "variables",
            "INFO",
            f"$variable.{name} is set, but no expression reads it",
            paths,
            rule="variable-never-read",
            why="no action sends the default payload either, which would carry it",
        )


def _left_running(laid_out: Survey, reach: Reach) -> Iterator[Finding]:
    """Timers that still run after leaving the states that test them, and are not restarted on the way back."""
    tested = _tested(laid_out)
    for timer in sorted(set_names(laid_out, "setTimer", "timerName") & set(tested)):
        testers = {rule.state for rule in tested[timer]}
        leaving = [
            rule
            for rule in laid_out.rules
            if (rule.path, timer) in reach.leaving
            and rule.state in testers
            and rule.next_state not in testers
            and not any(_outlasts(laid_out, longer, timer) for longer in _awaited(rule.condition))
        ]
        if not leaving:
            continue
        ends = sorted({rule.next_state for rule in leaving if rule.next_state is not None})
        yield Finding(
            "timers",
            "INFO",
            f"timer {timer!r} is not cleared on leaving {', '.join(map(repr, sorted({rule.state for rule in leaving})))}",
            tuple(rule.path for rule in leaving),
            rule="timer-left-running",
            why=f"tested only in {', '.join(map(repr, sorted(testers)))}, it may run on in {', '.join(map(repr, ends))}: "
            "its expiry there runs a pass on the last message, and counts as expired at the next test unless it is set "
            "anew before",
        )


def _overtaken(laid_out: Survey, reach: Reach) -> Iterator[Finding]:
    """Expiries that an event of a SERIAL model makes undone before what waits for them is asked."""
    for state in laid_out.states:
        events = laid_out.of(state, "onInput")
        transitions = laid_out.of(state, "onInput", transitions=True)
        for place, rule in enumerate(events):
            for step in rule.steps:
                timer = step.name("timerName")
                later = [
                    each
                    for each in (*events[place + 1 :], *transitions)
                    if each.condition is not None and timer in timers_of(each.condition)
                ]
                if step.path in reach.overtaken and later:
                    yield Finding(
                        "timers",
                        "WARNING",
                        f"{rule.title} may undo the expiry of timer {timer!r} before {later[0].title} tests it",
                        (step.path, *(each.path for each in later)),
                        rule="expiry-undone",
                        why=f"SERIAL: when {timer!r} expires, {rule.text.strip()} may hold, also on the last message, and "
                        f'{step.kind} acts at once; guard it with triggerType("Message"), or let the model be BATCH',
                    )


def _awaited(condition: ex.Expression | None) -> set[str]:
    """The timers that must have expired for a condition to hold."""
    match condition:
        case ex.Binary("&&", left, right):
            return _awaited(left) | _awaited(right)
        case ex.Call("timeout", (ex.Literal(str(name)),)):
            return {name}
    return set()


def _outlasts(laid_out: Survey, longer: str, shorter: str) -> bool:
    """Whether one timer, once expired, proves that another has: they are set together only, for a fixed time each."""
    for rule in laid_out.rules:
        seconds: dict[str, list[object]] = {longer: [], shorter: []}
        for step in rule.steps:
            name = step.name("timerName")
            if name in seconds and step.kind == "resetTimer":
                return False
            if name in seconds and step.kind == "setTimer":
                seconds[name].append(step.body.get("seconds"))
        match seconds[longer], seconds[shorter]:
            case [], []:
                pass
            case [int() as long], [int() as short] if long > short:
                pass
            case _:
                return False
    return True
