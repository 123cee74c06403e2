"""
The command line: finds each room's commands by entry point and runs one.

Rooms register with argparse only; what a command needs is imported when it runs, so that ``wheeltapper --help`` is
quick and a slim install shows only the commands of the rooms that it holds.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from wheeltapper import __version__
from wheeltapper.errors import MissingExtraError, WheeltapperError

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

Run = Callable[[argparse.Namespace], int]

# Third-party top-level modules and the extra that brings each.
EXTRA_OF = {
    "awscrt": "device",
    "awsiot": "device",
    "boto3": "cloud",
    "botocore": "cloud",
    "cryptography": "cloud",
    "httptools": "cloud",
    "iotcore": "all",
    "lightgbm": "train",
    "matplotlib": "train",
    "numpy": "gateway",
    "onnx": "train",
    "onnxruntime": "gateway",
    "packaging": "gateway",
    "paho": "device",
    "prometheus_client": "cloud",
    "pyarrow": "train",
    "re2": "cloud",
    "sklearn": "train",
    "starlette": "cloud",
    "uvicorn": "cloud",
    "uvloop": "cloud",
    "wheeltapper_cloud": "cloud",
    "wheeltapper_components": "gateway",
    "wheeltapper_device": "device",
    "wheeltapper_models": "gateway",
}


class Commands:
    """A place in the tree of commands; several rooms may add to the same group."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._parser = parser
        self._subparsers: Subparsers | None = None
        self._needs_word = True
        self._groups: dict[str, Commands] = {}

    def group(self, name: str, help: str = "") -> "Commands":  # noqa: A002
        """The group of that name, made if it is new."""
        if name not in self._groups:
            self._groups[name] = Commands(self._add_parser(name, help, ""))
        return self._groups[name]

    def add(self, name: str, run: Run, *, help: str, example: str) -> argparse.ArgumentParser:  # noqa: A002
        """
        Add a command.

        Args:
            name: the word typed.
            run: called with the parsed arguments; returns the exit status.
            help: one line, for the list of commands.
            example: one or more command lines, shown at the end of ``--help``.

        Returns:
            The command's parser, for its arguments.
        """
        parser = self._add_parser(name, help, example)
        parser.set_defaults(run=run)
        return parser

    def otherwise(self, run: Run, *, example: str) -> argparse.ArgumentParser:
        """Let a group do something without a further word, too; gives its parser, for the arguments of that."""
        self._parser.set_defaults(run=run)
        self._parser.epilog = _example(example)
        self._needs_word = False
        if self._subparsers is not None:
            self._subparsers.required = False
        return self._parser

    def _add_parser(self, name: str, help_text: str, example: str) -> argparse.ArgumentParser:
        if self._subparsers is None:
            self._subparsers = self._parser.add_subparsers(metavar="COMMAND", required=self._needs_word)
        return self._subparsers.add_parser(
            name,
            help=help_text,
            description=help_text,
            epilog=_example(example),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )


def _example(text: str) -> str | None:
    return "example:\n" + "\n".join(f"  {line}" for line in text.splitlines()) if text else None


def build_parser() -> argparse.ArgumentParser:
    """The parser with the commands of every room that is installed."""
    parser = argparse.ArgumentParser(
        prog="wheeltapper", description="Predictive maintenance from sensor to explained alarm.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"wheeltapper {__version__}")
    commands = Commands(parser)
    for entry in sorted(entry_points(group="wheeltapper.commands"), key=lambda entry: entry.name):
        try:
            register = entry.load()
        except ModuleNotFoundError as error:
            if error.name is not None and entry.module.startswith(error.name):
                continue  # a slim install without this room
            raise
        register(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; every expected failure is one line on standard error."""
    options = build_parser().parse_args(arguments)
    try:
        status: int = options.run(options)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 141
    except WheeltapperError as error:
        print(f"wheeltapper: {error}", file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:
        library = (error.name or "").split(".")[0]
        if library not in EXTRA_OF:
            raise
        print(f"wheeltapper: {MissingExtraError(EXTRA_OF[library], library)}", file=sys.stderr)
        return MissingExtraError.exit_code
    return status


if __name__ == "__main__":
    sys.exit(main())
