"""The scenario models that come with Wheeltapper, one folder each; `wheeltapper model reproduce` trains them again."""

from pathlib import Path

SCENARIOS = ("motor", "robot", "evaporator")


def shipped_path(scenario: str) -> Path | None:
    """The folder of a scenario's model; None where none of that name is shipped."""
    folder = Path(__file__).parent / scenario
    return folder if scenario in SCENARIOS and (folder / "card.json").is_file() else None
