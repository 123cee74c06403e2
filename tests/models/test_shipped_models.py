"""The shipped scenario models are whole, reproducible, quiet on healthy machines and right about sick ones."""

import json

import numpy as np
import pytest

from wheeltapper.cli import main
from wheeltapper_device.machines import Simulation
from wheeltapper_models.data import Table
from wheeltapper_models.score import score_table
from wheeltapper_models.session import Session
from wheeltapper_models.shipped import SCENARIOS, shipped_path


def session_of(scenario: str) -> Session:
    path = shipped_path(scenario)
    assert path is not None
    return Session.load(path)


def table_of(simulation: Simulation, rows: int) -> Table:
    names = tuple(sensor.name for sensor in simulation.machine.sensors)
    values = [[sample[name] for name in names] for sample in (simulation.next().values for _ in range(rows))]
    return Table("simulated", names, np.array(values))


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_no_seed_raises_an_alarm_before_its_fault_and_every_one_after_it_with_a_touched_sensor(scenario):
    session = session_of(scenario)
    faults = Simulation(scenario, 0, fault="none").machine.faults
    found = []
    for seed in range(10):
        fault = faults[seed % len(faults)]
        simulation = Simulation(scenario, seed, fault=fault.name)
        onset = int(np.ceil(simulation.onset_s(fault.name) or 0))
        scores = score_table(session, table_of(simulation, onset + 120))
        first = int(np.flatnonzero(scores.anomaly)[0])
        blamed = session.sensors[int(scores.contributions[first:].mean(axis=0).argmax())]
        found.append((first >= onset, blamed in fault.sensors))

    assert found == [(True, True)] * 10


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_card_gives_every_sensor_of_the_simulator_its_unit(scenario):
    inputs = session_of(scenario).card.inputs
    sensors = Simulation(scenario, 0, fault="none").machine.sensors

    assert [(item.name, item.unit) for item in inputs] == [(sensor.name, sensor.unit) for sensor in sensors]


def test_a_shipped_model_is_reproduced_by_its_command(capsys):
    status = main(["model", "reproduce", "motor", "--json"])

    found = json.loads(capsys.readouterr().out)
    assert status == 0
    assert found[0]["equal"]
