"""
What a gateway is told: TOML and environment off Greengrass, component configuration on it, one shape for both.

Every default is a gateway that works: it scores what arrives at once, keeps predictions for a week while the link is away,
and refuses a model it cannot verify.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from wheeltapper import config, topics
from wheeltapper.transport.settings import BrokerSettings

ENVIRONMENT_PREFIX = "WHEELTAPPER_GATEWAY__"

Positive = Annotated[float, msgspec.Meta(gt=0)]
NotNegative = Annotated[int, msgspec.Meta(ge=0)]
AtLeastOne = Annotated[int, msgspec.Meta(ge=1)]


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the settings; a name that it does not know is refused."""


class TopicSettings(Section, frozen=True):
    """Topics, each a template with ``{thing}`` in it or a literal name."""

    reading: str = topics.READING
    prediction: str = topics.PREDICTION
    trigger_infer: str = topics.TRIGGER_INFER
    state: str = topics.STATE
    alarm: str = topics.ALARM
    action: str = topics.ACTION
    drift: str = topics.DRIFT
    health: str = topics.HEALTH
    reply_suffix: str = topics.REPLY_SUFFIX


class OrderSettings(Section, frozen=True):
    """
    What becomes of readings that come late, early or out of order.

    Args:
        hold_ms: how long a reading waits for ones that were taken before it; 0 scores at once.
        late_ms: a reading older than the newest of its thing by up to this is late and is not scored; one that is older
            still says that the thing's clock was set back, and restarts the thing's window.
        gap_ms: a pause longer than this between two readings restarts the thing's window; 0 never does.
        remember: how many message ids are kept to recognise repeats.
    """

    hold_ms: NotNegative = 0
    late_ms: NotNegative = 60_000
    gap_ms: NotNegative = 0
    remember: AtLeastOne = 100_000


class OutputSettings(Section, frozen=True):
    """
    How a prediction looks on the wire.

    Args:
        fields: further members and what each repeats, such as ``prediction = "anomaly"``.
        flat_attributes: a reading's strings stand beside ``score``, not only inside ``attributes``.
        passthrough: a reading's numbers do as well, so that one input carries sensors and score.
        top: contributions told at the most; the rest are summed up as ``others``.
        max_bytes: a prediction's size at the most; a nucleus lite refuses 4,900.
    """

    fields: dict[str, Literal["score", "anomaly", "alert", "limit", "reading_id", "reading_time_ms"]] = {}
    flat_attributes: bool = True
    passthrough: bool = False
    top: AtLeastOne = 16
    max_bytes: Annotated[int, msgspec.Meta(ge=600)] = 4_000


class ModelSettings(Section, frozen=True):
    """
    Which things a model serves.

    Args:
        things: glob patterns of thing names; the first model with a match serves.
        folder: the model's folder, or a folder of its versions, each in a folder named by the version; the highest serves.
        version: the only version that may serve; empty for any. Say it to go back to one whose successor is still there.
        rollout: ``swap`` puts a new version to work once it is verified, ``shadow`` first runs it beside the old one.
        learn: a forest goes on learning, one for each thing; False serves its frozen form.
        period_s: bring readings to a pace: so long from a row to the next, or ``card``, the pace that the model was taught.
            Without it a model trained on resampled data has its readings resampled; for any other every reading is a row,
            and health says where they come at another pace. 0 makes a row of every reading and says nothing.
    """

    things: list[str]
    folder: Path
    version: str = ""
    rollout: Literal["swap", "shadow"] = "swap"
    learn: bool = True
    period_s: Annotated[float, msgspec.Meta(ge=0)] | Literal["card"] | None = None


class ShadowSettings(Section, frozen=True):
    """
    When a candidate that runs beside the live model is promoted, and when it is reverted.

    Args:
        readings: readings that both must have judged.
        max_disagreement: the share of them on which one says anomaly and the other does not, at the most.
        max_unscored: the share of them that only the live model could score, at the most.
        max_slowdown: the candidate's time per reading over the live model's, at the most.
    """

    readings: AtLeastOne = 500
    max_disagreement: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.02
    max_unscored: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    max_slowdown: Positive = 5.0


class WatchSettings(Section, frozen=True):
    """
    How new model versions are found and trusted.

    Args:
        period_s: how often the folders are looked at.
        trusted_keys: a folder of ed25519 public keys (PEM); when given, an unsigned model is refused.
        history: readings kept per thing, to warm a new model up and to score the last window again.
    """

    period_s: Positive = 2.0
    trusted_keys: Path | None = None
    history: AtLeastOne = 60


