import json
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.core.judging import MODEL, START_MS, Bench, deployment
from wheeltapper.clock import SystemClock
from wheeltapper.errors import DefinitionError, UnavailableError
from wheeltapper.judge import AlarmOperation, DetectorUpdate, Judge, JudgeSettings, Message


def test_a_message_is_judged_and_its_alarm_told_once(tmp_path):
    bench = Bench(tmp_path).with_models()

    bench.put(90.0)

    assert bench.state() == "hot"
    told = [action.type for action in bench.actions if action.model == "Motor"]
    assert told == ["publish", "publish", "publish", "sns"]
    alarm = json.loads(next(each.payload for each in bench.actions if each.target == "wt/m1/alarm"))
    assert alarm["condition"] == "$input.Reading.t > 80"
    assert alarm["values"] == {"$input.Reading.t": 90.0}


def test_a_batch_is_refused_entry_by_entry(tmp_path):
    bench = Bench(tmp_path).with_models()

    refusals = bench.judge.put(
        [
            Message("Reading", b"[1]"),
            Message("Nothing", b"{}"),
            Message("Reading", b'{"id": "m1"}'),
            Message("Reading", b""),
        ]
    )

    assert [(each.index, each.reason) for each in refusals] == [(0, "invalid"), (1, "unknown input"), (3, "invalid")]


def test_state_timers_and_pending_actions_survive_a_crash(tmp_path):
    bench = Bench(tmp_path).with_models()
    bench.put(90.0)
    before, ids = bench.judge.detector("Motor", "m1"), {action.id for action in bench.actions}

    bench.crash()

    assert bench.judge.detector("Motor", "m1") == before
    assert {action.id for action in bench.actions} == ids


def test_what_was_delivered_before_a_crash_is_not_told_again(tmp_path):
    bench = Bench(tmp_path).with_models()
    bench.put(90.0)
    for action in list(bench.actions):
        bench.judge.settle(action.id, "delivered")
    bench.judge.tick()

    bench.crash()

    assert bench.actions == []
    assert {record.status for record in bench.judge.actions()} == {"delivered"}


def test_timers_that_fell_due_while_down_fire_once_and_late(tmp_path):
    bench = Bench(tmp_path).with_models()
    bench.put(90.0)
    bench.clock.advance(3600)

    bench.crash()

    assert bench.state() == "cold"
    changes = [json.loads(each.payload) for each in bench.actions if each.target == "wt/m1/state"]
    assert [change["event"] for change in changes if change["detector"] == "Motor"].count("cooled") == 1
    bench.crash()
    assert [each for each in bench.judge.raised_alarms() if each.model == "Motor"] == []


def test_timers_fire_without_a_message(tmp_path):
    bench = Bench(tmp_path).with_models()
    bench.put(90.0)

    bench.clock.advance(61)
    bench.judge.tick()

    assert bench.state() == "cold"


def test_a_repeat_within_five_minutes_changes_nothing_even_across_a_crash(tmp_path):
    bench = Bench(tmp_path).with_models()
    bench.put(10.0, message_id="a", n=1)
    bench.crash()
    bench.clock.advance(299)

    bench.put(10.0, message_id="a", n=2)

    assert bench.judge.detector("Motor", "m1").variables == {"seen": 1}
    assert bench.judge.statistics().repeated == 1
    bench.clock.advance(2)
    bench.put(10.0, message_id="a", n=3)
    assert bench.judge.detector("Motor", "m1").variables == {"seen": 3}


@pytest.mark.parametrize("crashes", [False, True])
def test_an_input_that_is_made_anew_has_had_no_message(tmp_path, crashes):
    bench = Bench(tmp_path).with_models()
    bench.put(10.0, message_id="a", n=1)

    bench.judge.declare_inputs({})
    bench.judge.declare_inputs({"Reading": ["id", "t", "n"]})
    if crashes:
        bench.crash()
    bench.put(10.0, message_id="a", n=2)
    bench.put(10.0, message_id="a", n=3)

    assert bench.judge.detector("Motor", "m1").variables == {"seen": 2}


def test_repeats_within_one_batch_count_once(tmp_path):
    bench = Bench(tmp_path).with_models()

    bench.judge.put([Message("Reading", b'{"id": "m1", "n": %d, "t": 1}' % n, "same") for n in (1, 2)])

    assert bench.judge.detector("Motor", "m1").variables == {"seen": 1}


def test_deduplication_can_be_switched_off(tmp_path):
    bench = Bench(tmp_path, JudgeSettings(deduplicate=False)).with_models()

    bench.put(1.0, message_id="a", n=1)
    bench.put(1.0, message_id="a", n=2)

    assert bench.judge.detector("Motor", "m1").variables == {"seen": 2}


