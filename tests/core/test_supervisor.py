"""Programs are kept running, are not restarted in vain, and never outlive their supervisor."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from wheeltapper.clock import SystemClock
from wheeltapper.errors import SettingsError, UnavailableError
from wheeltapper.up.supervisor import Program, Supervisor


def python(name: str, code: str) -> Program:
    return Program(name, (sys.executable, "-c", code))


def supervise(folder: Path, *programs: Program) -> tuple[Supervisor, list[tuple[str, str]]]:
    events: list[tuple[str, str]] = []
    supervisor = Supervisor(programs, folder, SystemClock(), lambda name, what, detail: events.append((name, what)))
    for program in programs:
        supervisor.start(program.name)
    return supervisor, events


def watch_until(supervisor: Supervisor, holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 90
    while not holds() and time.monotonic() < deadline:
        supervisor.watch()
        time.sleep(0.02)
    assert holds()


def test_a_program_that_is_killed_is_started_again(tmp_path: Path) -> None:
    supervisor, events = supervise(tmp_path, python("sleeper", "import time; time.sleep(60)"))
    first = supervisor.pids()["sleeper"]
    os.kill(first, signal.SIGKILL)

    watch_until(supervisor, lambda: supervisor.pids().get("sleeper", first) != first)

    assert events == [("sleeper", "starting"), ("sleeper", "restarted"), ("sleeper", "starting")]
    supervisor.stop()


def test_wrong_settings_end_the_run_with_the_programs_own_words(tmp_path: Path) -> None:
    supervisor, _ = supervise(tmp_path, python("picky", "import sys; print('wheeltapper: x: is wrong'); sys.exit(2)"))

    with pytest.raises(SettingsError, match="picky: x: is wrong"):
        watch_until(supervisor, lambda: False)
    supervisor.stop()


def test_a_program_that_keeps_dying_is_given_up_with_the_place_to_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wheeltapper.up.supervisor._BACKOFF_S", (0.0,))
    supervisor, _ = supervise(tmp_path, python("fragile", "print('no luck'); raise SystemExit(1)"))

    with pytest.raises(UnavailableError, match=r"fragile: died 10 times in a row: no luck; see .*fragile\.log"):
        watch_until(supervisor, lambda: False)
    supervisor.stop()


def test_stopping_ends_every_program_the_last_started_first(tmp_path: Path) -> None:
    order = tmp_path / "order"
    code = (
        "import signal, sys, time\n"
        f"def end(*_): open({str(order)!r}, 'a').write(sys.argv[1] + ' '); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end); print('ready', flush=True); time.sleep(60)"
    )
    programs = [Program(name, (sys.executable, "-c", code, name)) for name in ("first", "second")]
    supervisor, _ = supervise(tmp_path, *programs)
    watch_until(supervisor, lambda: all(supervisor.last_line(name) == "ready" for name in ("first", "second")))

    killed = supervisor.stop()

    assert order.read_text() == "second first "
    assert killed == []


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's help is Linux's")
def test_children_end_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path\n"
        "from wheeltapper.clock import SystemClock; from wheeltapper.up.supervisor import Program, Supervisor\n"
        "program = Program('child', (sys.executable, '-c', 'import time; time.sleep(60)'))\n"
        f"s = Supervisor([program], Path({str(tmp_path)!r}), SystemClock(), lambda *_: None); s.start('child')\n"
        "print(s.pids()['child'], flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()

    deadline = time.monotonic() + 90
    while _runs(child) and time.monotonic() < deadline:
        time.sleep(0.02)

    assert not _runs(child)


def _runs(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_last_words_are_found_at_the_end_of_a_long_log(tmp_path: Path) -> None:
    supervisor = Supervisor([], tmp_path, SystemClock(), lambda *_: None)
    (tmp_path / "gateway.log").write_text("é" * 1_000_000 + "\nwheeltapper: broker: away\n")

    assert supervisor.last_line("gateway") == "broker: away"
    assert supervisor.last_line("cloud") == "it said nothing"


def test_a_talkative_programs_log_stays_within_its_bound_and_the_last_words_are_kept(tmp_path: Path) -> None:
    code = "import time\nfor n in range(3000): print('line', n, 'x' * 100)\nprint('done', flush=True); time.sleep(600)"
    supervisor = Supervisor([python("talker", code)], tmp_path, SystemClock(), lambda *_: None, log_bytes=50_000)
    supervisor.start("talker")

    watch_until(supervisor, lambda: supervisor.last_line("talker") == "done")

    supervisor.stop()
    log, older = supervisor.log_file("talker"), tmp_path / "talker.log.1"
    assert {path.name for path in tmp_path.iterdir()} == {"talker.log", "talker.log.1"}
    assert max(log.stat().st_size, older.stat().st_size) <= 50_000
    kept = (older.read_bytes() + log.read_bytes()).decode().splitlines()[1:]  # the first may be cut
    assert kept == [*(f"line {number} {'x' * 100}" for number in range(3001 - len(kept), 3000)), "done"]


def test_a_log_that_cannot_be_written_stops_no_program(tmp_path: Path) -> None:
    (tmp_path / "blocked.log").mkdir()
    said = tmp_path / "said"
    code = (
        "import time\nfrom pathlib import Path\nfor n in range(2000): print('x' * 100)\n"
        f"Path({str(said)!r}).touch(); time.sleep(600)"
    )
    supervisor, _ = supervise(tmp_path, python("blocked", code))

    watch_until(supervisor, said.exists)

    assert supervisor.last_line("blocked") == "it said nothing"
    supervisor.stop()


def test_what_a_program_says_while_it_ends_is_kept(tmp_path: Path) -> None:
    code = (
        "import signal, sys, time\n"
        "def end(*_): print('\\n'.join(f'closing {n}' for n in range(2000))); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end); print('ready', flush=True); time.sleep(600)"
    )
    supervisor, _ = supervise(tmp_path, python("slow", code))
    watch_until(supervisor, lambda: supervisor.last_line("slow") == "ready")

    supervisor.stop()

    assert supervisor.last_line("slow") == "closing 1999"
