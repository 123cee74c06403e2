"""
Model versions on disk: which folders there are, which is complete, and a verified session from one.

A model's folder is either one version (it holds ``card.json``), or holds a folder per version, as a nucleus keeps the
artifacts of a model component.
"""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from wheeltapper.errors import ModelError
from wheeltapper_models.card import CARD_FILE, MODEL_FILE
from wheeltapper_models.forest_learner import LearningForest
from wheeltapper_models.forest_score import read_stream
from wheeltapper_models.forest_watch import STREAM_FILE
from wheeltapper_models.manifest import (
    MANIFEST_FILE,
    missing_files,
    read_manifest,
    trusted_keys,
    verify_manifest,
)
from wheeltapper_models.serving import Served
from wheeltapper_models.session import Session


class Version(NamedTuple):
    """One version on disk; ``fingerprint`` changes when its card or manifest does, ``stamp`` when its model file does."""

    folder: Path
    fingerprint: str
    stamp: tuple[int, int]


def versions_in(folder: Path, only: str = "") -> list[Version]:
    """The complete versions, best first: the highest version number, or the folder itself; ``only`` leaves one version."""
    if (folder / CARD_FILE).exists() or (folder / MANIFEST_FILE).exists():
        folders = iter([folder])
    else:
        folders = (found for found in _subfolders(folder) if only in ("", found.name))
    return [version for version in map(_complete, folders) if version is not None]


def load_version(version: Version, keys: Path | None = None, *, learners: int = 0) -> Served:
    """
    Verify a version, from its signature to its self-test, and load it.

    Args:
        keys: a folder of public keys; when given, a manifest signed with one of them is required.
        learners: machines that may have a forest of their own, where the model is one that goes on learning.

    Raises:
        ModelError: says what is wrong with which file.
    """
    folder = version.folder
    manifest = read_manifest(folder)
    if manifest is None and keys is not None:
        raise ModelError(f"{folder}: has no {MANIFEST_FILE}, and only signed models are trusted here")
    if manifest is not None:
        verify_manifest(folder, manifest, None if keys is None else trusted_keys(keys))
        for name in (MODEL_FILE, CARD_FILE):
            if name not in manifest.files:
                raise ModelError(f"{folder / MANIFEST_FILE}: does not list {name}")
    session = Session.load(folder)
    if manifest is not None and (manifest.name, manifest.version) != (session.card.name, session.card.version):
        raise ModelError(
            f"{folder / MANIFEST_FILE}: speaks of {manifest.name} {manifest.version}, "
            f"the card of {session.card.name} {session.card.version}"
        )
    stream = read_stream(session.card, folder) if learners else None
    if stream is None or (manifest is not None and STREAM_FILE not in manifest.files):
        return session
    return LearningForest(session, stream, most=learners)


def _subfolders(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        return iter(())
    return iter(sorted((path for path in folder.iterdir() if path.is_dir()), key=_rank, reverse=True))


def _rank(folder: Path) -> tuple[list[int], str]:
    """Versions by their numbers, 1.10.0 above 1.9.0; a pre-release (1.0.0-rc.1) below its release."""
    numbers, _, rest = folder.name.partition("-")
    return [int(number) for number in re.findall(r"\d+", numbers)], rest or "~"


def _complete(folder: Path) -> Version | None:
    try:
        manifest = read_manifest(folder)
        if manifest is not None and missing_files(folder, manifest):
            return None
        if manifest is None and not (folder / MODEL_FILE).exists():
            return None
        parts = [path.read_bytes() for name in (MANIFEST_FILE, CARD_FILE) if (path := folder / name).exists()]
    except OSError:
        return None  # files are being written
    except ModelError:
        parts = [(folder / MANIFEST_FILE).read_bytes()]  # refused, with its reason, when it is loaded
    model = folder / MODEL_FILE
    stamp = (model.stat().st_size, model.stat().st_mtime_ns) if model.exists() else (0, 0)
    return Version(folder, hashlib.sha256(b"\0".join(parts)).hexdigest(), stamp)