def test_a_full_disk_refuses_and_loses_nothing_accepted(tmp_path):
    bench = Bench(tmp_path, JudgeSettings(max_page_count=120, keep_bytes=1 << 40)).with_models()
    accepted = 0
    with pytest.raises(UnavailableError):
        for accepted in range(10_000):
            bench.put(1.0, message_id=f"m{accepted}", n=accepted, pad=5000)

    assert not bench.judge.statistics().writable
    bench.settings = JudgeSettings()
    bench.crash()

    assert bench.judge.detector("Motor", "m1").variables == {"seen": accepted - 1}
    bench.put(1.0, n=-1)
    assert bench.judge.detector("Motor", "m1").variables == {"seen": -1}


def test_the_journal_stays_within_its_size(tmp_path):
    bench = Bench(tmp_path, JudgeSettings(keep_bytes=300_000, snapshot_interval_s=1, dedup_window_s=1)).with_models()

    for number in range(400):
        bench.judge.put([Message("Reading", json.dumps({"id": "m1", "n": number, "pad": "x" * 5000}).encode())])
        bench.clock.advance(1.5)
        bench.judge.tick()

    assert bench.judge._core.journal.size() < 500_000
    bench.crash()
    assert bench.judge.detector("Motor", "m1").variables == {"seen": 399}


def test_a_definition_that_is_not_valid_changes_nothing(tmp_path):
    bench = Bench(tmp_path).with_models()
    bench.put(90.0)
    broken = json.loads(json.dumps(MODEL).replace("$input.Reading.t > 80", "$input.Reading.t >"))

    with pytest.raises(DefinitionError):
        bench.judge.deploy(deployment(broken, "2"))

    assert bench.state() == "hot"


def test_a_new_version_resets_its_detectors_and_closes_their_alarms(tmp_path):
    bench = Bench(tmp_path).with_models()
    bench.put(90.0)

    bench.judge.deploy(deployment(MODEL, "2"))
    bench.crash()

    assert bench.state() == ""
    assert [each.model for each in bench.judge.raised_alarms()] == ["Overheat"]
    bench.put(1.0)
    assert bench.judge.detector("Motor", "m1").version == "2"


def test_the_same_deployment_again_changes_nothing(tmp_path):
    bench = Bench(tmp_path).with_models()
    bench.put(90.0)

    bench.judge.deploy(deployment(MODEL))

    assert bench.state() == "hot"


def test_updates_and_deletions_survive_a_crash(tmp_path):
    bench = Bench(tmp_path).with_models()
    bench.put(90.0)
    bench.put(90.0, key="m2")

    update = DetectorUpdate(model="Motor", key="m1", state="cold", variables={"seen": "7"})
    refused = bench.judge.update_detectors([update, DetectorUpdate(model="Motor", key="m1", state="nowhere")])
    assert bench.judge.delete_detectors([("Motor", "m2"), ("Motor", "m9")])[0].reason == "not found"
    bench.crash()

    assert [(each.index, each.reason) for each in refused] == [(1, "invalid")]
    assert bench.judge.detector("Motor", "m1").variables == {"seen": 7}
    assert bench.judge.detector("Motor", "m2") is None


def test_an_alarm_of_an_alarm_model_is_operated_with_name_and_note(tmp_path):
    bench = Bench(tmp_path).with_models()
    bench.put(90.0)

    operation = AlarmOperation(model="Overheat", key="m1", operation="acknowledge", note="on it", by="ada")
    assert bench.judge.operate_alarms([operation]) == []
    bench.crash()

    assert bench.judge.alarm("Overheat", "m1").state == "ACKNOWLEDGED"
    found = next(each for each in bench.judge.raised_alarms() if each.model == "Overheat")
    assert (found.state, found.acknowledged_by, found.note) == ("ACKNOWLEDGED", "ada", "on it")
    assert [(each.who, each.what, each.note) for each in bench.judge.audit_trail()] == [("ada", "acknowledge", "on it")]


def test_an_operation_that_the_state_does_not_allow_is_refused(tmp_path):
    bench = Bench(tmp_path).with_models()
    bench.put(1.0)

    operations = [
        AlarmOperation(model="Overheat", key="m1", operation="acknowledge"),
        AlarmOperation(model="Overheat", key="m7", operation="reset"),
    ]

    assert [each.reason for each in bench.judge.operate_alarms(operations)] == ["invalid", "not found"]


def test_an_alarm_is_over_when_its_detector_leaves_the_state(tmp_path):
    bench = Bench(tmp_path).with_models()
    bench.put(90.0)
    assert len(bench.judge.raised_alarms()) == 2

    bench.clock.advance(61)
    bench.put(10.0)

    assert [each.state for each in bench.judge.raised_alarms()] == ["LATCHED"]
    assert len(bench.judge.raised_alarms(closed=True)) == 2


