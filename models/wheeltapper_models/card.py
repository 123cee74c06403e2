"""
The card beside a model: what it reads, what it was taught, how its limit was chosen, and how to tell that it still works.

A model is a folder of two files, ``model.onnx`` and ``card.json``. The card is written last, so that a folder with a card
is whole; it carries the SHA-256 of the model and test vectors that a session replays before it serves.
"""

import hashlib
import math
from pathlib import Path
from typing import Any

import msgspec

from wheeltapper.errors import ModelError
from wheeltapper.messages import UNREADABLE

MODEL_FILE = "model.onnx"
CARD_FILE = "card.json"

# Inputs that a session fills from a row's time rather than from a sensor; all in UTC.
HOUR = "$hour"  # of the day, 0 ≤ x < 24
WEEKDAY = "$weekday"  # 0 is Monday
YEARDAY = "$yearday"  # 1 to 366
CLOCK_INPUTS = (HOUR, WEEKDAY, YEARDAY)


class ModelInput(msgspec.Struct, frozen=True, omit_defaults=True):
    """
    One column of a row, in the order in which the model reads them.

    ``low`` and ``high`` bound what training saw. A column of text is read as its place in ``categories``.
    ``grade`` is ``high``, ``medium`` or ``low``: how fit the sensor was for learning, and ``remarks`` why.
    """

    name: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    categories: list[str] = []
    grade: str = ""
    remarks: list[str] = []


class Training(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a model was taught: rows, their span, and the SHA-256 of the bytes of the files in the order given."""

    rows: int
    sha256: str
    start: str = ""
    end: str = ""
    sources: list[str] = []
    excluded_rows: int = 0


class StatePart(msgspec.Struct, frozen=True, omit_defaults=True):
    """
    A run of the floats that a model keeps per machine between rows.

    Args:
        name: what they are.
        size: how many.
        kept: what they say of the machine stands after a pause; else they are of the rows before it, and a pause makes them
            zeros.
    """

    name: str
    size: int
    kept: bool = False


class SelfTest(msgspec.Struct, frozen=True, omit_defaults=True):
    """Rows of one machine from a cold start, and the outputs the model must give for them; null is a missing value."""

    rows: list[list[float | None]]
    expected: dict[str, list[Any]]
    tolerance: float = 1e-3


class Card(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    All that is known of a model besides its arithmetic.

    Args:
        kind: anomaly, forest, forecast or failure.
        inputs: the columns of a row, in order.
        state_size: floats a model keeps per machine between rows; a machine's first state is zeros.
        state: what these are, in order; empty where a card does not say.
        warmup_rows: rows a machine must send before the model speaks.
        period_ms: the time between rows in training; 0 where rows have no regular time.
        limit: a score above it is an anomaly; None where the kind has none.
        limit_rule: how the limit was chosen, in a sentence.
        off_conditions: ``sensor < value`` or ``sensor > value``; rows where one holds are not judged.
        outputs: the names of the model's outputs, without the state.
    """

    name: str
    version: str
    kind: str
    inputs: list[ModelInput]
    training: Training
    sha256: str = ""
    size_bytes: int = 0
    opset: int = 0
    ir_version: int = 0
    state_size: int = 0
    state: list[StatePart] = []
    warmup_rows: int = 0
    period_ms: int = 0
    limit: float | None = None
    limit_rule: str = ""
    target: str = ""
    horizon: float | None = None
    off_conditions: list[str] = []
    outputs: list[str] = []
    settings: dict[str, Any] = {}
    scores: dict[str, float] = {}
    notes: list[str] = []
    versions: dict[str, str] = {}
    self_test: SelfTest | None = None
    format: int = 1

    @property
    def sensors(self) -> list[str]:
        """The names of the inputs, in order."""
        return [column.name for column in self.inputs]


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def encode_card(card: Card) -> bytes:
    """The card as indented JSON; infinities and NaN, which JSON lacks, are refused."""
    for name, value in [("limit", card.limit), *card.scores.items()]:
        if value is not None and not math.isfinite(value):
            raise ModelError(f"card of {card.name}: {name} is {value}, which JSON cannot hold")
    return msgspec.json.format(msgspec.json.encode(card), indent=2) + b"\n"


def read_card(path: Path) -> Card:
    """
    The card of a model.

    Raises:
        ModelError: absent, not JSON, of a newer format, or a member is wrong; names the file and the member.
    """
    try:
        card = msgspec.json.decode(path.read_bytes(), type=Card)
    except FileNotFoundError as error:
        raise ModelError(f"{path}: there is no card; a model is a folder of {MODEL_FILE} and {CARD_FILE}") from error
    except (OSError, *UNREADABLE) as error:
        raise ModelError(f"{path}: cannot be read as a card: {error}") from error
    if card.format != 1:
        raise ModelError(f"{path}: format {card.format} is newer than this version of wheeltapper reads; upgrade it")
    return card


def model_paths(path: Path) -> tuple[Path, Path]:
    """
    The model file and the card for a folder, or for an .onnx file with its card beside it.

    A card may also carry the model's own name: ``pump.onnx`` and ``pump.json``.
    """
    if path.is_dir():
        return path / MODEL_FILE, path / CARD_FILE
    named = path.with_suffix(".json")
    return path, named if named.exists() else path.with_name(CARD_FILE)
