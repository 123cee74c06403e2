"""
Builds what is deployed: recipes and artifacts, laid out as a local deployment takes them, the same bytes every time.

``OUT/recipes/NAME-VERSION.json`` and ``OUT/artifacts/NAME/VERSION/…``: plain files that need no unpacking by the nucleus,
so that the same recipe holds for a local deployment, which only copies folders, and for one from S3.
"""

import json
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from wheeltapper import __version__, config
from wheeltapper.errors import SettingsError, WheeltapperError
from wheeltapper.messages import UNREADABLE
from wheeltapper_components.build_model import ModelSource, copy_model
from wheeltapper_components.build_wheels import Device, archive, gather
from wheeltapper_components.recipe_lint import lint
from wheeltapper_components.settings import GatewaySettings
from wheeltapper_models.component import VERSION, artifact_uris, model_recipe, write_recipe

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

# In a checkout this folder's neighbours hold the components; above them lies the checkout.
ROOM = Path(__file__).resolve().parents[1]
INFERENCE, DETECTOR, MODEL = "inference", "detector", "model"
_FILES = ("main.py", "install.sh")
_WHEELS = "wheels.zip"
Recipe = dict[str, Any]


def room_of_checkout() -> Path:
    """The folder of the components: beside this package, or where the command is run in a checkout that it is not from."""
    rooms = (ROOM, Path.cwd() / "components", Path.cwd().parent)
    return next((room for room in rooms if (room / INFERENCE / "recipe.json").exists()), ROOM)


class Built(NamedTuple):
    """One component that lies ready."""

    name: str
    version: str
    recipe: Path
    artifacts: Path

    def files(self) -> list[Path]:
        """The artifacts, sorted."""
        return sorted(self.artifacts.iterdir())


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """
    What to build.

    Args:
        models: the models that inference serves, each a component.
        detectors: files of detector and alarm models, shipped with the detectors component.
        configuration: component name → what its default configuration says otherwise.
        version: of the inference and the detectors component.
        parts: which of ``inference``, ``detector`` and ``model``.
        key: signs the manifests of models that have none.
        wheels: take wheels from here and ask no index.
        room: the folder of the components in a checkout.
    """

    device: Device
    models: Sequence[ModelSource]
    detectors: Sequence[Path] = ()
    configuration: dict[str, dict[str, Any]] = {}
    version: str = __version__
    parts: Sequence[str] = (INFERENCE, DETECTOR, MODEL)
    key: "Ed25519PrivateKey | None" = None
    wheels: Path | None = None
    room: Path = msgspec.field(default_factory=room_of_checkout)


def build(plan: Plan, out: Path) -> list[Built]:
    """
    Build the components of a plan.

    Returns:
        What was built; nothing else in ``out`` is touched.

    Raises:
        SettingsError: the plan cannot be, or a recipe would not hold on a nucleus; says why.
        ModelError: a model is not whole.
        UnavailableError: the package index cannot be reached.
    """
    if not VERSION.fullmatch(plan.version):
        raise SettingsError(f"--version {plan.version}: must be MAJOR.MINOR.PATCH, such as {__version__}")
    names = [source.name() for source in plan.models]
    for name in names:
        if names.count(name) > 1:
            raise SettingsError(f"{name}: two models have this name; train one of them with another --name")
    if MODEL in plan.parts:
        for source in plan.models:
            source.component_version()  # refused before wheels are fetched
    recipes = {part: _template(plan, part) for part in plan.parts if part != MODEL}
    known = {str(recipe["ComponentName"]) for recipe in recipes.values()}
    if unknown := set(plan.configuration) - known:
        raise SettingsError(
            f"--config: {', '.join(sorted(unknown))}: not among those built: {', '.join(sorted(known))}"
        )
    built: list[Built] = []
    with tempfile.TemporaryDirectory() as scratch:
        for part, recipe in recipes.items():
            wheels = _wheels(plan, Path(scratch))
            built.append(_process(plan, part, recipe, wheels, out))
    if MODEL in plan.parts:
        built += [_model(plan, source, out) for source in plan.models]
    _check(built)
    return built


def read_configuration(path: Path) -> dict[str, dict[str, Any]]:
    """
    Configuration by component name, from TOML or JSON.

    Raises:
        SettingsError: the file cannot be read, or is no table of tables.
    """
    decode = msgspec.json.decode if path.suffix == ".json" else msgspec.toml.decode
    try:
        return decode(path.read_bytes(), type=dict[str, dict[str, Any]])
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    except UNREADABLE as error:
        raise SettingsError(f"{path}: must hold a table for each component's name: {error}") from error


