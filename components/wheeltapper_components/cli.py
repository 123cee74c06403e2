"""The commands of this room."""

import argparse
import os
from pathlib import Path

from wheeltapper.cli import Commands
from wheeltapper_components import component_commands

_SETTINGS = """\
wheeltapper gateway run --config gateway.toml

gateway.toml:
  thing = "gateway"
  data_dir = "/var/lib/wheeltapper/gateway"
  [broker]
  url = "mqtt://127.0.0.1:1883"
  [[models]]
  things = ["motor-*"]
  folder = "models/motor\""""


def register(commands: Commands) -> None:
    """Add this room's commands."""
    component_commands.register(commands)
    gateway = commands.group("gateway", "score readings and judge them beside the machine")
    run = gateway.add("run", _run, help="run inference, and detectors where configured, over MQTT", example=_SETTINGS)
    run.add_argument(
        "--config", type=Path, required=True, metavar="FILE", help="settings in TOML (see docs/gateway.md)"
    )


def _run(options: argparse.Namespace) -> int:
    from wheeltapper.clock import SystemClock
    from wheeltapper.logs import set_up
    from wheeltapper_components.gateway import Gateway, run_until_told
    from wheeltapper_components.settings import load_settings

    settings = load_settings(options.config, os.environ)
    set_up(settings.log_level)
    run_until_told(Gateway(settings, SystemClock()))
    return 0
