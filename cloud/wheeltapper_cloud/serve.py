"""
``wheeltapper cloud serve``: puts judge, account, rules, actions and HTTP server together, and takes them apart in order.
"""

import gc
import logging
import os
import signal
import socket
import ssl
import threading
from pathlib import Path
from typing import Literal

import msgspec
import uvicorn
from starlette.types import ASGIApp

from wheeltapper import topics
from wheeltapper.clock import Clock, SystemClock
from wheeltapper.errors import SettingsError
from wheeltapper.judge import Judge
from wheeltapper.judge.delivery import Delivery
from wheeltapper.messages import ActionReport, Health, encode
from wheeltapper.secret_files import check_private
from wheeltapper.transport import Transport
from wheeltapper.transport.careful import CarefulTransport
from wheeltapper.transport.patient import PatientTransport
from wheeltapper.transport.settings import BrokerSettings, open_transport
from wheeltapper_cloud.actions import Router
from wheeltapper_cloud.deploy import Deployer
from wheeltapper_cloud.evaluations import EvaluationLog
from wheeltapper_cloud.guard import Guard, is_loopback
from wheeltapper_cloud.ingest import Ingest
from wheeltapper_cloud.iotevents import handlers
from wheeltapper_cloud.iotevents_account import Account
from wheeltapper_cloud.keys import KeyStore
from wheeltapper_cloud.metrics import IngestCollector, Metrics
from wheeltapper_cloud.notifications import Escalation
from wheeltapper_cloud.operations_api import OperationsApi
from wheeltapper_cloud.records import Records
from wheeltapper_cloud.rule_files import expand
from wheeltapper_cloud.server import Endpoint, application
from wheeltapper_cloud.settings import CloudSettings
from wheeltapper_cloud.store import Store
from wheeltapper_cloud.upkeep import Upkeep
from wheeltapper_cloud.wire import Operations

log = logging.getLogger(__name__)

_BACKLOG = 2048
_SHUTDOWN_S = 10
_KEEP_ALIVE_S = 75
_CONNECTING_S = 0.2


class Companion:
    """The cloud companion without its HTTP port."""

    def __init__(
        self, settings: CloudSettings, data_dir: Path, clock: Clock, transport: Transport | None = None
    ) -> None:
        """
        Args:
            settings: what ``cloud.toml`` says.
            data_dir: where everything is kept; one process at a time.
            clock: now.
            transport: the broker, not yet started; None where there is none.

        Raises:
            SettingsError: the address is not loopback and there are no access keys, or a rule or mapping cannot work.
            UnavailableError: the data directory cannot be used.
        """
        if settings.rules and transport is None:
            raise SettingsError("rules: there is no broker to listen to; set broker or give --broker")
        self._settings = settings
        self._clock = clock
        self._transport = None if transport is None else CarefulTransport(transport, clock)
        self._stopping = threading.Event()
        self._health = threading.Thread(target=self._report_health, name="health", daemon=True)
        guard = Guard(settings.server.host, KeyStore(data_dir, clock), clock)
        self._store = Store(data_dir, clock)
        judging = settings.judge
        if transport is None:
            judging = msgspec.structs.replace(judging, publish_states=False, publish_alarms=False)
        self.judge = Judge(data_dir, clock, judging, on_actions=lambda actions: self._delivery.take(actions))
        router = Router(settings.actions, self.judge, settings.judge.hop_limit, clock, self._transport)
        self._delivery = Delivery(router, clock, settings.actions.delivery, report=self._report_action)
        self._delivery.attach(self.judge)
        self._escalation = Escalation(settings.actions.notifications, self.judge, clock)
        self._ingest = None if self._transport is None else _ingest(settings, self._transport, self.judge, clock)
        self._evaluations = EvaluationLog(data_dir, self.judge, clock)
        self._account = Account(self._store, self.judge, self._evaluations, settings, clock)
        operations = Operations()
        methods = handlers(self._account, operations)
        self._deployer = Deployer(self._account, operations, methods)
        self._metrics = Metrics(self.judge.statistics, self.why_not_ready)
        records = Records(self.judge, data_dir)
        self._metrics.registry.register(Upkeep(self.judge.statistics, records, data_dir, clock, transport))
        if self._ingest is not None:
            self._metrics.registry.register(IngestCollector(self._ingest))
        self._operators = OperationsApi(self.judge, records, guard)
        self._endpoint = Endpoint(operations, methods, guard, self._metrics, clock, settings.server)

    def start(self) -> None:
        """
        Recover, deploy what the settings want, listen to the broker.

        Raises:
            SettingsError: what the settings want deployed is refused.
            UnavailableError: another process holds the data directory.
        """
        self.judge.start()
        self._account.start()
        self._deployer.deploy(self._settings)
        self._delivery.start()
        self._escalation.start()
        if self._ingest is not None:
            self._ingest.start()
        if self._transport is not None:
            self._transport.start()
        self._health.start()

    def application(self) -> ASGIApp:
        """What the port serves."""
        return application(self._endpoint, self._metrics, self.why_not_ready, self._operators.routes())

    def why_not_ready(self) -> str:
        """Why messages cannot be taken now; empty when they can."""
        if not self.judge.statistics().writable:
            return "the journal cannot be written"
        return self._transport.trouble if self._transport is not None else ""

    def close(self) -> None:
        """Stop taking work, apply what was taken, let go of the files."""
        self._stopping.set()
        if self._health.is_alive():
            self._health.join()
        if self._ingest is not None:
            self._ingest.close()
        self._escalation.close()
        self._delivery.close()
        self.judge.close()
        if self._transport is not None:
            self._transport.close()
        self._evaluations.close()
        self._store.close()

    def _report_health(self) -> None:
        while True:
            reason = self.why_not_ready() or self._refusing()
            told = self._tell("degraded" if reason else "ready", reason)
            if self._ingest is not None and self._transport is not None and self._transport.trouble:
                self._ingest.start()  # access rules may have been mended meanwhile; brokers do not tell
            if self._clock.wait(self._stopping, self._settings.health_s if told else _CONNECTING_S):
                break
        self._tell("stopping", "")

    def _refusing(self) -> str:
        """What the broker does not let through of what is published; messages are taken all the same."""
        return self._transport.refusing if self._transport is not None else ""

    def _tell(self, status: Literal["ready", "degraded", "stopping"], detail: str) -> bool:
        """Publish this process's health; False while the broker is away."""
        if self._transport is None or not self._transport.connected:
            return self._transport is None
        thing, now = self._settings.thing, self._clock.time_ms()
        health = Health(thing=thing, time_ms=now, process="cloud", status=status, detail=detail)
        self._transport.publish(topics.topic_of(topics.HEALTH, thing), encode(health))
        return True

    def _report_action(self, report: ActionReport) -> None:
        judging = self._settings.judge
        if self._transport is not None and judging.publish_actions:
            self._transport.publish(topics.topic_of(judging.action_topic, report.thing), encode(report))


