"""
Through a Greengrass nucleus, classic or lite: with ``greengrass_side`` the only modules that import its IPC client.

The SDK neither reconnects nor keeps order nor tells a dead stream from a quiet one; this module does the first two, and
offers ``resubscribe`` for the third, which a loop-back heartbeat finds out. One connection has two sides, each a
Transport: ``local`` publish/subscribe between components, and ``core``, AWS IoT Core behind the nucleus. Nothing here
blocks the SDK's network thread: calls are asynchronous, and handlers run on one worker.
"""

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any

import awsiot.greengrasscoreipc as ipc
import msgspec
from awsiot.eventstreamrpc import AccessDeniedError, LifecycleHandler
from awsiot.greengrasscoreipc import model
from awsiot.greengrasscoreipc.clientv2 import GreengrassCoreIPCClientV2

from wheeltapper.clock import Clock, SystemClock
from wheeltapper.errors import SettingsError, UnavailableError, WheeltapperError
from wheeltapper.transport.greengrass_side import CALL_TIMEOUT_S, GreengrassTransport, keep_stream, named
from wheeltapper.transport.serial import SerialExecutor

log = logging.getLogger(__name__)

SOCKET_VARIABLE = "AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT"
TOKEN_VARIABLE = "SVCUID"  # noqa: S105 - the name of a variable
LOCAL_LIMIT = 7_000  # bytes; a nucleus lite hangs up on a local message of 7,300
CORE_LIMIT = 4_700  # bytes; a nucleus lite refuses 4,900
_BACKOFF_S = (0.2, 0.5, 1.0, 2.0, 5.0)
_REFUSALS = 3


class TokenRefusedError(UnavailableError):
    """The nucleus does not know this process's token any more; only a restart of the process gets a new one."""


class _Lifecycle(LifecycleHandler):  # type: ignore[misc]
    def __init__(self, lost: threading.Event) -> None:
        self._lost = lost

    def on_disconnect(self, reason: Exception | None) -> None:
        self._lost.set()

    def on_error(self, error: Exception) -> bool:
        return True


