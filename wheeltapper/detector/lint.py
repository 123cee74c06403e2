"""
Everything there is to say of a model before it runs, and, with a recording, of what it would have done.

Findings are sorted by weight. None is a guess: each is AWS's own analysis, a proof over all messages and timers, or a
count over the recording, and says which in ``why``.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from wheeltapper.detector import analysis_messages, analysis_paths
from wheeltapper.detector import expression as ex
from wheeltapper.detector.action import Message
from wheeltapper.detector.analysis import Finding, Inputs, analyse, blocking_errors
from wheeltapper.detector.analysis_reach import explore
from wheeltapper.detector.analysis_survey import inputs_of, survey
from wheeltapper.detector.engine import Engine
from wheeltapper.detector.model import read_detector_model
from wheeltapper.detector.plan import make_plan
from wheeltapper.detector.recording import replay
from wheeltapper.detector.settings import DEFAULTS, EngineSettings
from wheeltapper.errors import DefinitionError

_WEIGHT = {"ERROR": 0, "WARNING": 1, "INFO": 2}


def lint(
    body: Mapping[str, Any],
    inputs: Inputs | None = None,
    messages: Iterable[Message] | None = None,
    *,
    settings: EngineSettings = DEFAULTS,
) -> list[Finding]:
    """
    Findings about one detector or alarm model, errors first.

    Args:
        body: a CreateDetectorModel or CreateAlarmModel body.
        inputs: the inputs that exist and their declared attributes; None where they are not known.
        messages: a recording in order of time, each message with ``time_ms``.
        settings: what the engine does where AWS is silent.
    """
    is_alarm = "alarmRule" in body
    found = list(_alarm(body, inputs, settings)) if is_alarm else _detector(body, inputs, messages, settings)
    return sorted(found, key=lambda each: _WEIGHT[each.level])


def _detector(
    body: Mapping[str, Any], inputs: Inputs | None, messages: Iterable[Message] | None, settings: EngineSettings
) -> list[Finding]:
    definition = body.get("detectorModelDefinition")
    definition = definition if isinstance(definition, Mapping) else {}
    method = body.get("evaluationMethod") or "BATCH"
    found = analyse(definition, inputs, evaluation_method=method)
    laid_out = survey(definition)
    if inputs is not None:
        found += analysis_messages.unread_declarations(laid_out, inputs, body.get("key"))
    if blocking_errors(definition):
        return found
    found += analysis_paths.own_findings(laid_out, explore(laid_out, serial=method == "SERIAL"))
    if messages is not None:
        engine = Engine(make_plan(read_detector_model(dict(body)), settings=settings), settings, interpreted=True)
        recording = replay(engine, messages, analysis_messages.timer_testers(laid_out))
        found += analysis_messages.findings(laid_out, recording, inputs)
    return found


def _alarm(body: Mapping[str, Any], inputs: Inputs | None, settings: EngineSettings) -> Iterable[Finding]:
    rule = body.get("alarmRule")
    simple = rule.get("simpleRule") if isinstance(rule, Mapping) else None
    simple = simple if isinstance(simple, Mapping) else {}
    read: list[str] = []
    for member in ("inputProperty", "threshold"):
        path = f"alarmRule.simpleRule.{member}"
        try:
            read += inputs_of(ex.parse(str(simple.get(member) or ""), path=path))
        except DefinitionError as error:
            yield Finding("expression-syntax", "ERROR", str(error), (path,))
    for name in dict.fromkeys(read):
        if inputs is not None and name not in inputs:
            yield Finding(
                "referenced-resource",
                "ERROR",
                f"Alarm Model Definition contains reference to Input '{name}' that does not exist.",
                ("alarmRule.simpleRule",),
            )
    capabilities = body.get("alarmCapabilities")
    start = capabilities.get("initializationConfiguration") if isinstance(capabilities, Mapping) else None
    said = start.get("disabledOnInitialization") if isinstance(start, Mapping) else None
    if said or (said is None and settings.alarm_disabled_by_default):
        yield Finding(
            "reachability",
            "WARNING",
            "every alarm of this model starts DISABLED and does not fire before someone enables it",
            ("alarmCapabilities.initializationConfiguration",),
            rule="alarm-starts-disabled",
            why="disabledOnInitialization is true" + ("" if said else ", AWS's default where the model does not say"),
        )
