"""Whose turn it is in the judge."""

import threading
import time

import pytest

from wheeltapper.clock import ManualClock, SystemClock
from wheeltapper.errors import UnavailableError
from wheeltapper.judge import Message, Refusal
from wheeltapper.judge.core import Batch
from wheeltapper.judge.worker import Work, Worker


class Bench:
    """A worker whose work is noted, with the thread that did it."""

    def __init__(self, clock=None, patience_s=0.02):
        self.done: list[tuple[str, str]] = []
        self.told: list[list[Refusal]] = []
        self.fails = False
        self.finished = threading.Event()
        self.worker = Worker(self._work, lambda: patience_s, clock or SystemClock())

    def batch(self, name: str) -> tuple[list[Message], object]:
        return [Message(name, b"{}")], self.told.append

    def _work(self, work: Work) -> None:
        if self.fails:
            raise ValueError("out of order")
        for each in work:
            if isinstance(each, Batch):
                self.done += [(message.input, threading.current_thread().name) for message in each.messages]
                each.finish([])
            else:
                each.run()
        if self.done:
            self.finished.set()


def test_a_source_that_breaks_the_quiet_is_judged_on_its_own_thread():
    bench = Bench()
    bench.worker.start(thread=True)

    bench.worker.submit_from(lambda: bench.batch("reading"))

    assert bench.done == [("reading", threading.current_thread().name)]
    bench.worker.close()


def test_a_source_right_behind_others_waits_for_the_thread():
    bench = Bench(ManualClock())  # on which no quiet ever passes after the first
    bench.worker.start(thread=True)
    bench.worker.submit_from(lambda: bench.batch("first"))

    bench.worker.submit_from(lambda: bench.batch("second"))
    bench.worker.close()

    assert bench.done == [("first", threading.current_thread().name), ("second", "judge")]


def test_a_source_in_the_quiet_does_not_overtake_what_the_thread_has_in_hand():
    clock = ManualClock()
    bench = Bench(clock, patience_s=60.0)
    bench.worker.start(thread=True)

    def pull():
        bench.worker.submit(Batch(*bench.batch("second")))
        until = time.monotonic() + 1.0
        while bench.worker.depth and time.monotonic() < until:  # then the thread has it, and waits for its turn
            time.sleep(0.001)
        return bench.batch("first")

    time.sleep(0.05)  # the thread waits for work by then
    bench.worker.submit_from(pull)
    clock.advance(1.0)
    bench.worker.submit_from(lambda: bench.batch("third"))
    bench.worker.close()

    assert [name for name, _thread in bench.done] == ["first", "second", "third"]


def test_what_was_handed_over_is_done_before_the_end_and_nothing_after():
    bench = Bench()
    bench.worker.start(thread=True)
    for number in range(100):
        bench.worker.submit(Batch(*bench.batch(str(number))))

    first, second = bench.worker.close(), bench.worker.close()
    bench.worker.submit(Batch(*bench.batch("late")))
    bench.worker.submit_from(lambda: bench.batch("later"))

    assert (first, second) == (True, False)
    assert [name for name, _thread in bench.done] == [str(number) for number in range(100)]
    assert [refusals[0].detail for refusals in bench.told if refusals] == ["judge: closed", "judge: closed"]
    with pytest.raises(UnavailableError, match="closed"):
        bench.worker.ask(lambda: 1)


def test_many_threads_are_served_one_at_a_time_and_each_in_its_order():
    bench = Bench()
    bench.worker.start(thread=True)

    def hand_over(name: str) -> None:
        for number in range(200):
            bench.worker.submit_from(lambda number=number: bench.batch(f"{name}{number}"))
            bench.worker.ask(lambda: None)

    threads = [threading.Thread(target=hand_over, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    bench.worker.close()

    for name in "abc":
        mine = [done for done, _thread in bench.done if done.startswith(name)]
        assert mine == [f"{name}{number}" for number in range(200)]


def test_work_that_fails_is_refused_once_and_the_next_is_done():
    bench = Bench()
    bench.worker.start(thread=True)
    bench.fails = True
    bench.worker.submit_from(lambda: bench.batch("lost"))
    bench.fails = False

    bench.worker.submit_from(lambda: bench.batch("found"))
    bench.worker.close()

    assert [done for done, _thread in bench.done] == ["found"]
    assert [(refusals[0].reason, refusals[0].detail) for refusals in bench.told if refusals] == [
        ("unavailable", "judge: failed: out of order")
    ]


def test_a_source_that_fails_costs_nobody_else_anything():
    bench = Bench()
    bench.worker.start(thread=True)

    def pull():
        raise ValueError("broken")

    bench.worker.submit_from(pull)
    bench.worker.submit(Batch(*bench.batch("next")))
    bench.worker.close()

    assert [done for done, _thread in bench.done] == ["next"]


def test_a_question_from_within_the_work_is_answered_at_once():
    answers = []
    worker = Worker(lambda work: answers.append(worker.ask(lambda: 7)) if work else None, lambda: 0.02, SystemClock())
    worker.start(thread=True)

    worker.submit(Batch([Message("reading", b"{}")], lambda _refusals: None))
    worker.close()

    assert answers == [7]


def test_what_falls_due_sooner_because_of_a_source_is_done_in_time():
    patience = [3600.0]
    due = threading.Event()

    def work(items: Work) -> None:
        if items:
            patience[0] = 0.01
        else:
            due.set()

    worker = Worker(work, lambda: patience[0], SystemClock())
    worker.start(thread=True)
    worker.submit_from(lambda: ([Message("reading", b"{}")], lambda _refusals: None))

    assert due.wait(10)
    patience[0] = 3600.0
    worker.close()
