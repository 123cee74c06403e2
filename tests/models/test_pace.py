"""Readings at any pace become rows at the model's, in a stream as in a table."""

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.models.pumps import SENSORS, pump_model, pump_table, pump_values
from wheeltapper.errors import DataError
from wheeltapper_models.card import Card, ModelInput, Training
from wheeltapper_models.data import Table
from wheeltapper_models.kinds import Options, Trained
from wheeltapper_models.pace import Beat, Pace, Taken, pace_of
from wheeltapper_models.resample import resample
from wheeltapper_models.score import score_table
from wheeltapper_models.session import Session
from wheeltapper_models.train import Request, train_tables
from wheeltapper_models.window import Row, Window

START_MS = 1_767_225_600_000
TWO = Card(
    name="two",
    version="1",
    kind="anomaly",
    inputs=[ModelInput("a"), ModelInput("b")],
    training=Training(0, ""),
    period_ms=1000,
)
BOTH = {"a": 1.0, "b": 2.0}


def fed(window: Window, *readings: tuple[int, dict[str, Any]]) -> list[Row]:
    return [window.add(time_ms, values) for time_ms, values in readings]


def rows_of(rows: list[Row]) -> list[bool]:
    return [row.taken.row for row in rows]


def window(pace: Pace | None = None) -> Window:
    return Window(TWO, pace or Pace(1000))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 999), st.lists(st.floats(-0.2, 0.2), min_size=2, max_size=80), st.floats(0.99, 1.01), st.booleans()
)
def test_every_reading_at_the_models_pace_is_a_row_whatever_its_phase_and_jitter(phase, jitter, skew, mean):
    times = [START_MS + phase + round(1000 * (skew * place + off)) for place, off in enumerate(jitter)]
    machine = window(Pace(1000, mean=mean))

    rows = fed(machine, *((time_ms, BOTH) for time_ms in times))

    assert all(rows_of(rows))
    assert all(row.values == BOTH and row.taken == Taken(True) for row in rows)


@pytest.mark.parametrize("step_ms", [10, 100, 130, 250, 333, 500, 700])
def test_of_a_faster_machine_as_many_rows_are_made_as_there_are_periods(step_ms):
    machine = window()

    rows = fed(machine, *((START_MS + at, BOTH) for at in range(0, 100_000, step_ms)))

    assert sum(rows_of(rows)) == pytest.approx(100, abs=3)


def test_a_row_holds_the_last_value_of_each_sensor_or_its_mean_as_the_model_was_taught():
    readings = [(START_MS + at, {"a": float(at)}) for at in (0, 250, 500, 750, 1000)]

    last, mean = (fed(window(Pace(1000, mean=mean)), *readings)[-1].values for mean in (False, True))

    assert last == {"a": 1000.0}
    assert mean == {"a": 625.0}


def test_sensors_that_come_in_messages_of_their_own_meet_in_one_row():
    readings = [
        (START_MS + 1000 * second + off, {name: second}) for second in range(10) for name, off in (("a", 0), ("b", 40))
    ]

    rows = [row.values for row in fed(window(), *readings) if row.taken.row]

    assert rows[1:] == [{"a": second, "b": second} for second in range(1, 10)]


def test_a_sensor_that_falls_silent_is_waited_for_once():
    both = [(START_MS + 1000 * second + off, {name: 1.0}) for second in range(5) for name, off in (("a", 0), ("b", 40))]
    alone = [(START_MS + 1000 * second, {"a": 1.0}) for second in range(5, 12)]

    rows = fed(window(), *both, *alone)

    assert rows_of(rows)[-6:] == [True] * 6


def test_a_reading_without_one_of_the_sensors_waits_for_nobody():
    readings = [(START_MS + 1000 * second, {"a": 1.0} if second % 5 == 3 else BOTH) for second in range(30)]

    assert all(rows_of(fed(window(), *readings)))


