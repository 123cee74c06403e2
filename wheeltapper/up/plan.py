"""
What ``wheeltapper up`` runs: one settings file per room, and the command that a plant would type.

The files stay in the data directory: they are working examples of each room's settings.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec

from wheeltapper.errors import SettingsError
from wheeltapper.messages import UNREADABLE
from wheeltapper.up.supervisor import Program

SCENARIOS = ("motor", "robot", "evaporator")
RUN_FILE = "run.json"

# Machine seconds in a second, so that a machine falls ill about twenty seconds after the start.
TIME_SCALE = {"motor": 12.0, "robot": 12.0, "evaporator": 12.0}

# A recorded file is over in about this time, unless that would take more rows a second than the second number.
_REPLAY_S = 45.0
_MOST_ROWS_HZ = 400.0


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What is run; a data directory holds one run, which goes on when it is started again."""

    scenario: str = "motor"
    replay: str = ""
    model: str = ""
    train_rows: int = 400
    speed: float = 0.0
    seed: int = 0

    @property
    def thing(self) -> str:
        """The machine's name."""
        return "replay-1" if self.replay else f"{self.scenario}-1"


def remember(run: Run, data_dir: Path) -> None:
    """
    Write the run down in its data directory, or see that it is the one written there.

    Raises:
        SettingsError: the directory holds another run, or cannot be written.
    """
    path = data_dir / RUN_FILE
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        if path.exists():
            kept = msgspec.json.decode(path.read_bytes(), type=Run)
            if kept != run:
                raise SettingsError(
                    f"--data-dir {data_dir}: holds another run ({_describe(kept)}); name another directory"
                )
            return
        path.write_bytes(msgspec.json.format(msgspec.json.encode(run)))
    except (OSError, *UNREADABLE) as error:
        raise SettingsError(f"--data-dir {data_dir}: {error}") from error


def _describe(run: Run) -> str:
    return f"replay of {run.replay}" if run.replay else f"{run.scenario}, seed {run.seed}"


def programs(run: Run, data_dir: Path, *, broker: str, embedded_port: int | None, port: int) -> list[Program]:
    """
    Write each room's settings and give the programs, in the order in which they are started.

    Args:
        run: what to run.
        data_dir: where everything is kept.
        broker: the broker's URL.
        embedded_port: the port on which to run a broker of our own; None where there is one.
        port: the cloud companion's.
    """
    settings = {
        "cloud": _cloud(broker, port),
        "gateway": _gateway(run, data_dir, broker),
        "device": _device(run, data_dir, broker),
    }
    for name, table in settings.items():
        _write_toml(data_dir / f"{name}.toml", table)
    rooms = [
        ("cloud", ("cloud", "serve", "--config", data_dir / "cloud.toml", "--data-dir", data_dir / "cloud")),
        ("gateway", ("gateway", "run", "--config", data_dir / "gateway.toml")),
        ("device", ("device", "run", "--config", data_dir / "device.toml")),
    ]
    given = [Program(name, _wheeltapper(*words)) for name, words in rooms]
    if embedded_port is not None:
        broker_command = (sys.executable, "-m", "wheeltapper.broker", "--port", str(embedded_port))
        given.insert(0, Program("broker", broker_command))
    return given


def model_folder(run: Run, data_dir: Path) -> Path:
    """The model that judges the run's machine."""
    if run.model:
        return Path(run.model)
    return data_dir / "model" if run.replay else shipped_models() / run.scenario


def shipped_models() -> Path:
    """The folder of the models that come with Wheeltapper."""
    return Path(str(files("wheeltapper_models") / "shipped"))


def training_command(run: Run, data_dir: Path) -> Sequence[str]:
    """The command that trains the model of a replayed file from its first rows."""
    return _wheeltapper(
        *("model", "train", "--kind", "anomaly", "--data", run.replay, "--rows", f"0:{run.train_rows}"),
        *("--out", data_dir / "model"),
    )


def _wheeltapper(*words: str | Path) -> tuple[str, ...]:
    return (sys.executable, "-m", "wheeltapper.cli", *map(str, words))


def _device(run: Run, data_dir: Path, broker: str) -> dict[str, Any]:
    table: dict[str, Any] = {
        "thing": run.thing,
        "data_dir": str(data_dir / "device"),
        "health_s": 2.0,
        "broker": {"url": broker, "client_id": f"{run.thing}-device"},
    }
    if run.replay:
        pace = {"speed": run.speed} if run.speed else {"rate_hz": _replay_rate_hz(Path(run.replay))}
        table["replay"] = {"file": run.replay, **pace}
    else:
        time_scale = run.speed or TIME_SCALE[run.scenario]
        table["simulation"] = {"scenario": run.scenario, "seed": run.seed, "time_scale": time_scale}
    return table


def _replay_rate_hz(path: Path) -> float:
    """Rows a second, such that the whole file passes in ``_REPLAY_S``, or as fast as is sensible."""
    with path.open("rb") as file:
        rows = sum(1 for _ in file)
    return min(max(rows / _REPLAY_S, 1.0), _MOST_ROWS_HZ)


def _gateway(run: Run, data_dir: Path, broker: str) -> dict[str, Any]:
    every_reading = 0.0  # stamps of a time lapse do not follow one another at the model's pace
    return {
        "thing": "gateway",
        "data_dir": str(data_dir / "gateway"),
        "health_s": 2.0,
        "broker": {"url": broker, "client_id": "wheeltapper-gateway"},
        "models": [{"things": [run.thing], "folder": str(model_folder(run, data_dir)), "period_s": every_reading}],
    }


def _cloud(broker: str, port: int) -> dict[str, Any]:
    return {
        "broker": broker,
        "health_s": 2.0,
        "server": {"port": port},
        "models": [str(files("wheeltapper.up") / "machine_health.json")],
        "inputs": [{"name": "Prediction", "attributes": ["thing", "score", "limit", "anomaly"]}],
        "rules": [{"filter": "wt/+/prediction", "input": "Prediction"}],
    }


def _write_toml(path: Path, table: Mapping[str, Any]) -> None:
    path.write_text("# Written by `wheeltapper up`.\n" + "\n".join(_toml(table)) + "\n", encoding="utf-8")


def _toml(table: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """TOML lines of nested tables; a JSON scalar or list of scalars is one in TOML too."""
    for name, value in table.items():
        if not isinstance(value, dict) and not _is_list_of_tables(value):
            yield f"{name} = {json.dumps(value)}"
    for name, value in table.items():
        if isinstance(value, dict):
            yield f"\n[{prefix}{name}]"
            yield from _toml(value, f"{prefix}{name}.")
        elif _is_list_of_tables(value):
            for entry in value:
                yield f"\n[[{prefix}{name}]]"
                yield from _toml(entry, f"{prefix}{name}.")


def _is_list_of_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)
