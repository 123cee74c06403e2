"""
AWS's seven analyses of a detector model, with its types, levels, messages and places.

``analyse`` answers StartDetectorModelAnalysis; ``blocking_errors`` is what a Create or Update must refuse. What AWS never
said (dead transitions, timers that nobody tests, alarms that cannot fire) is in ``lint``.
"""

from collections.abc import Mapping
from typing import Any

from wheeltapper.detector import analysis_paths, analysis_references, analysis_structure, analysis_types
from wheeltapper.detector.analysis_findings import Finding, Inputs
from wheeltapper.detector.analysis_reach import explore
from wheeltapper.detector.analysis_survey import Survey, survey

__all__ = ["Finding", "Inputs", "analyse", "blocking_errors"]


def analyse(
    definition: Mapping[str, Any], inputs: Inputs | None = None, *, evaluation_method: str = "BATCH"
) -> list[Finding]:
    """
    Everything AWS's analyses say about a definition, sorted by type.

    Args:
        definition: a ``detectorModelDefinition``, as written.
        inputs: the inputs that exist; None leaves out the analyses that need them.
        evaluation_method: BATCH or SERIAL; AWS cannot know it here and assumes BATCH.
    """
    laid_out = survey(definition)
    found = [
        *analysis_types.findings(laid_out),
        *analysis_structure.syntax(laid_out),
        *analysis_references.data(laid_out),
        *analysis_references.resources(laid_out, inputs),
        *analysis_structure.limits(definition, laid_out),
        *analysis_structure.structure(definition, laid_out),
    ]
    if not any(each.type == "structure" and each.level == "ERROR" for each in found):
        found += _reachability(laid_out, evaluation_method)
    return found + list(analysis_structure.supported_actions(definition))


def blocking_errors(definition: Mapping[str, Any], inputs: Inputs | None = None) -> list[Finding]:
    """The errors with which a definition must not be created: broken structure, broken syntax, inputs that do not exist."""
    laid_out = survey(definition)
    found = [
        *analysis_structure.structure(definition, laid_out),
        *analysis_structure.supported_actions(definition),
        *analysis_structure.syntax(laid_out),
        *analysis_references.resources(laid_out, inputs),
    ]
    return [each for each in found if each.level == "ERROR"]


def _reachability(laid_out: Survey, evaluation_method: str) -> list[Finding]:
    return analysis_paths.aws_findings(laid_out, explore(laid_out, serial=evaluation_method == "SERIAL"))
