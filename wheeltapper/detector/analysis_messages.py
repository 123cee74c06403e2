"""
What a recording says of a model: what never arrives, never holds, cannot practically fire, and counts time wrongly.

Every finding carries its numbers. A statement about the recording is a count; a probability is an extrapolation and says
so: messages are taken to be independent and to come at the recording's rate.
"""

import difflib
import math
from collections.abc import Collection, Iterator, Mapping

from wheeltapper.detector import expression as ex
from wheeltapper.detector.analysis_findings import Finding, Inputs, Level
from wheeltapper.detector.analysis_survey import Rule, Step, Survey, inputs_of, timers_of
from wheeltapper.detector.recording import Counts, InputSeen, Recording, TimerSeen

YEAR_S = 365.25 * 86_400
# An alarm that is not to be expected within this time practically cannot fire.
_HOPELESS_S = 10 * YEAR_S
# A condition is called constant from this many evaluations on.
_ENOUGH = 20
_WRONG_RATE = 1.1
_HEARTBEAT = 0.9

_CONFUSABLE = str.maketrans("OoIlLSsBZz", "0011155822")


def findings(laid_out: Survey, recording: Recording, inputs: Inputs | None) -> list[Finding]:
    """Everything a recording says."""
    if not recording.messages:
        return [Finding("messages", "WARNING", "the recording holds no message", rule="no-messages")]
    return [
        *_coverage(laid_out, recording),
        *_arrivals(laid_out, recording, inputs),
        *_conditions(laid_out, recording),
        *_hopeless(laid_out, recording),
        *_clocks(laid_out, recording),
    ]


def timer_testers(laid_out: Survey) -> dict[str, set[str]]:
    """Timer → the states whose onInput conditions test it."""
    found: dict[str, set[str]] = {}
    for rule in laid_out.rules:
        if rule.life_cycle == "onInput" and rule.condition is not None:
            for name in timers_of(rule.condition):
                found.setdefault(name, set()).add(rule.state)
    return found


def _coverage(laid_out: Survey, recording: Recording) -> Iterator[Finding]:
    span = f"{recording.messages:,} messages over {_duration(recording.seconds)}"
    if recording.keyless:
        yield Finding(
            "messages",
            "WARNING",
            f"{recording.keyless:,} messages carry no usable key and reach no detector",
            rule="no-key",
            why=f"{span}; a key must be a text, number or Boolean of the characters A-Z a-z 0-9 - _ :",
        )
    for name, seen in recording.inputs.items():
        if name not in laid_out.input_names():
            yield Finding(
                "messages",
                "INFO",
                f"input {name!r} arrives ({seen.messages:,} messages), but no expression reads it",
                rule="input-not-read",
                why="messages of an input that a model does not reference are not routed to it",
            )
    missed = [state for state in laid_out.states if not recording.entered[state]]
    if missed:
        yield Finding(
            "messages",
            "INFO",
            f"never entered in this recording: {', '.join(map(repr, missed))}",
            tuple(f"states[{laid_out.states.index(state)}]" for state in missed),
            rule="state-not-entered",
            why=f"{span}, {recording.keys:,} detectors",
        )


# -- what arrives


def _arrivals(laid_out: Survey, recording: Recording, inputs: Inputs | None) -> Iterator[Finding]:
    for name, paths in laid_out.input_names().items():
        seen = recording.inputs.get(name)
        if seen is None:
            yield Finding(
                "messages",
                "WARNING",
                f"input {name!r} never arrives",
                tuple(paths),
                rule="input-never-arrives",
                why=f"none of the {recording.messages:,} messages is of this input{_near(name, set(recording.inputs), ())}; "
                "whatever reads it is undefined",
            )
            continue
        yield from _attributes(laid_out, recording, name, seen, inputs)


