"""Drift at the edge: told on the bus, once, across restarts, and never in the way of a score."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.components.memory_gateway import MemoryGateway
from tests.components.small_models import write_small_model
from wheeltapper.errors import SettingsError, UnavailableError
from wheeltapper.messages import Drift
from wheeltapper_components.settings import DriftSettings, ModelSettings, StoreSettings, load_settings

QUICK = DriftSettings(period_s=60.0, learn=3, thin=1, save_s=30.0)
Make = Callable[..., MemoryGateway]


@pytest.fixture
def make(tmp_path: Path) -> Any:
    gateways: list[MemoryGateway] = []
    write_small_model(tmp_path / "model")

    def make(**settings: Any) -> MemoryGateway:
        gateways.append(MemoryGateway(tmp_path, **{"drift": QUICK, **settings}))
        return gateways[-1]

    yield make
    for gateway in gateways:
        gateway.close()


def feed(gateway: MemoryGateway, first: int, last: int, shift: float = 0.0) -> None:
    """One reading a second, TT01 with a small rhythm, moved by ``shift``."""
    for number in range(first, last):
        gateway.send(number, TT01=60.0 + number % 7 + shift)
    gateway.run()
    gateway.clock.advance(last - first)


def methods(gateway: MemoryGateway) -> set[str]:
    return {message["method"] for message in gateway.heard("drift")}


def test_a_sensor_that_moves_is_told_with_its_name_and_model(make: Make) -> None:
    gateway = make()

    feed(gateway, 0, 300)
    assert gateway.heard("drift") == []
    feed(gateway, 300, 480, shift=25.0)

    payloads = [payload for topic, payload in gateway.local.published if topic == "wt/motor-1/drift"]
    told = [msgspec.json.decode(payload, type=Drift) for payload in payloads]
    assert {message.method for message in told} == {"adwin", "cutoff-chart", "ks"}
    assert any(message.message_id == "motor-1-360000-ks-TT01@motor-1.0.0" for message in told)
    assert all(message.model.version == "1.0.0" for message in told)
    gateway.inference.pulse.beat()
    gateway.run()
    assert f"drifts {len(told)}" in gateway.heard("health")[-1]["detail"]


@pytest.mark.parametrize("stop", [10, 150, 330, 361])
def test_a_restart_goes_on_where_the_monitor_was(make: Make, tmp_path: Path, stop: int) -> None:
    straight = MemoryGateway(
        tmp_path / "other", models=[ModelSettings(things=["*"], folder=tmp_path / "model")], drift=QUICK
    )
    feed(straight, 0, 300)
    feed(straight, 300, 480, shift=25.0)
    gateway = make()

    feed(gateway, 0, min(stop, 300))
    feed(gateway, min(stop, 300), stop, shift=25.0)
    gateway.close()
    gateway.open()
    feed(gateway, stop, max(stop, 300))
    feed(gateway, max(stop, 300), 480, shift=25.0)

    assert gateway.heard("drift") == straight.heard("drift")
    straight.close()


def test_a_finding_survives_a_kill_and_is_not_told_again(make: Make, tmp_path: Path) -> None:
    gateway = make()
    feed(gateway, 0, 300)
    feed(gateway, 300, 362, shift=25.0)
    before = len(gateway.heard("drift"))

    gateway.inference.close = lambda: None  # type: ignore[method-assign]  # a kill
    gateway.close()
    gateway.open()
    feed(gateway, 362, 400, shift=25.0)

    ids = [message["message_id"] for message in gateway.heard("drift")]
    assert before > 0
    assert sum("-360000-ks" in message_id for message_id in ids) == 1
    assert len(ids) == len(set(ids))


def test_a_full_disk_delays_a_finding_and_loses_none(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = make()
    feed(gateway, 0, 300)
    for number in range(300, 362):
        gateway.send(number, TT01=90.0)
    gateway.local.deliver()
    gateway.inference.work()

    def refuse(*_: Any, **__: Any) -> None:
        raise UnavailableError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(gateway.links, "put", refuse)
        gateway.inference.drift.work()
    gateway.run()

    assert "ks" in methods(gateway)


def test_a_new_model_is_learnt_anew(make: Make, tmp_path: Path) -> None:
    gateway = make()
    feed(gateway, 0, 300)
    write_small_model(tmp_path / "model", "2.0.0", gain=3.0)
    gateway.inference.shelf.look()

    feed(gateway, 300, 480)

    assert gateway.inference.shelf.seats[0].label == "motor 2.0.0"
    assert gateway.heard("drift") == []


def test_it_can_be_switched_off(make: Make) -> None:
    gateway = make(drift=DriftSettings(enabled=False, period_s=60.0, learn=3))

    feed(gateway, 0, 300)
    feed(gateway, 300, 480, shift=25.0)

    assert gateway.heard("drift") == []
    assert gateway.links.first.outbox.states("drift/") == {}


def test_more_things_than_the_bound_are_counted_and_scored_all_the_same(make: Make) -> None:
    gateway = make(drift=DriftSettings(max_things=1), store=StoreSettings(flush=False))

    for thing in ("motor-1", "motor-2"):
        gateway.send(0, 1, thing=thing)
    gateway.run()

    assert gateway.inference.drift.unwatched == 2
    assert len(gateway.heard()) == 2


def test_a_thing_that_is_forgotten_is_not_brought_back_by_readings_still_to_be_looked_at(make: Make) -> None:
    gateway = make(max_things=1)

    for thing in ("motor-1", "motor-2"):  # both before the next look for drift
        gateway.send(0, 1, thing=thing)
        gateway.local.deliver()
        gateway.inference.work()
    gateway.close()
    gateway.open()

    assert sorted(gateway.links.first.outbox.states("drift/")) == ["drift/motor-2"]


def test_states_are_kept_every_so_often_and_not_with_every_reading(make: Make) -> None:
    gateway = make()

    feed(gateway, 0, 20)
    early = gateway.links.first.outbox.states("drift/")
    gateway.clock.advance(31.0)
    feed(gateway, 20, 21)

    assert early == {}
    assert list(gateway.links.first.outbox.states("drift/")) == ["drift/motor-1"]


def test_a_setting_that_cannot_be_is_named(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text("[drift]\nlearn = 2\n")

    with pytest.raises(SettingsError, match=r"drift\.learn"):
        load_settings(path)
