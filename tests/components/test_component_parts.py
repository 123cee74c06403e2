"""The parts of a component that need no nucleus: heartbeat, exits, configuration, sizes."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wheeltapper.clock import ManualClock
from wheeltapper.errors import SettingsError, UnavailableError
from wheeltapper.health import check_health, forget_health, write_health
from wheeltapper.messages import Contribution, Health, ModelName, Prediction, Reading, encode
from wheeltapper.transport import Handler
from wheeltapper_components.configuration import Watcher, coerce
from wheeltapper_components.exits import ExitBudget
from wheeltapper_components.heartbeat import Heartbeat
from wheeltapper_components.predictions import encode_prediction
from wheeltapper_components.readings import OrderBuffer, SeenIds
from wheeltapper_components.settings import GatewaySettings, GreengrassSettings, OutputSettings, load_settings

HOUR_S = 3_600.0


class Round:
    """A loop that takes heartbeats, and brings them round or not."""

    def __init__(self) -> None:
        self.taken = True
        self.deaf = False
        self.resubscribed = 0
        self._handler: Handler | None = None

    def subscribe(self, _topic_filter: str, handler: Handler) -> None:
        self._handler = handler

    def probe(self, topic: str, payload: bytes, done: Callable[[bool], None]) -> None:
        done(self.taken)
        if self.taken and not self.deaf and self._handler is not None:
            self._handler(Heard(topic, payload))

    def resubscribe(self) -> None:
        self.resubscribed += 1


class Heard(msgspec.Struct):
    topic: str
    payload: bytes

    def acknowledge(self) -> None:
        pass


def heartbeat(loop: Round, clock: ManualClock, gave_up: list[str]) -> Callable[[float], None]:
    beat = Heartbeat(loop, "wt/core-1/heartbeat/inference", 60.0, gave_up.append, clock)
    beat.start()

    def live(seconds: float) -> None:
        for _ in range(int(seconds / 15)):
            beat.beat()
            clock.advance(15)

    return live


def test_a_heartbeat_that_comes_round_asks_for_nothing() -> None:
    loop, gave_up = Round(), list[str]()

    heartbeat(loop, ManualClock(), gave_up)(HOUR_S)

    assert (loop.resubscribed, gave_up) == (0, [])


def test_silence_leads_to_subscribing_anew_and_then_to_giving_up() -> None:
    loop, gave_up = Round(), list[str]()
    live = heartbeat(loop, ManualClock(), gave_up)
    loop.deaf = True

    live(90)
    assert (loop.resubscribed, gave_up) == (1, [])
    live(90)

    assert loop.resubscribed == 1
    assert len(gave_up) == 1


def test_a_stream_that_hears_again_after_subscribing_anew_is_not_given_up() -> None:
    loop, gave_up = Round(), list[str]()
    live = heartbeat(loop, ManualClock(), gave_up)
    loop.deaf = True
    live(75)

    loop.deaf = False
    live(HOUR_S)

    assert (loop.resubscribed, gave_up) == (1, [])


def test_a_link_that_is_away_is_not_taken_for_deafness() -> None:
    loop, gave_up = Round(), list[str]()
    live = heartbeat(loop, ManualClock(), gave_up)
    loop.taken = False

    live(HOUR_S)

    assert (loop.resubscribed, gave_up) == (0, [])


def test_two_exits_an_hour_are_granted_even_across_processes(tmp_path: Path) -> None:
    clock = ManualClock(1_700_000_000_000)
    path = tmp_path / "exits.json"

    granted = [ExitBudget(path, clock).spend() for _ in range(3)]
    clock.advance(HOUR_S + 1)

    assert granted == [True, True, False]
    assert ExitBudget(path, clock).spend()


def test_a_damaged_exit_file_and_a_clock_set_back_stop_nothing(tmp_path: Path) -> None:
    clock = ManualClock(1_700_000_000_000)
    path = tmp_path / "exits.json"
    path.write_text("not JSON")

    assert ExitBudget(path, clock).spend()
    clock.set_time_ms(1_600_000_000_000)
    assert ExitBudget(path, clock).spend()


def test_strings_become_numbers_and_booleans() -> None:
    settings, problems = coerce(
        {"health_s": "0.75", "max_batch": "8", "output": {"passthrough": "true"}, "accessControl": {"x": 1}},
        GatewaySettings(),
    )

    assert (settings.health_s, settings.max_batch, settings.output.passthrough) == (0.75, 8, True)
    assert problems == []


def test_each_bad_member_is_named_and_keeps_its_old_value_while_the_others_take_effect() -> None:
    old = GatewaySettings(health_s=9.0, output=OutputSettings(top=7))

    settings, problems = coerce(
        {"health_s": -1, "output": {"top": "x", "max_bytes": 900}, "models": "all", "colour": "red", "max_batch": 3},
        old,
    )

    assert (settings.health_s, settings.output.top, settings.output.max_bytes, settings.max_batch) == (9.0, 7, 900, 3)
    assert len(problems) == 4
    assert all("the old value stays" in problem for problem in problems)


def test_relative_paths_of_a_configuration_begin_in_its_folder_whole_or_mended(tmp_path: Path) -> None:
    values: dict[str, object] = {
        "models": [{"things": ["m"], "folder": "motor"}],
        "watch": {"trusted_keys": "keys"},
        "detectors": {"models": ["d.json", "/etc/e.json"]},
        "cloud": {"url": "mqtts://c", "ca": "ca.pem"},
    }

    for extra in ({}, {"health_s": "often"}):
        settings, _ = coerce(values | extra, GatewaySettings(), tmp_path)

        assert settings.models[0].folder == tmp_path / "motor"
        assert settings.watch.trusted_keys == tmp_path / "keys"
        assert settings.detectors.models == [tmp_path / "d.json", Path("/etc/e.json")]
        assert settings.cloud is not None and settings.cloud.ca == tmp_path / "ca.pem"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["output", "top", "models"]), inner)
        ),
        max_leaves=8,
    ).map(lambda value: value if isinstance(value, dict) else {"models": value})
)
def test_no_configuration_at_all_breaks_the_settings(values: dict[str, object]) -> None:
    settings, _ = coerce(values, GatewaySettings())

    assert isinstance(settings, GatewaySettings)


def test_one_look_follows_many_events_and_silence_is_not_trusted() -> None:
    clock = ManualClock()
    reads: list[int] = []
    applied: list[GatewaySettings] = []

    def read() -> dict[str, object]:
        reads.append(1)
        return {"max_batch": len(reads)}

    watcher = Watcher(read, applied.append, GatewaySettings(greengrass=GreengrassSettings(reread_s=300.0)), clock)
    for _ in range(5):
        watcher.tell()
    while watcher._quieter():
        pass

    watcher.look()
    watcher.look()

    assert len(reads) == 2
    assert [settings.max_batch for settings in applied] == [1, 2]


@given(
    st.lists(st.text(min_size=1, max_size=80), unique=True, min_size=1, max_size=300),
    st.dictionaries(st.text(max_size=20), st.text(max_size=200), max_size=40),
)
def test_a_prediction_is_never_too_long_and_its_shares_sum_to_1(sensors: list[str], attributes: dict[str, str]) -> None:
    share = 1.0 / len(sensors)
    prediction = Prediction(
        message_id="m1@motor-1.0.0",
        thing="motor-1",
        time_ms=1,
        reading_id="m1",
        reading_time_ms=1,
        score=1.5,
        limit=1.0,
        anomaly=1,
        contributions=[Contribution(sensor, share) for sensor in sensors],
        model=ModelName("motor", "1.0.0"),
        attributes=attributes,
    )
    reading = Reading("m1", "motor-1", 1, dict.fromkeys(sensors, 1.0))

    payload = encode_prediction(prediction, reading, OutputSettings(passthrough=True, top=300))

    assert len(payload) <= 4_000
    decoded = msgspec.json.decode(payload, type=Prediction)
    assert sum(item.share for item in decoded.contributions) == pytest.approx(1.0, abs=1e-3)
    assert (decoded.thing, decoded.score) == ("motor-1", 1.5)


@given(st.lists(st.lists(st.integers(0, 500), min_size=1, max_size=20), max_size=40), st.integers(1, 200))
def test_kept_pages_restore_exactly_the_ids_that_memory_holds(batches: list[list[int]], remember: int) -> None:
    seen, kept = SeenIds(remember, pages=8), dict[str, bytes]()
    for batch in batches:
        fresh = list(dict.fromkeys(str(number) for number in batch if str(number) not in seen))
        kept |= seen.page(fresh)
        seen.add(fresh)

    restored = SeenIds(remember, pages=8)
    restored.restore(kept.values())

    assert all((str(number) in restored) == (str(number) in seen) for number in range(501))


def test_ids_count_as_seen_only_once_they_are_on_disk() -> None:
    seen = SeenIds(remember=10)

    states = seen.page(["a"])

    assert list(states) == ["seen/0"]
    assert "a" not in seen
    assert seen.page(["a"]) == states


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 50), st.integers(0, 30)), max_size=60), st.integers(0, 40)
)
def test_the_order_buffer_gives_everything_once_and_holds_nothing_for_long(
    arrivals: list[tuple[str, int, int]], hold_ms: int
) -> None:
    buffer: OrderBuffer[int] = OrderBuffer(hold_ms)
    now, out = 0, list[int]()
    for number, (thing, time_ms, pause) in enumerate(arrivals):
        now += pause
        buffer.push(Reading(str(number), thing, time_ms, {}), number, now)
        out += buffer.pop(now)

    out += buffer.pop(now + hold_ms)

    assert sorted(out) == list(range(len(arrivals)))
    assert buffer.due_ms() is None


def test_what_was_given_early_shortens_no_later_wait_where_a_clock_was_set_back() -> None:
    buffer: OrderBuffer[str] = OrderBuffer(hold_ms=100, late_ms=1_000)
    for time_ms, name, now_ms in ((90_000, "a", 0), (10_000, "b", 10), (9_950, "c", 20)):
        buffer.push(Reading(name, "m", time_ms, {}), name, now_ms)
    first = buffer.pop(115)  # b is due, and c was taken before it

    buffer.push(Reading("d", "m", 5_000, {}), "d", 116)

    assert first == ["a", "c", "b"]
    assert buffer.pop(120) == []
    assert buffer.pop(216) == ["d"]


def test_the_environment_goes_before_the_file(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text('[broker]\nurl = "mqtt://a:1"\n')

    settings = load_settings(
        path, {"WHEELTAPPER_GATEWAY__BROKER__URL": "mqtt://b:2", "WHEELTAPPER_GATEWAY__HEALTH_S": "2.5"}
    )

    assert (settings.broker.url, settings.health_s) == ("mqtt://b:2", 2.5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[broken", "not TOML"),
        ("colour = 1", "colour"),
        ("[output]\nmax_bytes = 1", "max_bytes"),
        ('health_s = "soon"', "health_s"),
    ],
)
def test_wrong_settings_are_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(text)

    with pytest.raises(SettingsError, match=said):
        load_settings(path)


def test_relative_paths_begin_at_the_file_that_names_them_and_others_where_we_are(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text('data_dir = "data"\n[[models]]\nthings = ["*"]\nfolder = "models/motor"\n[broker]\nca = "ca.pem"\n')

    settings = load_settings(path, {"WHEELTAPPER_GATEWAY__WATCH__TRUSTED_KEYS": "keys"})

    assert settings.watch.trusted_keys == Path.cwd() / "keys"
    assert settings.data_dir == tmp_path / "data"
    assert settings.models[0].folder == tmp_path / "models" / "motor"
    assert settings.broker.ca == tmp_path / "ca.pem"


@pytest.mark.parametrize(
    ("statuses", "well"),
    [({"inference": "ready", "detectors": "ready"}, True), ({"inference": "ready", "detectors": "degraded"}, False)],
)
def test_the_health_of_two_services_in_one_process_is_the_worse(
    tmp_path: Path, statuses: dict[str, str], well: bool
) -> None:
    clock = ManualClock(1_000_000)
    for process, status in statuses.items():
        word = Health(thing="gateway", time_ms=clock.time_ms(), process=process, status=status)  # type: ignore[arg-type]
        write_health(tmp_path, encode(word), process)

    if well:
        assert check_health(tmp_path, clock).status == "ready"
    else:
        with pytest.raises(UnavailableError, match="detectors gateway: degraded"):
            check_health(tmp_path, clock)
    forget_health(tmp_path)
    with pytest.raises(UnavailableError, match="says nothing"):
        check_health(tmp_path, clock)
