"""
Which entry of an outbox the other side will not take.

MQTT 3.1.1 has no word for "this message is not allowed": a broker can only hang up, and the outbox, which sends again what
was not acknowledged, would make it hang up for ever. But a connection also breaks of itself. So an entry is blamed only when
it was sent alone, time after time on a connection that had been quiet and whole for a while, the connection broke at once
each time, and some other entry, sent alone, then passed. An acknowledgement that fails to come while the connection holds
blames nobody. While nothing passes, the connection is left alone for longer and longer: it may serve others, too. Where the
other side names the message that it refuses (MQTT 5, a nucleus), a few refusals in a row do.

Pure: entries, outcomes and monotonic seconds are handed in.
"""

from collections.abc import Sequence
from typing import NamedTuple

from wheeltapper.outbox import Entry
from wheeltapper.transport import Refused

# A connection that has been left alone for so long, and then breaks at once upon a message, broke because of it; by mere
# chance that happens to one message in a thousand, on the worst of links, before it has happened so often in a row.
CALM_S = 3.0
_AT_ONCE_S = 3.0
_LONGEST_CALM_S = 30.0
_BREAKS = 5
_REFUSALS = 3
# For an entry on a topic of which one was blamed and none has passed since.
_BREAKS_AGAIN = 2
_REFUSALS_AGAIN = 1
_OTHERS = 8
_BLAMED_TOPICS = 1_000
_DOUBLINGS = 10


class Blame(NamedTuple):
    """An entry that the other side will not take, and how that is known."""

    entry: Entry
    reason: str


class _Loss(NamedTuple):
    entry: Entry
    watched: bool
    after_s: float


class Inquiry:
    """Sends the oldest entry alone, and judges by what becomes of it; ``choose`` and ``settle`` alternate."""

    def __init__(self) -> None:
        self._blamed: dict[str, None] = {}
        self._begin(None)

    def _begin(self, suspect: Entry | None) -> None:
        self._suspect = suspect
        self._sent: Entry | None = None
        self._sent_at = 0.0
        self._loss: _Loss | None = None
        self._watching = self._watched = False
        self._calm_since: float | None = None
        self._breaks = self._refusals = self._vain = 0
        self._others: dict[int, str] = {}

    @property
    def trouble(self) -> str:
        """What an operator should look into; empty where nothing is suspected."""
        suspect = self._suspect
        if suspect is None or (max(self._breaks, self._refusals) < _BREAKS_AGAIN and not self._vain):
            return ""
        return f"the broker seems to refuse {suspect.topic}; compare it with the access rules"

    @property
    def at_a_loss(self) -> bool:
        """Whether the last entry that was sent is lost, for all that is known, and the connection is not."""
        return self._loss is not None

    def is_blamed(self, topic: str) -> bool:
        """Whether an entry of this topic was blamed and none has passed since: the next one is to be sent alone."""
        return topic in self._blamed

    def choose(self, waiting: Sequence[Entry], now: float) -> Entry | None:
        """
        The entry to send alone; None while the connection is being watched.

        Args:
            waiting: the oldest entries, in order; at least one.
            now: monotonic seconds.
        """
        if self._suspect is None or self._suspect.id != waiting[0].id:
            self._begin(waiting[0])
        chosen = self._other(waiting)
        if chosen is None:
            chosen = waiting[0]
            if self._watching and self._loss is None and not self._is_calm(now):
                return None
        if self._loss is None:  # else the connection has not broken: only the acknowledgement was lost
            self._watched, self._calm_since = self._watching, None
        self._sent, self._sent_at = chosen, now
        return chosen

    def settle(self, outcome: bool | Refused, now: float) -> Blame | None:
        """What became of the entry that was sent; whom to blame, where that is now clear."""
        sent, self._sent = self._sent, None
        suspect = self._suspect
        if sent is None or suspect is None:
            return None
        if isinstance(outcome, Refused):
            self._loss = None
            return self._refused(sent, outcome.reason)
        if not outcome:
            self._loss = self._loss or _Loss(sent, self._watched, now - self._sent_at)
            return None
        if sent.id != suspect.id:
            return self._blame(suspect, "the broker hangs up on it, again and again, and other messages pass")
        self._blamed.pop(suspect.topic, None)
        self._begin(None)
        return None

    def disconnected(self) -> Blame | None:
        """The connection is seen to be broken, with nothing under way; whom to blame, where that is now clear."""
        loss, self._loss = self._loss, None
        if loss is not None:
            return self._broke(loss)
        if self._calm_since is not None:  # of itself: nobody is to blame for that, nor perhaps for what was before
            self._breaks, self._watching, self._calm_since = 0, False, None
            self._others.clear()
        return None

    def _is_calm(self, now: float) -> bool:
        if self._calm_since is None:
            self._calm_since = now
        return now - self._calm_since >= min(CALM_S * (1 << min(self._vain, _DOUBLINGS)), _LONGEST_CALM_S)

    def _broke(self, loss: _Loss) -> Blame | None:
        suspect = self._suspect
        if suspect is None:
            return None
        if loss.entry.id != suspect.id:
            self._failed_too(loss.entry)
            return None
        at_once = loss.after_s <= _AT_ONCE_S
        if self.is_blamed(suspect.topic):
            self._breaks = self._breaks + 1 if at_once else 0
            if self._breaks >= _BREAKS_AGAIN:
                return self._blame(suspect, "the broker hangs up on it, as on others of its topic")
            return None
        if self._breaks >= _BREAKS:  # there was nothing else to send, or it has failed
            self._in_vain()
        if loss.watched:
            self._breaks = self._breaks + 1 if at_once else 0
        self._watching = True
        return None

    def _refused(self, sent: Entry, reason: str) -> Blame | None:
        suspect = self._suspect
        if suspect is None or sent.id != suspect.id:
            self._failed_too(sent)
            return None
        self._refusals += 1
        self._watching = True
        if self._refusals >= (_REFUSALS_AGAIN if self.is_blamed(sent.topic) else _REFUSALS):
            return self._blame(suspect, reason)
        return None

    def _other(self, waiting: Sequence[Entry]) -> Entry | None:
        """The entry whose passing would show that the suspect is to blame, of another topic if there is one."""
        suspect = waiting[0]
        if self._breaks < _BREAKS or self.is_blamed(suspect.topic):
            return None
        failed = {suspect.topic, *self._others.values()}
        candidates = [entry for entry in waiting[1:] if entry.id not in self._others]
        return min(candidates, key=lambda entry: entry.topic in failed, default=None)

    def _failed_too(self, other: Entry) -> None:
        """Not the suspect alone is refused; where none of many passes, begin anew."""
        self._others[other.id] = other.topic
        if len(self._others) >= _OTHERS:
            self._breaks, self._watching = 0, True
            self._in_vain()

    def _in_vain(self) -> None:
        """Nothing passes: let all others be tried once more, and the connection rest for longer."""
        self._vain += 1
        self._others.clear()

    def _blame(self, suspect: Entry, reason: str) -> Blame:
        if len(self._blamed) >= _BLAMED_TOPICS:
            self._blamed.clear()
        self._blamed[suspect.topic] = None
        self._begin(None)
        return Blame(suspect, reason)
