"""
Which inputs and asset properties a model reads: routing is derived from the expressions, not declared.
"""

from wheeltapper.detector.expression import Reference, show_reference
from wheeltapper.detector.model import read_alarm_model, read_detector_model
from wheeltapper.detector.plan import make_alarm_plan, make_plan
from wheeltapper.errors import DefinitionError
from wheeltapper_cloud.store import Resource


def inputs_of(found: Resource) -> set[str]:
    """
    The inputs whose messages go to a model; none to one that cannot be put in force.

    A SiteWise property counts as an input, named by ``property_input``.
    """
    try:
        if found.kind == "alarmModel":
            return {read.name for read in make_alarm_plan(read_alarm_model(found.body)).inputs}
        return {read.name for read in make_plan(read_detector_model(found.body)).inputs}
    except DefinitionError:
        return set()


def property_input(asset_model: str, property_id: str) -> str:
    """The input that carries an asset model's property."""
    return show_reference(Reference("sitewise", "assetModel", (asset_model, property_id)))
