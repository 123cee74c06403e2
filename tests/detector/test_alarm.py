"""Alarms: the whole table of states and operations, and what a change of state tells the world."""

import json
from typing import Any

import pytest

from tests.detector.bodies import alarm_model, message
from wheeltapper.detector.handle import handle_of
from wheeltapper.detector.runtime import Outcome, Shard
from wheeltapper.detector.state import AlarmState
from wheeltapper.errors import DefinitionError

AM = handle_of("alarm", "am")
BREACH, NORMAL_VALUE = 80, 60
FLOW_OFF = {"acknowledgeFlow": {"enabled": False}, "initializationConfiguration": {"disabledOnInitialization": False}}

# How to bring a fresh alarm with the acknowledge flow into each state.
WAYS: dict[str, list[Any]] = {
    "NORMAL": [NORMAL_VALUE],
    "ACTIVE": [BREACH],
    "ACKNOWLEDGED": [BREACH, "acknowledge"],
    "LATCHED": [BREACH, NORMAL_VALUE],
    "DISABLED": [NORMAL_VALUE, "disable"],
    "SNOOZE_DISABLED": [BREACH, "snooze"],
}


def drive(shard: Shard, steps: list[Any], now: float = 0.0) -> Outcome | None:
    """Numbers are messages, words are operations, one second apart."""
    outcome: Outcome | None = None
    for step in steps:
        now += 1.0
        if isinstance(step, str):
            outcome = shard.operate_alarm(AM, "k", step, now, snooze_s=600)
        else:
            outcomes = shard.put(message(v=step), now)
            outcome = outcomes[-1] if outcomes else None
    return outcome


def state_of(shard: Shard) -> str:
    exported = shard.export(AM, "k")
    assert isinstance(exported, AlarmState)
    return exported.state


@pytest.fixture
def shard() -> Shard:
    shard = Shard()
    shard.load(alarm_model())
    return shard


REFUSED = None
TABLE = {
    # state: (rule true, rule false, acknowledge, disable, enable, reset, snooze)
    "NORMAL": ("ACTIVE", "NORMAL", REFUSED, "DISABLED", REFUSED, "NORMAL", "SNOOZE_DISABLED"),
    "ACTIVE": ("ACTIVE", "LATCHED", "ACKNOWLEDGED", "DISABLED", REFUSED, "NORMAL", "SNOOZE_DISABLED"),
    "ACKNOWLEDGED": ("ACKNOWLEDGED", "NORMAL", REFUSED, "DISABLED", REFUSED, "NORMAL", "SNOOZE_DISABLED"),
    "LATCHED": ("ACTIVE", "LATCHED", "NORMAL", "DISABLED", REFUSED, "NORMAL", "SNOOZE_DISABLED"),
    "DISABLED": ("DISABLED", "DISABLED", REFUSED, "DISABLED", "NORMAL", REFUSED, REFUSED),
    "SNOOZE_DISABLED": (
        "SNOOZE_DISABLED",
        "SNOOZE_DISABLED",
        REFUSED,
        "DISABLED",
        "NORMAL",
        REFUSED,
        "SNOOZE_DISABLED",
    ),
}
DEEDS = (BREACH, NORMAL_VALUE, "acknowledge", "disable", "enable", "reset", "snooze")


@pytest.mark.parametrize("before", TABLE)
@pytest.mark.parametrize("place", range(7), ids=map(str, DEEDS))
def test_each_deed_in_each_state_leads_where_the_table_says(shard: Shard, before: str, place: int) -> None:
    drive(shard, WAYS[before])
    assert state_of(shard) == before
    after = TABLE[before][place]

    if after is REFUSED:
        with pytest.raises(DefinitionError, match=f"not possible while the alarm is {before}"):
            drive(shard, [DEEDS[place]], now=10.0)
        assert state_of(shard) == before
    else:
        drive(shard, [DEEDS[place]], now=10.0)
        assert state_of(shard) == after


def test_without_the_acknowledge_flow_an_alarm_returns_to_normal_and_cannot_be_acknowledged() -> None:
    shard = Shard()
    shard.load(alarm_model(alarmCapabilities=FLOW_OFF))
    drive(shard, [BREACH])

    with pytest.raises(DefinitionError, match="acknowledge"):
        drive(shard, ["acknowledge"])
    drive(shard, [NORMAL_VALUE])
    assert state_of(shard) == "NORMAL"


