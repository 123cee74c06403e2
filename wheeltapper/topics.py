"""
Every MQTT topic Wheeltapper speaks on by default: who speaks, who listens, which type travels.

| topic                           | speaks            | listens             | type                          |
|---------------------------------|-------------------|---------------------|-------------------------------|
| wt/{thing}/reading              | device            | gateway, cloud      | messages.Reading              |
| wt/{thing}/prediction           | gateway           | cloud, operators    | messages.Prediction           |
| wt/{thing}/state                | cloud or gateway  | operators           | messages.StateChange          |
| wt/{thing}/alarm                | cloud or gateway  | operators           | messages.Alarm                |
| wt/{thing}/action               | cloud or gateway  | operators           | messages.ActionReport         |
| wt/{thing}/drift                | gateway           | operators           | messages.Drift                |
| wt/{thing}/health               | every process     | operators           | messages.Health               |
| wt/{thing}/fault                | simulated device  | operators           | messages.FaultBegun           |
| wt/{thing}/trigger/ingest       | operators         | device              | messages.Trigger              |
| wt/{thing}/trigger/infer        | operators         | gateway             | messages.Trigger              |
| …/trigger/{ingest,infer}/reply  | device, gateway   | operators           | messages.TriggerReply         |

All of them are settings: a template with ``{thing}`` in it, or a literal name such as ``pollution/data/infer/trigger``.
"""

import re

from wheeltapper.errors import SettingsError

READING = "wt/{thing}/reading"
PREDICTION = "wt/{thing}/prediction"
STATE = "wt/{thing}/state"
ALARM = "wt/{thing}/alarm"
ACTION = "wt/{thing}/action"
DRIFT = "wt/{thing}/drift"
HEALTH = "wt/{thing}/health"
FAULT = "wt/{thing}/fault"
TRIGGER_INGEST = "wt/{thing}/trigger/ingest"
TRIGGER_INFER = "wt/{thing}/trigger/infer"
REPLY_SUFFIX = "/reply"

_THING = re.compile(r"[A-Za-z0-9:_\-.]{1,128}")


def topic_of(template: str, thing: str) -> str:
    """
    The topic on which one thing's messages travel.

    >>> topic_of(READING, "motor-1")
    'wt/motor-1/reading'
    """
    if not _THING.fullmatch(thing):
        raise SettingsError(f"thing {thing!r}: must be 1 to 128 of the characters A-Z a-z 0-9 : _ - .")
    return template.replace("{thing}", thing)


def filter_of(template: str) -> str:
    """
    The topic filter that receives every thing's messages.

    >>> filter_of(READING)
    'wt/+/reading'
    """
    return template.replace("{thing}", "+")


def thing_of(template: str, topic: str) -> str | None:
    """
    The thing a topic speaks of; None where the template names none or does not match.

    >>> thing_of(READING, "wt/motor-1/reading")
    'motor-1'
    """
    wanted, given = template.split("/"), topic.split("/")
    if len(wanted) != len(given) or "{thing}" not in wanted:
        return None
    if any(level != "{thing}" and level != name for level, name in zip(wanted, given, strict=True)):
        return None
    return given[wanted.index("{thing}")]


def plain_filter(topic_filter: str) -> str:
    """The filter a shared subscription's messages pass: ``$share/group/a/#`` delivers what ``a/#`` would."""
    return topic_filter.split("/", 2)[2] if topic_filter.startswith("$share/") else topic_filter


def check_filter(topic_filter: str) -> None:
    """
    See that a text is an MQTT topic filter (MQTT 3.1.1 §4.7): brokers hang up on those who subscribe to another.

    Raises:
        SettingsError: it is not.
    """
    levels = topic_filter.split("/")
    names = [level for level in (levels[:-1] if levels[-1] == "#" else levels) if level != "+"]
    if not 1 <= len(topic_filter.encode()) <= 65_535 or not {"+", "#", "\0"}.isdisjoint("".join(names)):
        raise SettingsError(f"topic filter {topic_filter!r}: + stands for a whole level, # for all levels at the end")


def matches(topic_filter: str, topic: str) -> bool:
    """
    Whether a topic, or every topic that passes a narrower filter, passes an MQTT topic filter (MQTT 3.1.1 §4.7).

    >>> matches("wt/+/reading", "wt/motor-1/reading"), matches("wt/#", "wt"), matches("+/x", "$SYS/x")
    (True, True, False)
    >>> matches("dt/#", "dt/+/data"), matches("dt/+/data", "dt/#")
    (True, False)
    """
    wanted, given = topic_filter.split("/"), topic.split("/")
    if topic.startswith("$") and wanted[0] in ("+", "#"):
        return False
    for place, level in enumerate(wanted):
        if level == "#":
            return True
        if place >= len(given) or given[place] == "#" or level not in ("+", given[place]):
            return False
    return len(wanted) == len(given)


def filters_overlap(first: str, second: str) -> bool:
    """
    Whether some topic passes both MQTT topic filters.

    >>> filters_overlap("dt/+/data", "dt/m1/#"), filters_overlap("dt/+/data", "dt/+/action")
    (True, False)
    """
    left, right = first.split("/"), second.split("/")
    if first.startswith("$") != second.startswith("$") and not {left[0], right[0]}.isdisjoint("+#"):
        return False
    for place in range(max(len(left), len(right))):
        a = left[place] if place < len(left) else None
        b = right[place] if place < len(right) else None
        if a == "#" or b == "#":
            return True
        if a is None or b is None:
            return False
        if a != b and "+" not in (a, b):
            return False
    return True
