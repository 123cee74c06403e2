"""The core's own commands."""

from wheeltapper.cli import Commands


def register(commands: Commands) -> None:
    """Add the commands that need no room of their own."""
    from wheeltapper.certs_commands import register as register_certs
    from wheeltapper.health import register as register_health
    from wheeltapper.outbox_commands import register as register_outbox
    from wheeltapper.up.command import register as register_up

    register_up(commands)
    register_certs(commands)
    register_health(commands)
    register_outbox(commands)
