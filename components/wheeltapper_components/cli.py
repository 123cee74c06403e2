"""The commands of this room."""

from wheeltapper.cli import Commands


def register(commands: Commands) -> None:
    """Add this room's commands."""