def _attributes(
    laid_out: Survey, recording: Recording, name: str, seen: InputSeen, inputs: Inputs | None
) -> Iterator[Finding]:
    declared = set(inputs.get(name, ())) if inputs is not None else set()
    read = [ref for ref in recording.references if ref.root == "input" and ref.name == name and ref.path]
    known = {str(ref.path[0]) for ref in read} | {_first(path) for path in declared}
    for reference in read:
        if recording.references[reference].arrived:
            continue
        top = str(reference.path[0])
        if seen.members[top]:
            within = f"{top!r} is in {seen.members[top]:,} of {seen.messages:,} messages of {name!r}, but "
            reason = within + ("never as a value" if len(reference.path) == 1 else "never with a value at that path")
        else:
            reason = f"0 of {seen.messages:,} messages of {name!r} carry it{_near(top, set(seen.members), known)}"
        yield Finding(
            "messages",
            "WARNING",
            f"{ex.show(reference)} never arrives",
            tuple(path for path, _, tree in laid_out.trees() if reference in ex.references(tree)),
            rule="attribute-never-arrives",
            why=f"{reason}; an undefined operand makes a comparison undefined, which counts as false",
        )
    unread = {_first(path) for path in declared} - {str(ref.path[0]) for ref in read} - {None}
    for attribute in sorted(each for each in unread if each is not None and not seen.members[each]):
        near = _near(attribute, set(seen.members), known)
        yield Finding(
            "messages",
            "WARNING" if near else "INFO",
            f"attribute {attribute!r} of input {name!r} is declared, never read, and never arrives",
            rule="attribute-never-arrives",
            why=f"0 of {seen.messages:,} messages of {name!r} carry it{near}",
        )
    if declared:
        strangers = sorted(set(seen.members) - {_first(path) for path in declared})
        if strangers:
            yield Finding(
                "messages",
                "INFO",
                f"messages of input {name!r} carry what it does not declare: {', '.join(strangers)}",
                rule="attribute-not-declared",
                why=", ".join(f"{each} in {seen.members[each]:,} of {seen.messages:,}" for each in strangers),
            )


def _first(path: str) -> str | None:
    """The member of a payload with which an attribute's path begins."""
    return path[1:].partition("`")[0] if path.startswith("`") else path.partition(".")[0] or None


def _near(wanted: str, given: Collection[str], known: Collection[str | None]) -> str:
    """A name that arrives and was probably meant."""
    strangers = [each for each in given if each not in known and each != wanted]
    for each in strangers:
        if _plain(each) == _plain(wanted):
            return f"; {each!r} is there instead, which looks alike ({_difference(wanted, each)})"
    close = difflib.get_close_matches(wanted, strangers, n=1, cutoff=0.8)
    return f"; {close[0]!r} is there instead" if close else ""


def _plain(name: str) -> str:
    return name.translate(_CONFUSABLE).casefold().replace("_", "").replace("-", "").replace(" ", "")


def _difference(wanted: str, given: str) -> str:
    if len(wanted) != len(given):
        return "another spelling"
    pairs = [(a, b) for a, b in zip(wanted, given, strict=True) if a != b]
    return ", ".join(f"{_glyph(b)} for {_glyph(a)}" for a, b in pairs)


def _glyph(char: str) -> str:
    return f"{'digit' if char.isdigit() else 'letter' if char.isalpha() else 'sign'} {char}"


# -- conditions


def _conditions(laid_out: Survey, recording: Recording) -> Iterator[Finding]:
    for rule in laid_out.rules:
        counts = recording.rules.get(rule.path)
        if counts is None or rule.condition is None or isinstance(rule.condition, ex.Literal):
            continue
        if not counts.true:
            yield _never_held(rule, counts, recording)
        elif counts.true == counts.total and counts.total >= _ENOUGH and ex.references(rule.condition):
            yield Finding(
                "messages",
                "INFO",
                f"the condition of {rule.title} always held",
                (rule.path,),
                rule="always-held",
                why=f"{rule.text.strip()} was true all {counts.total:,} times; {_values(rule, recording)}",
            )


def _never_held(rule: Rule, counts: Counts, recording: Recording) -> Finding:
    read = ex.references(rule.condition) if rule.condition is not None else []
    constant = [
        ref
        for ref in read
        if ref in recording.references
        and recording.references[ref].arrived >= _ENOUGH
        and len(recording.references[ref].values) == 1
        and not recording.references[ref].null
    ]
    silent = any(not recording.references[ref].arrived for ref in read if ref in recording.references)
    level: Level = "WARNING" if (constant or silent) and rule.next_state is not None else "INFO"
    what = f"the condition of {rule.title} never held"
    if constant and not silent:
        what += f": {', '.join(ex.show(ref) + ' ' + str(recording.references[ref]) for ref in constant)}"
    undefined = f", {counts.undefined:,} of them undefined" if counts.undefined else ""
    return Finding(
        "messages",
        level,
        what,
        (rule.path,),
        rule="never-held",
        why=f"{rule.text.strip()} was evaluated {counts.total:,} times{undefined}; {_values(rule, recording)}",
    )


