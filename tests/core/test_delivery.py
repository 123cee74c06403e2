"""The queue between the judge and the executors: what it survives, what it counts, what it never mixes up."""

import sqlite3
import threading

import pytest

from tests.core.judging import Bench
from tests.loopback import wait_until
from wheeltapper.clock import SystemClock
from wheeltapper.errors import MessageError, UnavailableError
from wheeltapper.judge import Action, ledger
from wheeltapper.judge.delivery import Delivery, DeliverySettings, Result
from wheeltapper.judge.executors import BrokerExecutor
from wheeltapper.transport.memory import MemoryBroker, MemoryTransport


def action(number=1, kind="sns"):
    return Action(
        id=f"{kind}-{number}", model="Motor", key="m1", thing="m1", event="e", type=kind, target="t", payload=b"{}",
        time_ms=number,
    )  # fmt: skip


class Scripted:
    """An executor that answers as told, the last answer for ever."""

    def __init__(self, *answers, immediate=False):
        self.answers = list(answers)
        self.immediate = immediate
        self.seen = []

    def execute(self, wanted, settled):
        self.seen.append(wanted.id)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        settled(answer)


class Judged:
    """Stands where the judge does: notes what became of actions, hands out what waits on disk."""

    def __init__(self):
        self.notes = []
        self.failing = 0
        self.waiting = []

    def settle(self, action_id, status, *, attempts=1, detail=""):
        if status != "pending":
            self.notes.append((action_id, status, attempts, detail))
            self.waiting = [each for each in self.waiting if each.id != action_id]

    def pending_actions(self, after=(0, ""), limit=1000):
        if self.failing:
            self.failing -= 1
            raise UnavailableError("judge: busy")
        return [each for each in self.waiting if (each.time_ms, each.id) > after][:limit]

    def attempts(self):
        return {}


@pytest.fixture
def running():
    """Starts deliveries with threads of their own, and ends them."""
    started = []

    def start(route, judge, **settings):
        delivery = Delivery(route, SystemClock(), DeliverySettings(first_delay_s=0.0, **settings))
        delivery.attach(judge)
        delivery.start()
        started.append(delivery)
        return delivery

    yield start
    for delivery in started:
        delivery.close()


def test_a_route_that_fails_harms_no_other_action_and_no_thread(running):
    good, judge = Scripted(Result("delivered")), Judged()

    def route(wanted):
        if wanted.id == "sns-1":
            raise RuntimeError("broken route")
        return good

    delivery = running(route, judge, threads=1, attempts=2)

    delivery.take([action(1), action(2)])
    wait_until(lambda: len(judge.notes) == 2)
    delivery.take([action(3)])
    wait_until(lambda: good.seen == ["sns-2", "sns-3"])

    assert ("sns-1", "parked", 2, "RuntimeError: broken route") in judge.notes


def test_a_judge_that_cannot_be_asked_ends_no_thread_and_loses_nothing_that_waits_on_disk(running):
    executor, judge = Scripted(Result("delivered")), Judged()
    judge.failing = 1
    judge.waiting = [action(number) for number in range(1, 5)]
    delivery = running(lambda _: executor, judge, threads=1, memory=2)

    delivery.take(judge.waiting)
    wait_until(lambda: len(set(executor.seen)) == 4)

    assert judge.failing == 0


def test_a_report_that_fails_changes_nothing(tmp_path):
    bench = Bench(tmp_path)
    executor, judge = Scripted(Result("delivered")), Judged()

    def report(_):
        raise RuntimeError("nobody listens")

    delivery = Delivery(lambda _: executor, bench.clock, report=report)
    delivery.attach(judge)
    delivery.take([action(1), action(2)])

    assert delivery.run_due() == 2
    assert [note[:2] for note in judge.notes] == [("sns-1", "delivered"), ("sns-2", "delivered")]
    assert delivery.waiting == 0


def test_an_executor_that_answers_twice_is_heard_once(tmp_path):
    class Twice(Scripted):
        def execute(self, wanted, settled):
            settled(Result("retry", "first"))
            raise MessageError("second")

    bench, judge = Bench(tmp_path), Judged()
    delivery = Delivery(lambda _: Twice(None), bench.clock, DeliverySettings(attempts=3), jitter=lambda: 1.0)
    delivery.attach(judge)
    delivery.take([action(1)])

    tried = 0
    for _ in range(20):
        tried += delivery.run_due()
        bench.clock.advance(1)

    assert tried == 3
    assert judge.notes[-1] == ("sns-1", "parked", 3, "first")


