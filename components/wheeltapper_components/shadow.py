"""
A candidate beside the live model: both judge the same readings, and a rule says which one goes on.

Pure: the rule sees only what both said and how long they took.
"""

import math
from collections.abc import Sequence
from enum import Enum

from wheeltapper_components.settings import ShadowSettings
from wheeltapper_models.serving import Judged


class Ruling(Enum):
    """What the rule says of the candidate."""

    RUN_ON = "not enough readings yet"
    PROMOTE = "promoted"
    REVERT = "reverted"


class Trial:
    """
    Counts what two models said of the same readings.

    >>> trial = Trial(ShadowSettings(readings=2))
    >>> trial.ruling()[0].name
    'RUN_ON'
    """

    def __init__(self, settings: ShadowSettings) -> None:
        self._settings = settings
        self._readings = 0
        self._disagreed = 0
        self._unscored = 0
        self._live_s = 0.0
        self._candidate_s = 0.0

    def note(self, live: Sequence[Judged], candidate: Sequence[Judged], live_s: float, candidate_s: float) -> None:
        """Add what both said of the same readings, in the same order, and the seconds each took."""
        for ours, theirs in zip(live, candidate, strict=True):
            if not math.isfinite(ours.score):
                continue
            self._readings += 1
            if not math.isfinite(theirs.score):
                self._unscored += 1
            elif ours.anomaly != theirs.anomaly:
                self._disagreed += 1
        self._live_s += live_s
        self._candidate_s += candidate_s

    def ruling(self) -> tuple[Ruling, str]:
        """The rule's word and its reason, in figures."""
        settings, readings = self._settings, self._readings
        if readings < settings.readings:
            return Ruling.RUN_ON, f"{readings} of {settings.readings} readings judged by both"
        unscored, disagreed = self._unscored / readings, self._disagreed / readings
        slowdown = self._candidate_s / self._live_s if self._live_s > 0 else 1.0
        facts = (
            f"of {readings} readings it left {unscored:.1%} unscored, disagreed on {disagreed:.1%} and took "
            f"{slowdown:.1f} times as long"
        )
        passed = (
            unscored <= settings.max_unscored
            and disagreed <= settings.max_disagreement
            and slowdown <= settings.max_slowdown
        )
        return (Ruling.PROMOTE if passed else Ruling.REVERT), facts
