"""What operators see and do when they shelve alarms of either kind, over HTTP and at the command line."""

import json
import signal

import pytest

from tests.companion import in_own_process, serving
from tests.core.judging import ALARM, MODEL, Bench, deployment
from wheeltapper import journal
from wheeltapper.cli import main
from wheeltapper.judge import AlarmOperation, DetectorUpdate, Message, ShelfOperation
from wheeltapper_cloud.actions_settings import NotificationSettings
from wheeltapper_cloud.notifications import Escalation
from wheeltapper_cloud.records import Records

TWIN = {**ALARM, "alarmModelName": "Motor"}


@pytest.fixture
def cloud(tmp_path, monkeypatch):
    """Detector model Motor and alarm model Overheat, both in alarm for m1 and at rest for m2."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("USER", "ada")
    monkeypatch.setenv("COLUMNS", "200")
    with serving(tmp_path) as served:
        judge = served.companion.judge
        judge.declare_inputs({"Reading": []})
        for model in (MODEL, ALARM):
            judge.deploy(deployment(model))
        for key, t in (("m1", 90), ("m2", 20)):
            put(judge, key, t)
        monkeypatch.setenv("WHEELTAPPER_SERVER", served.url)
        yield served


def put(judge, key, t):
    judge.put([Message("Reading", json.dumps({"id": key, "t": t, "n": 1}).encode())])


def run(capsys, *words):
    """Exit status, standard output, standard error."""
    try:
        status = main(["alarms", *words])
    except SystemExit as ended:
        status = ended.code
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def listed(capsys, *words):
    return [json.loads(line) for line in run(capsys, *words, "--json")[1].splitlines()]


def test_an_alarm_of_a_detector_model_is_shelved_with_a_limit_a_note_and_a_name(cloud, capsys):
    status, out, _ = run(capsys, "shelve", "Motor/m1", "--for", "8h", "--note", "cleaning")

    assert (status, out.startswith("Motor m1: hot shelved for 8 h, until 2")) == (0, True)
    last = listed(capsys)[-1]
    assert (last["kind"], last["state"], last["suppressed"], last["shelved_state"]) == (
        "detector", "hot", "shelved", "hot"
    )  # fmt: skip
    assert (last["shelved_by"], last["shelved_note"]) == ("ada", "cleaning")
    assert last["shelved_until_ms"] - last["shelved_ms"] == 8 * 3_600_000
    table = run(capsys)[1].splitlines()
    assert "hot, shelved for" in table[-1]
    assert "ada" in table[-1]
    shown = run(capsys, "show", "Motor/m1")[1]
    assert "Motor is hot, shelved for" in shown
    assert "shelved   by ada until 2" in shown
    assert "Z: cleaning" in shown


def test_the_notes_of_who_took_it_up_and_who_shelved_it_are_kept_apart(cloud, capsys):
    run(capsys, "ack", "Motor/m1", "--note", "bearing ordered", "--as", "bob")
    run(capsys, "shelve", "Motor/m1", "--note", "until the fitter comes")

    (found,) = [each for each in listed(capsys) if each["kind"] == "detector"]

    assert (found["acknowledged_by"], found["acknowledged_note"]) == ("bob", "bearing ordered")
    assert (found["shelved_by"], found["note"]) == ("ada", "until the fitter comes")
    assert "taken up  by bob" in run(capsys, "show", "Motor/m1")[1]


@pytest.mark.parametrize(("model", "state"), [("Motor", "hot"), ("Overheat", "NORMAL")])
def test_what_is_shelved_is_brought_back(cloud, capsys, model, state):
    run(capsys, "shelve", f"{model}/m1")

    status, out, _ = run(capsys, "unshelve", f"{model}/m1")

    assert (status, out) == (0, f"{model} m1: {state}\n")
    assert [each["suppressed"] for each in listed(capsys)].count("shelved") == 0
    again = run(capsys, "unshelve", f"{model}/m1")
    assert (again[0], again[2]) == (1, f"wheeltapper: unshelve: {model} m1 is not shelved\n")


@pytest.mark.parametrize(
    ("words", "said"), [(["shelve"], "hot shelved for 1 h, until 2"), (["disable"], "out of service\n")]
)
def test_an_alarm_that_is_over_is_laid_aside_for_when_it_comes_again(cloud, capsys, words, said):
    (found,) = [each for each in cloud.companion.judge.raised_alarms() if each.kind == "detector"]
    cloud.companion.judge.update_detectors([DetectorUpdate(model="Motor", key="m1", state="cold")])

    status, out, _ = run(capsys, *words, found.id)

    assert (status, out.startswith(f"Motor m1: {said}")) == (0, True)
    (lying,) = listed(capsys, "shelved")
    assert lying["state"] == ("hot" if words == ["shelve"] else "")


def test_a_machine_is_taken_out_of_service_before_it_has_rung_and_is_not_forgotten(cloud, capsys):
    assert run(capsys, "disable", "Motor/m2", "--note", "overhaul")[:2] == (0, "Motor m2: out of service\n")
    assert run(capsys, "disable", "Overheat/m2")[:2] == (0, "Overheat m2: DISABLED\n")
    put(cloud.companion.judge, "m2", 90)

    lying = listed(capsys, "shelved")
    assert [(each["model"], each["key"], each["suppressed"], each["shelved_by"]) for each in lying] == [
        ("Motor", "m2", "out_of_service", "ada"),
        ("Overheat", "m2", "out_of_service", "ada"),
    ]
    assert "hot, out of service" in run(capsys)[1].splitlines()[-1]
    table = run(capsys, "shelved")[1]
    assert "every alarm" in table
    assert "overhaul" in table
    assert run(capsys, "enable", "Motor/m2")[:2] == (0, "Motor m2: hot\n")
    assert run(capsys, "enable", "Overheat/m2")[:2] == (0, "Overheat m2: NORMAL\n")
    assert "nothing is shelved" in run(capsys, "shelved")[1]


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["reset", "Motor/m1"], 1, "can be acknowledged by its id, shelved and taken out of service"),
        (["ack", "Motor/m2"], 1, "only its own inputs change its state"),
        (["unshelve", "Motor/m1"], 1, "unshelve: Motor m1 is not shelved"),
        (["enable", "Motor/m2"], 1, "enable: Motor m2 is not out of service or shelved"),
        (["shelve", "Motor/m9"], 1, "detector Motor m9: does not exist"),
        (["disable", "Overheat/m9"], 1, "alarm Overheat/m9: does not exist"),
        (["shelve", "Nosuch/m1"], 1, "model Nosuch: is not in force"),
        (["shelve", "Motor/m1", "--for", "367d"], 2, "longer than 366d; disable takes out of service"),
        (["shelve", "Motor/m1", "--as", ""], 1, "--as: say who acts"),
    ],
)
def test_what_cannot_be_done_is_said_with_what_can(cloud, capsys, words, status, said):
    ended, out, err = run(capsys, *words)

    assert (ended, out) == (status, "")
    assert said in err
    assert cloud.companion.judge.shelf() == []


@pytest.mark.parametrize("seconds", [0, -1, 31_622_401, 1.5, "60", None, True])
def test_a_shelving_without_a_limit_in_time_is_refused(cloud, seconds):
    (found,) = [each for each in cloud.companion.judge.raised_alarms() if each.kind == "detector"]

    status, answer, _ = cloud.call("POST", f"/wheeltapper/alarms/{found.id}/shelve", {"by": "ada", "snooze_s": seconds})

    assert (status, "from 1 to 31622400" in answer["message"]) == (400, True)


def test_an_alarm_snoozed_over_awss_api_by_nobody_says_until_when_everywhere(cloud, capsys):
    entry = {"requestId": "1", "alarmModelName": "Overheat", "keyValue": "m1", "snoozeDuration": 3600}
    judge = cloud.companion.judge
    fill(cloud)
    put(judge, "m2", 20)
    judge.operate_alarms([AlarmOperation(model="Overheat", key="m1", operation="snooze", snooze_s=60, by="bob")])
    assert [each["shelved_by"] for each in listed(capsys) if each["kind"] == "alarm"] == ["bob"]
    status, answer, _ = cloud.call("POST", "/alarms/snooze", {"snoozeActionRequests": [entry]})

    assert (status, answer["errorEntries"]) == (202, [])
    until_ms = judge.alarm("Overheat", "m1").snoozed_until_ms
    (found,) = [each for each in listed(capsys) if each["kind"] == "alarm"]
    assert (found["suppressed"], found["shelved_until_ms"], found["shelved_by"]) == ("shelved", until_ms, "")
    assert [each["shelved_until_ms"] for each in listed(capsys, "shelved")] == [until_ms]
    main(["detectors", "list", "Overheat", "--json"])
    views = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(each["snoozed_until_ms"], each["snoozed_by"]) for each in views] == [(until_ms, ""), (None, "")]
    assert "shelved   until 2" in run(capsys, "show", "Overheat/m1")[1]


def test_a_list_of_shelved_alarms_is_one_query(cloud, monkeypatch):
    judge = cloud.companion.judge
    for number in range(20):
        put(judge, f"p{number}", 90)
        operation = AlarmOperation(model="Overheat", key=f"p{number}", operation="snooze", snooze_s=600, by="ada")
        judge.operate_alarms([operation])
    asked = []

    def listening(path, opened=journal.open_reader):
        connection = opened(path)
        connection.set_trace_callback(asked.append)
        return connection

    monkeypatch.setattr(journal, "open_reader", listening)
    found = cloud.call("GET", "/wheeltapper/alarms")[1]["alarms"]

    assert sum(each["shelved_by"] == "ada" for each in found) == 20
    assert [each["suppressed"] for each in found] == [None] * 22 + ["shelved"] * 20
    assert len([each for each in asked if "FROM alarm" in each]) == 1
    assert [each for each in asked if "FROM shelf" in each or "FROM audit" in each] == []


def test_what_is_shelved_waits_for_nobody(cloud, tmp_path):
    judge = cloud.companion.judge
    records = Records(judge, tmp_path)
    judge.raised_alarms()
    before = records.counts()
    judge.shelve(ShelfOperation(model="Motor", key="m1", operation="shelve", for_s=600, by="ada"))
    judge.operate_alarms([AlarmOperation(model="Overheat", key="m1", operation="snooze", snooze_s=600)])
    judge.raised_alarms()

    after = records.counts()

    assert (before.open, before.unacknowledged) == (2, 2)
    assert (after.open, after.unacknowledged) == (2, 0)


@pytest.mark.parametrize("operation", ["shelve", "disable"])
def test_nobody_is_called_about_an_alarm_of_a_detector_that_is_laid_aside(tmp_path, operation):
    bench = Bench(tmp_path)
    bench.judge.declare_inputs({"Reading": []})
    bench.judge.deploy(deployment(MODEL))
    bench.put(90.0)
    settings = NotificationSettings(escalate_after_s=[60], escalate_to=["chief@example.com"])
    escalation = Escalation(settings, bench.judge, bench.clock)
    bench.judge.shelve(ShelfOperation(model="Motor", key="m1", operation=operation, for_s=600, by="ada"))
    bench.clock.advance(400)
    during = escalation.look()

    bench.judge.shelve(
        ShelfOperation(model="Motor", key="m1", operation="unshelve" if operation == "shelve" else "enable", by="ada")
    )

    assert (during, escalation.look()) == (0, 1)


def test_the_audit_trail_says_which_kind_of_model_and_until_when(cloud, capsys):
    cloud.companion.judge.deploy(deployment(TWIN))
    put(cloud.companion.judge, "m1", 91)
    run(capsys, "shelve", "Motor/m1", "--kind", "detector", "--for", "1h")
    run(capsys, "shelve", "Motor/m1", "--kind", "alarm", "--for", "2h")
    run(capsys, "ack", "Overheat/m1")
    main(["actions", "replay", "--status", "undelivered", "--as", "ada"])
    capsys.readouterr()

    main(["audit", "--json"])
    trail = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    main(["audit"])

    assert [(each["what"], each["kind"], each["model"]) for each in trail] == [
        ("shelve", "detector", "Motor"),
        ("snooze", "alarm", "Motor"),
        ("acknowledge", "alarm", "Overheat"),
        ("replay", "detector", "Motor"),
    ]
    assert [each["until_ms"] is None for each in trail] == [False, False, True, True]
    assert capsys.readouterr().out.splitlines()[0].split() == [
        "time", "who", "what", "kind", "model", "key", "until", "note"
    ]  # fmt: skip


def test_a_model_and_key_that_have_never_rung_mean_the_kind_that_is_named(cloud, capsys):
    cloud.companion.judge.deploy(deployment(TWIN))
    put(cloud.companion.judge, "m2", 21)

    assert run(capsys, "disable", "Motor/m2")[1] == "Motor m2: DISABLED\n"
    assert run(capsys, "disable", "Motor/m2", "--kind", "detector")[1] == "Motor m2: out of service\n"
    assert sorted(each["kind"] for each in listed(capsys, "shelved")) == ["alarm", "detector"]


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["list", "--state", "hot"], 2, "name one"),
        (["list", "--silent", "1h"], 2, "name one"),
        (["list", "Motor", "--state", "nosuch"], 0, "none is in the state nosuch"),
    ],
)
def test_a_choice_among_detectors_that_cannot_be_made_is_said(cloud, capsys, words, status, said):
    assert main(["detectors", *words]) == status

    captured = capsys.readouterr()
    assert said in captured.out + captured.err


def test_a_snoozed_alarm_is_shown_with_its_end_and_who_ends_it(cloud, capsys):
    run(capsys, "shelve", "Overheat/m1", "--for", "1h", "--note", "cleaning")

    main(["detectors", "show", "Overheat", "m1"])
    main(["detectors", "list", "Overheat"])

    out = capsys.readouterr().out
    assert "operator snooze by ada until 2" in out
    assert "Z: cleaning" in out
    assert "SNOOZE_DISABLED" in out


def test_a_detector_is_shown_with_what_of_it_is_laid_aside(cloud, capsys):
    run(capsys, "shelve", "Motor/m1", "--note", "cleaning")
    run(capsys, "disable", "Motor/m2")

    shown = []
    for key in ("m1", "m2"):
        main(["detectors", "show", "Motor", key])
        shown.append(capsys.readouterr().out)
    main(["detectors", "show", "Motor", "m1", "--json"])

    assert "  hot shelved by ada until 2" in shown[0]
    assert "  every alarm out of service by ada\n" in shown[1]
    (lying,) = json.loads(capsys.readouterr().out)["shelf"]
    assert (lying["state"], lying["shelved_by"], lying["shelved_note"]) == ("hot", "ada", "cleaning")


def test_what_is_shelved_survives_kill_9(tmp_path):
    seen = []
    for first in (True, False):
        with in_own_process(tmp_path, signal.SIGKILL) as cloud:
            if first:
                fill(cloud)
                for alarm in cloud.call("GET", "/wheeltapper/alarms")[1]["alarms"]:
                    cloud.call("POST", f"/wheeltapper/alarms/{alarm['id']}/shelve", {"by": "ada", "snooze_s": 3600})
            seen.append((cloud.call("GET", "/wheeltapper/alarms")[1], cloud.call("GET", "/wheeltapper/shelf")[1]))

    assert seen[0] == seen[1]
    alarms, shelf = seen[1]
    assert [each["shelved_by"] for each in alarms["alarms"]] == ["ada", "ada"]
    assert sorted(each["kind"] for each in shelf["shelf"]) == ["alarm", "detector"]


def fill(cloud):
    attributes = [{"jsonPath": name} for name in ("id", "t", "n")]
    definition = {"inputName": "Reading", "inputDefinition": {"attributes": attributes}}
    assert cloud.call("POST", "/inputs", definition)[0] == 201
    assert cloud.call("POST", "/detector-models", MODEL)[0] == 200
    assert cloud.call("POST", "/alarm-models", ALARM)[0] == 200
    message = {"messageId": "1", "inputName": "Reading", "payload": "eyJpZCI6ICJtMSIsICJ0IjogOTAsICJuIjogMX0="}
    assert cloud.call("POST", "/inputs/messages", {"messages": [message]})[0] == 200
