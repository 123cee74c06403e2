"""The sender sets aside what the broker will not take, and nothing else: not what a bad link merely delays."""

import random
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.loopback import wait_until
from wheeltapper.clock import ManualClock
from wheeltapper.inquiry import CALM_S
from wheeltapper.outbox import Entry, Outbox, Put
from wheeltapper.outbox_commands import read_refused, requeue
from wheeltapper.sender import Sender
from wheeltapper.transport.memory import MemoryBroker


class Line:
    """An outbox, its sender and a broker to which the connection mends itself 0.2 s after it broke."""

    def __init__(self, folder: Path, *, window: int = 8) -> None:
        self.path = folder / "outbox.db"
        self.clock = ManualClock(1_795_000_000_000)
        self.broker = MemoryBroker()
        self.outbox = Outbox(self.path, flush=False, clock=self.clock)
        transport = self.broker.transport()
        transport.start()
        self.sender = Sender(self.outbox, transport, window=window, clock=self.clock)
        self._down_s = 0.0

    def put(self, *messages: tuple[str, str]) -> None:
        self.outbox.put_and_wait([Put(topic, payload.encode()) for topic, payload in messages])

    def live(self, seconds: float, *, step_s: float = 0.05, breaks: Callable[[], bool] = lambda: False) -> None:
        """Let time pass; ``breaks`` is asked at every step whether the connection breaks of itself."""
        end = self.clock.monotonic() + seconds
        while self.clock.monotonic() < end:
            self.sender.send_waiting()
            if breaks():
                self.broker.go_away()
            self.broker.deliver()
            if self.broker.away:
                self._down_s += step_s
                if self._down_s > 0.2:
                    self._down_s = 0.0
                    self.broker.come_back()
            self.clock.advance(step_s)

    @property
    def arrived(self) -> list[str]:
        return [payload.decode() for _, payload in self.broker.published]

    @property
    def refused(self) -> list[str]:
        self.outbox.put_and_wait([])
        return [entry.payload.decode() for entry in read_refused(self.path)]

    def close(self) -> None:
        self.sender.close()
        self.outbox.close()


@contextmanager
def opened(folder: Path, **told: int) -> Iterator[Line]:
    line = Line(folder, **told)
    yield line
    line.close()


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    with opened(tmp_path) as it:
        yield it


def forbids(*topics: str) -> Callable[[str, bytes], bool]:
    return lambda topic, _payload: topic in topics


def test_an_entry_on_which_the_broker_hangs_up_is_set_aside_and_the_rest_goes_on(line: Line) -> None:
    line.broker.hangs_up_on = forbids("forbidden")
    line.put(("a", "1"), ("a", "2"), ("forbidden", "3"), ("a", "4"), ("b", "5"))

    line.live(60)

    assert sorted(set(line.arrived)) == ["1", "2", "4", "5"]
    assert line.refused == ["3"]
    assert (len(line.outbox), line.outbox.refused) == (0, 1)


def test_an_entry_that_the_broker_refuses_by_name_is_set_aside_with_the_reason(line: Line) -> None:
    line.broker.refuses = forbids("forbidden")
    line.put(("forbidden", "1"), ("a", "2"))

    line.live(20)

    assert line.refused == ["1"]
    (refused,) = read_refused(line.path)
    assert (refused.topic, refused.payload, refused.reason) == ("forbidden", b"1", "not authorized")
    assert line.arrived.count("2") == 1
    assert line.sender.trouble == "1 messages refused and set aside, see: wheeltapper outbox show"


def test_a_refusal_that_passes_sets_nothing_aside(line: Line) -> None:
    line.broker.refuses = forbids("a")
    line.put(("a", "1"), ("a", "2"))
    line.live(2)

    line.broker.refuses = forbids()
    line.live(10)

    assert list(dict.fromkeys(line.arrived)) == ["1", "2"]
    assert line.refused == []


