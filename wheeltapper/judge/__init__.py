"""
The durable host of detectors: what is accepted is journaled, what is journaled is applied, once, in order.

It lives in the core because the cloud and the gateway host detectors alike; it knows nothing of HTTP, MQTT or AWS.
"""

from wheeltapper.judge.host import Judge
from wheeltapper.judge.settings import JudgeSettings
from wheeltapper.judge.types import (
    Action,
    ActionRecord,
    ActionStatus,
    AlarmOperation,
    AlarmRecord,
    AlarmView,
    AuditRecord,
    Deployment,
    DetectorUpdate,
    DetectorView,
    Done,
    Message,
    Refusal,
    ShelfOperation,
    Shelved,
    Statistics,
)

__all__ = [
    "Action",
    "ActionRecord",
    "ActionStatus",
    "AlarmOperation",
    "AlarmRecord",
    "AlarmView",
    "AuditRecord",
    "Deployment",
    "DetectorUpdate",
    "DetectorView",
    "Done",
    "Judge",
    "JudgeSettings",
    "Message",
    "Refusal",
    "ShelfOperation",
    "Shelved",
    "Statistics",
]
