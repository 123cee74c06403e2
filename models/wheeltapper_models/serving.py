"""What passes between whoever has readings and a model that serves, and what a slot asks of such a model."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from wheeltapper_models.card import Card
from wheeltapper_models.forest_watch import ForestWatch


class SensorRow(NamedTuple):
    """One machine's values at one time, by sensor."""

    thing: str
    values: Mapping[str, Any]
    time_ms: int | None = None


class Judged(NamedTuple):
    """
    What became of one row, and which model judged it.

    ``limit`` is the one that the score was held against where it is not the card's; ``alert`` is 1 where enough anomalies
    followed one another, by a model that counts them.
    """

    score: float
    anomaly: int
    contributions: dict[str, float]
    card: Card
    limit: float | None = None
    alert: int = 0


class Served(Protocol):
    """
    A verified model that judges rows of many machines; what it remembers of each lies in ``states``, machine → state.

    ``session.Session`` is one, and ``forest_learner.LearningForest``. Not safe across threads that share states.
    """

    @property
    def card(self) -> Card: ...

    @property
    def sensors(self) -> list[str]: ...

    def judge(self, rows: Sequence[SensorRow], states: dict[str, Any]) -> list[Judged]:
        """Judge one row of each of some machines, and move their states."""

    def restart(self, thing: str, states: dict[str, Any]) -> None:
        """The machine's next row begins a new window."""

    def pause(self, thing: str, states: dict[str, Any]) -> None:
        """A pause came before the machine's next row: no row before it speaks any more, what they said stands."""

    def pack(self, state: Any) -> bytes:
        """What changes with every row, small enough to be kept with every row."""

    def unpack(self, thing: str, payload: bytes, states: dict[str, Any]) -> None:
        """Go on where ``pack`` was called; ignored where the payload is not this model's."""

    def learnt(self, state: Any) -> ForestWatch | None:
        """A copy of what is too large to be kept with every row; None where there is nothing such."""

    def relearn(self, thing: str, payload: bytes, states: dict[str, Any]) -> None:
        """
        Take what ``learnt().to_bytes()`` gave, before ``unpack``.

        Raises:
            ModelError: it is not this model's.
        """
