"""Rules for ``Manifests``: platforms, lifecycles and artifacts, as nucleus classic and nucleus lite read them."""

import re
from typing import Any

from wheeltapper_components.recipe import Findings, Recipe, below, type_name

INSTALL_TIMEOUT_S = 600
_MANIFEST = {"Name": False, "Platform": False, "Lifecycle": False, "Selections": False, "Artifacts": False}
_PLATFORM = {"os": False, "architecture": False, "architecture.detail": False, "runtime": False}
_PHASES = dict.fromkeys(("install", "run", "startup", "shutdown", "recover", "bootstrap", "uninstall", "Setenv"), False)
_STEP = {
    "Script": False,
    "Setenv": False,
    "Timeout": False,
    "RequiresPrivilege": False,
    "Skipif": False,
    "BootstrapOnRollback": False,
}
_ARTIFACT = {"Uri": True, "Unarchive": False, "Permission": False, "Digest": False, "Algorithm": False}
_OS_ON_LITE = ("linux", "*", "all")
_OS = ("linux", "darwin", "windows", "*", "all")
_ARCHITECTURES = ("amd64", "aarch64", "arm", "x86", "riscv64", "*")
_ON_LITE, _ON_BOTH = "aws_nucleus_lite", "*"
_VARIABLE = re.compile(
    r"\{(?:artifacts:(?:path|decompressedPath)|work:path|kernel:rootPath|iot:thingName|configuration:/[^{}\s]*)\}"
)
_OF_ANOTHER = re.compile(r"\{[A-Za-z0-9._-]+:(?:artifacts|work|configuration):[^{}]*\}")
_URI = re.compile(r"s3://[^/\s]+/\S*[^/\s]|greengrass:\S+|docker:\S+")
_FROM_ARTIFACTS = re.compile(r"(?:^|[;&|\n]|\bexec\s)\s*[\"']?\{artifacts:(?:path|decompressedPath)\}/")
_SYSTEM_PIP = re.compile(r"(?<![\w/.}-])(?:pip3?|python3?\s+-m\s+pip)\s+install\b")


def check_manifests(recipe: Recipe, findings: Findings) -> None:
    """Check every manifest, and that there is one for each nucleus."""
    manifests = recipe.get("Manifests")
    if not isinstance(manifests, list) or not manifests:
        if "Manifests" in recipe:
            findings.error("type", "Manifests", "must be a list, not empty")
        return
    read: list[tuple[str, dict[str, Any]]] = []
    for place, manifest in enumerate(manifests):
        where = f"Manifests[{place}]"
        read.append((where, findings.keys(manifest, _MANIFEST, where)))
    platforms = [_check_platform(fields.get("Platform"), where, findings) for where, fields in read]
    served = [_on_lite(platform) for platform in platforms]
    for (where, fields), platform, lite in zip(read, platforms, served, strict=True):
        if platform is None:
            findings.error(
                "missing-key", below(where, "Platform"), "is missing; nucleus lite refuses the recipe", nucleus="lite"
            )
            _check_manifest(recipe, fields, where, findings, findings.for_lite)
            continue
        if not lite and findings.for_lite:
            _say_skipped(platform, below(where, "Platform"), findings, any(served))
        # Where lite reads another manifest, or could never read this one, it is judged as classic reads it.
        meant = platform.get("os", "linux") in _OS_ON_LITE and not any(served)
        _check_manifest(recipe, fields, where, findings, lite or meant)


def only_installs(recipe: Recipe) -> bool:
    """Whether a manifest has an install step and nothing that runs: on lite a dependent's deployment never ends."""
    manifests = recipe.get("Manifests")
    lifecycles = (
        [_lifecycle_of(recipe, manifest, "")[0] for manifest in manifests] if isinstance(manifests, list) else []
    )
    return any(
        isinstance(lifecycle, dict) and "install" in lifecycle and not {"run", "startup"} & set(lifecycle)
        for lifecycle in lifecycles
    )


