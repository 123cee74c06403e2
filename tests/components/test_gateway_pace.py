"""The gateway brings readings to the pace that a model was taught, and says who does not keep it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.components.memory_gateway import MemoryGateway
from tests.components.small_models import write_small_model
from wheeltapper_components.settings import ModelSettings, OrderSettings

Make = Callable[..., MemoryGateway]
T0 = 1_700_000_000_000


@pytest.fixture
def make(tmp_path: Path) -> Any:
    gateways: list[MemoryGateway] = []

    def make(folder: str = "one", model: dict[str, Any] | None = None, **settings: Any) -> MemoryGateway:
        written = tmp_path / folder / "model"
        write_small_model(written, **({"period_ms": 1000} if model is None else model))
        if model is None:
            settings.setdefault("models", [ModelSettings(things=["*"], folder=written, period_s="card")])
        gateways.append(MemoryGateway(tmp_path / folder, **settings))
        return gateways[-1]

    yield make
    for gateway in gateways:
        gateway.close()


def put(gateway: MemoryGateway, time_ms: int, thing: str = "motor-1", **values: Any) -> None:
    gateway.send_raw(
        json.dumps({"message_id": f"{thing}-{time_ms}", "time_ms": T0 + time_ms, **values}).encode(), thing
    )


def put_bare(gateway: MemoryGateway, count: int, step_s: float) -> None:
    """Readings that carry no time, as far apart as their arrivals."""
    for _ in range(count):
        gateway.send_raw(b'{"TT01": 50.0, "TT02": 1.0, "note": "time_ms"}')
        gateway.run()
        gateway.clock.advance(step_s)


def put_live(gateway: MemoryGateway, count: int, step_s: float, thing: str = "motor-1") -> None:
    """Readings taken as they arrive."""
    for _ in range(count):
        put(gateway, gateway.clock.time_ms() - T0, thing, TT01=50.0, TT02=1.0)
        gateway.run()
        gateway.clock.advance(step_s)


def health_of(gateway: MemoryGateway) -> dict[str, Any]:
    gateway.inference.pulse.beat()
    gateway.run()
    return gateway.heard("health")[-1]


def scores(gateway: MemoryGateway) -> list[float]:
    return [told["score"] for told in gateway.heard()]


def ids(gateway: MemoryGateway) -> list[int]:
    return [int(reading_id.rsplit("-", 1)[1]) for reading_id in gateway.scored()]


def test_a_machine_that_sends_ten_times_as_fast_is_scored_as_one_that_keeps_pace(make: Make) -> None:
    fast, right = make("fast"), make("right")

    for second in range(10):
        put(right, 1000 * second, TT01=50.0 + second, TT02=1.0)
        for tenth in range(10):
            put(fast, 1000 * second + 100 * tenth, TT01=50.0 + second + (200 if tenth else 0), TT02=1.0)
    fast.run()
    right.run()

    assert scores(fast) == scores(right)
    assert ids(fast) == [1000 * second for second in range(1, 10)]
    assert fast.inference.counts.merged == 90
    assert fast.device.unacknowledged == 0


def test_readings_at_the_models_pace_are_scored_one_by_one_as_without_one(make: Make) -> None:
    paced, plain = make("paced"), make("plain", {})

    for gateway in (paced, plain):
        for second in range(20):
            put(gateway, 1000 * second + (second * 37) % 150, TT01=50.0 + second, TT02=1.0)
            gateway.run()

    assert paced.scored() == plain.scored()
    assert scores(paced) == scores(plain)


def test_sensors_in_messages_of_their_own_are_scored_together(make: Make) -> None:
    apart, whole = make("apart"), make("whole")

    for second in range(10):
        put(whole, 1000 * second, TT01=50.0 + second, TT02=1.0 + second)
        put(apart, 1000 * second, TT01=50.0 + second)
        put(apart, 1000 * second + 30, TT02=1.0 + second)
    apart.run()
    whole.run()

    assert len(scores(apart)) == len(scores(whole))
    assert scores(apart)[-1] == pytest.approx(scores(whole)[-1], rel=0.01)


def test_strings_of_every_message_of_a_row_come_with_its_prediction(make: Make) -> None:
    gateway = make()

    for second in range(4):
        put(gateway, 1000 * second, TT01=50.0, motorType="pump")
        put(gateway, 1000 * second + 30, TT02=1.0, motorID="17")
    gateway.run()

    assert gateway.heard()[-1]["attributes"] == {"motorType": "pump", "motorID": "17"}


def test_a_resampled_model_scores_the_means_of_its_periods(make: Make) -> None:
    means, plain = make("means", {"rate": "PT1S"}), make("plain")

    for step in range(40):
        put(means, 250 * step, TT01=50.0 + step, TT02=1.0)
    put(plain, 0, TT01=50.0, TT02=1.0)
    for second in range(1, 10):
        put(plain, 1000 * second, TT01=50.0 + 4 * second - 1.5, TT02=1.0)
    means.run()
    plain.run()

    assert scores(means) == scores(plain)


def test_after_a_gap_the_model_warms_up_again(make: Make) -> None:
    gateway = make()

    for second in (0, 1, 2, 60, 61):
        put(gateway, 1000 * second, TT01=50.0, TT02=1.0)
    gateway.run()

    assert ids(gateway) == [1000, 2000, 61_000]
    assert gateway.inference.counts.restarts == 1


def test_a_machine_that_is_too_slow_is_not_scored_and_health_says_the_remedy(make: Make) -> None:
    gateway = make()

    for place in range(30):
        put(gateway, 5000 * place, TT01=50.0, TT02=1.0)
    gateway.run()
    health = health_of(gateway)

    assert health["status"] == "degraded"
    assert (
        "motor-1 is not scored: it sends every 5 s and motor 1.0.0 judges a reading every 1 s: send as"
        in health["detail"]
    )
    assert gateway.inference.counts.slow > 20


def test_a_machine_that_keeps_pace_again_is_scored_again_and_health_is_well(make: Make) -> None:
    gateway = make()
    for place in range(30):
        put(gateway, 5000 * place, TT01=50.0, TT02=1.0)

    for second in range(20):
        put(gateway, 150_000 + 1000 * second, TT01=50.0, TT02=1.0)
    gateway.run()
    health = health_of(gateway)

    assert ids(gateway)[-5:] == [150_000 + 1000 * second for second in range(15, 20)]
    assert health["status"] == "ready"


def test_a_row_in_the_making_outlives_a_restart(make: Make) -> None:
    stopped, straight = make("stopped", {"rate": "PT1S"}), make("straight", {"rate": "PT1S"})
    readings = [(250 * step, {"TT01": 50.0 + step % 7, "TT02": 1.0}) for step in range(40)]

    for place, (time_ms, values) in enumerate(readings):
        for gateway in (stopped, straight):
            put(gateway, time_ms, **values)
            gateway.run()
        if place in (13, 22, 31):
            stopped.close()
            stopped.open()

    assert stopped.heard() and scores(stopped) == scores(straight)


def test_a_late_reading_goes_into_no_row(make: Make) -> None:
    gateway = make()

    for time_ms in (0, 1000, 1500, 1300, 2000):
        put(gateway, time_ms, TT01=900.0 if time_ms == 1300 else 50.0, TT02=1.0)
        gateway.run()

    assert max(scores(gateway)) < 60
    assert gateway.inference.counts.late == 1


def test_readings_without_a_time_are_rows_each_and_health_says_where_they_come_too_often(make: Make) -> None:
    gateway = make()

    put_bare(gateway, 700, 0.1)
    health = health_of(gateway)

    assert gateway.inference.counts.scored == 700
    assert "every 0.1 s a reading arrives without time_ms" in health["detail"]


def test_the_pace_may_be_set_and_nought_makes_a_row_of_every_reading(make: Make, tmp_path: Path) -> None:
    quick, every = (
        make(name, models=[ModelSettings(things=["*"], folder=tmp_path / name / "model", period_s=period_s)])
        for name, period_s in (("quick", 0.1), ("every", 0.0))
    )

    for gateway in (quick, every):
        for step in range(40):
            put(gateway, 50 * step, TT01=50.0, TT02=1.0)
        gateway.run()

    assert quick.inference.counts.scored == 20
    assert every.inference.counts.scored == 40


@pytest.mark.parametrize(
    ("step_ms", "said"),
    [
        (100, 'a reading comes, and motor 1.0.0 was taught one every 1 s: set period_s = "card" under [[models]]'),
        (5000, "a reading comes, and motor 1.0.0 was taught one every 1 s: send as often, or train"),
    ],
)
def test_unless_asked_every_reading_is_a_row_and_health_says_where_the_pace_is_another(
    make: Make, step_ms: int, said: str
) -> None:
    gateway = make("plain", {"period_ms": 1000})

    for place in range(61_000 // min(step_ms, 1000)):
        put(gateway, step_ms * place, TT01=50.0, TT02=1.0)
    gateway.run()
    health = health_of(gateway)

    assert gateway.inference.counts.scored == 61_000 // min(step_ms, 1000)
    assert health["status"] == "degraded"
    assert said in health["detail"]


def test_a_version_of_another_pace_starts_cold_at_its_own(make: Make, tmp_path: Path) -> None:
    write_small_model(tmp_path / "versions" / "1.0.0", period_ms=1000)
    gateway = make(models=[ModelSettings(things=["*"], folder=tmp_path / "versions", period_s="card")])
    for step in range(10):
        put(gateway, 1000 * step, TT01=50.0, TT02=1.0)
    gateway.run()

    write_small_model(tmp_path / "versions" / "2.0.0", "2.0.0", period_ms=5000)
    gateway.inference.shelf.look()
    for step in range(10, 31):
        put(gateway, 1000 * step, TT01=50.0, TT02=1.0)
    gateway.run()

    assert ids(gateway)[9:] == [15_000, 20_000, 25_000, 30_000]


def test_a_version_without_a_pace_ends_what_health_says_of_the_one_before(make: Make, tmp_path: Path) -> None:
    gateway = make("one", {"period_ms": 1000})
    for place in range(61):
        put(gateway, 5000 * place, TT01=50.0, TT02=1.0)
    gateway.run()
    before = health_of(gateway)["status"]
    write_small_model(tmp_path / "one" / "model", "2.0.0")
    gateway.inference.shelf.look()

    put(gateway, 5000 * 61, TT01=50.0, TT02=1.0)
    gateway.run()
    health = health_of(gateway)

    assert (before, health["status"]) == ("degraded", "ready"), health["detail"]


def test_a_candidate_of_another_pace_is_refused_a_trial(make: Make, tmp_path: Path) -> None:
    write_small_model(tmp_path / "versions" / "1.0.0", period_ms=1000)
    models = [ModelSettings(things=["*"], folder=tmp_path / "versions", rollout="shadow", period_s="card")]
    gateway = make(models=models)

    write_small_model(tmp_path / "versions" / "2.0.0", "2.0.0", period_ms=5000)
    gateway.inference.shelf.look()

    assert "judges another pace than motor 1.0.0" in gateway.inference.shelf.seats[0].refusal


def test_held_readings_are_brought_to_the_pace_in_their_order(make: Make) -> None:
    gateway = make(order=OrderSettings(hold_ms=100))

    for time_ms in (0, 1000, 500, 1500, 2000):
        put(gateway, time_ms, TT01=50.0, TT02=1.0)
    gateway.run()
    gateway.clock.advance(0.2)
    gateway.run()

    assert ids(gateway) == [1000, 2000]


@pytest.mark.parametrize(
    ("model", "step_s", "readings", "again", "said"),
    [
        ({"period_ms": 1000}, 0.5, 140, 80, "scored at the wrong pace: every 0.5 s"),
        ({"period_ms": 1000}, 5.0, 20, 10, "scored at the wrong pace: every 5 s"),
        ({"period_ms": 1000, "rate": "PT1S"}, 5.0, 20, 6, "not scored: it sends every 5 s"),
        ({"period_ms": 1000, "rate": "PT1S"}, 90.0, 20, 6, "not scored: it sends every 1.5 min"),
    ],
    ids=["too fast", "too slow", "too slow for a row", "far too slow"],
)
def test_a_misfit_that_falls_silent_is_no_trouble_after_a_while_and_is_told_again_when_it_is_back(
    make: Make, model: dict[str, Any], step_s: float, readings: int, again: int, said: str
) -> None:
    gateway = make("one", model)
    put_live(gateway, readings, step_s)
    before = health_of(gateway)

    gateway.clock.advance(max(40.0, 9 * step_s) - step_s)
    pausing = health_of(gateway)
    gateway.clock.advance(max(60.0, 10 * step_s))
    silent = health_of(gateway)
    gateway.clock.advance(7200.0)
    put_live(gateway, again, step_s)
    back = health_of(gateway)

    assert [word["status"] for word in (before, pausing, silent, back)] == ["degraded", "degraded", "ready", "degraded"]
    assert said in before["detail"] and said in back["detail"]


def test_a_misfit_that_keeps_pace_once_it_is_back_is_none_any_more(make: Make) -> None:
    gateway = make("one", {"period_ms": 1000})
    put_live(gateway, 140, 0.5)
    gateway.clock.advance(7200.0)

    told = set()
    for _ in range(100):
        put_live(gateway, 1, 1.0)
        told.add(health_of(gateway)["status"])

    assert told == {"ready"}


def test_a_slow_machine_that_quickens_is_said_to_have_been_too_slow_until_it_is_scored(make: Make) -> None:
    gateway = make()
    put_live(gateway, 20, 5.0)

    said = []
    for _ in range(12):
        put_live(gateway, 1, 1.0)
        said.append(health_of(gateway)["detail"])

    assert "it sends every 5 s" in said[0]
    assert "it was too slow for motor 1.0.0" in said[5]
    assert "not scored" not in said[-1]


def test_after_a_restart_nothing_is_said_of_a_pace_that_is_not_known_yet(make: Make) -> None:
    gateway = make()
    put_live(gateway, 20, 5.0)
    gateway.close()
    gateway.open()
    silent = health_of(gateway)

    put_live(gateway, 1, 5.0)
    first = health_of(gateway)
    put_live(gateway, 1, 5.0)
    second = health_of(gateway)

    assert silent["status"] == "ready"
    assert "not scored: it was too slow for motor 1.0.0" in first["detail"]
    assert "it sends every 5 s" in second["detail"]


def test_a_version_of_another_pace_is_not_blamed_for_the_one_before(make: Make, tmp_path: Path) -> None:
    gateway = make("one", {"period_ms": 1000})
    put_live(gateway, 30, 5.0)
    before = health_of(gateway)["status"]

    write_small_model(tmp_path / "one" / "model", "2.0.0", period_ms=5000)
    gateway.inference.shelf.look()
    swapped = health_of(gateway)["status"]
    put_live(gateway, 100, 5.0)

    assert (before, swapped, health_of(gateway)["status"]) == ("degraded", "ready", "ready")


@pytest.mark.parametrize("off_ms", [-31_536_000_000, 31_536_000_000], ids=["back", "forward"])
def test_a_clock_that_is_set_makes_no_misfit_and_ends_none(make: Make, off_ms: int) -> None:
    well, misfit = make("well", {"period_ms": 1000}), make("misfit", {"period_ms": 1000})

    for gateway, step_ms in ((well, 1000), (misfit, 100)):
        for place in range(100_000 // step_ms):
            put(gateway, step_ms * place, TT01=50.0, TT02=1.0)
        gateway.run()
        for place in range(100_000 // step_ms):
            put(gateway, 100_000 + off_ms + step_ms * place, TT01=50.0, TT02=1.0)
        gateway.run()

    assert health_of(well)["status"] == "ready"
    assert "every 0.1 s a reading comes" in health_of(misfit)["detail"]


def test_a_pause_now_and_then_is_no_other_pace(make: Make) -> None:
    gateway = make("one", {"period_ms": 1000})

    for burst in range(20):
        for second in range(10):
            put(gateway, 600_000 * burst + 1000 * second, TT01=50.0, TT02=1.0)
    gateway.run()

    assert health_of(gateway)["status"] == "ready"


@pytest.mark.parametrize(
    ("payload", "rows"),
    [
        (b'{"TT01": 50.0, "TT02": 1.0, "time\\u005fms": %d}', 1),
        (b'{"TT01": 50.0, "TT02": 1.0, "note": "time_ms", "time_ms": %d}', 1),
        (b'{"TT01": 50.0, "TT02": 1.0, "note": "time_ms", "at": %d}', 10),
        (b'{"TT01": 50.0, "TT02": 1.0, "note": "\\"time_ms\\":%d"}', 10),
    ],
    ids=["escaped", "said", "a text", "in a text"],
)
def test_a_reading_has_a_time_where_it_says_one_and_not_where_it_speaks_of_it(
    make: Make, payload: bytes, rows: int
) -> None:
    gateway = make("one", {"period_ms": 1000, "rate": "PT1S"})

    for place in range(10):
        gateway.send_raw(payload % (T0 + place))
    gateway.run()

    assert gateway.inference.counts.scored == rows
