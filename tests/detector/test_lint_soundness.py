"""What lint calls impossible never happens: random models are run on random histories and held against its proofs."""

import os
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.detector.histories import histories, models
from wheeltapper.detector.action import Message
from wheeltapper.detector.analysis_messages import timer_testers
from wheeltapper.detector.analysis_reach import explore
from wheeltapper.detector.analysis_survey import survey
from wheeltapper.detector.engine import Engine
from wheeltapper.detector.model import read_detector_model
from wheeltapper.detector.plan import make_plan
from wheeltapper.detector.recording import Recording, replay
from wheeltapper.detector.settings import DEFAULTS


def _recording(body: dict, rows: list[tuple[int, dict[str, Any]]]) -> Recording:
    engine = Engine(make_plan(read_detector_model(body)), DEFAULTS, interpreted=True)
    messages = (Message("I", payload, "", time_ms) for time_ms, payload in sorted(rows, key=lambda row: row[0]))
    return replay(engine, messages, timer_testers(survey(body["detectorModelDefinition"])))


@settings(max_examples=2_000 if os.environ.get("WHEELTAPPER_LONG") else 40, deadline=None)
@given(models(), histories(), st.booleans())
def test_nothing_happens_that_exploration_excludes(body: dict, rows: list[tuple[int, dict[str, Any]]], coarse: bool):
    laid_out = survey(body["detectorModelDefinition"])
    reach = explore(laid_out, serial=body["evaluationMethod"] == "SERIAL", fine_work=0 if coarse else None)

    recording = _recording(body, rows)

    assert {state for state, times in recording.entered.items() if times} <= reach.states
    for path, counts in recording.rules.items():
        happened = {name for name in ("true", "false", "undefined") if getattr(counts, name)}
        assert happened <= reach.outcomes.get(path, set()), path
    for path, times in recording.actions.items():
        assert not times or path in reach.found, path
