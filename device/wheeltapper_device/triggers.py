"""
What an operator's trigger makes the device do: send readings at once, replay a file, let a fault begin.

Any payload will do: nothing, any JSON, or none of it asks for the default. Only a request that is understood and cannot be
granted is refused, and told why.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec

from wheeltapper.errors import DataError, SettingsError
from wheeltapper.messages import Trigger, decode_trigger
from wheeltapper_device.replay import ReplaySource
from wheeltapper_device.settings import DeviceSettings
from wheeltapper_device.sources import Source, Step


class Answer(msgspec.Struct, frozen=True):
    """What a trigger leads to: the steps to send now, and what the reply says."""

    request_id: str
    status: Literal["done", "refused"]
    detail: str
    steps: tuple[Step, ...] = ()


def answer_trigger(payload: bytes, settings: DeviceSettings, source: Source, answered: Sequence[str]) -> Answer:
    """
    Do what a trigger asks for.

    Args:
        payload: a ``Trigger``, or anything.
        settings: say what may be asked for.
        source: the steps of a burst are taken from it, and a fault begins in it.
        answered: requests that were done before; they are not done twice.
    """
    trigger, wrong = decode_trigger(payload, Trigger)
    if wrong:
        return Answer(trigger.request_id, "refused", wrong)
    if trigger.request_id and trigger.request_id in answered:
        return Answer(trigger.request_id, "done", "was done before; nothing is done twice")
    try:
        return _obey(trigger, settings, source)
    except (SettingsError, DataError) as error:
        return Answer(trigger.request_id, "refused", str(error))


def _obey(trigger: Trigger, settings: DeviceSettings, source: Source) -> Answer:
    done = []
    if trigger.fault:
        fault = source.begin_fault(trigger.fault)
        done.append(f"fault {fault.name} begins; it touches {', '.join(fault.sensors)}")
    rows = _rows(trigger, settings)
    if trigger.file:
        replay = _replay(trigger.file, settings)
        steps = tuple(_steps(replay, rows))
        done.append(f"sent {len(steps)} rows of {trigger.file}")
    else:
        steps = tuple(_steps(source, rows))
        if rows:
            done.append(f"sent {len(steps)} readings" if steps else "the source has come to its end")
    return Answer(trigger.request_id, "done", "; ".join(done) or "nothing was asked for", steps)


def _rows(trigger: Trigger, settings: DeviceSettings) -> int:
    limits = settings.trigger
    if trigger.rows is None:
        return limits.max_rows if trigger.file else 0 if trigger.fault else limits.rows
    if not 0 <= trigger.rows <= limits.max_rows:
        raise SettingsError(f"trigger: rows must be 0 to {limits.max_rows}, not {trigger.rows}")
    return trigger.rows


def _replay(name: str, settings: DeviceSettings) -> ReplaySource:
    folder = settings.trigger.folder
    if folder is None:
        raise SettingsError("trigger: this device replays no files; name their folder in its settings: trigger.folder")
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        raise SettingsError(f"trigger: there is no file {name!r} in the trigger folder")
    return ReplaySource(msgspec.structs.replace(settings.replay, file=path, rows="", loop=False, speed=0.0))


def _steps(source: Source, rows: int) -> Iterator[Step]:
    return itertools.islice(iter(source.next, None), rows)
