"""The command line: every command has help with an example, errors are one line, a slim install shows its own."""

import argparse
import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import files as files_of
from pathlib import Path

import pytest

from wheeltapper import cli
from wheeltapper.errors import SettingsError, UnavailableError


def leaves(
    parser: argparse.ArgumentParser, path: tuple[str, ...] = ()
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    actions = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not actions:
        yield " ".join(path), parser
    for action in actions:
        for name, child in action.choices.items():
            yield from leaves(child, (*path, name))


def test_every_command_has_help_and_an_example() -> None:
    commands = dict(leaves(cli.build_parser()))

    assert len(commands) > 20
    for name, parser in commands.items():
        assert parser.description, name
        assert parser.epilog and "wheeltapper " in parser.epilog, name
        assert [action.dest for action in parser._actions if not action.help] == [], name


def test_every_library_has_an_extra_that_brings_it() -> None:
    packages = (
        "wheeltapper",
        "wheeltapper_models",
        "wheeltapper_device",
        "wheeltapper_components",
        "wheeltapper_cloud",
    )
    always = {"msgspec", "rich", "yaml"}
    files = [file for name in packages for file in Path(str(files_of(name))).rglob("*.py")]
    imported = {
        name.split(".")[0]
        for file in files
        for node in ast.walk(ast.parse(file.read_text()))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom) and not node.level
            else []
        )
    }

    unnamed = imported - set(sys.stdlib_module_names) - set(packages) - always - set(cli.EXTRA_OF)

    assert len(files) > 100
    assert unnamed == set()


# What lies beside the core in each room's image, and the first words of the commands that it must show.
IMAGES = {
    "core": ((), {"certs", "detector", "health"}),
    "device": (("device",), {"device"}),
    "gateway": (("components", "models"), {"gateway", "component", "model"}),
    "cloud": (("cloud",), {"cloud", "alarms", "actions", "trigger"}),
}


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_shows_its_own_commands_without_the_other_rooms(image: str) -> None:
    folders, own = IMAGES[image]
    code = (
        "import sys; from pathlib import Path; rooms = {'cloud', 'components', 'device', 'models'};"
        f"sys.path = [path for path in sys.path if Path(path).name not in rooms - set({folders!r})];"
        "from wheeltapper.cli import main; sys.exit(main(['--help']))"
    )

    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    commands = {line.split()[0] for line in shown.stdout.splitlines() if re.match(" {4}[a-z]", line)}
    assert shown.returncode == 0, shown.stderr
    assert own <= commands
    others = set().union(*(words for name, (_, words) in IMAGES.items() if name not in (image, "core")))
    assert not commands & others


def test_help_loads_no_heavy_library() -> None:
    heavy = (
        "numpy",
        "onnxruntime",
        "onnx",
        "boto3",
        "botocore",
        "starlette",
        "pyarrow",
        "lightgbm",
        "awscrt",
        "paho",
        "rich",
    )
    code = (
        "import sys; from wheeltapper.cli import build_parser; build_parser();"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )

    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert loaded.strip() == "[]"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (SettingsError("port: taken"), 2),
        (UnavailableError("broker: away"), 1),
        (ModuleNotFoundError("No module named 'boto3'", name="boto3"), 2),
        (KeyboardInterrupt(), 130),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_expected_failure_is_one_line_and_a_status(
    error: BaseException, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_options: argparse.Namespace) -> int:
        raise error

    parser = argparse.ArgumentParser()
    parser.set_defaults(run=fail)
    monkeypatch.setattr(cli, "build_parser", lambda: parser)

    assert cli.main([]) == status

    told = capsys.readouterr().err
    assert len(told.splitlines()) <= 1


def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(_options: argparse.Namespace) -> int:
        raise ModuleNotFoundError("No module named 'onnxruntime'", name="onnxruntime")

    parser = argparse.ArgumentParser()
    parser.set_defaults(run=fail)
    monkeypatch.setattr(cli, "build_parser", lambda: parser)

    cli.main([])

    assert "pip install 'wheeltapper[gateway]'" in capsys.readouterr().err
