"""Reads a Dockerfile as data, and carries out a stage's COPY and RUN steps in a scratch root instead of an engine."""

import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Stage:
    """One FROM and what follows it."""

    name: str
    parent: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def given(self, instruction: str) -> list[str]:
        """The arguments of every step of that kind, in order."""
        return [arguments for kind, arguments in self.steps if kind == instruction]


def stages_of(path: Path) -> dict[str, Stage]:
    """Every stage by name."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    text = "\n".join(lines).replace("\\\n", " ")
    stages: dict[str, Stage] = {}
    current: Stage | None = None
    for line in filter(None, (each.strip() for each in text.splitlines())):
        kind, _, arguments = line.partition(" ")
        if kind == "FROM":
            parent, _, name = re.fullmatch(r"(\S+)( AS (\S+))?", arguments).groups()  # type: ignore[union-attr]
            current = stages[name] = Stage(name, parent)
        elif current is not None:
            current.steps.append((kind, " ".join(arguments.split())))
    return stages


def chain(stages: dict[str, Stage], name: str) -> list[Stage]:
    """A stage after those that it is built on."""
    found: list[Stage] = []
    while name in stages:
        found.insert(0, stages[name])
        name = stages[name].parent
    return found


def copies_of(stage: Stage) -> list[tuple[list[str], str]]:
    """The sources and the target of every COPY from the build context."""
    found = []
    for arguments in stage.given("COPY"):
        if not arguments.startswith("--from"):
            *sources, target = shlex.split(arguments)
            found.append((sources, target))
    return found


def exec_form(arguments: str) -> list[str]:
    """The words of a CMD, ENTRYPOINT or HEALTHCHECK in JSON form."""
    words: list[str] = json.loads(arguments[arguments.index("[") :])
    return words


def context_of(root: Path) -> list[Path]:
    """The files that .dockerignore lets into the build context, relative to the root; the last rule that matches decides."""
    rules = [line.strip() for line in (root / ".dockerignore").read_text().splitlines()]
    rules = [rule for rule in rules if rule and not rule.startswith("#")]
    tracked = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=root, capture_output=True, text=True, check=True
    )
    return [Path(name) for name in tracked.stdout.splitlines() if _is_let_in(name, rules) and (root / name).is_file()]


def _is_let_in(name: str, rules: list[str]) -> bool:
    parts = name.split("/")
    prefixes = ["/".join(parts[: place + 1]) for place in range(len(parts))]
    let_in = True
    for rule in rules:
        pattern = rule.removeprefix("!")
        if any(_matches(prefix, pattern) for prefix in prefixes):
            let_in = rule.startswith("!")
    return let_in


def _matches(path: str, pattern: str) -> bool:
    if pattern.startswith("**/"):
        return fnmatch.fnmatchcase(path.rsplit("/", 1)[-1], pattern.removeprefix("**/"))
    return path.count("/") == pattern.count("/") and fnmatch.fnmatchcase(path, pattern)


class ScratchRoot:
    """
    A folder in the place of an image's root: ``/src`` and ``/opt/wheeltapper`` lie in it.

    ``python`` and ``pip`` are those of a virtual environment of its own, as an image's are.
    """

    def __init__(self, folder: Path, checkout: Path) -> None:
        self.source = folder / "src"
        self.venv = folder / "opt" / "wheeltapper"
        self._checkout = checkout
        self._context = context_of(checkout)
        self._system = folder / "usr"
        self.source.mkdir(parents=True)
        subprocess.run([sys.executable, "-m", "venv", self._system], check=True)

    def build(self, stages: list[Stage]) -> None:
        """Carry out every COPY and RUN; raises CalledProcessError where one fails."""
        for stage in stages:
            for kind, arguments in stage.steps:
                if kind == "COPY":
                    *sources, target = shlex.split(arguments)
                    self._copy(sources, target)
                elif kind == "RUN":
                    command = arguments.replace("/opt/wheeltapper", str(self.venv))
                    self.run(["sh", "-euc", command], self._system)

    def run(self, command: list[str], environment: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command as in the finished image, with nothing of this process's Python in its way."""
        variables = {
            name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))
        }
        variables["PATH"] = f"{(environment or self.venv) / 'bin'}:/usr/bin:/bin"
        return subprocess.run(command, cwd=self.source, env=variables, check=True, capture_output=True, text=True)

    def _copy(self, sources: list[str], target: str) -> None:
        for source in sources:
            names = [name for name in self._context if name == Path(source) or Path(source) in name.parents]
            assert names, f"COPY {source}: is not in the build context"
            for name in names:
                inner = (
                    name.relative_to(source)
                    if name != Path(source)
                    else Path(name.name if target.endswith("/") else "")
                )
                place = self.source / target / inner
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self._checkout / name, place)
