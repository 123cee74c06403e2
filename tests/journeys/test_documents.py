"""The documents are true: links lead somewhere, commands exist with the arguments shown, every command is documented."""

import contextlib
import io
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from wheeltapper.cli import build_parser
from wheeltapper.errors import SettingsError
from wheeltapper_cloud.settings import load as load_cloud
from wheeltapper_components.settings import load_settings as load_gateway
from wheeltapper_device.settings import load_settings as load_device

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([ROOT / "README.md", *ROOT.glob("docs/*.md"), ROOT / "certs" / "README.md"])
_END = re.compile(r"\s+(?:\||>|<|&&|;|#|2>)\s*.*$")


def commands_in(text: str) -> Iterator[str]:
    """Command lines of fenced and indented blocks, continued lines joined."""
    fenced = False
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
            continue
        if not fenced and not line.startswith("    "):
            continue
        found = re.match(r"\s*(?:\$ |eval \"\$\()?(?:\.venv/bin/)?(wheeltapper [a-z][^\n]*|\./up\b[^\n]*)", line)
        if found and "docker compose" not in line:
            yield _END.sub("", found[1]).strip()


def words_of(command: str) -> list[str]:
    command = re.sub(r"^\./up", "wheeltapper up", command.removesuffix(')"'))
    return [word for word in shlex.split(command)[1:] if word not in ("…", "...")]


CASES = [(path.relative_to(ROOT), command) for path in DOCUMENTS for command in commands_in(path.read_text())]


@pytest.mark.parametrize(("document", "command"), CASES, ids=lambda value: str(value)[:60])
def test_a_documented_command_is_understood(document: Path, command: str) -> None:
    told = io.StringIO()

    with contextlib.redirect_stderr(told):
        try:
            build_parser().parse_args(words_of(command))
            status = 0
        except SystemExit as ended:
            status = int(ended.code or 0)

    assert status == 0, f"{document}: {command}: {told.getvalue()}"


LOADERS: tuple[Callable[[Path], object], ...] = (
    lambda path: load_device(path, {}, {}),
    load_gateway,
    load_cloud,
)
SETTINGS = [
    (path.relative_to(ROOT), block)
    for path in DOCUMENTS
    for block in re.findall(r"```toml\n(.*?)```", path.read_text(), re.DOTALL)
]


def refusal_of(load: Callable[[Path], object], path: Path) -> str:
    try:
        load(path)
    except SettingsError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(("document", "block"), SETTINGS, ids=lambda value: str(value)[:40])
def test_settings_shown_are_settings_of_some_room(document: Path, block: str, tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(block)

    refusals = [refusal_of(load, path) for load in LOADERS]

    assert "" in refusals, f"{document}: {refusals}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text())

    missing = [link for link in links if not (document.parent / link).exists()]

    assert missing == []


def test_every_command_is_documented() -> None:
    from tests.core.test_cli import leaves

    text = "\n".join(path.read_text() for path in DOCUMENTS)

    undocumented = [name for name, _ in leaves(build_parser()) if name.rsplit(" ", 1)[-1] not in text]

    assert undocumented == []
    assert len(CASES) > 40