def test_an_alarm_without_capabilities_starts_disabled() -> None:
    shard = Shard()
    shard.load(alarm_model(alarmCapabilities=None))

    drive(shard, [BREACH])

    assert state_of(shard) == "DISABLED"


def test_a_snooze_ends_by_itself_and_the_next_message_is_judged(shard: Shard) -> None:
    drive(shard, [BREACH, "snooze"])

    assert shard.next_timer() == 602.0
    assert shard.advance(601.9) == []
    (ended,) = shard.advance(602.0)
    exported = shard.export(AM, "k")
    assert (ended.from_state, ended.state, ended.event) == ("SNOOZE_DISABLED", "NORMAL", "SNOOZE_TIMEOUT")
    assert isinstance(exported, AlarmState) and exported.system_event == "SNOOZE_TIMEOUT"
    drive(shard, [BREACH], now=700.0)
    assert state_of(shard) == "ACTIVE"


def test_what_brought_a_state_is_forgotten_with_the_state(shard: Shard) -> None:
    def brought() -> tuple[str, str, int, str]:
        exported = shard.export(AM, "k")
        assert isinstance(exported, AlarmState)
        return exported.operation, exported.note, exported.snooze_s, exported.system_event

    drive(shard, [BREACH])
    shard.operate_alarm(AM, "k", "snooze", 10.0, note="at lunch", snooze_s=60)
    snoozed = brought()
    shard.advance(100.0)
    awake = brought()
    drive(shard, [BREACH], now=200.0)

    assert snoozed == ("SNOOZE", "at lunch", 60, "")
    assert awake == ("", "", 0, "SNOOZE_TIMEOUT")
    assert brought() == ("", "", 0, "")


def test_a_longer_snooze_replaces_a_shorter_one(shard: Shard) -> None:
    drive(shard, [BREACH])
    shard.operate_alarm(AM, "k", "snooze", 10.0, snooze_s=60)
    shard.operate_alarm(AM, "k", "snooze", 20.0, snooze_s=600)

    shard.advance(100.0)

    assert state_of(shard) == "SNOOZE_DISABLED"


def test_an_alarm_says_which_rule_held_with_which_values() -> None:
    shard = Shard()
    shard.load(alarm_model(threshold="$input.In.limit"))

    created, raised = shard.put(message(v=80, limit=70.5), 5.0)

    assert (created.created, created.state) == (True, "NORMAL")
    assert raised.condition == "$input.In.v > $input.In.limit"
    assert raised.values == {"$input.In.v": 80, "$input.In.limit": 70.5}
    assert (raised.from_state, raised.state, raised.event) == ("NORMAL", "ACTIVE", "RULE_EVALUATION")


@pytest.mark.parametrize("absent", [{}, {"v": None}, {"v": "hot"}, {"v": {"deep": 1}}])
@pytest.mark.parametrize("operator", ["GREATER", "NOT_EQUAL", "EQUAL"])
def test_a_rule_that_cannot_be_evaluated_changes_nothing(absent: dict[str, Any], operator: str) -> None:
    shard = Shard()
    shard.load(alarm_model(operator=operator))
    drive(shard, [BREACH, NORMAL_VALUE])
    before = state_of(shard)

    shard.put(message(**absent), 9.0)

    assert state_of(shard) == before


def test_every_change_of_state_carries_out_the_actions_with_the_announcement() -> None:
    shard = Shard()
    shard.load(alarm_model(alarmEventActions={"alarmActions": [{"sns": {"targetArn": "arn:t"}}]}))

    raised = drive(shard, [BREACH])
    acknowledged = shard.operate_alarm(AM, "k", "acknowledge", 7.0, note="on it")

    assert raised is not None
    (action,) = raised.actions
    assert (action.type, action.parameters, action.state) == ("sns", {"targetArn": "arn:t"}, "ACTIVE")
    assert json.loads(action.payload or "") == {
        "alarmModelName": "am",
        "keyValue": "k",
        "severity": 2,
        "stateUpdateTime": 1000,
        "alarmState": {
            "stateName": "ACTIVE",
            "ruleEvaluation": {"simpleRule": {"inputProperty": 80, "operator": "GREATER", "threshold": 70}},
        },
    }
    assert [action.state for action in acknowledged.actions] == ["ACKNOWLEDGED"]
    assert action.id != acknowledged.actions[0].id


