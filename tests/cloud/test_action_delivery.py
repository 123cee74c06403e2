"""Actions are tried again, parked, refused or kept on disk, each under one id."""

from tests.core.judging import Bench
from wheeltapper.errors import MessageError, UnavailableError
from wheeltapper.judge.delivery import Delivery, DeliverySettings, Result


class Scripted:
    """An executor that answers as told."""

    immediate = False

    def __init__(self, *answers):
        self.answers = list(answers)
        self.seen = []

    def execute(self, wanted, settled):
        self.seen.append(wanted.id)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        settled(answer)


def delivered_by(tmp_path, executor, **settings):
    """A judge whose actions go to one executor; news goes nowhere."""
    bench = Bench(tmp_path)
    reports = []
    delivery = Delivery(
        lambda wanted: executor if wanted.type != "publish" else Scripted(Result("delivered")),
        bench.clock, DeliverySettings(**settings), report=reports.append, jitter=lambda: 1.0,
    )  # fmt: skip
    delivery.attach(bench.judge)
    bench.deliver = delivery.take
    bench.with_models()
    return bench, delivery, reports


def statuses(bench, kind="sns"):
    return [(found.status, found.attempts) for found in bench.judge.actions() if found.action.type == kind]


def test_an_action_is_tried_again_until_it_is_delivered_under_one_id(tmp_path):
    executor = Scripted(UnavailableError("away"), Result("retry", "busy"), Result("delivered"))
    bench, delivery, reports = delivered_by(tmp_path, executor)
    bench.put(90.0)

    for _ in range(10):
        delivery.run_due()
        bench.clock.advance(1)

    assert len(set(executor.seen)) == 1
    assert len(executor.seen) == 3
    assert statuses(bench) == [("delivered", 3)]
    assert [(report.type, report.outcome, report.thing) for report in reports] == [("sns", "delivered", "m1")]


def test_pauses_double(tmp_path):
    executor = Scripted(*[Result("retry")] * 4, Result("delivered"))
    bench, delivery, _ = delivered_by(tmp_path, executor, first_delay_s=10)
    bench.put(90.0)

    tried_at = []
    for second in range(200):
        tried_at += [second] * delivery.run_due()
        bench.clock.advance(1)

    assert [second for second in tried_at if second] == [10, 30, 70, 150]


def test_after_too_many_attempts_it_is_parked_and_can_be_replayed(tmp_path):
    executor = Scripted(*[Result("retry", "no route")] * 3, Result("delivered"))
    bench, delivery, _ = delivered_by(tmp_path, executor, attempts=3)
    bench.put(90.0)
    for _ in range(20):
        delivery.run_due()
        bench.clock.advance(1)
    assert statuses(bench) == [("parked", 3)]
    assert bench.judge.statistics().actions_parked == 1

    parked = bench.judge.actions(["parked"])[0]
    assert bench.judge.replay_actions([parked.action.id], by="ada") == 1
    delivery.run_due()

    assert statuses(bench) == [("delivered", 1)]


def test_a_refusal_is_not_repeated(tmp_path):
    executor = Scripted(MessageError("no such topic"))
    bench, delivery, _ = delivered_by(tmp_path, executor)
    bench.put(90.0)
    delivery.run_due()

    found = bench.judge.actions(["failed"])[0]

    assert found.detail == "no such topic"


def test_what_nobody_carries_out_is_shown_as_undelivered(tmp_path):
    bench, _, reports = delivered_by(tmp_path, None)

    bench.put(90.0)

    assert statuses(bench) == [("undelivered", 1)]
    assert reports[0].outcome == "undelivered"


def test_a_target_that_is_away_uses_up_no_attempts(tmp_path):
    executor = Scripted(*[Result("away")] * 30, Result("delivered"))
    bench, delivery, _ = delivered_by(tmp_path, executor, attempts=2)
    bench.put(90.0)

    for _ in range(40):
        delivery.run_due()
        bench.clock.advance(1)

    assert statuses(bench) == [("delivered", 1)]


def test_more_than_memory_holds_waits_on_disk(tmp_path):
    executor = Scripted(*[Result("delivered")] * 100)
    bench, delivery, _ = delivered_by(tmp_path, executor, memory=5)
    for number in range(12):
        bench.put(90.0, key=f"m{number}")

    for _ in range(60):
        delivery.run_due()
        bench.clock.advance(1)

    assert {status for status, _ in statuses(bench)} == {"delivered"}
    assert len(set(executor.seen)) == 12
