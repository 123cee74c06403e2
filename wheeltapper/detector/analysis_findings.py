"""What an analysis finds."""

from collections.abc import Collection, Mapping
from typing import Any, Literal

import msgspec

Level = Literal["INFO", "WARNING", "ERROR"]

# input name → its declared attribute paths, as written.
Inputs = Mapping[str, Collection[str]]


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """
    One thing to know about a definition.

    Attributes:
        type: AWS's category, or Wheeltapper's own: ``reachability``, ``timers``, ``variables``, ``inputs``, ``messages``.
        locations: places in the definition, such as ``states[0].onInput.events[1]``.
        rule: a short name of the check, for suppressing and for documents; empty for AWS's own.
        why: the evidence; empty where the message says it all.
    """

    type: str
    level: Level
    message: str
    locations: tuple[str, ...] = ()
    rule: str = ""
    why: str = ""

    def result(self) -> dict[str, Any]:
        """The finding as GetDetectorModelAnalysisResults gives it."""
        return {
            "type": self.type,
            "level": self.level,
            "message": self.message,
            "locations": [{"path": path} for path in self.locations],
        }
