"""An update keeps what still has a name, says what it drops, and refuses what it cannot map."""

import copy

import pytest

from wheeltapper.detector.action import Message
from wheeltapper.detector.migrate import migrate, migrate_state, plan_migration
from wheeltapper.detector.runtime import Shard
from wheeltapper.detector.templates import Shape, heartbeat, threshold
from wheeltapper.errors import DefinitionError

SHAPE = Shape(name="m", input_name="I", key="k", topic="alarms")
OLD = threshold(SHAPE, attribute="t", above=80, seconds=60).model


def _suspect() -> Shard:
    shard = Shard()
    shard.load(OLD)
    shard.put(Message("I", {"k": "a", "t": 90}), 1000.0)
    return shard


def test_state_and_running_timers_go_on_under_the_new_version():
    shard = _suspect()
    old, state = shard.plan("m"), shard.export("m", "a")
    new = shard.load(threshold(SHAPE, attribute="t", above=70, seconds=30).model, "2")

    shard.insert(migrate_state(state, old, new))
    outcomes = shard.advance(1060.0)

    assert [outcome.state for outcome in outcomes] == ["alarm"]
    assert shard.export("m", "a").version == "2"


def test_a_renamed_state_is_mapped():
    renamed = copy.deepcopy(OLD)
    renamed["detectorModelDefinition"]["states"][1]["stateName"] = "doubtful"
    renamed["detectorModelDefinition"]["states"][0]["onInput"]["transitionEvents"][0]["nextState"] = "doubtful"
    shard = _suspect()
    old, states = shard.plan("m"), list(shard.detectors("m"))
    new = shard.load(renamed, "2")

    with pytest.raises(DefinitionError, match="'suspect', which the new version lacks"):
        migrate(states, old, new)
    moved = migrate(states, old, new, {"suspect": "doubtful"})

    assert moved[0].state == "doubtful"


def test_the_plan_lists_what_is_lost():
    shard = Shard()
    old = shard.load(OLD)
    new = shard.load(threshold(SHAPE, attribute="t", above=80).model, "2")

    plan = plan_migration(old, new)

    assert plan.lost_states == ("suspect",)
    assert plan.lost_timers == ("lasting",)
    assert plan.states == {"normal": "normal", "alarm": "alarm"}


def test_a_changed_key_is_refused():
    shard = Shard()
    old = shard.load(OLD)
    new = shard.load({**OLD, "key": "other"}, "2")

    assert "'k' to 'other'" in plan_migration(old, new).refusals[0]


def test_a_timer_that_kept_detectors_lack_is_noted():
    shard = Shard()
    silent = heartbeat(SHAPE, seconds=60).model
    without = copy.deepcopy(silent)
    without["detectorModelDefinition"]["states"][0]["onEnter"]["events"][0]["actions"] = []
    old = shard.load(without)
    new = shard.load(silent, "2")

    assert "timer 'silence'" in plan_migration(old, new).warnings[0]
