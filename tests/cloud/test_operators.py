import json
import os
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote

import pytest

from tests.companion import serving
from tests.core.judging import ALARM, MODEL, deployment
from wheeltapper.cli import main
from wheeltapper.clock import ManualClock, SystemClock
from wheeltapper.errors import DataError, UnavailableError
from wheeltapper.judge import Message
from wheeltapper_cloud.companion_client import ask
from wheeltapper_cloud.keys import KeyStore
from wheeltapper_cloud.operators import silent_since
from wheeltapper_cloud.operators_alarms import _polled


@pytest.fixture
def server(tmp_path, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    with serving(tmp_path) as served:
        judge = served.companion.judge
        judge.declare_inputs({"Reading": []})
        judge.deploy(deployment(MODEL))
        judge.deploy(deployment(ALARM))
        judge.put([Message("Reading", b'{"id": "m1", "t": 90, "n": 1}')])
        monkeypatch.setenv("WHEELTAPPER_SERVER", f"http://127.0.0.1:{served.port}")
        yield judge


@pytest.fixture
def served_by():
    """Makes servers that give every GET the same answer, and remember what they were asked."""

    class Always(BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.asked.append(self.path)
            self.send_response(self.server.status)
            for name, value in {**self.server.headers, "Content-Length": "0"}.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_arguments):
            pass

    running = []

    def start(status, headers):
        server = ThreadingHTTPServer(("127.0.0.1", 0), Always)
        server.status, server.headers, server.asked = status, headers, []
        server.url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        running.append(server)
        return server

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


def lines(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_alarms_are_listed_by_severity(server, capsys):
    assert main(["alarms", "--json"]) == 0

    assert [(each["model"], each["state"]) for each in lines(capsys)] == [("Overheat", "ACTIVE"), ("Motor", "hot")]


def test_the_table_shows_why(server, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")

    assert main(["alarms"]) == 0

    out = capsys.readouterr().out
    assert "t > 80: t 90" in out
    assert out.splitlines()[0].split() == ["id", "age", "severity", "machine", "model", "state", "why"]


def test_an_alarm_of_an_alarm_model_is_acknowledged_with_name_and_note(server, capsys):
    alarm_id = next(each.id for each in server.raised_alarms() if each.model == "Overheat")

    assert main(["alarms", "ack", alarm_id[-8:], "--note", "on it", "--as", "ada"]) == 0

    assert "Overheat m1: ACKNOWLEDGED, acknowledged by ada" in capsys.readouterr().out
    assert server.alarm("Overheat", "m1").state == "ACKNOWLEDGED"
    assert main(["audit", "--json"]) == 0
    trail = [(each["who"], each["what"], each["note"]) for each in lines(capsys)]
    assert ("ada", "acknowledge", "on it") in trail


def test_an_alarm_of_a_detector_model_is_taken_up_and_stays(server, capsys):
    alarm_id = next(each.id for each in server.raised_alarms() if each.model == "Motor")

    assert main(["alarms", "ack", alarm_id, "--as", "ada", "--json"]) == 0

    assert lines(capsys)[0]["acknowledged_by"] == "ada"
    assert server.detector("Motor", "m1").state == "hot"
    assert main(["alarms", "reset", alarm_id, "--as", "ada"]) == 1
    assert "can be acknowledged" in capsys.readouterr().err


def test_an_alarm_of_an_alarm_model_without_the_acknowledge_flow_is_taken_up_and_stays(server, capsys):
    plain = {**ALARM, "alarmModelName": "Plain", "alarmCapabilities": {"initializationConfiguration": {
        "disabledOnInitialization": False}}}  # fmt: skip
    server.deploy(deployment(plain))
    put(server, "m3", 95)
    alarm_id = next(each.id for each in server.raised_alarms() if each.model == "Plain")

    assert main(["alarms", "ack", alarm_id, "--as", "ada", "--json"]) == 0

    assert lines(capsys)[0]["acknowledged_by"] == "ada"
    assert server.alarm("Plain", "m3").state == "ACTIVE"


def test_an_alarm_is_shelved_for_a_while(server):
    alarm_id = next(each.id for each in server.raised_alarms() if each.model == "Overheat")

    assert main(["alarms", "snooze", alarm_id, "--for", "8h", "--as", "ada"]) == 0

    view = server.alarm("Overheat", "m1")
    assert (view.state, view.customer_action["snooze_s"]) == ("SNOOZE_DISABLED", 28_800)


def test_who_acts_must_be_said(server, capsys):
    alarm_id = server.raised_alarms()[0].id

    assert main(["alarms", "ack", alarm_id, "--as", ""]) == 1
    assert "who acts" in capsys.readouterr().err


def test_detectors_are_listed_and_shown(server, capsys):
    assert main(["detectors", "list", "--json"]) == 0
    assert [each["name"] for each in lines(capsys)] == ["Motor", "Overheat"]
    assert main(["detectors", "list", "Motor", "--state", "hot", "--json"]) == 0
    assert [each["key"] for each in lines(capsys)] == ["m1"]
    assert main(["detectors", "show", "Motor", "m1"]) == 0
    assert "timer cooling ends" in capsys.readouterr().out
    assert main(["detectors", "show", "Motor", "m9"]) == 1


def test_undelivered_actions_are_seen_and_replayed(server, capsys):
    found = server.actions(["undelivered"])[0]

    assert main(["actions", "list", "--status", "undelivered", "--json"]) == 0
    assert [each["id"] for each in lines(capsys)] == [found.action.id]
    assert main(["actions", "replay", found.action.id, "--as", "ada"]) == 0
    assert "1 action is tried again" in capsys.readouterr().out
    assert main(["actions", "parked"]) == 0
    assert "no actions" in capsys.readouterr().out


def test_a_server_that_is_away_is_one_line(capsys):
    assert main(["alarms", "--server", "http://127.0.0.1:9"]) == 1

    assert "nobody answers" in capsys.readouterr().err


def put(judge, key, t, message_id=""):
    judge.put([Message("Reading", json.dumps({"id": key, "t": t, "n": 1}).encode(), message_id)])


def test_silent_machines_are_listed_the_longest_silent_first(server, capsys):
    rows = [{"key": "late", "updated_ms": 50}, {"key": "gone", "updated_ms": 10}, {"key": "well", "updated_ms": 51}]

    assert [each["key"] for each in silent_since(rows, 50)] == ["gone", "late"]
    assert main(["detectors", "list", "Motor", "--silent", "10m"]) == 0
    assert "none has been silent" in capsys.readouterr().out


def test_an_alarm_can_be_named_by_its_machine_or_the_end_of_its_id_as_the_list_shows_it(server, capsys):
    put(server, "m2", 90)
    main(["alarms"])
    shown = {line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]}

    assert main(["alarms", "ack", "Overheat/m2", "--as", "ada"]) == 0
    assert "Overheat m2: ACKNOWLEDGED" in capsys.readouterr().out
    assert main(["alarms", "ack", "m2", "--as", "ada"]) == 1
    said = capsys.readouterr().err
    assert "2 are meant" in said
    assert "Motor/m2" in said
    motor = next(each.id for each in server.raised_alarms() if (each.model, each.key) == ("Motor", "m2"))
    assert motor[-6:] in shown
    assert main(["alarms", "ack", motor[-6:], "--as", "bob"]) == 0
    assert next(each for each in server.raised_alarms() if each.id == motor).acknowledged_by == "bob"
    assert main(["alarms", "ack", "m9", "--as", "ada"]) == 1
    assert "wheeltapper alarms --all" in capsys.readouterr().err


def test_ids_in_the_list_tell_alarms_apart(server, capsys):
    for number in range(30):
        put(server, f"pump-{number}", 90)

    main(["alarms"])

    ids = [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]]
    assert len(set(ids)) == len(ids) == 62


def test_a_machine_is_taken_out_of_service_before_it_has_ever_rung(server, capsys):
    put(server, "quiet", 20)

    assert main(["alarms", "disable", "Overheat/quiet", "--note", "overhaul", "--as", "ada"]) == 0

    assert "Overheat quiet: DISABLED" in capsys.readouterr().out
    put(server, "quiet", 99)
    assert server.alarm("Overheat", "quiet").state == "DISABLED"
    assert main(["detectors", "list", "Overheat", "--state", "DISABLED"]) == 0
    assert "quiet" in capsys.readouterr().out
    assert main(["alarms", "enable", "Overheat/quiet", "--as", "ada"]) == 0
    assert server.alarm("Overheat", "quiet").state == "NORMAL"


def test_what_is_shelved_goes_to_the_end_and_says_for_how_long_and_by_whom(server, capsys):
    put(server, "m2", 90)
    main(["alarms", "snooze", "Overheat/m1", "--for", "8h", "--note", "maintenance", "--as", "ada"])
    assert "shelved for 8 h" in capsys.readouterr().out

    main(["alarms"])
    last = capsys.readouterr().out.splitlines()[-1]
    main(["alarms", "show", "Overheat/m1"])

    assert "m1" in last
    assert "shelved for 7 h 59 min" in last or "shelved for 8 h" in last
    assert "ada" in last
    assert "shelved   by ada until" in (out := capsys.readouterr().out)
    assert "maintenance" in out


@pytest.fixture
def plain(server):
    """An alarm that is over as soon as its rule no longer holds."""
    body = {**ALARM, "alarmModelName": "Plain", "alarmCapabilities": {"acknowledgeFlow": {"enabled": False}}}
    body["alarmCapabilities"]["initializationConfiguration"] = {"disabledOnInitialization": False}
    server.deploy(deployment(body))
    return server


def test_an_alarm_is_explained_with_its_condition_its_values_and_its_past(plain, capsys):
    for step, value in enumerate((20, 95, 20, 96)):
        put(plain, "m2", value, f"s{step}")

    assert main(["alarms", "show", "Plain/m2"]) == 0

    out = capsys.readouterr().out
    assert "$input.Reading.t was 96" in out
    assert "taken up  by nobody" in out
    assert "before    once in 30 days" in out
    assert main(["alarms", "show", "Plain/m2", "--json"]) == 0
    assert [len(each["before"]) for each in lines(capsys)] == [1]


def test_the_past_of_a_machine_is_told_newest_first(plain, capsys):
    for step, value in enumerate((95, 20, 96, 20, 97)):
        put(plain, "m2", value, f"s{step}")

    assert main(["alarms", "history", "m2", "--model", "Plain", "--json"]) == 0

    told = lines(capsys)
    assert [each["alarm"]["values"]["$input.Reading.t"] for each in told] == [97, 96, 95]
    assert [each["cleared_ms"] is None for each in told] == [True, False, False]
    assert main(["alarms", "history", "m2", "--limit", "2"]) == 0
    captured = capsys.readouterr()
    assert "over after" in captured.out
    assert "first 2" in captured.err
    assert main(["alarms", "history", "nobody"]) == 0
    assert "no alarm of nobody" in capsys.readouterr().out


def test_among_those_that_are_over_the_newest_are_shown(plain, capsys):
    for step in range(8):
        put(plain, "m2", 95 if step % 2 else 20, f"s{step}")
    put(plain, "m2", 20, "end")

    main(["alarms", "--all", "--json"])

    over = [each["raised_ms"] for each in lines(capsys) if each["cleared_ms"] is not None]
    assert over == sorted(over, reverse=True)


def test_actions_are_replayed_by_the_end_of_their_id_or_all_of_a_status(server, capsys):
    found = server.actions(["undelivered"])[0].action.id

    assert main(["actions", "replay", found[-6:], "--as", "ada"]) == 0
    assert "1 action is tried again" in capsys.readouterr().out
    assert main(["actions", "replay", "ffffff-none", "--as", "ada"]) == 1
    assert "nothing to try again" in capsys.readouterr().err
    assert main(["actions", "replay", "--as", "ada"]) == 0
    assert "nothing is parked" in capsys.readouterr().out
    assert main(["actions", "replay", "--status", "delivered", "--as", "ada"]) == 1
    assert "parked, failed, undelivered" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["detectors", "list", "Nosuch"], "model Nosuch: is not in force"),
        (["detectors", "show", "Motor"], "the key is id"),
        (["detectors", "show", "Motor", "a/b c"], "detector Motor a/b c: does not exist"),
        (["alarms", "show", "zzz"], "wheeltapper alarms --all lists them"),
    ],
)
def test_what_does_not_exist_is_said_in_one_line_with_what_to_do(server, capsys, words, said):
    assert main(words) == 1

    assert said in (err := capsys.readouterr().err)
    assert err.count("\n") == 1


