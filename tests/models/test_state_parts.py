"""A card says what a model's state is made of, and so what of it a pause makes void."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.models.pumps import SENSORS, pump_model, pump_table, pump_values
from wheeltapper.errors import ModelError
from wheeltapper_models import failure, forecast, forest
from wheeltapper_models.card import Card, StatePart, read_card
from wheeltapper_models.data import Table
from wheeltapper_models.export import write
from wheeltapper_models.kinds import Options, Trained
from wheeltapper_models.pace import forgotten
from wheeltapper_models.score import score_table
from wheeltapper_models.session import Session

PUMP = pump_model()


def trained(kind: str) -> Trained:
    table = pump_table(600)
    match kind:
        case "forest":
            return forest.fit([table], Options(name="f", settings={"trees": "3", "sample_size": "16", "shingle": "2"}))
        case "forecast":
            return forecast.fit([table], Options(name="f", target="heat", settings={"window": "4"}))
        case "failure":
            units = np.repeat(np.arange(12.0), 50)
            values = np.column_stack([units, pump_values(600)])
            times = 1_767_225_600_000 + 1000 * np.arange(600, dtype=np.int64)
            fleet = Table("fleet.csv", ("unit", *SENSORS), values, time_ms=times, time_column="time", sha256="ab" * 32)
            return failure.fit(
                [fleet], Options(name="f", unit_column="unit", horizon=10.0, settings={"long": "6", "short": "2"})
            )
    return PUMP


def voided(card: Card) -> NDArray[np.bool_]:
    """Which floats of a state a pause makes void."""
    found = np.zeros(card.state_size, dtype=bool)
    for part in forgotten(card):
        found[part] = True
    return found


@pytest.mark.parametrize("kind", ["anomaly", "forest", "forecast", "failure"])
def test_every_kind_says_what_its_state_is_made_of(kind: str) -> None:
    card = trained(kind).card

    assert card.kind == kind
    assert sum(part.size for part in card.state) == card.state_size > 0
    assert voided(card).any() == (kind != "failure")


@pytest.mark.parametrize("kind", ["anomaly", "forest", "forecast"])
def test_a_card_that_does_not_say_it_is_understood_as_before(kind: str) -> None:
    model = trained(kind)
    older = msgspec.structs.replace(model.card, state=[])

    assert Session(older, model.model).card.state == []
    assert voided(older).tolist() == voided(model.card).tolist()


def test_a_pause_leaves_what_the_card_says_is_kept_and_nothing_else() -> None:
    sensors, lags = len(SENSORS), PUMP.card.settings["lags"]
    parts = [StatePart("a", sensors * lags, kept=True), StatePart("b", sensors), StatePart("c", 2 * sensors, kept=True)]
    session = Session(msgspec.structs.replace(PUMP.card, state=parts), PUMP.model)
    states = {"m": np.ones(session.card.state_size, dtype=np.float32)}

    session.pause("m", states)

    assert states["m"].tolist() == [1.0] * sensors * lags + [0.0] * sensors + [1.0] * 2 * sensors


def test_a_recording_with_a_pause_follows_the_card_as_a_stream_does() -> None:
    table = pump_table(40, seed=1)
    assert table.time_ms is not None
    table.time_ms[20:] += 3_600_000
    kept = [StatePart("everything", PUMP.card.state_size, kept=True)]

    straight, paused = (
        score_table(Session(card, PUMP.model), table).score
        for card in (msgspec.structs.replace(PUMP.card, state=kept), PUMP.card)
    )

    assert straight[:20].tolist() == paused[:20].tolist()
    assert straight[21] != paused[21]


def test_all_of_a_foreign_models_state_is_void_where_its_card_does_not_say_more() -> None:
    foreign = msgspec.structs.replace(PUMP.card, state=[], settings={"layers": 2})

    assert voided(foreign).all()


@pytest.mark.parametrize("sizes", [[1, 2], [0, PUMP.card.state_size], [-1, PUMP.card.state_size + 1]])
def test_parts_that_do_not_make_up_the_state_are_refused(sizes: list[int]) -> None:
    card = msgspec.structs.replace(PUMP.card, state=[StatePart("x", size) for size in sizes])

    with pytest.raises(ModelError, match=rf"a state has {PUMP.card.state_size} floats, in parts of \["):
        Session(card, PUMP.model)


def test_what_a_state_is_made_of_travels_with_the_card_and_inside_the_model(tmp_path: Path) -> None:
    write(PUMP, tmp_path / "pump")

    beside = read_card(tmp_path / "pump" / "card.json")
    (tmp_path / "pump" / "card.json").unlink()
    inside = Session.load(tmp_path / "pump", require_card=False).card

    assert beside.state == inside.state == PUMP.card.state


@pytest.mark.parametrize("payload", [b'{"settings": {"\xff": 1}}', b'{"settings": ' + b"[" * 50_000])
def test_a_card_that_cannot_be_read_is_refused_with_its_name(tmp_path: Path, payload: bytes) -> None:
    (tmp_path / "card.json").write_bytes(payload)

    with pytest.raises(ModelError, match=r"card.json: cannot be read as a card"):
        read_card(tmp_path / "card.json")