def _values(rule: Rule, recording: Recording) -> str:
    if rule.condition is None:
        return ""
    told = [
        f"{ex.show(ref)} {recording.references[ref]} ({recording.references[ref].arrived:,} values)"
        for ref in ex.references(rule.condition)
        if ref in recording.references
    ]
    timers = [
        f"timer {name!r} {_timer_story(recording.timers.get(name, TimerSeen()))}"
        for name in dict.fromkeys(timers_of(rule.condition))
    ]
    return "; ".join(told + timers) or "it reads variables only"


def _timer_story(seen: TimerSeen) -> str:
    if not seen.starts:
        return "was never started"
    return f"was started {seen.starts:,} times, expired {seen.expired:,} times, ran {_duration(seen.longest)} at most"


# -- alarms that cannot practically fire


def _hopeless(laid_out: Survey, recording: Recording) -> Iterator[Finding]:
    for rule in laid_out.rules:
        counts = recording.rules.get(rule.path)
        if rule.condition is None or counts is None or counts.true:
            continue
        for name in dict.fromkeys(timers_of(rule.condition)):
            seen = recording.timers.get(name)
            if seen is not None and seen.starts and seen.durations:
                yield from _hopeless_timer(rule, name, seen, recording)


def _hopeless_timer(rule: Rule, name: str, seen: TimerSeen, recording: Recording) -> Iterator[Finding]:
    """
    The chance that a timer once started is not cut short before it expires.

    Each message of an input that cut the timer short in a share q of the cases lets it live with 1 − q; so many come as
    the duration holds. Of several inputs the one that cuts most counts: all of them must let it live. An input that cuts
    it short (nearly) every time is a heartbeat: its silence is what fires the alarm.
    """
    if any(cut > _HEARTBEAT * seen.exposed[each] for each, cut in seen.cut.items()):
        return
    duration = min(seen.durations)
    coming = {each: duration / recording.inputs[each].interval() for each in seen.cut}
    chances = {each: (1 - cut / seen.exposed[each]) ** coming[each] for each, cut in seen.cut.items()}
    cutter = min(chances, key=lambda each: chances[each], default="")
    survival = chances.get(cutter, 1.0)
    expected = _wait(recording, seen.starts, survival)
    if not cutter or expected < _HOPELESS_S:
        return
    exposed, lived = seen.exposed[cutter], seen.exposed[cutter] - seen.cut[cutter]
    story = (
        f"{cutter} comes every {recording.inputs[cutter].interval():.3g} s and let it go on {lived:,} of {exposed:,} times "
        f"({lived / exposed:.3f}), {coming[cutter]:.0f} times in a row are needed"
    )
    target = f" and with it state {rule.next_state!r}" if rule.next_state is not None else ""
    yield Finding(
        "messages",
        "WARNING",
        f"{rule.title}{target} practically cannot happen: probability {survival:.1e} each time timer {name!r} is started",
        (rule.path,),
        rule="practically-never",
        why=f"the timer must run {duration} s undisturbed; in {_duration(recording.seconds)} it was started {seen.starts:,} "
        f"times, ran {_duration(seen.longest)} at most and expired {seen.expired:,} times; {story}; at this rate "
        f"once in {_years(expected)}, if messages are independent of one another and do not stop coming",
    )


def _wait(recording: Recording, starts: int, survival: float) -> float:
    """Mean seconds until the first success."""
    try:
        return recording.seconds / starts / survival
    except ZeroDivisionError:
        return math.inf


def _years(seconds: float) -> str:
    return "no time at all" if math.isinf(seconds) else f"{seconds / YEAR_S:.1e} years"


def _duration(seconds: float) -> str:
    """
    A duration for people.

    >>> _duration(90), _duration(7_200), _duration(260_000)
    ('90 s', '2.0 h', '3.0 days')
    """
    if seconds < 600:
        return f"{seconds:.3g} s"
    if seconds < 2 * 86_400:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86_400:.1f} days"


# -- clocks: variables that count the expiries of a timer


def _clocks(laid_out: Survey, recording: Recording) -> Iterator[Finding]:
    steps = [(rule, step) for rule in laid_out.rules for step in rule.steps if step.kind == "setVariable"]
    for variable in dict.fromkeys(step.name("variableName") for _, step in steps):
        additions = [
            (rule, step, amount)
            for rule, step in steps
            if step.name("variableName") == variable and (amount := _addition(step, variable)) is not None
        ]
        for ticking, tick_step, amount in additions:
            for timer in _ticks(ticking):
                others = [each for each in additions if timer not in _ticks(each[0])]
                yield from _wrong_clock(variable, timer, ticking, (tick_step, amount), others, recording)