# --- platforms -------------------------------------------------------------------------------------------------------


def _check_platform(platform: Any, where: str, findings: Findings) -> dict[str, Any] | None:
    place = below(where, "Platform")
    if platform is None:
        return None
    fields = findings.keys(platform, _PLATFORM, place, others=True)
    for key in [key for key in _PLATFORM if key in fields]:
        findings.text(fields[key], below(place, key))
    system, architecture = fields.get("os"), fields.get("architecture")
    if isinstance(system, str) and system not in _OS and not system.startswith("/"):
        findings.error("platform", below(place, "os"), f"{system!r}: is none of {', '.join(_OS)}")
    if isinstance(architecture, str) and architecture not in _ARCHITECTURES and not architecture.startswith("/"):
        findings.error(
            "platform", below(place, "architecture"), f"{architecture!r}: is none of {', '.join(_ARCHITECTURES)}"
        )
    if _meant_for_lite(fields):
        for key in ("os", "architecture"):
            if isinstance(fields.get(key), str) and fields[key].startswith("/"):
                findings.error(
                    "platform", below(place, key), f"{fields[key]!r}: nucleus lite knows no patterns", nucleus="lite"
                )
        if system is None:
            findings.error(
                "platform", below(place, "os"), "is missing; nucleus lite skips the manifest", nucleus="lite"
            )
    return fields


def _meant_for_lite(platform: dict[str, Any]) -> bool:
    return platform.get("runtime") in (_ON_BOTH, _ON_LITE)


def _on_lite(platform: dict[str, Any] | None) -> bool:
    return platform is not None and _meant_for_lite(platform) and platform.get("os") in _OS_ON_LITE


def _say_skipped(platform: dict[str, Any], where: str, findings: Findings, another: bool) -> None:
    if another:
        findings.note("classic-only", where, "nucleus lite skips this manifest and takes another", "classic")
    elif platform.get("os", "linux") not in _OS_ON_LITE and not str(platform.get("os")).startswith("/"):
        findings.warn("classic-only", where, f"{platform['os']}: classic only; nucleus lite runs on Linux", "classic")
    elif not _meant_for_lite(platform):
        said = "is missing" if "runtime" not in platform else f"{platform['runtime']!r}: is for another nucleus"
        findings.error(
            "runtime", below(where, "runtime"), f'{said}; write "*", or nucleus lite skips the manifest', nucleus="lite"
        )


# --- lifecycles ------------------------------------------------------------------------------------------------------


def _check_manifest(recipe: Recipe, fields: dict[str, Any], where: str, findings: Findings, lite: bool) -> None:
    lifecycle, place = _lifecycle_of(recipe, fields, where)
    if lifecycle is not None and not isinstance(lifecycle, dict):
        findings.error("type", place, f"is {type_name(lifecycle)}; an object is needed")
    elif lifecycle:
        _check_lifecycle(lifecycle, place, findings, lite)
    elif lite:
        said = 'has no phase, which fails the deployment; where there is nothing to do, write {"run": "true"}'
        findings.error("phase", place, said, nucleus="lite")
    _check_artifacts(fields, where, findings, lite)


def _lifecycle_of(recipe: Recipe, manifest: Any, where: str) -> tuple[Any, str]:
    """A manifest's own lifecycle, or the one it selects of the recipe's; and where that stands."""
    place = below(where, "Lifecycle")
    if not isinstance(manifest, dict):
        return None, place
    shared, selections = recipe.get("Lifecycle"), manifest.get("Selections") or ["all"]
    if not manifest.get("Lifecycle") and isinstance(shared, dict) and isinstance(selections, list):
        for selection in selections:
            if isinstance(selection, str) and shared.get(selection):
                return shared[selection], f"Lifecycle.{selection}"
    return manifest.get("Lifecycle"), place


