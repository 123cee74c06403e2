"""
A new version without a reset: what of a detector's state the new definition can take over.

AWS resets every detector on update. Here a detector keeps its state, its variables, its running timers and its last
inputs where the new definition still has their names. What has no name there is dropped, and listed; a detector whose
state is gone cannot be mapped, and is refused. Nothing runs: a kept detector waits for its next message or timer.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from wheeltapper.detector.expression import show_reference
from wheeltapper.detector.plan import AlarmPlan, Plan
from wheeltapper.detector.plan_actions import SetTimerPlan
from wheeltapper.detector.state import AlarmState, AnyState, DetectorState
from wheeltapper.errors import DefinitionError


class Migration(msgspec.Struct, frozen=True, kw_only=True):
    """
    What an update does to detectors, before it is done.

    Attributes:
        refusals: why no detector at all can be taken over; empty if they can.
        states: states that stay, old name → new name.
        lost_states: states that the new version lacks; a detector in one is refused.
        variables, timers: names that stay.
        lost_variables, lost_timers: names that the new version lacks; their values are dropped.
        warnings: what a kept detector will not have that a new one would.
    """

    refusals: tuple[str, ...] = ()
    states: dict[str, str] = {}
    lost_states: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    lost_variables: tuple[str, ...] = ()
    timers: tuple[str, ...] = ()
    lost_timers: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


AnyPlan = Plan | AlarmPlan


def plan_migration(old: AnyPlan, new: AnyPlan, states: Mapping[str, str] | None = None) -> Migration:
    """
    Compare two versions of a model.

    Args:
        old: the version in force.
        new: the version to come.
        states: old state → new state, for states that were renamed.
    """
    refusals = []
    if old.key != new.key:
        refusals.append(f"the key changes from {_shown(old.key)} to {_shown(new.key)}: detectors have other keys")
    if isinstance(old, AlarmPlan) or isinstance(new, AlarmPlan):
        if type(old) is not type(new):
            refusals.append("a detector model cannot become an alarm model, nor the reverse")
        return Migration(refusals=tuple(refusals))
    mapped = dict(states or {})
    for name in mapped:
        if name not in [state.name for state in old.states]:
            refusals.append(f"state {name!r} is to be renamed, but the old version has none of that name")
    names = {state.name for state in new.states}
    for target in mapped.values():
        if target not in names:
            refusals.append(f"state {target!r} is to be taken, but the new version has none of that name")
    kept = {state.name: mapped.get(state.name, state.name) for state in old.states}
    kept = {before: after for before, after in kept.items() if after in names}
    return Migration(
        refusals=tuple(refusals),
        states=kept,
        lost_states=tuple(state.name for state in old.states if state.name not in kept),
        variables=tuple(name for name in old.variables if name in new.variables),
        lost_variables=tuple(name for name in old.variables if name not in new.variables),
        timers=tuple(name for name in old.timers if name in new.timers),
        lost_timers=tuple(name for name in old.timers if name not in new.timers),
        warnings=tuple(_missed_timers(old, new, kept)),
    )


def _shown(key: tuple[str, ...] | None) -> str:
    return "none" if key is None else repr(".".join(key))


def _missed_timers(old: Plan, new: Plan, kept: Mapping[str, str]) -> Iterable[str]:
    """Timers that entering a state sets now and did not before: a detector that is in it already lacks them."""
    before = {state.name: _entry_timers(state) for state in old.states}
    for state in new.states:
        had = [before[name] for name, target in kept.items() if target == state.name]
        for timer in sorted(_entry_timers(state) - set().union(*had)) if had else ():
            yield f"state {state.name!r} now sets timer {timer!r} on entering; detectors already in it run without it"


def _entry_timers(state: Any) -> set[str]:
    return {action.name for event in state.enter for action in event.actions if isinstance(action, SetTimerPlan)}


def migrate_state(state: AnyState, old: AnyPlan, new: AnyPlan, states: Mapping[str, str] | None = None) -> AnyState:
    """
    One detector's or alarm's state under a new version.

    Raises:
        DefinitionError: it cannot be mapped; says why.
    """
    migration = plan_migration(old, new, states)
    if migration.refusals:
        raise DefinitionError(f"{new.name}: {migration.refusals[0]}")
    return _migrated(state, new, migration)


def migrate(
    detectors: Iterable[AnyState], old: AnyPlan, new: AnyPlan, states: Mapping[str, str] | None = None
) -> list[AnyState]:
    """
    Every detector's state under a new version; all or none.

    Raises:
        DefinitionError: some cannot be mapped; says how many and why.
    """
    migration = plan_migration(old, new, states)
    if migration.refusals:
        raise DefinitionError(f"{new.name}: {migration.refusals[0]}")
    done, refused = [], []
    for state in detectors:
        try:
            done.append(_migrated(state, new, migration))
        except DefinitionError as error:
            refused.append(str(error))
    if refused:
        more = f" and {len(refused) - 1} more" if len(refused) > 1 else ""
        raise DefinitionError(f"{refused[0]}{more}")
    return done


def _migrated(state: AnyState, new: AnyPlan, migration: Migration) -> AnyState:
    readable = {show_reference(reference) for given in new.inputs for reference in given.references}
    inputs = {name: value for name, value in state.inputs.items() if name in readable}
    if isinstance(state, AlarmState):
        if isinstance(new, AlarmPlan) and not new.acknowledge_flow and state.state in ("ACKNOWLEDGED", "LATCHED"):
            raise DefinitionError(
                f"{new.name}: alarm {state.key!r} is {state.state}, a state that only the acknowledge flow has; "
                "reset it first"
            )
        return msgspec.structs.replace(state, version=new.version, hash=new.hash, inputs=inputs)
    if state.state not in migration.states:
        raise DefinitionError(
            f"{new.name}: detector {state.key!r} is in state {state.state!r}, which the new version lacks; "
            "name its successor (OLD=NEW), or update without migration"
        )
    return _migrated_detector(state, new, migration, inputs)


def _migrated_detector(
    state: DetectorState, new: AnyPlan, migration: Migration, inputs: dict[str, Any]
) -> DetectorState:
    # What an operator added by hand, under no name of the old definition, stays.
    dropped = set(migration.lost_variables)
    return msgspec.structs.replace(
        state,
        version=new.version,
        hash=new.hash,
        state=migration.states[state.state],
        variables={name: value for name, value in state.variables.items() if name not in dropped},
        timers=[timer for timer in state.timers if timer.name not in migration.lost_timers],
        inputs=inputs,
    )