def test_empty_lists_say_what_to_do_next(tmp_path, monkeypatch, capsys):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    with serving(tmp_path) as served:
        monkeypatch.setenv("WHEELTAPPER_SERVER", served.url)
        for words in (["alarms"], ["detectors", "list"], ["actions", "list"], ["actions", "parked"], ["audit"]):
            assert main(words) == 0

    for line, next_step in zip(
        capsys.readouterr().out.splitlines(),
        ("wheeltapper alarms --all", "wheeltapper boto env", "make them", "wheeltapper actions list", "who acts"),
        strict=True,
    ):
        assert next_step in line


def test_no_text_moves_an_operators_cursor(server, capsys):
    main(["alarms", "ack", "Overheat/m1", "--note", "\x1b[2J\nx", "--as", "ada"])
    capsys.readouterr()

    for words in (["audit"], ["alarms", "show", "Overheat/m1"]):
        assert main(words) == 0
        assert "\ufffd[2J\ufffdx" in capsys.readouterr().out


def test_a_pipe_gets_whole_lines_and_a_narrow_terminal_lines_that_fit(server, capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    put(server, "a-very-long-name-of-a-machine-somewhere-in-the-plant" * 2, 90)
    main(["alarms"])
    piped = capsys.readouterr().out
    monkeypatch.setenv("COLUMNS", "60")
    main(["alarms"])

    assert "a-very-long-name-of-a-machine-somewhere-in-the-plant" * 2 in piped
    assert "\x1b" not in piped
    narrow = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 60 for line in narrow)
    assert [line.split()[0] for line in narrow] == [line.split()[0] for line in piped.splitlines()]