def _check_lifecycle(lifecycle: dict[str, Any], where: str, findings: Findings, lite: bool) -> None:
    phases = findings.keys(lifecycle, _PHASES, where)
    if "Setenv" in phases:
        _check_environment(phases["Setenv"], below(where, "Setenv"), findings)
    steps = {phase: step for phase, step in phases.items() if phase in _PHASES and phase != "Setenv"}
    if lite:
        _check_phases(steps, where, findings)
    if {"run", "startup"} <= set(steps):
        findings.error("phase", where, "has run and startup; a component has one of them")
    for phase, step in steps.items():
        _check_step(phase, step, below(where, phase), findings, lite)


def _check_phases(steps: dict[str, Any], where: str, findings: Findings) -> None:
    for phase in steps:
        if phase == "startup":
            said = "nucleus lite ends it with a systemd call that Debian 12 does not know, and it is BROKEN; write run"
            findings.error("phase", below(where, phase), said, nucleus="lite")
        elif phase not in ("install", "run"):
            findings.warn(
                "classic-only", below(where, phase), "classic only; nucleus lite ignores this phase", "classic"
            )
    if not {"install", "run", "startup"} & set(steps):
        findings.error(
            "phase", where, "has neither install nor run: nothing that nucleus lite could do", nucleus="lite"
        )
    elif not {"run", "startup"} & set(steps):
        said = (
            'has no run: a deployment of a component that depends on it never ends on nucleus lite; add "run": "true"'
        )
        findings.warn("phase", where, said, nucleus="lite")


def _check_step(phase: str, step: Any, where: str, findings: Findings, lite: bool) -> None:
    fields: dict[str, Any] = {}
    if isinstance(step, str):
        script: Any = step
    else:
        fields = findings.keys(step, _STEP, where)
        script = fields.get("Script")
        where = below(where, "Script")
        if isinstance(step, dict):
            _check_step_fields(fields, where.removesuffix(".Script"), findings, lite)
            if "Script" not in fields and "Skipif" not in fields:
                findings.error("missing-key", where, "is missing")
    if phase == "install":
        _check_install_time(fields.get("Timeout"), where.removesuffix(".Script"), findings)
    if script is not None and findings.text(script, where) is not None:
        _check_script(phase, script, where, findings, lite)


def _check_step_fields(fields: dict[str, Any], where: str, findings: Findings, lite: bool) -> None:
    timeout, privilege = fields.get("Timeout"), fields.get("RequiresPrivilege")
    if timeout is not None and _seconds(timeout) is None:
        findings.error("timeout", below(where, "Timeout"), f"{timeout!r}: must be a whole number of seconds above 0")
    if privilege is not None and privilege not in (True, False, "true", "false"):
        findings.error("type", below(where, "RequiresPrivilege"), f"{privilege!r}: must be true or false")
    elif privilege in (True, "true"):
        findings.note("privilege", below(where, "RequiresPrivilege"), "the script runs as root")
    if "Setenv" in fields:
        _check_environment(fields["Setenv"], below(where, "Setenv"), findings)
    if "Skipif" in fields and lite:
        findings.warn("classic-only", below(where, "Skipif"), "classic only; nucleus lite ignores it", "classic")


def _check_install_time(timeout: Any, where: str, findings: Findings) -> None:
    seconds = 120 if timeout is None else _seconds(timeout)
    if seconds is not None and seconds < INSTALL_TIMEOUT_S:
        said = f"{seconds} s{' (the default)' if timeout is None else ''} is too short to install Python packages on a small"
        findings.warn("timeout", below(where, "Timeout"), f"{said} computer; write {INSTALL_TIMEOUT_S} or more")


def _check_environment(variables: Any, where: str, findings: Findings) -> None:
    if not isinstance(variables, dict):
        findings.error("type", where, f"is {type_name(variables)}; an object of texts is needed")
        return
    for name, value in variables.items():
        if not isinstance(value, str):
            findings.warn("type", below(where, name), f"is {type_name(value)}; write it as a text")