def _ingest(settings: CloudSettings, transport: Transport, judge: Judge, clock: Clock) -> Ingest:
    rules = expand(settings.rules, settings.template_parameters())
    return Ingest(transport, judge, rules, clock, settings.limits.message_bytes, settings.server.account)


def serve(settings: CloudSettings, data_dir: Path) -> None:
    """
    Serve until the process is told to stop.

    Raises:
        SettingsError: the address cannot be listened on, or what the settings want cannot be done.
        UnavailableError: the data directory cannot be used.
    """
    _check_tls(settings)
    clock = SystemClock()
    companion = Companion(settings, data_dir, clock, _transport(settings, clock))
    with listen(settings.server.host, settings.server.port) as listener:
        try:
            companion.start()
            gc.collect()
            gc.freeze()  # what a start builds stays; looking it through again and again would hold up messages
            _run(companion, settings, listener)
        finally:
            companion.close()


def http_server(companion: Companion, settings: CloudSettings) -> uvicorn.Server:
    """The HTTP server of a companion, not yet running."""
    return uvicorn.Server(
        uvicorn.Config(
            companion.application(),
            http="httptools",
            loop="uvloop",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=_BACKLOG,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_SHUTDOWN_S,
            ssl_certfile=settings.server.certificate,
            ssl_keyfile=settings.server.private_key,
        )
    )


def _run(companion: Companion, settings: CloudSettings, listener: socket.socket) -> None:
    server = http_server(companion, settings)

    def stop(*_: object) -> None:
        server.should_exit = True

    for number in (signal.SIGINT, signal.SIGTERM):
        # uvicorn raises again, when it has stopped, the signal that stopped it; there is still work to do then.
        signal.signal(number, stop)
    scheme = "https" if settings.server.certificate else "http"
    host, port = listener.getsockname()[:2]
    print(f"listening on {scheme}://{f'[{host}]' if ':' in host else host}:{port}", flush=True)
    server.run(sockets=[listener])


def _check_tls(settings: CloudSettings) -> None:
    certificate, key = settings.server.certificate, settings.server.private_key
    if (certificate is None) != (key is None):
        raise SettingsError("server: certificate and private_key go together; give both or neither")
    if certificate is None or key is None:
        if not is_loopback(settings.server.host):
            log.warning("%s: HTTP only: signed calls can be read on the way; give --certificate", settings.server.host)
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except OSError as error:
        raise SettingsError(f"server: {certificate} and {key}: {error.strerror or error}") from error
    check_private(key, "server private_key")


def listen(host: str, port: int) -> socket.socket:
    """
    A listening socket; ``::`` is every address, those of IPv4 included.

    Raises:
        SettingsError: the address cannot be listened on.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        every = host == "::" and socket.has_dualstack_ipv6()  # "every address" means those of IPv4, too
        return socket.create_server((host, port), family=family, backlog=_BACKLOG, dualstack_ipv6=every)
    except (OSError, OverflowError) as error:
        number = getattr(error, "errno", None)
        why = str(error) if number is None or isinstance(error, socket.gaierror) else os.strerror(number)
        raise SettingsError(f"--host {host} --port {port}: {why}") from error


def _transport(settings: CloudSettings, clock: Clock) -> Transport | None:
    if not settings.broker:
        return None
    broker = BrokerSettings(url=settings.broker) if isinstance(settings.broker, str) else settings.broker
    broker.host_and_port()
    broker.check_files()
    return PatientTransport(lambda: open_transport(broker, "wheeltapper-cloud", "bulk"), clock)