def _template(plan: Plan, part: str) -> Recipe:
    path = plan.room / part / "recipe.json"
    try:
        recipe: Recipe = json.loads(path.read_text())
    except OSError as error:
        raise SettingsError(
            f"{path}: cannot be read: {error.strerror}; run this in a checkout of wheeltapper"
        ) from error
    return recipe


def _wheels(plan: Plan, scratch: Path) -> Path:
    archived = scratch / _WHEELS
    if not archived.exists():
        folder = scratch / "wheels"
        folder.mkdir()
        gather(plan.room.parent, plan.device, folder, plan.wheels)
        archive(folder, archived)
    return archived


def _process(plan: Plan, part: str, recipe: Recipe, wheels: Path, out: Path) -> Built:
    name = str(recipe["ComponentName"])
    recipe = _versioned(recipe, plan.version)
    defaults = recipe["ComponentConfiguration"]["DefaultConfiguration"]
    artifacts = _emptied(out / "artifacts" / name / plan.version)
    for file in _FILES:
        (artifacts / file).write_bytes((plan.room / part / file).read_bytes())
    shutil.copyfile(wheels, artifacts / _WHEELS)
    if part == INFERENCE:
        _serve_models(recipe, defaults, plan.models)
    else:
        _take_detectors(defaults, f"{name}/{plan.version}", plan.detectors, artifacts)
    defaults |= plan.configuration.get(name, {})
    checked = {key: value for key, value in defaults.items() if key != "accessControl"}
    config.convert(GatewaySettings, checked, f"--config: {name}", artifacts)
    return _write(recipe, name, plan.version, artifacts, out)


def _versioned(recipe: Recipe, version: str) -> Recipe:
    """The recipe under another version, which its scripts name as well."""
    before = recipe["ComponentVersion"]
    recipe = {**recipe, "ComponentVersion": version}
    for manifest in recipe["Manifests"]:
        for step in manifest["Lifecycle"].values():
            step["Script"] = step["Script"].replace(before, version)
    return recipe


def _serve_models(recipe: Recipe, defaults: dict[str, Any], models: Sequence[ModelSource]) -> None:
    defaults["models"] = [{"things": list(source.things), "folder": source.name()} for source in models]
    recipe["ComponentDependencies"] = {
        source.name(): {"VersionRequirement": f">={source.component_version()}", "DependencyType": "SOFT"}
        for source in models
    }
    if not models:
        del recipe["ComponentDependencies"]


def _take_detectors(defaults: dict[str, Any], place: str, files: Iterable[Path], artifacts: Path) -> None:
    """Ship the definitions themselves: a nucleus lite has no room for them in a configuration."""
    for file in files:
        if (artifacts / file.name).exists():
            raise SettingsError(f"--detector {file}: another file has this name; rename it")
        try:
            (artifacts / file.name).write_bytes(file.read_bytes())
        except OSError as error:
            raise SettingsError(f"--detector {file}: cannot be read: {error.strerror}") from error
        defaults["detectors"]["models"].append(f"{place}/{file.name}")


def _model(plan: Plan, source: ModelSource, out: Path) -> Built:
    name, version = source.name(), source.component_version()
    artifacts = _emptied(out / "artifacts" / name / version)
    files = copy_model(source, artifacts, plan.key)
    path = write_recipe(model_recipe(name, version, artifact_uris(name, version, files)), out)
    return _readable(Built(name, version, path, artifacts))


def _emptied(folder: Path) -> Path:
    try:
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
    except OSError as error:
        raise SettingsError(f"{folder}: cannot be written: {error.strerror}") from error
    return folder


def _write(recipe: Recipe, name: str, version: str, artifacts: Path, out: Path) -> Built:
    uris = artifact_uris(name, version, sorted(file.name for file in artifacts.iterdir()))
    permission = {"Read": "ALL", "Execute": "NONE"}
    listed = [{"Uri": uri, "Unarchive": "NONE", "Permission": permission} for uri in uris]
    manifests = [{**manifest, "Artifacts": listed} for manifest in recipe["Manifests"]]
    return _readable(Built(name, version, write_recipe({**recipe, "Manifests": manifests}, out), artifacts))


def _readable(built: Built) -> Built:
    """The nucleus's own user reads the artifacts, whatever the umask of the one who builds."""
    for file in built.files():
        file.chmod(0o644)
    return built


def _check(built: Sequence[Built]) -> None:
    for finding in lint([one.recipe for one in built]):
        if finding.severity == "error":
            raise WheeltapperError(f"{finding.file}: {finding.where}: {finding.message}")