def test_by_default_timers_run_in_the_hosts_time(tmp_path):
    bench = Bench(tmp_path).with_models()

    bench.put(90.0, time_ms=START_MS - 3_600_000)

    assert bench.judge.detector("Motor", "m1").timers == {"cooling": START_MS + 60_000}


def test_in_event_time_a_buffered_upload_is_judged_as_it_happened(tmp_path):
    bench = Bench(tmp_path, JudgeSettings(clock="event", patience_s=600)).with_models()
    past = START_MS - 3_600_000

    bench.put(90.0, time_ms=past)
    assert bench.state() == "hot"
    bench.put(10.0, time_ms=past + 59_000)
    assert bench.state() == "hot"
    bench.put(10.0, time_ms=past + 61_000)

    assert bench.state() == "cold"


def test_in_event_time_a_message_from_the_future_counts_as_now(tmp_path):
    bench = Bench(tmp_path, JudgeSettings(clock="event")).with_models()

    bench.put(90.0, time_ms=START_MS + 10**9)

    assert bench.judge.detector("Motor", "m1").timers == {"cooling": START_MS + 60_000}


def test_in_event_time_a_silent_detector_is_noticed_when_patience_ends(tmp_path):
    bench = Bench(tmp_path, JudgeSettings(clock="event", patience_s=600)).with_models()
    bench.put(90.0)

    bench.clock.advance(300)
    bench.judge.tick()
    assert bench.state() == "hot"
    bench.clock.advance(361)
    bench.judge.tick()

    assert bench.state() == "cold"


def test_replayed_actions_are_pending_again_and_the_audit_says_who(tmp_path):
    bench = Bench(tmp_path).with_models()
    bench.put(90.0)
    parked = next(action for action in bench.actions if action.type == "sns")
    bench.judge.settle(parked.id, "parked", attempts=10, detail="no")
    bench.actions.clear()

    assert bench.judge.replay_actions([parked.id, "unknown"], by="ada") == 1

    assert bench.actions == [parked]
    assert bench.judge.statistics().actions_parked == 0
    assert bench.judge.audit_trail()[-1].what == "replay"


def test_pages_of_detectors_follow_their_keys(tmp_path):
    bench = Bench(tmp_path).with_models()
    for number in range(25):
        bench.put(90.0 if number % 2 else 1.0, key=f"m{number:02}")

    first = bench.judge.detectors("Motor", limit=10)
    second = bench.judge.detectors("Motor", after=first[-1].key, limit=10)

    assert [each.key for each in first + second] == [f"m{number:02}" for number in range(20)]
    assert len(bench.judge.detectors("Motor", state="hot")) == 12
    assert [each.key for each in bench.judge.detectors("Motor", state="hot", after="m03", limit=2)] == ["m05", "m07"]
    assert bench.judge.detectors("Motor", state="nowhere") == []


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.sampled_from(["m1", "m2", "m3"]), st.sampled_from([10, 90])),
            st.tuples(st.just("wait"), st.integers(1, 90)),
            st.tuples(st.just("crash")),
            st.tuples(st.just("delete"), st.sampled_from(["m1", "m2"])),
            st.tuples(st.just("deploy")),
        ),
        max_size=25,
    )
)
def test_crashes_at_any_point_leave_no_trace(tmp_path_factory, steps):
    settings_ = JudgeSettings(snapshot_interval_s=5)
    steady = Bench(tmp_path_factory.mktemp("steady"), settings_).with_models()
    shaken = Bench(tmp_path_factory.mktemp("shaken"), settings_).with_models()
    told: dict[str, bytes] = {}
    version = 1

    for number, step in enumerate(steps):
        version += step[0] == "deploy"
        for bench in (steady, shaken):
            if step[0] == "put":
                bench.put(float(step[2]), key=step[1], n=number)
            elif step[0] == "wait":
                bench.clock.advance(step[1])
                bench.judge.tick()
            elif step[0] == "delete":
                bench.judge.delete_detectors([("Motor", step[1])])
            elif step[0] == "deploy":
                bench.judge.deploy(deployment(MODEL, str(version)))
        told.update((action.id, action.payload) for action in shaken.actions)
        if step[0] == "crash":
            shaken.crash()
            told.update((action.id, action.payload) for action in shaken.actions)

    assert shaken.judge.detectors("Motor") == steady.judge.detectors("Motor")
    assert shaken.judge.alarms("Overheat") == steady.judge.alarms("Overheat")
    assert len(told) == len({action.id for action in steady.actions})
    assert len(shaken.judge.raised_alarms(closed=True)) == len(steady.judge.raised_alarms(closed=True))
    for bench in (steady, shaken):
        bench.judge.close()


