"""A forest at the edge goes on learning, across restarts, kills and new versions, and its frozen form serves as well."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.components.memory_gateway import MemoryGateway
from wheeltapper.errors import ModelError
from wheeltapper_components.settings import ForestSettings, ModelSettings, ShadowSettings
from wheeltapper_models.data import Table
from wheeltapper_models.export import write
from wheeltapper_models.forest import fit
from wheeltapper_models.forest_watch import STREAM_FILE, ForestWatch
from wheeltapper_models.kinds import Options
from wheeltapper_models.manifest import write_manifest

Make = Callable[..., MemoryGateway]
SMALL = {"trees": "10", "sample_size": "32", "shingle": "2", "run": "2"}


def rows(first: int, last: int) -> np.ndarray:
    return np.random.default_rng(7).normal([60.0, 1.0], [2.0, 0.1], size=(last, 2))[first:]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "1.0.0"
    table = Table("healthy.csv", ("TT01", "TT02"), rows(0, 200))
    write(fit([table], Options(name="motor", version="1.0.0", seed=0, settings=SMALL)), folder)
    return folder


@pytest.fixture
def make(tmp_path: Path, trained: Path) -> Any:
    gateways: list[MemoryGateway] = []
    shutil.copytree(trained, tmp_path / "motors" / "1.0.0")

    def make(folder: str = "here", *, learn: bool = True, rollout: Any = "swap", **settings: Any) -> MemoryGateway:
        model = ModelSettings(things=["motor-*"], folder=tmp_path / "motors", learn=learn, rollout=rollout)
        gateways.append(MemoryGateway(tmp_path / folder, models=[model], **settings))
        return gateways[-1]

    yield make
    for gateway in gateways:
        gateway.close()


def feed(gateway: MemoryGateway, first: int, last: int, *, shift: float = 0.0, thing: str = "motor-1") -> None:
    for number, (one, two) in enumerate(rows(200 + first, 200 + last).tolist(), first):
        gateway.send(number, thing=thing, TT01=one + shift, TT02=two)
    gateway.run()


def kill(gateway: MemoryGateway) -> None:
    """Let go of the files without the farewell of an orderly end."""
    gateway.inference.close = lambda: None  # type: ignore[method-assign]
    gateway.close()


def told(gateway: MemoryGateway) -> list[tuple[Any, ...]]:
    members = ("reading_id", "score", "limit", "anomaly", "alert")
    return [tuple(prediction[member] for member in members) for prediction in gateway.heard()]


def test_it_learns_on_and_says_what_the_learning_forest_says(make: Make, trained: Path) -> None:
    gateway = make()
    watch = ForestWatch.from_bytes((trained / STREAM_FILE).read_bytes())
    watch.new_stretch()

    feed(gateway, 0, 60)

    verdicts = [watch.step(row.astype(np.float32)) for row in rows(200, 260)][1:]
    assert [(score, limit) for _id, score, limit, _anomaly, _alert in told(gateway)] == [
        (verdict.score, verdict.limit) for verdict in verdicts
    ]


def test_anomalies_that_follow_one_another_are_an_alert_on_the_wire(make: Make) -> None:
    gateway = make()

    feed(gateway, 0, 40)
    feed(gateway, 40, 44, shift=40.0)

    assert [prediction["alert"] for prediction in gateway.heard()[-4:]] == [0, 1, 1, 1]
    assert gateway.heard()[-1]["contributions"][0]["sensor"] == "TT01"


def test_after_an_orderly_end_it_goes_on_to_the_bit(make: Make) -> None:
    straight, stopped = make("straight"), make("stopped")
    feed(straight, 0, 80)

    feed(stopped, 0, 37)
    stopped.close()
    stopped.open()
    feed(stopped, 37, 80)

    assert told(stopped) == told(straight)


def test_a_kill_costs_what_the_trees_learnt_since_they_were_kept_and_no_score(make: Make) -> None:
    straight, killed = make("straight"), make("killed", forest=ForestSettings(save_s=60.0))
    feed(straight, 0, 80)
    feed(killed, 0, 30)
    killed.clock.advance(61.0)
    killed.run()
    assert [path.name for path in (killed.folder / "data" / "forests").iterdir()] == ["motor-1.forest"]
    feed(killed, 30, 37)

    kill(killed)
    killed.open()
    feed(killed, 37, 80)

    assert killed.scored() == straight.scored()
    assert told(killed)[:36] == told(straight)[:36]
    assert told(killed)[36][2] == told(straight)[36][2]  # the cutoff is as it was
    ours, theirs = (np.array([line[1] for line in told(gateway)]) for gateway in (killed, straight))
    assert float(np.abs(ours - theirs).mean()) < 0.2


@pytest.mark.parametrize("damage", [b"", b"no forest", b"\x92\xa1x\xc4\x01y", b"\x92\xa1\xff\xc4\x01y"])
def test_a_damaged_file_leaves_the_forest_as_training_did(make: Make, damage: bytes) -> None:
    gateway = make()
    feed(gateway, 0, 30)
    gateway.close()
    next((gateway.folder / "data" / "forests").iterdir()).write_bytes(damage)

    gateway.open()
    feed(gateway, 30, 40)

    assert gateway.scored() == [f"m{number}" for number in range(1, 40)]


def test_a_thing_beyond_the_bound_is_judged_by_the_frozen_form(make: Make) -> None:
    gateway, frozen = make("bounded", forest=ForestSettings(max_things=1)), make("frozen", learn=False)
    for thing in ("motor-1", "motor-2"):
        feed(gateway, 0, 30, thing=thing)
    gateway.close()
    gateway.open()
    feed(gateway, 30, 40, thing="motor-2")

    feed(frozen, 0, 40, thing="motor-2")

    slot = gateway.inference.shelf.seats[0].slot
    assert slot is not None and slot.learners() == ["motor-1"]
    assert [line for line in told(gateway) if line[0] != "m0"][-39:] == told(frozen)


def test_the_frozen_form_tells_alerts_and_its_moving_limit_too(make: Make) -> None:
    gateway = make(learn=False)

    feed(gateway, 0, 40)
    feed(gateway, 40, 44, shift=40.0)

    assert [prediction["alert"] for prediction in gateway.heard()[-4:]] == [0, 1, 1, 1]
    assert len({prediction["limit"] for prediction in gateway.heard()}) > 30
    assert not (gateway.folder / "data" / "forests").exists()


def test_a_clock_that_was_set_back_restarts_the_window_and_forgets_nothing_learnt(make: Make) -> None:
    gateway = make()
    feed(gateway, 200, 240)
    slot = gateway.inference.shelf.seats[0].slot
    assert slot is not None
    before = slot.learnt("motor-1")

    feed(gateway, 0, 3)

    after = slot.learnt("motor-1")
    assert before is not None and after is not None
    assert gateway.scored()[-2:] == ["m1", "m2"]
    assert after[1].forest.points_seen == before[1].forest.points_seen + 2


@pytest.mark.parametrize("rollout", ["swap", "shadow"])
def test_a_new_version_takes_over_warm(make: Make, tmp_path: Path, rollout: Any) -> None:
    gateway = make(rollout=rollout, shadow=ShadowSettings(readings=10, max_disagreement=1.0, max_slowdown=1e9))
    feed(gateway, 0, 30)
    table = Table("healthy.csv", ("TT01", "TT02"), rows(0, 150))
    folder = tmp_path / "motors" / "2.0.0"
    write(fit([table], Options(name="motor", version="2.0.0", seed=1, settings=SMALL)), folder)
    write_manifest(folder, "motor", "2.0.0")

    gateway.inference.shelf.look()
    feed(gateway, 30, 50)
    feed(gateway, 50, 60)

    assert gateway.scored() == [f"m{number}" for number in range(1, 60)]
    assert gateway.heard()[-1]["model"]["version"] == "2.0.0"
    slot = gateway.inference.shelf.seats[0].slot
    assert slot is not None and slot.learners() == ["motor-1"]


def test_a_stream_that_a_manifest_does_not_list_is_not_trusted(make: Make, tmp_path: Path) -> None:
    folder = tmp_path / "motors" / "1.0.0"
    stream = (folder / STREAM_FILE).read_bytes()
    (folder / STREAM_FILE).unlink()
    write_manifest(folder, "motor", "1.0.0")
    (folder / STREAM_FILE).write_bytes(stream)

    gateway = make()
    feed(gateway, 0, 5)

    slot = gateway.inference.shelf.seats[0].slot
    assert slot is not None and slot.learners() == []
    assert len(gateway.scored()) == 4


def test_a_damaged_stream_is_refused_with_its_reason(make: Make, tmp_path: Path) -> None:
    (tmp_path / "motors" / "1.0.0" / STREAM_FILE).write_bytes(b"cut short")

    with pytest.raises(ModelError, match="not the state of a forest"):
        make()
