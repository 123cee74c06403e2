"""
One MQTT connection that reads and writes as much at a time as there is.

One thread owns the socket; whoever else has something to send leaves it in a queue and wakes that thread, once for all that
gathers meanwhile. So a thousand acknowledgements cost one system call, and nobody who sends ever waits for the network.
"""

import contextlib
import logging
import math
import select
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from wheeltapper.clock import Clock
from wheeltapper.transport import mqtt_packets as packets

log = logging.getLogger(__name__)

_RECEIVE_BYTES: Final = 1 << 18
_PACKETS_AT_ONCE: Final = 4096
_IN_FLIGHT: Final = 65_000
_SUBSCRIPTION: Final = 65_001
_SUBSCRIPTIONS: Final = 500
# A broker that has answered what was sent so long after a message, and not that, never will.
_PATIENCE_S = 60.0
_REFUSALS = {
    1: "protocol version",
    2: "client id",
    3: "server unavailable",
    4: "username or password",
    5: "not authorised",
}

Done = Callable[[bool], None]
_NOBODY: Final = (None, 0.0)


class LinkDelivery:
    """A message of one connection; its acknowledgement is worth nothing on another."""

    __slots__ = ("_link", "_reply", "payload", "topic")

    def __init__(self, link: "Link", topic: str, payload: bytes, reply: bytes) -> None:
        self.topic = topic
        self.payload = payload
        self._link = link
        self._reply = reply

    def acknowledge(self) -> None:
        reply, self._reply = self._reply, b""
        if reply:
            self._link.send(reply)