def test_detectors_saved_while_a_round_goes_on_are_not_judged_twice(tmp_path, monkeypatch):
    monkeypatch.setattr("wheeltapper.judge.core._CHUNK", 1)
    bench = Bench(tmp_path, JudgeSettings(snapshot_interval_s=1)).with_models()
    for number in range(4):
        bench.put(1.0, key=f"m{number}", n=number)
    bench.clock.advance(2)

    bench.judge.tick()  # a round begins and saves one detector
    for number in range(4):
        bench.put(90.0, key=f"m{number}", n=10 + number)  # each call saves one more, at its own position
    before = bench.judge.detectors("Motor")
    bench.crash()

    assert bench.judge.detectors("Motor") == before
    assert len(bench.judge.raised_alarms()) == 8


def test_many_threads_are_answered_when_their_message_is_applied(tmp_path):
    judge = Judge(tmp_path, SystemClock())
    judge.start()
    judge.declare_inputs({"Reading": []})
    judge.deploy(deployment(MODEL))

    def feed(key: str) -> None:
        for number in range(50):
            assert judge.put([Message("Reading", json.dumps({"id": key, "n": number, "t": 1}).encode())]) == []

    threads = [threading.Thread(target=feed, args=(f"m{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [each.variables for each in judge.detectors("Motor")] == [{"seen": 49}] * 4
    judge.close()
    with pytest.raises(UnavailableError):
        judge.put([Message("Reading", b"{}")])


def test_migrated_detectors_keep_their_state_across_a_crash(tmp_path):
    bench = Bench(tmp_path).with_models()
    bench.put(90.0, n=5)
    before = bench.judge.detector("Motor", "m1")

    bench.judge.deploy(deployment(MODEL, "2"), migrate=True)
    bench.crash()

    after = bench.judge.detector("Motor", "m1")
    assert (after.version, after.state, after.timers) == ("2", "hot", before.timers)
    assert "Motor" in [each.model for each in bench.judge.raised_alarms()]


def test_delivered_news_is_forgotten_once_no_restart_tells_it_again(tmp_path):
    bench = Bench(tmp_path, JudgeSettings(snapshot_interval_s=1)).with_models()
    bench.put(90.0)
    for action in list(bench.actions):
        bench.judge.settle(action.id, "delivered")

    for _ in range(4):
        bench.clock.advance(2)
        bench.put(90.0)

    assert [record.action.type for record in bench.judge.actions()] == ["sns"]
    bench.crash()
    assert bench.actions == []


def test_what_was_saved_of_an_earlier_version_never_comes_back(tmp_path):
    bench = Bench(tmp_path).with_models()
    bench.put(90.0)
    bench.judge._core.checkpoint()
    save, bench.judge._core._save = bench.judge._core._save, lambda limit: None

    bench.judge.deploy(deployment(MODEL, "2"))  # the disk is full just when the snapshot is to be taken
    bench.judge._core._save = save
    bench.judge._core.checkpoint()
    bench.crash()

    assert bench.state() == ""


def test_a_definition_that_a_later_release_refuses_does_not_keep_the_rest_from_starting(tmp_path, monkeypatch):
    bench = Bench(tmp_path).with_models()
    bench.put(90.0)
    kind = type(bench.judge._core.models)
    load = kind.load

    def refuse(models, found, *, migrate=False):
        if found.name == "Motor":
            raise DefinitionError("no more")
        load(models, found, migrate=migrate)

    monkeypatch.setattr(kind, "load", refuse)
    bench.crash()

    assert bench.state() == ""
    assert bench.judge.alarm("Overheat", "m1").state == "ACTIVE"


def test_attempts_counted_before_a_crash_count_after_the_replay_too(tmp_path):
    bench = Bench(tmp_path).with_models()
    bench.put(90.0)
    action = next(each for each in bench.actions if each.type == "sns")
    for attempts in (1, 2):
        bench.judge.settle(action.id, "pending", attempts=attempts, detail="away")
        bench.judge.actions()
        bench.crash()

    [record] = [each for each in bench.judge.actions() if each.action.id == action.id]

    assert (record.status, record.attempts, record.detail) == ("pending", 2, "away")


def test_of_many_closed_alarms_the_newest_are_listed(tmp_path):
    bench = Bench(tmp_path).with_models()
    for number in range(4):
        bench.put(90.0, key=f"m{number}")
        bench.clock.advance(10)
    for number in range(3):
        bench.judge.delete_detectors([("Motor", f"m{number}")])

    listed = [alarm.key for alarm in bench.judge.raised_alarms(closed=True, limit=100) if alarm.model == "Motor"]

    assert listed == ["m3", "m2", "m1", "m0"]