def test_a_long_silence_begins_a_new_window_and_fills_nothing():
    machine = window(Pace(1000, mean=True))

    rows = fed(machine, (START_MS, BOTH), (START_MS + 1000, BOTH), (START_MS + 60_000, BOTH), (START_MS + 61_000, BOTH))

    assert [row.taken.fresh for row in rows] == [False, False, True, False]
    assert not any(row.before for row in rows)


def test_a_short_silence_of_a_resampled_model_is_filled_with_the_last_means():
    machine = window(Pace(1000, mean=True))

    rows = fed(machine, (START_MS, {"a": 1.0}), (START_MS + 3000, {"a": 5.0}))

    assert rows[-1].before == ({"a": 1.0}, {"a": 1.0})
    assert rows[-1].values == {"a": 5.0}


def test_a_machine_that_is_always_too_slow_is_not_judged_until_it_keeps_pace():
    machine = window()

    slow = fed(machine, *((START_MS + 5000 * place, BOTH) for place in range(20)))
    later = fed(machine, *((START_MS + 100_000 + 1000 * place, BOTH) for place in range(20)))

    assert rows_of(slow)[-10:] == [False] * 10 and slow[-1].taken.slow
    assert [row.taken.fresh for row in later].count(True) == 1
    assert all(rows_of(later)[10:])


def test_lost_readings_now_and_then_are_not_slowness():
    random = np.random.default_rng(5)
    times = [START_MS + 1000 * second for second in range(3000) if random.random() > 0.2]

    rows = fed(window(), *((time_ms, BOTH) for time_ms in times))

    assert all(rows_of(rows))


def test_a_window_goes_on_after_a_restart_and_its_state_stays_small():
    readings = [(START_MS + 90 * place, {"a": float(place), "note": str(place)}) for place in range(500)]
    straight, before, after = window(), window(), window()

    wanted = fed(straight, *readings)[250:]
    fed(before, *readings[:250])
    state = before.state()
    after.restore(state)
    got = fed(after, *readings[250:])

    assert got == wanted
    assert len(state) < 500


def test_a_machine_may_have_more_sensors_than_a_number_has_bits():
    names = [f"s{place}" for place in range(150)]
    card = msgspec.structs.replace(TWO, inputs=[ModelInput(name) for name in names])
    machine, again = Window(card, Pace(1000)), Window(card, Pace(1000))

    rows = fed(machine, *((START_MS + 500 * place, dict.fromkeys(names, 1.0)) for place in range(5)))
    again.restore(machine.state())

    assert rows_of(rows) == [True, False, True, False, True]
    assert again.row_ms == START_MS + 2000


def test_a_state_of_another_pace_is_left():
    other = window(Pace(500))
    fed(other, (START_MS, BOTH))
    machine = window()

    machine.restore(other.state())

    assert machine.row_ms is None


def test_a_reading_from_before_the_last_is_late():
    beat = Beat(Pace(1000))

    taken = [beat.take(time_ms, 1) for time_ms in (START_MS, START_MS + 1000, START_MS + 500)]

    assert taken[-1].late and not taken[-1].row


def test_who_has_no_period_or_judges_records_has_no_pace():
    records = msgspec.structs.replace(TWO, kind="failure")

    assert pace_of(records) is None
    assert pace_of(msgspec.structs.replace(TWO, period_ms=0)) is None
    assert pace_of(TWO, 0) is None
    assert pace_of(TWO, 50) == Pace(50)


def stream_scores(trained: Trained, table: Table) -> list[tuple[int, float]]:
    """The place and score of each reading that completes a row, one reading at a time."""
    session, pace, states = Session(trained.card, trained.model), pace_of(trained.card), {}
    assert pace is not None and table.time_ms is not None
    machine, found = Window(trained.card, pace), []
    state = session.start()
    for place, (time_ms, values) in enumerate(zip(table.time_ms.tolist(), table.values.tolist(), strict=True)):
        row = machine.add(time_ms, dict(zip(table.names, values, strict=True)))
        if row.taken.fresh:
            states = {"m": state[0]}
            session.pause("m", states)
        for each in [*row.before, *([row.values] if row.values is not None else [])]:
            scored = session.step(session.row(each, time_ms)[None], state)
            state = scored.states
        if row.values is not None:
            found.append((place, float(scored.score[0])))
    return found


