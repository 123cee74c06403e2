"""The simulated machines: repeatable, resumable, healthy until a fault begins, and honest about what it touches."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wheeltapper.errors import SettingsError
from wheeltapper_device.machines import MACHINES, NO_FAULT, Sample, Simulation

FAULTS = [(name, fault.name) for name, machine in MACHINES.items() for fault in machine.faults]
scenarios = st.sampled_from(sorted(MACHINES))


def samples(simulation: Simulation, count: int) -> list[Sample]:
    return [simulation.next() for _ in range(count)]


@given(scenario=scenarios, seed=st.integers(-(2**31), 2**63))
@settings(max_examples=15, deadline=None)
def test_the_same_seed_gives_the_same_samples(scenario: str, seed: int) -> None:
    assert samples(Simulation(scenario, seed), 20) == samples(Simulation(scenario, seed), 20)


def test_different_seeds_give_different_samples() -> None:
    firsts = {tuple(Simulation("motor", seed).next().values.values()) for seed in range(50)}

    assert len(firsts) == 50


@given(scenario=scenarios, seed=st.integers(0, 1000), before=st.integers(0, 60), onset=st.integers(0, 60))
@settings(max_examples=25, deadline=None)
def test_a_restored_simulation_goes_on_as_if_nothing_had_happened(
    scenario: str, seed: int, before: int, onset: int
) -> None:
    onset_s = onset * MACHINES[scenario].period_s
    uninterrupted = Simulation(scenario, seed, onset_s=onset_s)
    samples(uninterrupted, before)
    resumed = Simulation(scenario, seed, onset_s=onset_s)
    resumed.restore(uninterrupted.snapshot())

    assert samples(resumed, 60) == samples(uninterrupted, 60)


@pytest.mark.parametrize("scenario", sorted(MACHINES))
def test_readings_stay_within_their_sensors_ranges(scenario: str) -> None:
    simulation = Simulation(scenario, 3, onset_s=0.0)
    ranges = {sensor.name: (sensor.low, sensor.high) for sensor in simulation.machine.sensors}

    for sample in samples(simulation, 600):
        assert sample.values.keys() == ranges.keys()
        assert all(low <= sample.values[name] <= high for name, (low, high) in ranges.items())


@pytest.mark.parametrize(("scenario", "fault"), FAULTS)
def test_a_fault_changes_nothing_before_it_begins(scenario: str, fault: str) -> None:
    healthy = Simulation(scenario, 5, fault=NO_FAULT)
    sick = Simulation(scenario, 5, fault=fault, onset_s=100 * healthy.period_s)

    before = [(one.values, other.values) for one, other in zip(samples(healthy, 100), samples(sick, 100), strict=True)]
    assert all(one == other for one, other in before)
    assert sick.next().begun == (fault,)


@pytest.mark.parametrize(("scenario", "fault"), FAULTS)
def test_a_fault_touches_the_sensors_it_names_and_no_others(scenario: str, fault: str) -> None:
    healthy = Simulation(scenario, 11, fault=NO_FAULT)
    sick = Simulation(scenario, 11, fault=fault, onset_s=0.0)
    furthest = dict.fromkeys((sensor.name for sensor in healthy.machine.sensors), 0.0)
    for one, other in zip(samples(healthy, 400), samples(sick, 400), strict=True):
        for name in furthest:
            furthest[name] = max(furthest[name], abs(one.values[name] - other.values[name]))
    noise = {sensor.name: sensor.noise for sensor in healthy.machine.sensors}

    # Ten standard deviations of the difference of two measurements: what noise alone never reaches in 400 samples.
    touched = {name for name, distance in furthest.items() if distance > 10 * 2**0.5 * noise[name]}
    assert touched == set(sick.planned[fault].sensors)


@pytest.mark.parametrize(("scenario", "fault"), FAULTS)
def test_a_fault_grows_to_its_full_effect(scenario: str, fault: str) -> None:
    simulation = Simulation(scenario, 2, fault=fault, onset_s=0.0)
    severities = [sample.severity for sample in samples(simulation, 400)]

    assert severities[0] == 0.0
    assert severities[-1] == 1.0
    assert all(earlier <= later for earlier, later in itertools.pairwise(severities))


def test_every_fault_is_chosen_by_some_seed() -> None:
    chosen = {(name, *Simulation(name, seed).planned) for name in MACHINES for seed in range(40)}

    assert chosen == set(FAULTS)


def test_a_fault_can_be_begun_at_any_time() -> None:
    simulation = Simulation("robot", 1, fault=NO_FAULT)
    samples(simulation, 50)
    fault = simulation.begin("wear")

    assert fault.sensors == ("J3_temperature", "J3_current")
    assert [sample.begun for sample in samples(simulation, 2)] == [("wear",), ()]


def test_the_physics_do_not_depend_on_the_rate_of_sampling() -> None:
    slow = samples(Simulation("motor", 4, fault="winding-short", onset_s=0.0, rate_hz=1.0), 200)[-1]
    fast = samples(Simulation("motor", 4, fault="winding-short", onset_s=0.0, rate_hz=5.0), 1000)[-1]

    assert abs(slow.severity - fast.severity) < 0.01
    assert slow.values["TT02"] > 95.0
    assert fast.values["TT02"] > 95.0


def test_the_leak_drives_the_flow_over_the_limit_of_two_hundred_that_health_never_reaches() -> None:
    healthy = max(sample.values["FT01"] for sample in samples(Simulation("motor", 9, fault=NO_FAULT), 2000))
    leaking = samples(Simulation("motor", 9, fault="leak", onset_s=0.0, growth_s=60.0), 600)

    assert healthy <= 195.0
    assert max(sample.values["FT01"] for sample in leaking) > 200.0


@pytest.mark.parametrize(
    "arguments",
    [
        {"scenario": "toaster"},
        {"fault": "rust"},
        {"rate_hz": 0.0},
        {"growth_s": -1.0},
        {"onset_s": -1.0},
        {"rate_hz": float("nan")},
    ],
    ids=str,
)
def test_what_cannot_be_simulated_is_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(SettingsError):
        Simulation(**{"scenario": "motor", **arguments})  # type: ignore[arg-type]


def test_a_snapshot_of_another_machine_is_refused() -> None:
    with pytest.raises(SettingsError, match="another scenario"):
        Simulation("motor").restore(Simulation("robot").snapshot())