class Link:
    """
    A connection from CONNECT to its end.

    Args:
        connection: connected, encrypted where it must be, blocking with a timeout.
        hello: the CONNECT packet.
        keep_alive_s: as in the CONNECT packet.
        deliver: called with each message, on the thread that runs ``serve``.

    Raises:
        OSError: the broker does not answer, or refuses.
    """

    def __init__(
        self,
        connection: socket.socket,
        hello: bytes,
        keep_alive_s: int,
        deliver: Callable[[LinkDelivery], None],
        clock: Clock,
    ) -> None:
        self._socket = connection
        self._deliver = deliver
        self._clock = clock
        self._keep_alive_s = keep_alive_s
        self._splitter = packets.Splitter()
        self._waiting: deque[bytes] = deque()
        self._unsent = b""
        self._awake = False
        self._ended = False
        self._lock = threading.Lock()
        self._number = 0
        self._pending: dict[int, tuple[Done | None, float]] = {}
        self._ping: float | None = None
        self._asked: dict[int, Sequence[str]] = {}
        self.refused: frozenset[str] = frozenset()
        self._early = self._greet(hello)
        self._wakes, self._waker = socket.socketpair()
        for end in (self._socket, self._wakes, self._waker):
            end.setblocking(False)
        self._poll = select.poll()
        self._listens_for = select.POLLIN
        self._poll.register(self._socket, self._listens_for)
        self._poll.register(self._wakes, select.POLLIN)
        self._heard_at = self._sent_at = self._pinged_at = clock.monotonic()

    def _greet(self, hello: bytes) -> list[tuple[int, bytes]]:
        """CONNECT and CONNACK; gives the packets that came right behind it."""
        self._socket.sendall(hello)
        while not (found := self._splitter.feed(self._receive())):
            pass
        kind, body = found[0]
        if kind != packets.CONNACK or len(body) != 2:
            raise OSError("it does not speak MQTT 3.1.1")
        if body[1]:
            raise OSError(f"refused: {_REFUSALS.get(body[1], f'code {body[1]}')}")
        return found[1:]

    def send(self, packet: bytes) -> None:
        """Send soon; from any thread; nothing once the connection has ended."""
        self._waiting.append(packet)
        if not self._awake:
            self._wake()

    def _wake(self) -> None:
        self._awake = True
        with contextlib.suppress(OSError):  # full is awake, too; closed needs no waking
            self._waker.send(b"\0")

    def subscribe(self, filters: Sequence[str]) -> None:
        """Ask for what passes the filters; those that the broker refuses are then in ``refused``."""
        with self._lock:
            number = _SUBSCRIPTION + len(self._asked) % _SUBSCRIPTIONS
            self._asked[number] = filters
        self.send(packets.subscribe(number, filters))

    def publish(self, topic: str, payload: bytes, done: Done | None) -> bool:
        """Send and have ``done`` told; False, and nothing told, where the connection has ended or is choked."""
        number = self._take_number(done)
        if not number:
            return False
        try:
            self.send(packets.publish(topic, payload, number))
        except BaseException:
            self._pending.pop(number, None)
            raise
        return True

    def _take_number(self, done: Done | None) -> int:
        """A packet number that is not in use; 0 where there is none."""
        with self._lock:
            if self._ended or len(self._pending) >= _IN_FLIGHT:
                return 0
            while True:
                self._number = self._number % _IN_FLIGHT + 1
                if self._number not in self._pending:
                    break
            self._pending[self._number] = done, self._clock.monotonic()
            return self._number

    def serve(self) -> str:
        """Read and write until the connection ends; gives the reason."""
        try:
            self._handle(self._early)
            while not self._ended:
                self._turn()
            return "closed"
        except (OSError, ValueError, IndexError) as error:
            return str(error) or type(error).__name__
        finally:
            self._end()

    def close(self) -> None:
        """Say goodbye after what is queued, and end; ``serve`` returns."""
        self.send(packets.DISCONNECT)
        self._ended = True
        self._wake()

    def _turn(self) -> None:
        """Wait until there is something to read or write, and do it."""
        self._listen_for(select.POLLIN | (select.POLLOUT if self._unsent else 0))
        events = dict(self._poll.poll(self._patience_ms()))
        if self._wakes.fileno() in events:
            self._wakes.recv(4096)
        self._awake = False  # before the queue is emptied: what comes later wakes again
        self._flush()
        if events.get(self._socket.fileno(), 0) & ~select.POLLOUT:
            self._read()
        self._keep_alive()

    def _read(self) -> None:
        while True:
            try:
                data = self._receive()
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            self._heard_at = self._clock.monotonic()
            self._handle(self._splitter.feed(data))
            if not (isinstance(self._socket, ssl.SSLSocket) and self._socket.pending()):
                return

    def _receive(self) -> bytes:
        data = self._socket.recv(_RECEIVE_BYTES)
        if not data:
            raise OSError("the broker hung up")
        return data

    def _handle(self, found: Sequence[tuple[int, bytes]]) -> None:
        for kind, body in found:
            self._handle_packet(kind, body)

    def _handle_packet(self, kind: int, body: bytes) -> None:
        match kind & 0xF0:
            case packets.PUBLISH:
                topic, payload, number = packets.read_publish(kind, body)
                reply = packets.PUBREC if kind & 0x04 else packets.PUBACK
                delivery = LinkDelivery(self, topic, payload, packets.answer(reply, number) if number else b"")
                if kind & 0x01:  # retained: it is old, and comes again with every connection
                    delivery.acknowledge()
                else:
                    self._deliver(delivery)
            case packets.PUBACK:
                _tell(self._pending.pop(packets.number_of(body), _NOBODY)[0], delivered=True)
            case packets.PINGRESP:
                self._check_acknowledged()
            case packets.PUBREL:
                self.send(packets.answer(packets.PUBCOMP, body))
            case packets.SUBACK:
                self._subscribed(self._asked.get(packets.number_of(body), ()), body[2:])

    def _subscribed(self, filters: Sequence[str], codes: bytes) -> None:
        refused = {name for name, code in zip(filters, codes, strict=False) if code & 0x80}
        self.refused = self.refused.difference(filters) | refused
        if refused:
            log.error("broker: refused to subscribe to %s; see its access rules", ", ".join(sorted(refused)))

    def _flush(self) -> None:
        """Send what waits, all of it as one; keep what the network does not take."""
        waiting = self._waiting
        while waiting or self._unsent:
            pieces = [self._unsent]
            while waiting and len(pieces) < _PACKETS_AT_ONCE:
                pieces.append(waiting.popleft())
            self._unsent = b"".join(pieces)
            try:
                sent = self._socket.send(self._unsent)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            self._sent_at = self._clock.monotonic()
            self._unsent = self._unsent[sent:]
            if self._unsent:
                return

    def _listen_for(self, events: int) -> None:
        if events != self._listens_for:
            self._listens_for = events
            self._poll.modify(self._socket, events)

    def _patience_ms(self) -> float | None:
        if not self._keep_alive_s:
            return None
        quiet_since = max(min(self._sent_at, self._heard_at), self._pinged_at)
        return max(quiet_since + self._keep_alive_s / 2 - self._clock.monotonic(), 0.0) * 1000 + 1

    def _keep_alive(self) -> None:
        """
        Ping where one side has been quiet for half the time; give up where the other has been for one and a half.

        Raises:
            OSError: it has.
        """
        if not self._keep_alive_s:
            return
        now = self._clock.monotonic()
        if now - self._heard_at > 1.5 * self._keep_alive_s:
            raise OSError("the broker does not answer")
        quiet = now - max(min(self._sent_at, self._heard_at), self._pinged_at) >= self._keep_alive_s / 2
        if quiet or (self._ping is None and self._oldest() < now - _PATIENCE_S):
            self._pinged_at = now
            self._ping = now if self._ping is None else self._ping
            self.send(packets.PINGREQ)

    def _oldest(self) -> float:
        """When the oldest message was sent that is not acknowledged; infinity where there is none."""
        with self._lock:
            return next((sent for _, sent in self._pending.values()), math.inf)

    def _check_acknowledged(self) -> None:
        """
        Give up where the broker has answered a ping that was sent long after a message, and not the message.

        Raises:
            OSError: so it is.
        """
        ping, self._ping = self._ping, None
        if ping is not None and self._oldest() < ping - _PATIENCE_S:
            raise OSError("the broker does not acknowledge")

    def _end(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._flush()
        with self._lock:
            self._ended = True
            pending, self._pending = self._pending, {}
        for end in (self._socket, self._wakes, self._waker):
            end.close()
        for done, _ in pending.values():
            _tell(done, delivered=False)


def _tell(done: Done | None, *, delivered: bool) -> None:
    if done is None:
        return
    try:
        done(delivered)
    except Exception:
        log.exception("broker: who published failed to hear what became of it")