def test_notifications_are_sent_as_lambda_events_with_the_acknowledge_flow() -> None:
    notification = {
        "action": {"lambdaAction": {"functionArn": "arn:fn"}},
        "emailConfigurations": [
            {
                "from": "a@x",
                "content": {"subject": "Hot", "additionalMessage": None},
                "recipients": {"to": [{"ssoIdentity": {"identityStoreId": "d", "userId": "u1"}}]},
            }
        ],
        "smsConfigurations": [{"recipients": ["+49"], "senderId": "WT"}],
    }
    shard = Shard()
    shard.load(alarm_model(alarmNotification={"notificationActions": [notification]}))

    raised = drive(shard, [BREACH])

    assert raised is not None
    (action,) = raised.actions
    event = json.loads(action.payload or "")
    assert (action.type, action.event, action.parameters) == ("lambda", "notification", {"functionArn": "arn:fn"})
    assert event["emailConfigurations"] == [{"from": "a@x", "to": ["u1"], "subject": "Hot"}]
    assert event["smsConfigurations"] == [{"phoneNumbers": ["+49"], "senderId": "WT"}]
    assert json.loads(event["notificationEventPayload"])["alarmState"]["stateName"] == "ACTIVE"


def test_a_reset_forgets_the_latest_value(shard: Shard) -> None:
    drive(shard, [BREACH, "reset"])

    exported = shard.export(AM, "k")

    assert isinstance(exported, AlarmState)
    assert (exported.state, exported.rule, exported.inputs) == ("NORMAL", None, {})


def test_an_alarm_survives_dump_and_insert_with_its_snooze(shard: Shard) -> None:
    drive(shard, [BREACH, "snooze"])
    dumped = shard.dump(AM, "k")
    other = Shard()
    other.load(alarm_model())

    assert dumped is not None
    other.insert(dumped)

    assert other.export(AM, "k") == shard.export(AM, "k")
    assert other.next_timer() == 602.0


def test_sitewise_properties_reach_an_alarm_as_inputs_of_their_own(shared: Any) -> None:
    folder = shared / "examples" / "detector-models"
    body = json.loads(
        (folder / "sitewise-define-iot-events-alarm-cli-alarm-model-BoilerTemperatureHighAlarm.json").read_text()
    )
    shard = Shard()
    body["alarmCapabilities"] = FLOW_OFF
    shard.load(body)
    measured, threshold = (
        f"$sitewise.assetModel.assetModelId.{name}" for name in ("alarmPropertyId", "thresholdAttributeId")
    )
    assert shard.routing(measured) == [handle_of("alarm", "BoilerTemperatureHighAlarm")]

    shard.put(message(threshold, propertyValue={"value": 50}), 1.0)
    (raised,) = shard.put(message(measured, propertyValue={"value": 51}), 2.0)

    assert raised.state == "ACTIVE"


def test_an_alarm_on_no_input_is_refused() -> None:
    body = alarm_model()
    body["alarmRule"]["simpleRule"]["inputProperty"] = "5"

    with pytest.raises(DefinitionError, match=r"alarmRule\.simpleRule: .* at least one input"):
        Shard().load(body)


def test_an_alarm_has_no_variables_and_timers() -> None:
    action = {"setTimer": {"timerName": "t", "seconds": 60}}

    with pytest.raises(DefinitionError, match=r"alarmActions\[0\]: an alarm has no setTimer action"):
        Shard().load(alarm_model(alarmEventActions={"alarmActions": [action]}))


def test_values_that_cannot_be_compared_do_not_count_as_an_evaluation():
    shard = Shard()
    shard.load(alarm_model())
    shard.put(message(v=80), 0.0)

    shard.put(message(v="high"), 1.0)

    alarm = shard.export(AM, "k")
    assert (alarm.state, alarm.rule) == ("ACTIVE", (80, ">", 70))