@pytest.mark.parametrize("text", ["", "h", "0h", "\u00b2h", "1.5h", "soon"])
def test_a_duration_that_is_none_is_refused(text, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["alarms", "snooze", "m1", "--as", "ada", "--for", text])

    assert ended.value.code == 2
    assert "15m, 1h or 8h" in capsys.readouterr().err


@pytest.mark.parametrize("limit", ["0", "\u00b2", "-1", "1e3", "9" * 40])
def test_a_limit_that_is_none_is_refused_by_the_server(server, limit):
    with pytest.raises(DataError, match="limit must be"):
        ask(os.environ["WHEELTAPPER_SERVER"], "GET", f"/wheeltapper/alarms?limit={quote(limit)}")


def test_a_proxy_is_not_asked_the_way_to_this_machine(server, monkeypatch, capsys):
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")

    assert main(["alarms", "--json"]) == 0


@pytest.mark.parametrize("address", ["", "127.0.0.1:8600", "ftp://x", "http://", "http://[::1", "http://h:port"])
def test_an_address_that_is_none_is_said_in_one_line(monkeypatch, address, capsys):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "any")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "any")

    assert main(["alarms", "--server", address]) == 2
    assert capsys.readouterr().err.startswith(f"wheeltapper: --server {address}: ")


def test_whoever_else_answers_is_no_companion(server, capsys):
    assert main(["alarms", "--server", os.environ["WHEELTAPPER_SERVER"] + "/metrics?"]) == 1

    assert "no cloud companion" in capsys.readouterr().err