def test_an_action_that_the_broker_says_it_will_not_take_is_parked_with_the_reason(tmp_path):
    bench, judge, broker = Bench(tmp_path), Judged(), MemoryBroker()
    broker.refuses = lambda topic, _payload: topic == "t"
    transport = MemoryTransport(broker)
    transport.start()
    executor = BrokerExecutor(transport)
    delivery = Delivery(lambda _: executor, bench.clock, DeliverySettings(attempts=3))
    delivery.attach(judge)
    delivery.take([action(1)])

    for _ in range(20):
        delivery.run_due()
        broker.deliver()
        bench.clock.advance(10)

    assert judge.notes == [("sns-1", "parked", 3, "broker: refused: not authorized")]


def test_what_is_delivered_while_more_is_fetched_is_not_delivered_again(tmp_path):
    class Late(Scripted):
        """Answers when it is told to."""

        def __init__(self):
            super().__init__(None)
            self.open = []

        def execute(self, wanted, settled):
            self.seen.append(wanted.id)
            self.open.append(settled)

        def answer(self):
            while self.open:
                self.open.pop()(Result("delivered"))

    class Slow(Judged):
        """Reads, and while it reads the executor answers."""

        def pending_actions(self, after=(0, ""), limit=1000):
            found = super().pending_actions(after, limit)
            executor.answer()
            return found

    bench, executor, judge = Bench(tmp_path), Late(), Slow()
    judge.waiting = [action(number) for number in range(1, 9)]
    delivery = Delivery(lambda _: executor, bench.clock, DeliverySettings(memory=4))
    delivery.attach(judge)
    delivery.take(judge.waiting)
    delivery.run_due()
    executor.open.pop()(Result("delivered"))
    executor.open.pop()(Result("delivered"))

    for _ in range(10):
        delivery.run_due()
        executor.answer()

    assert sorted(executor.seen) == sorted({*executor.seen})
    assert len(executor.seen) == 8


def test_an_operator_may_have_thousands_of_attempts_made(tmp_path):
    bench, judge = Bench(tmp_path), Judged()
    settings = DeliverySettings(attempts=1500, first_delay_s=0.0)
    delivery = Delivery(lambda _: Scripted(Result("retry", "no route")), bench.clock, settings)
    delivery.attach(judge)
    delivery.take([action(1)])

    assert delivery.run_due() == 1500
    assert judge.notes == [("sns-1", "parked", 1500, "no route")]


def test_news_that_waits_for_a_broker_keeps_no_action_back(tmp_path):
    away, working = Scripted(Result("away"), immediate=True), Scripted(Result("delivered"))
    bench, judge = Bench(tmp_path), Judged()
    delivery = Delivery(
        lambda wanted: away if wanted.type == "publish" else working, bench.clock, DeliverySettings(memory=5)
    )
    delivery.attach(judge)

    delivery.take([action(number, "publish") for number in range(1, 20)])
    delivery.take([action(number) for number in range(1, 5)])
    delivery.run_due()

    assert [note[:2] for note in judge.notes] == [(f"sns-{number}", "delivered") for number in range(1, 5)]


def test_a_crowd_that_waits_for_a_broker_is_not_looked_at_all_the_time(tmp_path):
    away = Scripted(Result("away"), immediate=True)
    bench = Bench(tmp_path)
    delivery = Delivery(lambda _: away, bench.clock)
    delivery.attach(Judged())
    delivery.take([action(number, "publish") for number in range(5000)])
    away.seen.clear()

    for _ in range(50):
        bench.clock.advance(0.2)
        delivery.run_due()

    assert 5_000 <= len(away.seen) <= 30_000


