"""A slot replaces its model while machines come and go."""

from tests.models.pumps import pump_model, pump_values
from wheeltapper_models.serving import SensorRow
from wheeltapper_models.session import Session
from wheeltapper_models.slot import Slot

MODEL = pump_model()


def rows_of(thing: str, count: int) -> list[SensorRow]:
    sensors = MODEL.card.sensors
    return [
        SensorRow(thing, dict(zip(sensors, map(float, values), strict=True)), 1_000 * place)
        for place, values in enumerate(pump_values(count))
    ]


def test_a_machine_that_is_forgotten_while_the_next_model_warms_up_begins_as_a_new_one() -> None:
    slot, expected = (Slot(Session(MODEL.card, MODEL.model), kept_rows=30) for _ in range(2))
    slot.score(rows_of("motor", 20))
    expected.score(rows_of("motor", 3))

    class Interrupted(Session):
        met = False

        def judge(self, rows, states):
            if not self.met:
                self.met = True
                slot.drop("motor")
                slot.score(rows_of("motor", 3))
            return super().judge(rows, states)

    slot.take(Interrupted(MODEL.card, MODEL.model))

    assert slot.state("motor") == expected.state("motor")
