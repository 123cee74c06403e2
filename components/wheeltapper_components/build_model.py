"""
A model component: weights, card and manifest under a version of their own, and a recipe that runs nothing.

The gateway finds the new version's folder, verifies it and swaps; deploying it restarts no process.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from wheeltapper.errors import ModelError, SettingsError
from wheeltapper_models.card import CARD_FILE, MODEL_FILE, read_card
from wheeltapper_models.component import COMPONENT_PREFIX, VERSION, completed
from wheeltapper_models.manifest import MANIFEST_FILE, missing_files, read_manifest, verify_manifest, write_manifest

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


class ModelSource(NamedTuple):
    """
    A model to ship.

    Args:
        folder: holds ``model.onnx`` and ``card.json``, and a manifest where the model comes from the registry.
        things: patterns of the things that it judges.
        version: the component's version; empty takes the card's.
    """

    folder: Path
    things: tuple[str, ...] = ("*",)
    version: str = ""

    @classmethod
    def parse(cls, text: str, version: str = "") -> "ModelSource":
        """
        From ``FOLDER`` or ``FOLDER=PATTERN,PATTERN``.

        >>> ModelSource.parse("models/motor=motor-*,pump-1").things
        ('motor-*', 'pump-1')
        """
        folder, _, things = text.partition("=")
        return cls(Path(folder), tuple(filter(None, things.split(","))) or ("*",), version)

    def name(self) -> str:
        """
        The component's name.

        Raises:
            ModelError: the model has no card.
            SettingsError: its name cannot be one of a component.
        """
        name = read_card(self.folder / CARD_FILE).name
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,100}", name):
            raise SettingsError(
                f"{self.folder / CARD_FILE}: the name {name!r} must be of the characters A-Z a-z 0-9 . _ -"
            )
        return COMPONENT_PREFIX + name

    def component_version(self) -> str:
        """
        The version given, or the card's: ``2`` and ``2.1`` count as 2.0.0 and 2.1.0.

        Raises:
            SettingsError: it is no version of a component, such as a hash.
        """
        version = completed(self.version or read_card(self.folder / CARD_FILE).version)
        if not VERSION.fullmatch(version):
            raise SettingsError(
                f"{self.folder}: its version {version!r} is no MAJOR.MINOR.PATCH; give one with --model-version 1.0.0"
            )
        return version


def copy_model(source: ModelSource, target: Path, key: "Ed25519PrivateKey | None") -> list[str]:
    """
    Copy a model's files and complete them with a manifest.

    Args:
        key: signs the manifest; a model that has one already keeps it, and its signature.

    Returns:
        The names of the files.

    Raises:
        ModelError: a file is missing, or is not the one in the manifest that the model has.
    """
    manifest = read_manifest(source.folder)
    if manifest is not None:
        if missing := missing_files(source.folder, manifest):
            raise ModelError(f"{source.folder}: lacks {', '.join(missing)}, which its {MANIFEST_FILE} lists")
        verify_manifest(source.folder, manifest)
        names = [*manifest.files, MANIFEST_FILE]
    else:
        names = [path.name for path in source.folder.iterdir() if path.is_file() and path.suffix not in (".py", ".new")]
    for name in (MODEL_FILE, CARD_FILE):
        if name not in names:
            raise ModelError(f"{source.folder}: has no {name}")
    if nested := [name for name in names if "/" in name]:
        raise ModelError(f"{source.folder}: {nested[0]}: files of a component lie side by side, not in folders")
    for name in names:
        (target / name).write_bytes((source.folder / name).read_bytes())
    if manifest is None or (key is not None and manifest.signature is None):
        card = read_card(source.folder / CARD_FILE)
        write_manifest(target, card.name, card.version, key)
    return sorted({*names, MANIFEST_FILE})