def _addition(step: Step, variable: str) -> float | None:
    """What an action adds to its own variable; None where it does something else."""
    match step.tree("value"):
        case ex.Binary("+", ex.Reference("variable", name, ()), ex.Literal(int() | float() as amount)) if (
            name == variable
        ):
            return float(amount)
        case ex.Binary("+", ex.Literal(int() | float() as amount), ex.Reference("variable", name, ())) if (
            name == variable
        ):
            return float(amount)
    return None


def _ticks(rule: Rule) -> list[str]:
    """The timers whose expiry makes the rule fire and which it starts again."""
    if rule.condition is None:
        return []
    restarted = {step.name("timerName") for step in rule.steps if step.kind in ("setTimer", "resetTimer")}
    return [name for name in dict.fromkeys(timers_of(rule.condition)) if name in restarted]


def _wrong_clock(
    variable: str,
    timer: str,
    ticking: Rule,
    tick: tuple[Step, float],
    others: list[tuple[Rule, Step, float]],
    recording: Recording,
) -> Iterator[Finding]:
    seen = recording.timers.get(timer)
    if seen is None or len(seen.durations) != 1 or not seen.running_seconds or not tick[1]:
        return
    per_unit = next(iter(seen.durations)) / tick[1]
    ticks = recording.actions[tick[0].path]
    added = [
        (rule, recording.actions[step.path], amount) for rule, step, amount in others if recording.actions[step.path]
    ]
    counted = (ticks * tick[1] + sum(times * amount for _, times, amount in added)) * per_unit
    ratio = counted / seen.running_seconds
    if not added or 1 / _WRONG_RATE < ratio < _WRONG_RATE:
        return
    extra = ", ".join(f"{rule.name!r} adds {amount:g} ({times:,} times)" for rule, times, amount in added)
    yield Finding(
        "messages",
        "WARNING",
        f"$variable.{variable} counts time {_times(ratio)}: {ticking.name!r} adds {tick[1]:g} per "
        f"{next(iter(seen.durations))} s of timer {timer!r}, but {added[0][0].name!r} adds {added[0][2]:g} however short "
        "the time was",
        tuple(step.path for _, step, _ in others) or (ticking.path,),
        rule="time-counted-wrong",
        why=f"{ticking.name!r} added {tick[1]:g} {ticks:,} times and {extra}: {_duration(counted)} counted while the timer "
        f"ran {_duration(seen.running_seconds)}",
    )


def _times(ratio: float) -> str:
    return f"{ratio:.1f} times too fast" if ratio > 1 else f"{1 / ratio:.1f} times too slowly"


def unread_declarations(
    laid_out: Survey, inputs: Mapping[str, Collection[str]], key: str | None = None
) -> Iterator[Finding]:
    """Inputs and attributes that are read but not declared, and declared but never read; the model's key is read."""
    read: dict[str, dict[str, list[str]]] = {}
    for path, _, tree in laid_out.trees():
        for reference in ex.references(tree):
            if reference.root == "input":
                shown = ".".join(str(step) for step in reference.path if isinstance(step, str))
                read.setdefault(reference.name, {}).setdefault(shown, []).append(path)
        for name in inputs_of(tree):
            read.setdefault(name, {})
    for name, attributes in read.items():
        if name not in inputs:
            continue
        declared = {path.replace("`", "") for path in inputs[name]}
        for attribute, places in attributes.items():
            if attribute and not any(attribute == each or attribute.startswith(each + ".") for each in declared):
                yield Finding(
                    "inputs",
                    "WARNING",
                    f"$input.{name}.{attribute} is read, but input {name!r} does not declare it",
                    tuple(dict.fromkeys(places)),
                    rule="attribute-not-declared",
                    why=f"declared are {', '.join(sorted(declared))}{_near(attribute, declared, set(attributes))}; "
                    "AWS makes only declared attributes available, Wheeltapper every attribute unless it runs strictly",
                )
        used = (*attributes, (key or "").replace("`", ""))
        unread = [each for each in sorted(declared) if not any(a == each or a.startswith(each + ".") for a in used)]
        if unread:
            yield Finding(
                "inputs",
                "INFO",
                f"input {name!r} declares what no expression reads: {', '.join(unread)}",
                rule="attribute-not-read",
                why="an attribute that other models read need not be read here",
            )
    for name in sorted(set(inputs) - set(read)):
        yield Finding(
            "inputs",
            "INFO",
            f"input {name!r} is declared, but no expression reads it",
            rule="input-not-read",
            why="its messages are not routed to this model",
        )
