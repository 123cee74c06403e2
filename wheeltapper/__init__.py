"""The core: what the rooms say to one another, and the engine that judges it."""

__version__ = "0.1.0"
