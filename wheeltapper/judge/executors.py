"""The executors that need nothing but the core: publish to a broker, hand back to the judge as a message."""

from collections.abc import Sequence

from wheeltapper.errors import MessageError
from wheeltapper.judge.delivery import Result, Settled
from wheeltapper.judge.host import Judge
from wheeltapper.judge.types import Action, Message, Refusal
from wheeltapper.topics import topic_of
from wheeltapper.transport import Refused, Transport

_WILDCARDS = frozenset("+#\0")


class BrokerExecutor:
    """Publishes the payload, on the action's own target or on one topic, in which ``{thing}`` becomes the thing."""

    immediate = True

    def __init__(self, transport: Transport, topic: str = "") -> None:
        self._transport = transport
        self._topic = topic

    def execute(self, action: Action, settled: Settled) -> None:
        """Delivered when the broker has acknowledged; its absence uses up no attempt, a refusal does or parks it."""
        topic = topic_of(self._topic, action.thing) if self._topic else action.target
        if not topic or not _WILDCARDS.isdisjoint(topic):
            raise MessageError(f"topic {topic!r}: cannot be published on")
        if not self._transport.connected:
            settled(Result("away", "broker: not connected"))
            return

        def done(outcome: bool | Refused) -> None:
            if isinstance(outcome, Refused):
                settled(Result("parked" if outcome.final else "retry", f"broker: refused: {outcome.reason}"))
            else:
                settled(Result("delivered") if outcome else Result("away", "broker: not acknowledged"))

        self._transport.publish(topic, action.payload, done)


class InputExecutor:
    """Makes the payload a message of an input: what the ``iotEvents`` action does."""

    immediate = True

    def __init__(self, judge: Judge, hop_limit: int, input_name: str = "") -> None:
        self._judge = judge
        self._hop_limit = hop_limit
        self._input_name = input_name

    def execute(self, action: Action, settled: Settled) -> None:
        """
        Delivered when the message is durable; the action's id is the message's, so a repeat is ignored.

        Raises:
            MessageError: the message has come through more actions than the limit allows.
        """
        name = self._input_name or action.target
        if action.hops > self._hop_limit:
            raise MessageError(f"input {name!r}: {action.hops} hops, more than the limit of {self._hop_limit}: a loop?")

        def done(refusals: Sequence[Refusal]) -> None:
            if not refusals:
                settled(Result("delivered"))
            elif refusals[0].reason == "unavailable":
                settled(Result("retry", refusals[0].detail))
            else:
                settled(Result("failed", refusals[0].detail))

        message = Message(name, action.payload, action.id, action.time_ms, action.hops)
        self._judge.submit([message], done)
