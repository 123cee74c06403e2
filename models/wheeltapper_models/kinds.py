"""
The kinds of model, and what each must offer to be trained, scored and compared by the same commands.

A kind is a module with ``fit(tables, options) -> Trained``; it is imported when it is asked for. Whatever a kind learns, it
gives away as ONNX with raw rows in and its state as an input and an output, so everything after training (scoring,
evaluation, comparison, the gateway) goes through ``session.Session`` and knows no kinds.

The graph's contract: inputs ``rows`` float32 (N, S) with NaN for missing and, where the kind remembers, ``states`` float32
(N, K), zeros for a machine that has sent nothing, whose parts the card lists (``card.StatePart``); outputs ``next_states``
(N, K) and

    anomaly, forest   ``score`` (N,), ``anomaly`` (N,) int64, ``contributions`` (N, S) that sum to 1
    forecast          ``prediction`` (N,): the target's value at the *next* row; NaN while there is too little history
    failure           ``probability`` (N,), ``contributions`` (N, S) that sum to 1

An input may be text (``ModelInput.categories``) or come from the row's time (``card.CLOCK_INPUTS``).
"""

import importlib
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar, cast

import msgspec

from wheeltapper.errors import SettingsError
from wheeltapper_models.card import Card
from wheeltapper_models.data import Table

T = TypeVar("T")

KINDS = {
    "anomaly": "wheeltapper_models.varx",
    "forest": "wheeltapper_models.forest",
    "forecast": "wheeltapper_models.forecast",
    "failure": "wheeltapper_models.failure",
}


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """
    What the user asked of training, whatever the kind.

    Args:
        name: the model's name.
        version: empty for the first 12 digits of its SHA-256.
        target: the column to forecast, or the 0/1 column of failures.
        units: column → unit, for the card.
        off_conditions: ``sensor < value`` or ``sensor > value``.
        unit_column: the column that tells run-to-failure units apart.
        horizon: how far ahead a failure counts, in the units of the time column.
        seed: for kinds that draw at random.
        settings: the kind's own settings, by ``--set name=value``, as text.
    """

    name: str = "model"
    version: str = ""
    target: str = ""
    units: dict[str, str] = {}
    off_conditions: tuple[str, ...] = ()
    unit_column: str = ""
    horizon: float | None = None
    seed: int = 0
    settings: dict[str, str] = {}


class Trained(msgspec.Struct, frozen=True):
    """
    A model before it is written: the bytes of its ONNX file, and its card (``export.seal`` fills in hash and header).

    ``files`` lie beside them: what a kind needs that goes on learning.
    """

    model: bytes
    card: Card
    files: dict[str, bytes] = {}


class Kind(Protocol):
    """What a kind's module offers."""

    def fit(self, tables: Sequence[Table], options: Options) -> Trained:
        """
        Learn from tables, each one stretch of rows in time order (files, units or the runs between gaps).

        Raises:
            DataError: the data cannot be learnt from; says which column and why.
        """


def kind_named(name: str) -> Kind:
    """
    The module of a kind.

    Raises:
        SettingsError: there is no such kind.
    """
    if name not in KINDS:
        raise SettingsError(f"--kind {name}: is none of {', '.join(KINDS)}")
    return cast(Kind, importlib.import_module(KINDS[name]))


def settings_of(options: Options, type_: type[T]) -> T:
    """
    A kind's own settings from ``--set name=value``.

    Raises:
        SettingsError: a name is unknown or a value has the wrong type.
    """
    values: dict[str, Any] = dict(options.settings)
    try:
        return msgspec.convert(values, type_, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(f"--set: {error}") from error
