"""``wheeltapper up``: checks what can be checked first, starts everything, shows what happens, ends everything."""

import argparse
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from types import FrameType

import msgspec

from wheeltapper import logs
from wheeltapper.cli import Commands
from wheeltapper.clock import SystemClock
from wheeltapper.errors import MissingExtraError, SettingsError, UnavailableError
from wheeltapper.transport import Transport
from wheeltapper.up import plan
from wheeltapper.up.monitor import Event, Monitor
from wheeltapper.up.plan import Run
from wheeltapper.up.ports import check_port, free_port
from wheeltapper.up.supervisor import Program, Supervisor

log = logging.getLogger(__name__)

LOGS = "logs"
_NEEDED = ("paho", "onnxruntime", "numpy", "starlette", "uvicorn")
_READY_TIMEOUT_S = 60.0
_TICK_S = 0.1
_MOST_PROCESSES = 1_000

EXAMPLE = """wheeltapper up
wheeltapper up --scenario robot --seed 7 --duration 60 --json
wheeltapper up --replay pump.csv --train-rows 400"""


def register(commands: Commands) -> None:
    """Add ``wheeltapper up``."""
    parser = commands.add("up", run_command, help="run everything on this machine and watch it", example=EXAMPLE)
    parser.add_argument(
        "--scenario", choices=plan.SCENARIOS, default="motor", help="the simulated machine (default: motor)"
    )
    parser.add_argument("--replay", type=Path, metavar="CSV", help="send a recorded file's rows instead")
    parser.add_argument(
        "--model", type=Path, metavar="DIR", help="judge with this model instead of the shipped or trained one"
    )
    parser.add_argument(
        "--train-rows", type=int, default=400, metavar="N", help="rows of the replayed file to learn from (400)"
    )
    parser.add_argument(
        "--speed",
        type=float,
        default=0.0,
        metavar="X",
        help="machine seconds in a second (default: 12; a replayed file: so that it lasts about 45 s)",
    )
    parser.add_argument("--duration", type=float, metavar="S", help="stop after so many seconds; without it, on Ctrl-C")
    parser.add_argument("--seed", type=int, default=1, help="decides noise, duty cycle, fault and onset (default: 1)")
    parser.add_argument(
        "--data-dir", type=Path, metavar="DIR", help="keep the run here and go on with it when it is there"
    )
    parser.add_argument(
        "--broker", default="", metavar="URL", help="use this broker, mqtt://host:port, not one of our own"
    )
    parser.add_argument(
        "--port", type=int, default=8600, help="the cloud companion's port on 127.0.0.1 (default: 8600)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object per line instead of the view")


def run_command(options: argparse.Namespace) -> int:
    """Run everything until told to stop."""
    _check_extras(own_broker=not options.broker)
    run = _run_of(options)
    data_dir = (options.data_dir or _new_data_dir(run)).absolute()
    check_port(options.port)
    if options.broker:
        _check_broker(options.broker)
    plan.remember(run, data_dir)
    logs.set_up("WARNING")
    if run.replay and not run.model and not (plan.model_folder(run, data_dir) / "card.json").exists():
        _train(run, data_dir)
    embedded_port = None if options.broker else free_port()
    broker = options.broker or f"mqtt://127.0.0.1:{embedded_port}"
    programs = plan.programs(run, data_dir, broker=broker, embedded_port=embedded_port, port=options.port)
    with _stop_on_signals() as stop, _output(options.json, run, data_dir) as show:
        house = House(programs, data_dir, broker, show, stop)
        try:
            house.open()
            house.live(options.duration)
        finally:
            house.close()
    return 0


