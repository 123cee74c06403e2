"""
One text for a model's kind and name: what a shard and what is kept of its detectors call a model.

A detector model and an alarm model may share a name, as AWS allows. A detector model's handle is its name; an alarm model's
is ``alarm/`` and its name, and no name holds a slash. Handles stay inside: what leaves goes by kind and name.
"""

from typing import Literal

Kind = Literal["detector", "alarm"]

_ALARM = "alarm/"


def handle_of(kind: Kind, name: str) -> str:
    """
    The handle of a model.

    >>> handle_of("detector", "Motor"), handle_of("alarm", "Motor")
    ('Motor', 'alarm/Motor')
    """
    return name if kind == "detector" else _ALARM + name


def named_by(handle: str) -> tuple[Kind, str]:
    """
    The kind and the name that a handle stands for.

    >>> named_by("Motor"), named_by("alarm/Motor")
    (('detector', 'Motor'), ('alarm', 'Motor'))
    """
    name = handle.removeprefix(_ALARM)
    return ("detector" if name == handle else "alarm"), name