@pytest.mark.parametrize("threads", [2, 8])
def test_a_target_that_hangs_delays_no_other(running, threads):
    class Hanging(Scripted):
        def execute(self, wanted, settled):
            self.seen.append(wanted.id)
            released.wait(60)
            settled(Result("delivered"))

    released, judge = threading.Event(), Judged()
    slow, quick = Hanging(None), Scripted(Result("delivered"))
    delivery = running(lambda wanted: slow if wanted.type == "sqs" else quick, judge, threads=threads)

    delivery.take([action(number, "sqs") for number in range(20)])
    wait_until(lambda: len(slow.seen) == threads // 2)
    delivery.take([action(number) for number in range(3)])
    wait_until(lambda: len(quick.seen) == 3)
    assert len(slow.seen) == threads // 2
    released.set()
    wait_until(lambda: delivery.waiting == 0)

    assert len(slow.seen) == len(set(slow.seen)) == 20


def test_many_targets_that_hang_delay_no_other(running):
    class Hanging(Scripted):
        def execute(self, wanted, settled):
            self.seen.append(wanted.id)
            released.wait(90)
            settled(Result("delivered"))

    released, judge = threading.Event(), Judged()
    slow, quick = [Hanging(None) for _ in range(5)], Scripted(Result("delivered"))
    delivery = running(lambda wanted: slow[int(wanted.type)] if wanted.type.isdigit() else quick, judge)

    delivery.take([action(number, str(kind)) for number in range(10) for kind in range(5)])
    wait_until(lambda: all(len(one.seen) == 4 for one in slow))
    delivery.take([action(number) for number in range(3)])
    wait_until(lambda: len(quick.seen) == 3)
    released.set()
    wait_until(lambda: delivery.waiting == 0)

    assert [len(set(one.seen)) for one in slow] == [10] * 5


def test_what_a_full_disk_refuses_to_order_is_carried_out_when_it_is_ordered_again(tmp_path, monkeypatch):
    bench = Bench(tmp_path)

    def full(*_arguments):
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(ledger, "write_actions", full)
        with pytest.raises(UnavailableError):
            bench.judge.order([action()])
    bench.judge.tick()

    assert bench.judge.pending_actions() == []
    assert [bench.judge.order([action()]) for _ in range(2)] == [1, 0]
    assert [each.id for each in bench.actions] == ["sns-1"]
    assert bench.judge.statistics().actions_pending == 1


def test_without_a_thread_to_be_had_actions_are_tried_one_after_the_other(running, monkeypatch):
    executor, judge = Scripted(Result("delivered")), Judged()
    delivery = running(lambda _action: executor, judge)
    start = threading.Thread.start

    def none_left(thread):
        if thread.name == "delivery-lane":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", none_left)
    delivery.take([action(1), action(2)])

    wait_until(lambda: len(judge.notes) == 2)
    assert [(name, status) for name, status, *_ in judge.notes] == [("sns-1", "delivered"), ("sns-2", "delivered")]


def persistent(bench, executor, **settings):
    delivery = Delivery(
        lambda wanted: None if wanted.type == "publish" else executor,
        bench.clock, DeliverySettings(**settings), jitter=lambda: 1.0,
    )  # fmt: skip
    delivery.attach(bench.judge)
    bench.deliver = delivery.take
    return delivery


def restart(bench, executor, **settings):
    """The process dies and comes again; a delivery can only ask the judge once it has it."""
    bench.judge.tick()
    found = []
    bench.deliver = found.extend
    bench.crash()
    delivery = persistent(bench, executor, **settings)
    delivery.take(found)
    return delivery


def outcomes(bench):
    return [(each.status, each.attempts, each.detail) for each in bench.judge.actions() if each.action.type == "sns"]


def test_attempts_are_counted_across_restarts(tmp_path):
    bench = Bench(tmp_path)
    bench.with_models()
    executor = Scripted(UnavailableError("no route"))
    delivery = persistent(bench, executor, attempts=4)
    bench.put(90.0)

    for _ in range(3):
        delivery.run_due()
        assert outcomes(bench)[0][0] == "pending"
        delivery = restart(bench, executor, attempts=4)
    delivery.run_due()

    assert outcomes(bench) == [("parked", 4, "no route")]
    assert len(executor.seen) == 4


def test_an_action_that_ends_the_process_each_time_is_parked_in_the_end(tmp_path):
    class Killed(BaseException):
        """Stands for kill -9: nothing of ours runs any more."""

    class Deadly:
        immediate = False
        tried = 0

        def execute(self, wanted, settled):
            self.tried += 1
            raise Killed

    bench = Bench(tmp_path)
    bench.with_models()
    executor = Deadly()
    delivery = persistent(bench, executor, attempts=3)
    bench.put(90.0)

    for _ in range(3):
        with pytest.raises(Killed):
            delivery.run_due()
        delivery = restart(bench, executor, attempts=3)
    delivery.run_due()

    assert executor.tried == 3
    status, attempts, detail = outcomes(bench)[0]
    assert (status, attempts) == ("parked", 3)
    assert "process ended" in detail


def test_an_action_that_is_replayed_begins_to_count_anew(tmp_path):
    bench = Bench(tmp_path)
    bench.with_models()
    executor = Scripted(*[UnavailableError("no route")] * 2, Result("delivered"))
    delivery = persistent(bench, executor, attempts=2, first_delay_s=0.0)
    bench.put(90.0)
    delivery.run_due()
    assert outcomes(bench) == [("parked", 2, "no route")]

    bench.judge.replay_actions([each.action.id for each in bench.judge.actions(["parked"])], by="ada")
    delivery.run_due()

    assert outcomes(bench) == [("delivered", 1, "")]