def test_a_broker_that_hangs_up_on_everything_is_waited_for(line: Line) -> None:
    line.broker.hangs_up_on = lambda _topic, _payload: True
    everything = [(topic, f"{topic}{number}") for number in range(10) for topic in "abc"]
    line.put(*everything)

    line.live(600)
    assert line.refused == []
    assert line.sender.trouble
    line.broker.hangs_up_on = forbids()
    line.live(60)

    assert list(dict.fromkeys(line.arrived)) == [payload for _, payload in everything]
    assert line.sender.trouble == ""


def test_an_entry_behind_which_nothing_waits_is_not_set_aside(line: Line) -> None:
    line.broker.hangs_up_on = forbids("forbidden")
    line.put(("forbidden", "1"))

    line.live(120)
    before = line.refused
    line.put(("a", "2"))
    line.live(30)

    assert before == []
    assert (line.refused, line.arrived) == (["1"], ["2"])


def test_the_only_other_entry_is_tried_again_where_it_failed_by_chance(line: Line) -> None:
    unlucky = iter([True])
    line.broker.hangs_up_on = lambda topic, _payload: topic == "forbidden" or next(unlucky, False)
    line.put(("forbidden", "1"), ("a", "2"))

    line.live(120)

    assert (line.refused, line.arrived) == (["1"], ["2"])


def test_while_nothing_passes_the_broker_is_made_to_hang_up_less_and_less(line: Line) -> None:
    hung_up: list[float] = []

    def refuse(_topic: str, _payload: bytes) -> bool:
        hung_up.append(line.clock.monotonic())
        return True

    line.broker.hangs_up_on = refuse
    line.put(("a", "1"))

    line.live(600)

    pauses = [later - earlier for earlier, later in pairwise(hung_up)]
    assert max(pauses[:5]) < 5
    assert min(pauses[-5:]) > 25


def test_further_entries_of_a_forbidden_topic_cost_little(line: Line) -> None:
    line.broker.hangs_up_on = forbids("forbidden")
    line.put(("forbidden", "first"), ("a", "0"))
    line.live(60)

    for number in range(1, 21):
        line.put(("forbidden", f"f{number}"), ("a", f"a{number}"))
        line.live(1)
    line.live(5)

    assert len(line.outbox) == 0
    assert line.refused == ["first", *(f"f{number}" for number in range(1, 21))]


def test_a_forbidden_topic_that_is_allowed_again_is_sent_again(line: Line) -> None:
    line.broker.hangs_up_on = forbids("b")
    line.put(("b", "1"), ("a", "2"))
    line.live(60)

    line.broker.hangs_up_on = forbids()
    line.put(("b", "3"), ("a", "4"), ("b", "5"))
    line.live(5)

    assert line.arrived[-3:] == ["3", "4", "5"]
    assert line.refused == ["1"]


def test_one_message_too_long_for_the_broker_does_not_take_its_topic_along(line: Line) -> None:
    line.broker.hangs_up_on = lambda _topic, payload: len(payload) > 10
    line.put(("a", "short"), ("a", "far too long for it"), ("a", "brief"), ("a", "curt"))

    line.live(60)

    assert set(line.arrived) == {"short", "brief", "curt"}
    assert line.refused == ["far too long for it"]


@pytest.mark.parametrize("mean_life_s", [0.1, 0.5, 2.0, 5.0, 20.0])
def test_a_link_that_breaks_by_itself_delays_and_sets_nothing_aside(tmp_path: Path, mean_life_s: float) -> None:
    chance = random.Random(7)
    with opened(tmp_path) as line:
        sent = [("ab"[number % 2], str(number)) for number in range(200)]
        line.put(*sent)

        line.live(2_000, breaks=lambda: chance.random() < 0.05 / mean_life_s)
        line.live(5)

        assert line.refused == []
        assert set(line.arrived) == {payload for _, payload in sent}