class House:
    """The running whole: the supervisor's processes and the monitor's ear on the bus."""

    def __init__(
        self,
        programs: Sequence[Program],
        data_dir: Path,
        broker: str,
        show: Callable[[Event], None],
        stop: threading.Event,
    ) -> None:
        self._names = [program.name for program in programs]
        self._broker = broker
        self._show = show
        self._stop = stop
        self._clock = SystemClock()
        self._ready: set[str] = set()
        self._lock = threading.Lock()
        self._supervisor = Supervisor(programs, data_dir / LOGS, self._clock, self._tell)
        self._transport: Transport | None = None

    def open(self) -> None:
        """
        Start the broker, listen, start the rooms; the device last, when the others are ready to judge it.

        Raises:
            UnavailableError: something does not come up.
        """
        if "broker" in self._names:
            self._supervisor.start("broker")
        self._listen()
        for name in ("cloud", "gateway"):
            self._supervisor.start(name)
        self._wait_for({"cloud", "gateway"})
        self._supervisor.start("device")

    def live(self, duration_s: float | None) -> None:
        """Watch over the processes until told to stop or the time is up."""
        end = None if duration_s is None else self._clock.monotonic() + duration_s
        while not self._stop.wait(_TICK_S):
            self._supervisor.watch()
            if end is not None and self._clock.monotonic() >= end:
                return

    def close(self) -> None:
        """End every process; the broker last, so that what the rooms say at their end is still heard."""
        killed = self._supervisor.stop(but="broker")
        if self._transport is not None:
            self._transport.close()
        for name in [*killed, *self._supervisor.stop()]:
            log.warning("%s did not end in time and was killed", name)

    def _listen(self) -> None:
        from wheeltapper.transport.settings import BrokerSettings, open_transport

        deadline = self._clock.monotonic() + _READY_TIMEOUT_S
        while True:
            transport = open_transport(BrokerSettings(url=self._broker))
            Monitor(self._take).listen(transport)
            try:
                transport.start()
                break
            except UnavailableError:
                if self._stop.is_set() or self._clock.monotonic() > deadline:
                    raise
                self._supervisor.watch()
                self._clock.wait(self._stop, _TICK_S)
        self._transport = transport
        self._mark_ready("broker")

    def _wait_for(self, names: set[str]) -> None:
        deadline = self._clock.monotonic() + _READY_TIMEOUT_S
        while not names <= self._ready and not self._stop.is_set():
            self._supervisor.watch()
            if self._clock.monotonic() > deadline:
                missing = sorted(names - self._ready)
                raise UnavailableError(
                    f"{missing[0]}: not ready after {_READY_TIMEOUT_S:.0f} s: {self._supervisor.last_line(missing[0])}; "
                    f"see {self._supervisor.log_file(missing[0])}"
                )
            self._clock.wait(self._stop, _TICK_S)

    def _take(self, event: Event) -> None:
        if event["kind"] == "health" and event.get("status") == "ready" and event["thing"] in self._names:
            self._ready.add(str(event["thing"]))
        self._tell_event(event)

    def _mark_ready(self, name: str) -> None:
        if name in self._names:
            self._tell(name, "ready", self._broker)

    def _tell(self, name: str, status: str, detail: str) -> None:
        head = {"time_ms": self._clock.time_ms(), "kind": "health", "thing": name}
        self._tell_event({**head, "process": name, "status": status, "detail": detail})

    def _tell_event(self, event: Event) -> None:
        with self._lock:
            try:
                self._show(event)
            except BrokenPipeError:  # whoever read our output has gone: end as if told to
                self._stop.set()
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run_of(options: argparse.Namespace) -> Run:
    if options.train_rows < 1:
        raise SettingsError(f"--train-rows: must be 1 or more, not {options.train_rows}")
    for name in ("replay", "model"):
        path: Path | None = getattr(options, name)
        if path is not None and not path.exists():
            raise SettingsError(f"--{name} {path}: does not exist")
    return Run(
        scenario=options.scenario,
        replay=str(options.replay.absolute()) if options.replay else "",
        model=str(options.model.absolute()) if options.model else "",
        train_rows=options.train_rows,
        speed=options.speed,
        seed=options.seed,
    )


def _new_data_dir(run: Run) -> Path:
    stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    return Path("wheeltapper-data") / f"{run.thing}-seed{run.seed}-{stamp}-{os.getpid()}"


def _check_extras(*, own_broker: bool) -> None:
    for library in (*_NEEDED, *(("iotcore",) if own_broker else ())):
        if find_spec(library) is None:
            raise MissingExtraError("all", library)


def _check_broker(url: str) -> None:
    from wheeltapper.transport.settings import BrokerSettings

    host, port = BrokerSettings(url=url).host_and_port()
    try:
        socket.create_connection((host, port), timeout=5.0).close()
    except OSError as error:
        raise UnavailableError(
            f"broker {host}:{port}: cannot be reached ({error}); start it, or leave --broker out to use our own"
        ) from error


def _train(run: Run, data_dir: Path) -> None:
    done = subprocess.run(
        [*plan.training_command(run, data_dir)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["training failed"]
        raise SettingsError(lines[-1].removeprefix("wheeltapper: "))


@contextlib.contextmanager
def _stop_on_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set; a second Ctrl-C interrupts."""
    stop = threading.Event()

    def set_stop(number: int, _frame: FrameType | None) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, set_stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _output(as_json: bool, run: Run, data_dir: Path) -> Iterator[Callable[[Event], None]]:
    """Where events go: JSON lines, the live view at a terminal, else a line for what matters."""
    if as_json:
        yield _print_json
    elif sys.stdout.isatty():
        with _live_view(run, data_dir) as show:
            yield show
    else:
        print(
            f"wheeltapper up: {run.thing}, data in {data_dir}, what the processes say in {data_dir / LOGS}", flush=True
        )
        yield _Lines().show


def _print_json(event: Event) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(event) + b"\n")
    sys.stdout.buffer.flush()


class _Lines:
    """A line for what matters: alarms, changes of state, and how the processes fare when that changes."""

    def __init__(self) -> None:
        self._status: dict[tuple[str, str], object] = {}

    def show(self, event: Event) -> None:
        line = self._line(event)
        if line:
            print(line, flush=True)

    def _line(self, event: Event) -> str:
        kind, thing = event["kind"], str(event["thing"])
        if kind == "alarm":
            shares = ", ".join(
                f"{each['sensor']} {each['share']:.0%}" for each in (event.get("contributions") or [])[:3]
            )
            return f"alarm: {thing} {event.get('state')}: {shares}; because {event.get('condition')}"
        if kind == "state":
            return f"state: {thing} {event.get('from_state') or '(new)'} → {event.get('state')}"
        if kind != "health":
            return ""
        return self._news(thing, str(event.get("process")), event)

    def _news(self, thing: str, process: str, event: Event) -> str:
        status = event.get("status")
        if len(self._status) > _MOST_PROCESSES:
            self._status.clear()
        before, self._status[thing, process] = self._status.get((thing, process)), status
        if status == before:
            return ""
        name = thing if process == thing else f"{thing} ({process})"
        return f"health: {name} {status}" + (f": {event['detail']}" if event.get("detail") else "")


@contextlib.contextmanager
def _live_view(run: Run, data_dir: Path) -> Iterator[Callable[[Event], None]]:
    from rich.live import Live

    from wheeltapper.up.view import Picture

    picture = Picture(f"wheeltapper up – {run.thing}")
    with Live(get_renderable=picture.render, refresh_per_second=5, screen=False, vertical_overflow="crop"):
        yield picture.add
    print(f"data: {data_dir}; what the processes said: {data_dir / LOGS}")
