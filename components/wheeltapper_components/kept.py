"""What a restart must know of a thing, as it lies on disk: its newest reading, what which model remembers, its last rows."""

import msgspec

from wheeltapper.messages import Value
from wheeltapper_models.serving import SensorRow
from wheeltapper_models.slot import Slot


class Kept(msgspec.Struct, array_like=True, frozen=True):
    """Kept with every reading; ``window`` is the row in the making."""

    newest_ms: int
    sha256: str
    state: bytes
    window: bytes = b""


class KeptRow(msgspec.Struct, array_like=True, frozen=True):
    """One reading that a model was fed, kept to warm the next one."""

    values: dict[str, Value]
    time_ms: int | None


def restore_state(slot: Slot, thing: str, kept: Kept) -> None:
    """Let the model that serves go on from what was kept, or from the last rows where another one kept it."""
    if slot.card.sha256 == kept.sha256:
        slot.restore(thing, kept.state)
    else:
        slot.rewarm(thing)


def encode_rows(slot: Slot, thing: str) -> bytes:
    """A thing's last rows."""
    return msgspec.msgpack.encode([KeptRow(dict(row.values), row.time_ms) for row in slot.rows(thing)])


def recall_rows(slot: Slot, thing: str, rows: bytes, newest_ms: int) -> None:
    """Give a slot a thing's last rows, unless others came after they were kept, as where a kill did."""
    before = msgspec.msgpack.decode(rows, type=list[KeptRow])
    if before and before[-1].time_ms == newest_ms:
        slot.recall(thing, [SensorRow(thing, row.values, row.time_ms) for row in before])
