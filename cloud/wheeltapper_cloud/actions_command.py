"""The executor that runs an operator's command."""

import subprocess
from pathlib import Path

from wheeltapper.errors import SettingsError, UnavailableError
from wheeltapper.judge import Action
from wheeltapper.judge.delivery import Result, Settled
from wheeltapper_cloud.actions_json import as_json, describe
from wheeltapper_cloud.actions_program import run_program
from wheeltapper_cloud.actions_settings import CommandSettings


class CommandExecutor:
    """
    Runs one program of the operator's list: no shell, no argument from outside; the action is its standard input.

    Raises:
        SettingsError: the list is empty or the program is not an absolute path.
    """

    immediate = False

    def __init__(self, name: str, settings: CommandSettings) -> None:
        if not settings.run or not Path(settings.run[0]).is_absolute():
            raise SettingsError(f"actions.commands.{name}: run must begin with the absolute path of a program")
        self._name = name
        self._settings = settings

    def execute(self, action: Action, settled: Settled) -> None:
        given = as_json(describe(action)).encode()
        environment = {"PATH": "/usr/bin:/bin", "WHEELTAPPER_ACTION_ID": action.id}
        timeout_s = self._settings.timeout_s
        try:
            ended = run_program(self._settings.run, given, environment, timeout_s)
        except subprocess.TimeoutExpired as error:
            raise UnavailableError(f"command {self._name}: took longer than {timeout_s:g} s") from error
        except OSError as error:
            raise UnavailableError(f"command {self._name}: {error.strerror}") from error
        if ended.status == 0:
            settled(Result("delivered"))
        else:
            settled(Result("retry", f"command {self._name}: exit status {ended.status}: {ended.said[-200:]}"))