def test_a_signed_request_is_not_carried_on_to_where_somebody_points(served_by, monkeypatch, capsys):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "any")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "any")
    elsewhere = served_by(200, {})
    here = served_by(302, {"Location": f"{elsewhere.url}/wheeltapper/alarms"})

    assert main(["alarms", "--server", here.url]) == 1

    assert "no cloud companion (HTTP 302)" in capsys.readouterr().err
    assert (len(here.asked), elsewhere.asked) == (1, [])


def test_a_companion_that_wants_a_key_says_how_to_get_one(tmp_path, monkeypatch, capsys):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    made = KeyStore(tmp_path, SystemClock()).create("ops")
    with serving(tmp_path) as served:
        refused = main(["alarms", "--server", served.url]), capsys.readouterr().err
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", made.access_key_id)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", made.secret_access_key)
        monkeypatch.setenv("AWS_REGION", "eu-west-1")
        admitted = main(["alarms", "--server", served.url])

    assert refused[0] == 1
    assert "wheeltapper cloud keys create" in refused[1]
    assert admitted == 0


def test_a_pipe_that_closes_early_is_no_traceback(server):
    reader, writer = os.pipe()
    os.close(reader)
    try:
        for words in (["alarms"], ["alarms", "--json"]):
            done = subprocess.run(
                [sys.executable, "-m", "wheeltapper.cli", *words], stdout=writer, stderr=subprocess.PIPE, check=False
            )
            assert (done.returncode, done.stderr) == (141, b"")
    finally:
        os.close(writer)


def test_watching_as_json_tells_every_change_once(plain):
    put(plain, "m1", 90)
    command = [sys.executable, "-m", "wheeltapper.cli", "alarms", "--watch", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        first = [json.loads(process.stdout.readline()) for _ in range(3)]
        put(plain, "m1", 20)
        changed = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        status, rest = process.wait(30), process.stderr.read() if process.stderr else ""
    finally:
        process.kill()
        process.wait()

    assert {each["cleared_ms"] for each in first} == {None}
    assert (changed["model"], changed["cleared_ms"] is None) == ("Plain", False)
    assert (status, rest) == (130, "")


def test_watching_needs_a_terminal_or_json(server, capsys):
    assert main(["alarms", "--watch"]) == 2
    assert "--json" in capsys.readouterr().err


def test_a_watch_outlives_a_companion_that_goes_away(tmp_path, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    with serving(tmp_path) as served:
        polls = _polled(served.url, "/wheeltapper/alarms", ManualClock())
        there = next(polls)
    away = next(polls)

    assert there == ([], 0.0)
    assert away[0] == []
    assert away[1] > 0
    with pytest.raises(UnavailableError):
        next(_polled(served.url, "/wheeltapper/alarms", ManualClock()))