class StoreSettings(Section, frozen=True):
    """
    Bounds of what waits for the link.

    Args:
        max_bytes, max_age_s: beyond either, the oldest messages are dropped and counted.
        flush: False trades the last moments before a power cut, not before a process's death, for a sparing disk.
    """

    max_bytes: AtLeastOne = 256 << 20
    max_age_s: Positive = 7 * 24 * 3600.0
    flush: bool = True


class TriggerSettings(Section, frozen=True):
    """Whether the prediction that an operator asks for is also published as a prediction."""

    publish: bool = True


class DriftSettings(Section, frozen=True):
    """
    How a drifting model or sensor is noticed; see docs/drift.md.

    Args:
        period_s: the length of a period.
        learn: how many periods say what is usual.
        thin: scored readings whose mean is one value for ADWIN.
        k: of a period's cutoff, mean + k σ of its scores.
        band: standard deviations either side of what is usual.
        delta: ADWIN's chance of a false change.
        save_s: how often a thing's monitor is kept on disk; a kill costs it the readings since.
        max_things: further things are not watched.
    """

    enabled: bool = True
    period_s: Annotated[float, msgspec.Meta(ge=1)] = 86_400.0
    learn: Annotated[int, msgspec.Meta(ge=3)] = 7
    thin: AtLeastOne = 15
    k: Positive = 2.5
    band: Positive = 3.0
    delta: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.002
    save_s: Positive = 600.0
    max_things: AtLeastOne = 1_000


class ForestSettings(Section, frozen=True):
    """
    Bounds of forests that go on learning.

    Args:
        max_things: things of a model that have a forest of their own; further ones are judged by the frozen form.
        save_s: how often a forest is kept on disk; a kill costs it what it learnt since.
    """

    max_things: AtLeastOne = 100
    save_s: Positive = 3600.0


class DetectorSettings(Section, frozen=True):
    """
    Detector and alarm models judged on the gateway.

    Args:
        models: files of detector models and alarm models, in any form that ``readers`` knows.
        parameters: values for the parameters of those that are templates.
        inputs: input name → topic template whose messages it takes; a prediction's and a reading's by default.
    """

    models: list[Path] = []
    parameters: dict[str, str] = {}
    inputs: dict[str, str] = {}


class GreengrassSettings(Section, frozen=True):
    """
    What goes where on a nucleus, and how its silence is found out.

    Args:
        local: topic filters of what other components may hear.
        core: topic filters of what goes to AWS IoT Core.
        readings_from: the sides that readings come from.
        heartbeat_s: how often a heartbeat is sent round; 0 sends none.
        deaf_s: a side on which nothing came round for so long is subscribed to again, and then given up.
        reread_s: how often the configuration is read without being told to.
    """

    local: tuple[str, ...] = ("#",)
    core: tuple[str, ...] = ("#",)
    readings_from: tuple[Literal["local", "core"], ...] = ("local",)
    heartbeat_s: NotNegative = 15
    deaf_s: Positive = 60.0
    reread_s: Positive = 300.0


class GatewaySettings(Section, frozen=True):
    """
    All of a gateway's settings.

    Args:
        thing: the gateway's own name, for its health.
        default_thing: whose the readings are on a literal topic when the payload does not say.
        data_dir: where everything that must outlive the process lies.
        max_things: machines of which something is kept; beyond, the one unheard for the longest is forgotten.
        cloud: a second broker that predictions, alarms and health also go to, and triggers come from.
    """

    thing: str = "gateway"
    default_thing: str = ""
    data_dir: Path = Path("wheeltapper-gateway")
    broker: BrokerSettings = BrokerSettings()
    cloud: BrokerSettings | None = None
    topics: TopicSettings = TopicSettings()
    order: OrderSettings = OrderSettings()
    output: OutputSettings = OutputSettings()
    models: list[ModelSettings] = []
    shadow: ShadowSettings = ShadowSettings()
    watch: WatchSettings = WatchSettings()
    store: StoreSettings = StoreSettings()
    trigger: TriggerSettings = TriggerSettings()
    drift: DriftSettings = DriftSettings()
    forest: ForestSettings = ForestSettings()
    greengrass: GreengrassSettings = GreengrassSettings()
    detectors: DetectorSettings = DetectorSettings()
    max_batch: AtLeastOne = 256
    max_things: AtLeastOne = 5_000
    health_s: Positive = 5.0
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


def load_settings(path: Path, environment: Mapping[str, str] | None = None) -> GatewaySettings:
    """
    The settings of a file, then of the environment; see ``wheeltapper.config.load``.

    Args:
        environment: variables; ``WHEELTAPPER_GATEWAY__BROKER__URL`` goes before ``url`` in ``[broker]``, and so on.

    Raises:
        SettingsError: the file cannot be read, or says something that cannot be; names the member.
    """
    return config.load(GatewaySettings, path, prefix=ENVIRONMENT_PREFIX, environment=environment)
