"""How durable, how much is kept, how late is late: the judge's settings and their defaults."""

from typing import Literal

import msgspec

from wheeltapper.topics import ACTION, ALARM, STATE


class JudgeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    The judge's settings; every default is the one the documents name.

    Attributes:
        clock: ``arrival`` judges by the host's clock, as AWS does, whatever a message's own time, which then only stamps
            what comes of it; ``event`` judges by the messages' times, so that timers run in the time of buffered uploads.
        patience_s: with ``event``, when no message has come for so long, timers run by the host's clock again.
        deduplicate: ignore repeats of a message id within ``dedup_window_s``; ids are scoped per input.
        synchronous: FULL survives a power cut; NORMAL survives the process only.
        snapshot_interval_s: how much journal, in time, a restart may have to replay.
        keep_days, keep_bytes: the journal's age and size, whichever is less; never prunes what a restart needs.
        publish_states, publish_alarms: tell operators over the broker, once per change; off where there is no broker.
        publish_actions: tell operators over the broker what became of actions; the host does it.
        state_topic, alarm_topic, action_topic: where to, each with ``{thing}`` in it.
        alarm_states: detector model → states that are alarms; default: states whose onEnter has an external action.
        thing_attribute: member of the payload that names the thing; where it is missing, the detector's key does.
        hop_limit: how often a message may pass through ``iotEvents`` actions.
        max_page_count: quota of the database in pages of 4096 bytes; 0 is none.
    """

    clock: Literal["arrival", "event"] = "arrival"
    patience_s: float = 300.0
    deduplicate: bool = True
    dedup_window_s: int = 300
    synchronous: Literal["FULL", "NORMAL"] = "FULL"
    snapshot_interval_s: float = 10.0
    keep_days: float = 30.0
    keep_bytes: int = 4 * 1024**3
    publish_states: bool = True
    publish_alarms: bool = True
    publish_actions: bool = True
    state_topic: str = STATE
    alarm_topic: str = ALARM
    action_topic: str = ACTION
    alarm_states: dict[str, list[str]] = {}
    thing_attribute: str = "thing"
    hop_limit: int = 8
    max_page_count: int = 0
