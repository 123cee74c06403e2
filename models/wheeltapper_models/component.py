"""
A model version as a Greengrass component: what lies where, and the recipe beside it.

The recipe runs nothing: a gateway finds the new version's folder, verifies it and swaps. ``run: true`` is there because a
nucleus lite refuses a lifecycle without a phase, and never finishes one that only installs.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

COMPONENT_PREFIX = "com.wheeltapper.Model."
# Stands for the bucket until the component is published; a local deployment needs none.
BUCKET_PLACEHOLDER = "BUCKET_NAME"
_NUMBER = r"(0|[1-9]\d{0,5})"
VERSION = re.compile(rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?(?:\+[0-9A-Za-z.-]+)?")


def completed(version: str) -> str:
    """
    A version as components have them, where it is one but for its length; else as it was.

    >>> completed("2"), completed("2.1"), completed("a1b2c3")
    ('2.0.0', '2.1.0', 'a1b2c3')
    """
    return version + ".0" * (2 - version.count(".")) if re.fullmatch(r"\d{1,6}(\.\d{1,6})?", version) else version


def version_rank(version: str) -> tuple[list[int], str]:
    """
    What versions are sorted by: 1.10.0 above 1.9.0, a pre-release below its release, what is no version below all.

    >>> sorted(["1.10.0", "1.9.0", "1.10.0-rc.1"], key=version_rank)
    ['1.9.0', '1.10.0-rc.1', '1.10.0']
    """
    found = VERSION.fullmatch(version)
    return ([int(found.group(place)) for place in (1, 2, 3)], found.group(4) or "~") if found else ([], "")


def model_recipe(component: str, version: str, uris: Sequence[str]) -> dict[str, Any]:
    """The recipe of one version of a model component, with its artifacts' addresses."""
    permission = {"Read": "ALL", "Execute": "NONE"}
    return {
        "RecipeFormatVersion": "2020-01-25",
        "ComponentName": component,
        "ComponentVersion": version,
        "ComponentType": "aws.greengrass.generic",
        "ComponentDescription": "A trained model: weights, card and manifest.",
        "ComponentPublisher": "Wheeltapper",
        "Manifests": [
            {
                "Platform": {"os": "linux", "runtime": "*"},
                "Lifecycle": {"run": "true"},
                "Artifacts": [{"Uri": uri, "Unarchive": "NONE", "Permission": permission} for uri in uris],
            }
        ],
    }


def write_recipe(recipe: dict[str, Any], out: Path) -> Path:
    """Write a recipe where a local deployment looks for it; the path."""
    path = out / "recipes" / f"{recipe['ComponentName']}-{recipe['ComponentVersion']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(recipe, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def artifact_uris(component: str, version: str, files: Sequence[str]) -> list[str]:
    """Addresses of artifacts in a bucket that is not known yet."""
    return [f"s3://{BUCKET_PLACEHOLDER}/{component}/{version}/{name}" for name in files]
