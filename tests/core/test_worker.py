"""What is handed over to the judge is done, in order, once."""

import threading

import pytest

from tests.loopback import wait_until
from wheeltapper.errors import UnavailableError
from wheeltapper.judge import Message, Refusal
from wheeltapper.judge.core import Batch
from wheeltapper.judge.worker import Work, Worker


class Bench:
    """A worker whose work is noted."""

    def __init__(self):
        self.done: list[str] = []
        self.told: list[list[Refusal]] = []
        self.fails = False
        self.worker = Worker(self._work, lambda: 0.02)
        self.worker.start(thread=True)

    def batch(self, name: str) -> tuple[list[Message], object]:
        return [Message(name, b"{}")], self.told.append

    def _work(self, work: Work) -> None:
        if self.fails and work:
            raise ValueError("out of order")
        for each in work:
            if isinstance(each, Batch):
                self.done += [message.input for message in each.messages]
                each.finish([])
            else:
                each.run()


def test_what_was_handed_over_is_done_before_the_end_and_nothing_after():
    bench = Bench()
    for number in range(100):
        bench.worker.submit(Batch(*bench.batch(str(number))))

    first, second = bench.worker.close(), bench.worker.close()
    bench.worker.submit(Batch(*bench.batch("late")))
    bench.worker.submit_from(lambda: bench.batch("later"))

    assert (first, second) == (True, False)
    assert bench.done == [str(number) for number in range(100)]
    assert [refusals[0].detail for refusals in bench.told if refusals] == ["judge: closed", "judge: closed"]
    with pytest.raises(UnavailableError, match="closed"):
        bench.worker.ask(lambda: 1)


def test_many_threads_are_served_one_at_a_time_and_each_in_its_order():
    bench = Bench()

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
        mine = [done for done in bench.done if done.startswith(name)]
        assert mine == [f"{name}{number}" for number in range(200)]


def test_work_that_fails_is_refused_once_and_the_next_is_done():
    bench = Bench()
    bench.fails = True
    bench.worker.submit_from(lambda: bench.batch("lost"))
    wait_until(lambda: bool(bench.told))
    bench.fails = False

    bench.worker.submit_from(lambda: bench.batch("found"))
    bench.worker.close()

    assert bench.done == ["found"]
    assert [(refusals[0].reason, refusals[0].detail) for refusals in bench.told if refusals] == [
        ("unavailable", "judge: failed: out of order")
    ]


def test_a_source_that_fails_costs_nobody_else_anything():
    bench = Bench()

    def pull():
        raise ValueError("broken")

    bench.worker.submit_from(pull)
    bench.worker.submit(Batch(*bench.batch("next")))
    bench.worker.close()

    assert bench.done == ["next"]


def test_a_question_from_within_the_work_is_answered_at_once():
    answers = []
    worker = Worker(lambda work: answers.append(worker.ask(lambda: 7)) if work else None, lambda: 0.02)
    worker.start(thread=True)

    worker.submit(Batch([Message("reading", b"{}")], lambda _refusals: None))
    worker.close()

    assert answers == [7]
