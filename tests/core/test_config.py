"""Settings come from a file, the environment and the command line; what is wrong is named."""

from pathlib import Path

import msgspec
import pytest

from wheeltapper.config import load
from wheeltapper.errors import SettingsError


class Broker(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    url: str = "mqtt://default"
    user: str = ""
    ca: Path | None = None


class Room(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    rate: float = 1.0
    data_dir: Path = Path("data")
    broker: Broker = Broker()
    models: list[Path] = []


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "room.toml"
    path.write_text('rate = 2.5\nmodels = ["a.json", "/b.json"]\n[broker]\nurl = "mqtt://file"\nca = "ca.pem"\n')
    return path


def test_each_source_goes_over_the_one_before(file: Path) -> None:
    environment = {"ROOM__BROKER__URL": "mqtt://environment", "ROOM__RATE": "3", "OTHER": "x"}

    settings = load(
        Room, file, prefix="ROOM__", environment=environment, overrides={("rate",): 4.0, ("broker", "ca"): None}
    )

    assert settings.broker.url == "mqtt://environment"
    assert settings.rate == 4.0


def test_what_was_typed_can_be_written_again(file: Path) -> None:
    environment = {"ROOM__BROKER__URL": "mqtt://environment"}

    settings = load(Room, file, prefix="ROOM__", environment=environment, overrides={("broker", "user"): "me"})

    assert type(settings.broker.url) is type(settings.broker.user) is str
    assert b"mqtt://environment" in msgspec.json.encode(settings.broker.url)


def test_paths_in_the_file_are_relative_to_it_and_others_to_where_we_are(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)

    settings = load(Room, file, prefix="ROOM__", environment={"ROOM__DATA_DIR": "d"})

    assert settings.broker.ca == tmp_path / "ca.pem"
    assert settings.models == [tmp_path / "a.json", Path("/b.json")]
    assert settings.data_dir == elsewhere / "d"


def test_no_file_is_all_defaults() -> None:
    assert load(Room, None) == Room()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("rate = [", "not TOML"),
        ("speed = 1", "speed"),
        ('rate = "fast"', r"\$\.rate"),
        ("[broker]\nca = 3", r"\$\.broker\.ca"),
        ('[broker]\nca = ""', r"leave the member out.*\$\.broker\.ca"),
    ],
    ids=["not TOML", "unknown member", "no number", "no path", "an empty path"],
)
def test_what_is_wrong_is_named(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "room.toml"
    path.write_text(text)

    with pytest.raises(SettingsError, match=told):
        load(Room, path)


def test_a_file_that_is_not_there_and_a_place_that_cannot_be_are_refused(tmp_path: Path, file: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        load(Room, tmp_path / "missing.toml")
    with pytest.raises(SettingsError, match="rate is not a table"):
        load(Room, file, overrides={("rate", "unit"): "Hz"})
