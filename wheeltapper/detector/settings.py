"""
What AWS does not document, in one place: each unknown of the specification with the default that was chosen for it.

The defaults serve plants and edges: short timers, long expressions, undeclared attributes. ``STRICT`` is as near to the
documented letter of AWS IoT Events as it goes, for those who must know what the service itself would have done.
"""

from typing import Literal

from msgspec import Struct


class EngineSettings(Struct, frozen=True, kw_only=True):
    """
    Every choice that two implementations could make differently.

    Attributes:
        integer_division: what 7 / 2 is: ``half-up`` 4, ``truncate`` 3, ``floor`` 3 (differs below zero).
        timeout_once_per_check: the second ``timeout("t")`` of one pass is false already; else every check of a pass is true.
        whole_second_timers: a timer ends at a whole second, floor(now) + duration; else at now + duration.
        minimum_timer_s: a shorter duration is an error when the action runs.
        declared_attributes_only: attributes that an input does not declare are undefined; needs the inputs' declarations.
        alarm_disabled_by_default: a new alarm is DISABLED where its model does not say.
        alarm_acknowledge_flow_by_default: an alarm latches where its model does not say.
        dedup_window_s: a message id that repeats within this time is ignored.
        dedup_scope: whether ids are compared within one input or over all of them.
    """

    integer_division: Literal["half-up", "truncate", "floor"] = "half-up"
    timeout_once_per_check: bool = False
    whole_second_timers: bool = True
    minimum_timer_s: int = 1
    declared_attributes_only: bool = False
    alarm_disabled_by_default: bool = True
    alarm_acknowledge_flow_by_default: bool = False
    dedup_window_s: float = 300.0
    dedup_scope: Literal["input", "account"] = "input"


DEFAULTS = EngineSettings()
STRICT = EngineSettings(timeout_once_per_check=True, minimum_timer_s=60, declared_attributes_only=True)
