"""
A model version as a Greengrass component: what lies where, and the recipe beside it.

The recipe runs nothing: a gateway finds the new version's folder, verifies it and swaps. ``run: true`` is there because a
nucleus lite refuses a lifecycle without a phase, and never finishes one that only installs.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

COMPONENT_PREFIX = "com.wheeltapper.Model."
# Stands for the bucket until the component is published; a local deployment needs none.
BUCKET_PLACEHOLDER = "BUCKET_NAME"


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
