"""Those without an outbox: what the broker hangs up on is found out and refused, and nothing else is lost or held up."""

from collections.abc import Iterator

import pytest

from tests.executing import action
from wheeltapper.clock import ManualClock
from wheeltapper.judge.delivery import Result
from wheeltapper.judge.executors import BrokerExecutor
from wheeltapper.transport import Refused
from wheeltapper.transport.careful import CarefulTransport
from wheeltapper.transport.memory import MemoryBroker


class Line:
    """A careful transport to a broker to which the connection mends itself 0.2 s after it broke."""

    def __init__(self) -> None:
        self.clock = ManualClock(1_795_000_000_000)
        self.broker = MemoryBroker()
        self.connection = self.broker.transport()
        self.connection.start()
        self.careful = CarefulTransport(self.connection, self.clock)
        self.outcomes: dict[str, bool | Refused] = {}
        self._down_s = 0.0

    def publish(self, topic: str, payload: str) -> None:
        def done(outcome: bool | Refused) -> None:
            assert payload not in self.outcomes
            self.outcomes[payload] = outcome

        self.careful.publish(topic, payload.encode(), done)

    def live(self, seconds: float, step_s: float = 0.05) -> int:
        """Let time pass; gives how often the broker hung up."""
        hung_up = 0
        end = self.clock.monotonic() + seconds
        while self.clock.monotonic() < end:
            self.careful.send_waiting()
            was_away = self.broker.away
            self.broker.deliver()
            hung_up += self.broker.away and not was_away
            if self.broker.away:
                self._down_s += step_s
                if self._down_s > 0.2:
                    self._down_s = 0.0
                    self.broker.come_back()
            self.clock.advance(step_s)
        return hung_up

    @property
    def arrived(self) -> list[str]:
        return [payload.decode() for _, payload in self.broker.published]

    @property
    def refused(self) -> dict[str, Refused]:
        return {payload: outcome for payload, outcome in self.outcomes.items() if isinstance(outcome, Refused)}


@pytest.fixture
def line() -> Iterator[Line]:
    it = Line()
    yield it
    it.careful.close()


def forbid(line: Line, *topics: str) -> None:
    line.broker.hangs_up_on = lambda topic, _payload: topic in topics


def test_what_the_broker_hangs_up_on_is_refused_for_good_and_the_others_go_on(line: Line) -> None:
    forbid(line, "forbidden")
    for topic, payload in [("a", "1"), ("forbidden", "2"), ("a", "3"), ("b", "4")]:
        line.publish(topic, payload)

    line.live(60)
    line.publish("a", "5")
    line.live(1)

    assert {payload for payload, outcome in line.outcomes.items() if outcome is True} == {"1", "3", "4", "5"}
    assert sorted(set(line.arrived)) == ["1", "3", "4", "5"]
    assert list(line.refused) == ["2"]
    assert line.refused["2"].final
    assert "hangs up" in line.refused["2"].reason
    assert "access rules" in line.refused["2"].reason


def test_what_follows_on_a_forbidden_topic_makes_the_broker_hang_up_no_more_for_a_while(line: Line) -> None:
    forbid(line, "forbidden")
    for payload in ("first", "second", "third"):
        line.publish("forbidden", payload)
    line.publish("a", "1")
    hung_up_before = line.live(40)

    for number in range(10):
        line.publish("forbidden", f"f{number}")
        line.publish("a", f"a{number}")
    hung_up = line.live(10)

    assert hung_up_before < 12
    assert hung_up == 0
    assert set(line.refused) == {"first", "second", "third", *(f"f{number}" for number in range(10))}
    assert [payload for payload in line.arrived if payload[0] == "a"] == [f"a{number}" for number in range(10)]


def test_a_topic_that_is_allowed_again_is_used_again_after_a_while(line: Line) -> None:
    forbid(line, "b")
    line.publish("b", "0")
    line.publish("b", "1")
    line.publish("a", "2")
    line.live(40)
    told = line.careful.refusing

    forbid(line)
    line.live(70)
    line.publish("b", "3")
    line.live(5)

    assert "hangs up on b" in told
    assert line.outcomes["3"] is True
    assert line.careful.refusing == ""


def test_one_message_too_long_for_the_broker_does_not_take_its_topic_along(line: Line) -> None:
    line.broker.hangs_up_on = lambda _topic, payload: len(payload) > 10
    line.publish("a", "far too long for it")
    line.publish("a", "short")
    line.live(40)
    line.publish("a", "brief")
    line.live(5)

    assert list(line.refused) == ["far too long for it"]
    assert (line.outcomes["short"], line.outcomes["brief"]) == (True, True)


def test_an_outage_refuses_nothing_and_loses_nothing(line: Line) -> None:
    for number in range(50):
        line.publish("ab"[number % 2], str(number))
    line.broker.go_away()
    line.live(30)

    assert line.refused == {}
    assert set(line.arrived) == {str(number) for number in range(50)}
    assert all(outcome is True for outcome in line.outcomes.values())


def test_a_broker_that_lets_nothing_pass_is_left_alone_for_longer_and_longer(line: Line) -> None:
    line.broker.hangs_up_on = lambda _topic, _payload: True
    for number in range(20):
        line.publish(f"t{number}", str(number))

    line.live(300)
    hung_up = line.live(300)
    told = line.careful.refusing
    forbid(line)
    line.live(60)

    assert hung_up < 40
    assert told
    assert line.refused == {}
    assert all(line.outcomes[str(number)] is True for number in range(20))


def test_who_publishes_while_the_broker_is_away_is_told_so_at_once(line: Line) -> None:
    line.broker.go_away()

    line.publish("a", "1")

    assert line.outcomes == {"1": False}


def test_words_that_nobody_waits_for_do_not_pile_up(line: Line) -> None:
    line.broker.hangs_up_on = lambda _topic, _payload: True
    line.publish("a", "first")
    line.live(0.3)
    for _ in range(5_000):
        if line.careful.connected:
            line.careful.publish("health", b"x")
        line.live(0.05)

    assert len(line.careful._backlog) < 1_100


def test_closing_tells_everybody_who_waits(line: Line) -> None:
    forbid(line, "forbidden")
    line.publish("forbidden", "1")
    line.live(3)

    line.careful.close()

    assert line.outcomes == {"1": False}


def test_a_refusal_by_name_is_passed_on(line: Line) -> None:
    line.broker.refuses = lambda _topic, _payload: True
    line.publish("a", "1")
    line.live(1)

    assert line.outcomes == {"1": Refused("not authorized")}


def test_a_refusal_by_name_of_what_is_sent_again_is_passed_on_too(line: Line) -> None:
    line.publish("a", "1")
    line.broker.go_away()
    line.broker.refuses = lambda topic, _payload: topic == "a"
    line.live(1)
    line.publish("a", "2")
    line.publish("b", "3")
    line.live(1)

    assert line.outcomes == {"1": Refused("not authorized"), "2": Refused("not authorized"), "3": True}
    assert line.careful.refusing == ""


def test_an_action_that_was_refused_for_good_is_parked_at_once(line: Line) -> None:
    executor = BrokerExecutor(line.careful)
    forbid(line, "forbidden")
    results: list[Result] = []
    executor.execute(action("iotTopicPublish", "forbidden"), results.append)
    line.publish("a", "1")

    line.live(60)

    assert [result.outcome for result in results] == ["parked"]
    assert "hangs up" in results[0].detail
