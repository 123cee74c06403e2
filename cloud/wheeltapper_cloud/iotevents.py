"""
AWS IoT Events: every operation of ``iotevents`` and ``iotevents-data``, and which error each failure is to a client.
"""

import inspect
import logging
import re
import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any

from wheeltapper.errors import DefinitionError, MessageError, SettingsError, UnavailableError
from wheeltapper_cloud.iotevents_account import Account, Call
from wheeltapper_cloud.iotevents_data import Alarms, Detectors, Messages
from wheeltapper_cloud.iotevents_inputs import Inputs, Logging, Tags
from wheeltapper_cloud.iotevents_models import AlarmModels, Analyses, DetectorModels
from wheeltapper_cloud.wire import Operations, ServiceError

logger = logging.getLogger(__name__)

Handler = Callable[[Call], dict[str, Any]]
AsyncHandler = Callable[[Call], Awaitable[dict[str, Any]]]

# What went wrong → what the client is told, the most particular first.
_CODES: tuple[tuple[type[Exception], str], ...] = (
    (DefinitionError, "InvalidRequestException"),
    (MessageError, "InvalidRequestException"),
    (UnavailableError, "ServiceUnavailableException"),
    (sqlite3.OperationalError, "ServiceUnavailableException"),  # disk full, locked, I/O error
    (SettingsError, "ServiceUnavailableException"),
)


def handlers(account: Account, operations: Operations) -> dict[str, Handler | AsyncHandler]:
    """The method of every operation, by the operation's name."""
    parts = (Inputs, Tags, Logging, DetectorModels, AlarmModels, Analyses, Messages, Detectors, Alarms)
    methods = {name: method for part in parts for name, method in inspect.getmembers(part(account), inspect.ismethod)}
    return {name: methods[_method_name(name)] for name in operations.by_name}


def service_error(error: Exception) -> ServiceError:
    """What the client is told of a failure; what nobody foresaw is logged and is an InternalFailureException."""
    if isinstance(error, ServiceError):
        return error
    for kind, code in _CODES:
        if isinstance(error, kind):
            if code == "ServiceUnavailableException":
                logger.warning("unavailable: %s", error)
            return ServiceError(code, str(error))
    logger.exception("internal failure", exc_info=error)
    return ServiceError("InternalFailureException", "An internal failure occurred; the server's log says more")


def _method_name(operation: str) -> str:
    """
    >>> _method_name("BatchPutMessage")
    'batch_put_message'
    """
    return re.sub(r"(?<!^)(?=[A-Z])", "_", operation).lower()