def _seconds(value: Any) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _check_script(phase: str, script: str, where: str, findings: Findings, lite: bool) -> None:
    if lite:
        for variable in _OF_ANOTHER.findall(_VARIABLE.sub("", script)):
            said = f"{variable}: nucleus lite knows no variables of other components; for a path write"
            findings.error(
                "braces", where, f"{said} {{kernel:rootPath}}/packages/artifacts/<component>/…", nucleus="lite"
            )
        left = _OF_ANOTHER.sub("", _VARIABLE.sub("", script))
        if "{" in left or "}" in left:
            said = "holds a brace that is no recipe variable; nucleus lite takes every { for one: put shell into a file"
            findings.error("braces", where, f"{said} among the artifacts", nucleus="lite")
    if _FROM_ARTIFACTS.search(script):
        said = "runs a program from the artifacts' folder; a revised deployment fails while it runs (text file busy):"
        findings.warn(
            "script", where, f"{said} run it by its interpreter, or from a copy in the work folder", nucleus="lite"
        )
    if "--break-system-packages" in script:
        findings.error(
            "script", where, "--break-system-packages damages the device's own Python; use a virtual environment"
        )
    elif _SYSTEM_PIP.search(script):
        findings.warn("script", where, "the system's pip refuses on current Debian (externally managed); use a venv's")
    if phase == "run" and re.match(r"\s*(?:\S*/)?python[\d.]*\s", script) and "\n" not in script.strip():
        findings.note("script", where, "begin it with exec, so that signals reach Python and not its shell")


# --- artifacts -------------------------------------------------------------------------------------------------------


def _check_artifacts(fields: dict[str, Any], where: str, findings: Findings, lite: bool) -> None:
    artifacts = fields.get("Artifacts")
    place = below(where, "Artifacts")
    if artifacts is None:
        if lite:
            findings.note("artifact", place, "is missing; nucleus lite wants a list, empty or not", nucleus="lite")
        return
    if not isinstance(artifacts, list):
        findings.error("type", place, f"is {type_name(artifacts)}; a list is needed")
        return
    names: set[str] = set()
    for number, artifact in enumerate(artifacts):
        inside = f"{place}[{number}]"
        uri = _check_artifact(artifact, inside, findings)
        name = uri.rsplit("/", 1)[-1]
        if name and not uri.startswith("docker:") and name in names:
            findings.error("artifact", below(inside, "Uri"), f"{name}: another artifact has the same file name")
        names.add(name)


def _check_artifact(artifact: Any, where: str, findings: Findings) -> str:
    fields = findings.keys(artifact, _ARTIFACT, where)
    uri = findings.text(fields["Uri"], below(where, "Uri")) if "Uri" in fields else None
    if uri is not None and not _URI.fullmatch(uri):
        findings.error(
            "artifact", below(where, "Uri"), f"{uri!r}: must be s3://BUCKET/PATH/FILE, greengrass:… or docker:…"
        )
    unarchive = fields.get("Unarchive")
    if unarchive == "ZIP":
        said = "a local deployment to nucleus lite copies the zip and does not unpack it"
        findings.warn("artifact", below(where, "Unarchive"), said, nucleus="lite")
    elif unarchive not in (None, "NONE"):
        findings.error("artifact", below(where, "Unarchive"), f"{unarchive!r}: must be NONE or ZIP")
    if fields.get("Algorithm") not in (None, "SHA-256"):
        findings.error("artifact", below(where, "Algorithm"), f"{fields['Algorithm']!r}: must be SHA-256")
    if "Permission" in fields:
        place = below(where, "Permission")
        permission = findings.keys(fields["Permission"], {"Read": False, "Execute": False}, place)
        for key, value in permission.items():
            if key in ("Read", "Execute") and value not in ("NONE", "OWNER", "ALL"):
                findings.error("permission", below(place, key), f"{value!r}: must be NONE, OWNER or ALL")
    return uri or ""