@pytest.fixture(scope="module")
def taught() -> dict[str, Trained]:
    fast = Table("fast.csv", SENSORS, pump_values(1600), time_ms=START_MS + 250 * np.arange(1600, dtype=np.int64))
    request = Request(kind="anomaly", data=[], rate="PT1S", options=Options(name="pump"))
    return {"last": pump_model(), "mean": train_tables(request, [fast])}


STEPS = st.lists(
    st.one_of(st.integers(20, 400), st.integers(800, 1200), st.just(0), st.sampled_from([3000, 9000, 30_000])),
    min_size=5,
    max_size=120,
)


@settings(max_examples=40, deadline=None)
@given(STEPS, st.integers(0, 2**16), st.floats(0.0, 0.5), st.sampled_from(["last", "mean"]))
def test_a_recording_scores_as_the_same_readings_do_one_by_one(taught, steps, seed, lost, kind):
    random = np.random.default_rng(seed)
    values = pump_values(len(steps), seed)
    values[random.random(values.shape) < lost] = np.nan
    values[0] = pump_values(1)[0]
    table = Table("x.csv", SENSORS, values, time_ms=START_MS + np.cumsum(steps).astype(np.int64))

    online = stream_scores(taught[kind], table)
    try:
        scores = score_table(Session(taught[kind].card, taught[kind].model), table)
    except DataError:  # most of it too slow
        return

    offline = list(zip(scores.rows.tolist(), scores.score.tolist(), strict=True))
    assert offline[: len(online)] == online
    assert len(offline) - len(online) <= (kind == "mean")  # the file's end completes a mean


def test_a_recording_ten_times_as_fast_scores_like_every_tenth_of_its_rows():
    trained = pump_model()
    rows = pump_table(300, seed=3)
    fast = Table("fast.csv", SENSORS, np.repeat(rows.values, 10, axis=0), time_ms=START_MS + 100 * np.arange(3000))

    plain, thinned = (score_table(Session(trained.card, trained.model), table) for table in (rows, fast))

    assert thinned.rows.tolist() == list(range(0, 3000, 10))
    assert thinned.score.tolist() == plain.score.tolist()


def test_a_recording_that_is_too_slow_is_refused_with_the_remedy():
    trained = pump_model()
    table = pump_table(100)
    assert table.time_ms is not None
    slow = Table("slow.csv", SENSORS, table.values, time_ms=START_MS + 5000 * np.arange(100))

    with pytest.raises(DataError, match=r"slow.csv: its rows are usually 5 s apart, and pump judges one every 1 s: "):
        score_table(Session(trained.card, trained.model), slow)


def test_a_resampled_table_has_regular_times_and_carries_what_is_silent():
    values: NDArray[np.float64] = np.array([[1.0], [3.0], [np.nan], [7.0], [9.0]])
    table = Table("x", ("a",), values, time_ms=np.array([0, 600, 1000, 4000, 60_000], dtype=np.int64))

    first, second = resample(table, Pace(1000, mean=True))

    assert first.time_ms is not None and first.time_ms.tolist() == [0, 1000, 2000, 3000, 4000]
    assert first.column("a").tolist() == [1.0, 3.0, 3.0, 3.0, 7.0]
    assert second.column("a").tolist() == [9.0]


def test_a_failure_model_cannot_be_resampled():
    with pytest.raises(Exception, match="--rate: a failure model learns from rows as they are"):
        train_tables(Request(kind="failure", data=[], rate="PT1S"), [pump_table()])