def test_a_broker_that_stalls_until_the_keep_alive_ends_it_sets_nothing_aside(line: Line) -> None:
    line.put(*(("ab"[number % 2], str(number)) for number in range(10)))
    for _ in range(50):
        line.sender.send_waiting()
        line.clock.advance(45.0)
        line.broker.go_away()
        line.sender.send_waiting()
        line.broker.come_back()
        line.sender.send_waiting()
        line.clock.advance(CALM_S)

    assert line.refused == []


def test_lost_acknowledgements_alone_set_nothing_aside(line: Line) -> None:
    line.broker.lose_acknowledgements = 500
    line.put(("a", "1"), ("b", "2"))

    line.live(60)

    assert line.refused == []
    assert len(line.outbox) == 0


def test_a_topic_that_cannot_be_published_on_holds_up_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as line:
        transport = line.sender._transport
        publish = transport.publish

        def strict(topic: str, payload: bytes, done: Callable[..., None] | None = None) -> None:
            if "#" in topic:
                raise ValueError("publish topic cannot contain wildcards")
            publish(topic, payload, done)

        transport.publish = strict  # type: ignore[method-assign]
        line.put(("a/#", "1"), ("a", "2"))

        line.live(20)

        assert (line.arrived, line.refused) == (["2"], ["1"])


def test_a_disk_that_cannot_be_read_for_a_moment_ends_no_sender(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    peek, failures = line.outbox.peek, [sqlite3.OperationalError("disk I/O error")]

    def failing(limit: int, after_id: int = 0) -> list[Entry]:
        if failures:
            raise failures.pop()
        return peek(limit, after_id)

    monkeypatch.setattr(line.outbox, "peek", failing)
    line.put(("a", "1"))
    line.sender.start()
    wait_until(lambda: line.broker.deliver() > 0)

    assert line.arrived == ["1"]


def test_a_transport_that_takes_nothing_for_now_is_not_asked_all_the_time(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    pauses: list[float] = []
    transport, grown = line.sender._transport, line.outbox.grown
    publish, wait = transport.publish, grown.wait

    def choked(topic: str, payload: bytes, done: Callable[..., None] | None = None) -> None:
        asked.append(topic)
        if len(asked) > 20:
            publish(topic, payload, done)
        elif done is not None:
            done(False)

    def waiting(timeout_s: float) -> bool:
        pauses.append(timeout_s)
        return wait(timeout_s)

    monkeypatch.setattr(transport, "publish", choked)
    line.put(("a", "1"))
    monkeypatch.setattr(grown, "wait", waiting)
    line.sender.start()
    wait_until(lambda: len(asked) > 20)

    assert len(pauses) >= 19


EVENTS = st.lists(st.sampled_from(["put", "break", "lose", "wait", "allow", "forbid", "requeue"]), max_size=25)


@settings(max_examples=30, deadline=None)
@given(EVENTS, st.sampled_from(["hangs_up_on", "refuses"]), st.sets(st.sampled_from("abc"), max_size=3))
def test_every_message_has_arrived_or_waits_or_is_kept_aside(events: list[str], way: str, bad: set[str]) -> None:
    with tempfile.TemporaryDirectory() as folder, opened(Path(folder), window=4) as line:
        setattr(line.broker, way, forbids(*bad))
        put: set[str] = set()
        for event in events:
            if event == "put":
                fresh = [("abc"[number % 3], str(number)) for number in range(len(put), len(put) + 4)]
                put |= {payload for _, payload in fresh}
                line.put(*fresh)
            elif event == "break":
                line.sender.send_waiting()
                line.broker.go_away()
            elif event == "lose":
                line.broker.lose_acknowledgements = 3
            elif event == "requeue":
                line.outbox.put_and_wait([])
                requeue(line.path)
            elif event in ("allow", "forbid"):
                setattr(line.broker, way, forbids(*(bad if event == "forbid" else ())))
            else:
                line.live(15, step_s=0.2)
        line.outbox.put_and_wait([])
        waiting = {entry.payload.decode() for entry in line.outbox.peek(1_000)}

        assert {*line.arrived, *line.refused} | waiting == put
        assert not {*line.refused} & waiting