class Nucleus:
    """
    One IPC connection that mends itself.

    Args:
        on_refused: called, on this object's own thread and again with every further attempt, when the token is refused.
        socket_path: the nucleus's socket; by default from the environment, as the nucleus sets it.
        token: likewise.
    """

    def __init__(
        self,
        *,
        on_refused: Callable[[str], None] = lambda _reason: None,
        socket_path: str = "",
        token: str = "",
        clock: Clock | None = None,
    ) -> None:
        self._on_refused = on_refused
        self._socket_path = socket_path or os.environ.get(SOCKET_VARIABLE, "")
        self._token = token or os.environ.get(TOKEN_VARIABLE, "")
        self._clock = clock or SystemClock()
        self._client: GreengrassCoreIPCClientV2 | None = None
        self._lost = threading.Event()
        self._stop = threading.Event()
        self._lock = threading.RLock()
        self._events = SerialExecutor()
        self._extras: list[Callable[[GreengrassCoreIPCClientV2], Any]] = []
        self._thread = threading.Thread(target=self._keep_connected, name="greengrass", daemon=True)
        self.core_reachable = True
        """False while the nucleus says that AWS IoT Core is away; stays True on one that does not say."""
        self.local = GreengrassTransport(self, "local", LOCAL_LIMIT, self._clock)
        self.core = GreengrassTransport(self, "core", CORE_LIMIT, self._clock)

    # --- life --------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """
        Connect and subscribe; harmless when repeated.

        Raises:
            SettingsError: not started by a nucleus.
            TokenRefusedError: the nucleus does not know the token.
            UnavailableError: nobody listens at the socket.
        """
        with self._lock:
            if self._thread.is_alive():
                return
            if not self._socket_path or not self._token:
                raise SettingsError(
                    f"greengrass: {SOCKET_VARIABLE} and {TOKEN_VARIABLE} are not set; this runs as a Greengrass component, "
                    "elsewhere use: wheeltapper gateway run"
                )
            self._connect()
            self._thread.start()

    @property
    def connected(self) -> bool:
        """Whether calls can be made."""
        return self._client is not None and not self._lost.is_set()

    @property
    def dropped(self) -> int:
        """Events that came faster than they could be handled."""
        return self._events.dropped

    def close(self) -> None:
        """Disconnect; harmless when repeated."""
        self._stop.set()
        self._lost.set()
        self._drop_client()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(CALL_TIMEOUT_S)
        self._events.stop()

    def _connect(self) -> None:
        self._lost.clear()
        try:
            raw = ipc.connect(
                ipc_socket=self._socket_path,
                authtoken=self._token,
                lifecycle_handler=_Lifecycle(self._lost),
                timeout=CALL_TIMEOUT_S,
            )
        except AccessDeniedError as error:
            raise TokenRefusedError("greengrass: the nucleus refuses this process's token") from error
        except Exception as error:  # the runtime's errors share no root
            if "AWS_IO_SOCKET_CLOSED" in str(error):
                raise TokenRefusedError("greengrass: the nucleus hangs up on this process's token") from error
            raise UnavailableError(f"greengrass {self._socket_path}: {named(error)}") from error
        client = GreengrassCoreIPCClientV2(client=raw, executor=self._events)
        self._client = client
        try:
            for side in (self.local, self.core):
                side.subscribe_all()
            self._renew_extras(client)
        except WheeltapperError:
            self._drop_client()
            raise
        except Exception as error:
            self._drop_client()
            raise UnavailableError(f"greengrass: subscriptions failed: {named(error)}") from error
        log.info("greengrass: connected")

    def _renew_extras(self, client: GreengrassCoreIPCClientV2) -> None:
        for extra in self._extras:
            try:
                extra(client)
            except Exception as error:
                log.warning("greengrass: a subscription besides messages was not renewed: %s", named(error))

    def _drop_client(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(Exception):
                client.close(executor_wait=False).result(CALL_TIMEOUT_S)

    def _keep_connected(self) -> None:
        while not self._stop.is_set():
            self._lost.wait()
            if self._stop.is_set():
                return
            log.warning("greengrass: connection lost")
            self._drop_client()
            self._mend()

    def _mend(self) -> None:
        attempt = refusals = 0
        while not self._clock.wait(self._stop, _BACKOFF_S[min(attempt, len(_BACKOFF_S) - 1)]):
            attempt += 1
            try:
                with self._lock:
                    self._connect()
                return
            except TokenRefusedError as error:
                refusals += 1
                log.warning("%s", error)
                if refusals >= _REFUSALS:
                    self._on_refused(str(error))
            except WheeltapperError as error:
                log.warning("%s", error)

    # --- what a nucleus offers besides messages ----------------------------------------------------------------------

    def client(self) -> GreengrassCoreIPCClientV2:
        """
        The connected client.

        Raises:
            UnavailableError: the connection is lost.
        """
        client = self._client
        if client is None:
            raise UnavailableError("greengrass: not connected")
        return client

    def configuration(self) -> dict[str, Any]:
        """
        This component's whole configuration.

        Raises:
            UnavailableError: the nucleus does not answer.
        """
        try:
            response = self.client().get_configuration_async(key_path=[]).result(CALL_TIMEOUT_S)
        except UnavailableError:
            raise
        except Exception as error:
            raise UnavailableError(f"greengrass: the configuration cannot be read: {named(error)}") from error
        return dict(response.value or {})

    def on_configuration_change(self, changed: Callable[[], None]) -> None:
        """Call ``changed`` for every leaf that changes; events carry no values."""

        def subscribe(client: GreengrassCoreIPCClientV2) -> None:
            future, _ = client.subscribe_to_configuration_update_async(
                key_path=[], on_stream_event=lambda _event: changed(), on_stream_error=keep_stream
            )
            future.result(CALL_TIMEOUT_S)

        self._extras.append(subscribe)
        try:
            subscribe(self.client())
        except Exception as error:
            log.warning("greengrass: changes of the configuration are not told: %s", named(error))

    def update_state(self, state: str) -> None:
        """Say RUNNING or ERRORED; a nucleus that cannot hear it is told nothing more."""
        try:
            self.client().update_state_async(state=state).result(CALL_TIMEOUT_S)
        except Exception as error:
            log.warning("greengrass: state %s could not be told: %s", state, named(error))

    def report(self, shadow: str, document: Mapping[str, Any]) -> None:
        """
        Report in one of the core device's named shadows.

        Raises:
            UnavailableError: this nucleus offers no shadows, or not to us.
        """
        payload = msgspec.json.encode({"state": {"reported": document}})
        thing = os.environ.get("AWS_IOT_THING_NAME", "")
        try:
            future = self.client().update_thing_shadow_async(thing_name=thing, shadow_name=shadow, payload=payload)
            future.result(CALL_TIMEOUT_S)
        except UnavailableError:
            raise
        except Exception as error:
            raise UnavailableError(f"greengrass: {named(error)}") from error

    def watch_core(self) -> None:
        """Follow whether AWS IoT Core is reachable, where the nucleus says so."""

        def heard(event: Any) -> None:
            self.core_reachable = event.connection_status_event.status == model.ConnectionStatus.CONNECTED
            log.info("greengrass: AWS IoT Core is %s", "reachable" if self.core_reachable else "away")

        def subscribe(client: GreengrassCoreIPCClientV2) -> None:
            future, _ = client.subscribe_to_iot_core_connection_status_async(
                on_stream_event=heard, on_stream_error=keep_stream
            )
            future.result(CALL_TIMEOUT_S)

        self._if_offered("connection status", subscribe)

    def on_update(self, wait_ms: Callable[[], int]) -> None:
        """Answer, where the nucleus asks, how long a deployment should wait with a restart; 0 lets it go ahead."""

        def heard(event: Any) -> None:
            if event.pre_update_event is not None:
                self.client().defer_component_update_async(
                    deployment_id=event.pre_update_event.deployment_id, recheck_after_ms=wait_ms()
                )

        def subscribe(client: GreengrassCoreIPCClientV2) -> None:
            future, _ = client.subscribe_to_component_updates_async(on_stream_event=heard, on_stream_error=keep_stream)
            future.result(CALL_TIMEOUT_S)

        self._if_offered("component updates", subscribe)

    def _if_offered(self, what: str, subscribe: Callable[[GreengrassCoreIPCClientV2], Any]) -> None:
        try:
            subscribe(self.client())
        except Exception as error:
            log.info("%s not offered by this nucleus (%s)", what, named(error))
        else:
            self._extras.append(subscribe)
