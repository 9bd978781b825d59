"""The one schema of a run's report.json (and of every results/*.json that documents are made from).

Accuracies and rates are fractions in [0, 1]; an attack is the positive class; accuracy counts a refused row as wrong.
None means "not measured in this run" or "does not apply". Rows are checked when they are made, so a file that was
read can be trusted. No row holds a secret, a host name or a path.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any, ClassVar

from report.fields import ResultError as ResultError
from report.fields import fractions
from report.rows.gates import (
    DetectionRow,
    FalsePositiveRow,
    GateCostRow,
    GatePrecisionRow,
    ScoreCurveRow,
    WorkRow,
)
from report.rows.members import EnsembleCostRow, MemberRow, ShiftRow

VERSIONS = ("torch", "numpy", "onnxruntime", "torchserve", "locust")


@dataclass(frozen=True)
class AttackRow:
    """One clone: the theft it was trained from, how it was trained, and how good it became.

    labels: "soft" or "hard", which reading of the answers it was trained on. budget: charged queries it could use.
    seed: of the clone's training; the run's seed is the thief's.
    adaptive: the adaptive form of the attack, None for the plain one. held_out: its agreement with the thief's own
    held-out answers, by which the thief chooses a recipe. agreement: with the served labels on the test set.
    victim_accuracy: of the policy as served. rejected: charged rows without an answer. seconds: of training.
    """

    SCOPE: ClassVar = ("recipe", "policy", "attack", "adaptive")

    recipe: str
    policy: str
    attack: str
    adaptive: str | None
    labels: str
    budget: int
    seed: int
    clone_recipe: str
    clone_accuracy: float
    agreement: float
    held_out: float
    no_query_accuracy: float | None
    victim_accuracy: float
    queries: int
    rejected: int
    pow_hashes: int
    seconds: float

    def __post_init__(self) -> None:
        fractions(self, "clone_accuracy", "agreement", "held_out", "no_query_accuracy", "victim_accuracy")
        if self.labels not in ("soft", "hard"):
            raise ResultError(f"attacks: labels: expected 'soft' or 'hard', got {self.labels!r}")


@dataclass(frozen=True)
class PolicyRow:
    """What a policy costs its users, measured on the test set against the undefended answers.

    l1 in [0, 2] and ece are None where a policy serves labels only. shifted_accuracy: on rotated and shifted test
    images. false_positive_rate: of a gate. forward_passes: network evaluations a query, the hash included.
    """

    SCOPE: ClassVar = ("recipe", "policy")

    recipe: str
    policy: str
    accuracy: float
    accuracy_drop: float
    label_flips: float
    l1: float | None
    ece: float | None
    shifted_accuracy: float
    false_positive_rate: float | None
    forward_passes: float

    def __post_init__(self) -> None:
        fractions(self, "accuracy", "label_flips", "ece", "shifted_accuracy", "false_positive_rate")


@dataclass(frozen=True)
class BenchRow:
    """Speed of one path to an answer: requests of `batch` rows from `clients` clients at once.

    p50_ms and rows_per_s are medians over rounds, whose own values stand in p50_rounds and rate_rounds (round n of
    every row was measured side by side); p99_ms is of all rounds' requests together. rss_mb, pss_mb: memory of one
    process that answers. study: what the row is for; only rows of one study are meant to be compared. body: content
    type, None in process. workers, threads, batch_size, max_batch_delay_ms: as served; in process only threads.
    spinning: whether ONNX Runtime's threads spin while they wait. cpu_ms: CPU time of a row by who spent it
    ("process"; over HTTP "worker", "java", "client"). stages_ms: wall time of a row by stage, inside the process
    that answers, the median over rounds, whose own values stand in stages_rounds. None, or empty: not measured.
    """

    SCOPE: ClassVar = ("architecture", "policy", "backend", "path")
    PATHS: ClassVar = ("onnxruntime", "pipeline", "http")
    STUDIES: ClassVar = ("paths", "single", "settings", "spinning", "clocks", "load")

    policy: str
    architecture: str
    path: str
    batch: int
    clients: int
    p50_ms: float
    p99_ms: float
    rows_per_s: float
    rss_mb: float | None
    study: str = "load"
    backend: str | None = None
    body: str | None = None
    workers: int | None = None
    threads: int | None = None
    batch_size: int | None = None
    max_batch_delay_ms: int | None = None
    spinning: bool | None = None
    pss_mb: float | None = None
    p50_rounds: tuple[float, ...] = ()
    rate_rounds: tuple[float, ...] = ()
    cpu_ms: dict[str, float] = field(default_factory=dict)
    stages_ms: dict[str, float] = field(default_factory=dict)
    stages_rounds: dict[str, tuple[float, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, known in (("path", self.PATHS), ("study", self.STUDIES)):
            if getattr(self, name) not in known:
                raise ResultError(f"bench: {name}: expected one of {', '.join(known)}, got {getattr(self, name)!r}")
        for name in ("p50_rounds", "rate_rounds"):  # JSON knows no tuples
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "stages_rounds", {name: tuple(each) for name, each in self.stages_rounds.items()})

    @property
    def outside_ms(self) -> float:
        """Worker time of a row over HTTP at saturation outside the handler: TorchServe, and waiting for a batch."""
        if self.workers is None:
            raise ResultError(f"bench: a row of path {self.path!r} has no workers, so no time outside the handler")
        return max(0.0, 1000 * self.workers / self.rows_per_s - self.handler_ms)

    @property
    def handler_ms(self) -> float:
        """Wall time of a row in the handler: the stage "handle" is the whole of it, with what is in no other stage."""
        return self.stages_ms.get("handle", sum(self.stages_ms.values()))

    @property
    def rest_ms(self) -> float:
        """Wall time of a row in the handler that no stage but "handle" accounts for."""
        known = sum(spent for stage, spent in self.stages_ms.items() if stage != "handle")
        return max(0.0, self.handler_ms - known)


@dataclass(frozen=True)
class RoutingRow:
    """How many rows of one kind of traffic a policy sent to one of its members."""

    SCOPE: ClassVar = ("recipe", "policy")

    recipe: str
    policy: str
    traffic: str
    member: int
    rows: int


@dataclass(frozen=True)
class InvarianceRow:
    """Where random affine copies of a traffic's images go: rotated by up to `degrees`, shifted, scaled by a share.

    policy: or the name of a public hash modulo as many members. kept: share of copies with their image's member.
    sorted_counts: each image's copies counted by member and sorted, the largest first, summed over the images.
    """

    SCOPE: ClassVar = ("recipe", "policy")

    recipe: str
    policy: str
    traffic: str
    degrees: float
    shift: float
    scale: float
    images: int
    copies: int
    kept: float
    sorted_counts: tuple[int, ...]

    def __post_init__(self) -> None:
        fractions(self, "kept")
        object.__setattr__(self, "sorted_counts", tuple(self.sorted_counts))  # JSON knows no tuples
        if sum(self.sorted_counts) != self.images * self.copies:
            raise ResultError(f"invariance: sorted_counts: expected {self.images} x {self.copies} copies in all")


@dataclass(frozen=True)
class HashCostRow:
    """Median microseconds a row, in batches of `batch`: of the whole route stage, and of the router's Python."""

    SCOPE: ClassVar = ("recipe", "policy")

    recipe: str
    policy: str
    batch: int
    stage_us: float
    router_us: float


@dataclass(frozen=True)
class CoherenceRow:
    """How far the members of a policy agree on one kind of traffic (EDM, ICLR 2021, equation 1).

    percentiles: 101 values, the 0th to the 100th, of the images' coherence, each in [0, 1].
    """

    SCOPE: ClassVar = ("recipe", "policy")

    recipe: str
    policy: str
    traffic: str
    images: int
    mean: float
    percentiles: tuple[float, ...]

    def __post_init__(self) -> None:
        fractions(self, "mean")
        object.__setattr__(self, "percentiles", tuple(self.percentiles))  # JSON knows no tuples
        if len(self.percentiles) != 101 or not all(0 <= value <= 1 for value in self.percentiles):
            raise ResultError(f"coherence: percentiles: expected 101 fractions, got {self.percentiles}")


@dataclass(frozen=True)
class TrainingRow:
    """How one checkpoint was trained, as its graphs tell.

    predictor: the checkpoint. epochs of `seconds_per_epoch` on `device`, members trained together. diversity,
    coherence: of an ensemble on auxiliary images it never saw, MISLEADER's on augmented validation images. search: the
    steps of the search for lambda, if any.
    """

    SCOPE: ClassVar = ("recipe", "predictor")

    recipe: str
    predictor: str
    members: int
    lambda_diversity: float | None
    epochs: int
    seconds_per_epoch: float
    device: str
    validation_accuracy: float
    diversity: float | None
    coherence: float | None
    search: tuple[dict[str, Any], ...] = ()

    def __post_init__(self) -> None:
        fractions(self, "validation_accuracy", "diversity", "coherence")
        object.__setattr__(self, "search", tuple(self.search))


@dataclass(frozen=True)
class FeltRow:
    """What benign users met on one model in one stretch of a run: before an attack began, or during it.

    labels: what the thief read ("both" where what it asked did not depend on that). clients: thieving ones, that shared
    the attack. dilution: percent of benign images among theirs. stolen: images that the attack asked about, all in all;
    sent: images that its clients sent, and were charged for. users: benign ones. p50_ms, p95_ms, p99_ms: latencies of
    the benign requests that were answered. rejections: of `requests`, those the service turned away; errors: those
    that failed otherwise. accuracy: share of answered rows with the true label. None: no request was answered.
    """

    SCOPE: ClassVar = ("recipe", "policy", "attack", "labels", "clients", "dilution")
    STRETCHES: ClassVar = ("before", "during")

    recipe: str
    policy: str
    attack: str
    labels: str
    clients: int
    dilution: int
    stretch: str
    stolen: int
    sent: int
    users: int
    seconds: float
    requests: int
    rejections: int
    errors: int
    accuracy: float | None
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None

    def __post_init__(self) -> None:
        fractions(self, "accuracy")
        if self.stretch not in self.STRETCHES:
            raise ResultError(f"felt: stretch: expected one of {', '.join(self.STRETCHES)}, got {self.stretch!r}")
        if self.rejections + self.errors > self.requests:
            raise ResultError(f"felt: expected at most {self.requests} rejections and errors of as many requests")


@dataclass(frozen=True)
class AgreementRow:
    """One clone of a theft in process beside the same of a theft over HTTP, shared by `clients` clients.

    same_images: share of the images asked about that were the same, in the same order. largest_difference: between
    probabilities told of these, None where labels alone were; label_differences: labels among them that differ.
    in_process, over_http: clone accuracies. allowed: how far these may lie apart.
    """

    SCOPE: ClassVar = ("recipe", "policy", "attack")

    recipe: str
    policy: str
    attack: str
    labels: str
    budget: int
    clone_recipe: str
    seed: int
    clients: int
    same_images: float
    label_differences: int
    largest_difference: float | None
    in_process: float
    over_http: float
    allowed: float

    def __post_init__(self) -> None:
        fractions(self, "same_images", "in_process", "over_http")

    @property
    def agrees(self) -> bool:
        return abs(self.in_process - self.over_http) <= self.allowed


@dataclass(frozen=True)
class NoiseRow:
    """What a policy's input perturbation does to one kind of traffic, measured once under each of several noise seeds.

    l1: mean ||T(x + h) - T(x)||_1 of the policy's own predictor T, in [0, 2], a seed each. accuracy: of the answers, a
    seed each; empty where images have no labels. label_flips: share of labels that T(x) would not have given, a seed
    each. rms: of h over the pixels, in [0, 1] pixel units, mean over images and seeds; largest: |h| anywhere.
    """

    SCOPE: ClassVar = ("recipe", "policy", "traffic")

    recipe: str
    policy: str
    traffic: str
    images: int
    l1: tuple[float, ...]
    label_flips: tuple[float, ...]
    accuracy: tuple[float, ...]
    rms: float
    largest: float

    def __post_init__(self) -> None:
        for name in ("l1", "label_flips", "accuracy"):  # JSON knows no tuples
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.l1 or len(self.label_flips) != len(self.l1) or len(self.accuracy) not in (0, len(self.l1)):
            raise ResultError("noise: expected one l1, one label_flips and, with labels, one accuracy for each seed")


@dataclass(frozen=True)
class DenoisingRow:
    """How far the mean answer over several copies of an image is from T(x), the policy's predictor without noise.

    copying: "identical" or "jittered" copies, `copies` of each of `images`. l1: mean ||mean answer - T(x)||_1, in
    [0, 2]. kept: share of labels of the mean answer that are T(x)'s.
    """

    SCOPE: ClassVar = ("recipe", "policy", "traffic")

    recipe: str
    policy: str
    traffic: str
    copying: str
    copies: int
    images: int
    l1: float
    kept: float

    def __post_init__(self) -> None:
        fractions(self, "kept")


@dataclass(frozen=True)
class GradientRow:
    """How well a thief's zeroth-order estimate of its loss's gradient points where the gradient without noise does.

    Over `directions` orthonormal probes of length `epsilon` an image: cosine of the estimated and the true coefficients
    along them, mean over images and its standard deviation. repeats: answers to each image and probe that the thief
    averages, 1 for a plain one.
    """

    SCOPE: ClassVar = ("recipe", "policy", "traffic")

    recipe: str
    policy: str
    traffic: str
    epsilon: float
    repeats: int
    directions: int
    images: int
    cosine: float
    deviation: float

    def __post_init__(self) -> None:
        if not -1.001 <= self.cosine <= 1.001:
            raise ResultError(f"gradients: cosine: expected -1 to 1, got {self.cosine}")


@dataclass(frozen=True)
class DefenseCostRow:
    """What a defense adds to the undefended victim's answer to one batch, in process.

    defense: its name; form: "served" (as this project's archives do it), or how else it was done ("naive": the papers'
    code's way). ms: median milliseconds a batch of all rounds, the victim included; ms_rounds: each round's median;
    victim_ms_rounds: the victim alone, measured side by side. peak_mb: growth of the process's peak memory over that of
    one with the victim alone, both after the same batches.
    """

    SCOPE: ClassVar = ("architecture", "batch")

    architecture: str
    batch: int
    defense: str
    form: str
    threads: int
    ms: float
    ms_rounds: tuple[float, ...]
    victim_ms_rounds: tuple[float, ...]
    peak_mb: float | None

    def __post_init__(self) -> None:
        for name in ("ms_rounds", "victim_ms_rounds"):  # JSON knows no tuples
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.ms_rounds or len(self.ms_rounds) != len(self.victim_ms_rounds):
            raise ResultError("defense_costs: expected the victim's time beside the defense's in every round")

    @property
    def times(self) -> float:
        """The defended answer's time over the victim's alone: median of the rounds' ratios."""
        return median(a / b for a, b in zip(self.ms_rounds, self.victim_ms_rounds, strict=True))


@dataclass(frozen=True)
class RunInfo:
    """What is needed to judge the numbers and to make them again."""

    commit: str | None
    seed: int
    machine: str
    cpu: str
    gpu: str | None
    versions: dict[str, str]
    started: str
    seconds: float
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """report.json: facts of the run and the rows of each section."""

    run: RunInfo
    attacks: tuple[AttackRow, ...] = ()
    policies: tuple[PolicyRow, ...] = ()
    detection: tuple[DetectionRow, ...] = ()
    bench: tuple[BenchRow, ...] = ()
    routing: tuple[RoutingRow, ...] = ()
    coherence: tuple[CoherenceRow, ...] = ()
    training: tuple[TrainingRow, ...] = ()
    invariance: tuple[InvarianceRow, ...] = ()
    hash_costs: tuple[HashCostRow, ...] = ()
    felt: tuple[FeltRow, ...] = ()
    agreement: tuple[AgreementRow, ...] = ()
    noise: tuple[NoiseRow, ...] = ()
    denoising: tuple[DenoisingRow, ...] = ()
    gradients: tuple[GradientRow, ...] = ()
    defense_costs: tuple[DefenseCostRow, ...] = ()
    score_curves: tuple[ScoreCurveRow, ...] = ()
    false_positives: tuple[FalsePositiveRow, ...] = ()
    work: tuple[WorkRow, ...] = ()
    gate_costs: tuple[GateCostRow, ...] = ()
    gate_precision: tuple[GatePrecisionRow, ...] = ()
    members: tuple[MemberRow, ...] = ()
    shifts: tuple[ShiftRow, ...] = ()
    ensemble_costs: tuple[EnsembleCostRow, ...] = ()


ROWS: Mapping[str, type[Any]] = {
    "attacks": AttackRow,
    "policies": PolicyRow,
    "detection": DetectionRow,
    "bench": BenchRow,
    "routing": RoutingRow,
    "coherence": CoherenceRow,
    "training": TrainingRow,
    "invariance": InvarianceRow,
    "hash_costs": HashCostRow,
    "felt": FeltRow,
    "agreement": AgreementRow,
    "noise": NoiseRow,
    "denoising": DenoisingRow,
    "gradients": GradientRow,
    "defense_costs": DefenseCostRow,
    "score_curves": ScoreCurveRow,
    "false_positives": FalsePositiveRow,
    "work": WorkRow,
    "gate_costs": GateCostRow,
    "gate_precision": GatePrecisionRow,
    "members": MemberRow,
    "shifts": ShiftRow,
    "ensemble_costs": EnsembleCostRow,
}


def read(path: Path) -> Report:
    """A report.json. Raises ResultError naming the file, the section and what was expected."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ResultError(f"{path}: no such file; run `python -m loadtests.attack` first") from None
    except json.JSONDecodeError as error:
        raise ResultError(f"{path}: not JSON: {error}") from error
    unknown = set(content) - {"run", *ROWS}
    if unknown or "run" not in content:
        raise ResultError(f"{path}: expected the sections run, {', '.join(ROWS)}; got {', '.join(content)}")
    run = _built(RunInfo, content["run"], f"{path}: run")
    sections = {
        name: tuple(_built(row, fields, f"{path}: {name}[{i}]") for i, fields in enumerate(content.get(name, ())))
        for name, row in ROWS.items()
    }
    return Report(run, **sections)


def merge(path: Path, new: Report) -> Report:
    """Add `new` to the report at `path` (which need not exist yet) and return the result.

    New rows replace every old row of their scope, so that a repeated measurement leaves nothing of the last one: the
    clones of one policy and attack, the utility of one policy, the latencies of one policy and path. The run keeps
    its first start; seconds add up; settings are united. A failure leaves the old file as it was.
    """
    merged = new
    if path.exists():
        old = read(path)
        sections = {name: _replaced(getattr(old, name), getattr(new, name)) for name in ROWS}
        run = dataclasses.replace(
            new.run,
            started=old.run.started,
            seconds=round(old.run.seconds + new.run.seconds, 1),
            settings={**old.run.settings, **new.run.settings},
        )
        merged = Report(run, **sections)
    write_json(path, dataclasses.asdict(merged))
    return merged


def write_json(path: Path, content: Any) -> None:
    """Write strict JSON (no NaN) to a temporary name beside `path`, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", "utf-8")
    unfinished.replace(path)


def run_info(*, seed: int, started: datetime, settings: Mapping[str, Any]) -> RunInfo:
    """Facts of this machine and checkout, for a command that began at `started` (UTC) and ends now."""
    import torch

    return RunInfo(
        commit=_commit(),
        seed=seed,
        machine=f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        cpu=_cpu(),
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        versions={"python": platform.python_version(), **{name: _version(name) for name in VERSIONS}},
        started=started.isoformat(timespec="seconds"),
        seconds=round((datetime.now(timezone.utc) - started).total_seconds(), 1),
        settings={name: _without_folders(value) for name, value in settings.items()},
    )


def _without_folders(value: Any) -> Any:
    """The same, with the folder of a user's own images (imagefolder:PATH) cut down to its name."""
    if isinstance(value, Mapping):
        return {key: _without_folders(item) for key, item in value.items()}
    if isinstance(value, str) and value.startswith("imagefolder:"):
        return f"imagefolder:{Path(value).name}"
    return value


def _replaced(old: Iterable[Any], new: tuple[Any, ...]) -> tuple[Any, ...]:
    def scope(row: Any) -> tuple[Any, ...]:
        return tuple(getattr(row, name) for name in row.SCOPE)

    renewed = {scope(row) for row in new}
    return (*(row for row in old if scope(row) not in renewed), *new)


def _built(row: type[Any], fields: Mapping[str, Any], where: str) -> Any:
    names = [f.name for f in dataclasses.fields(row)]
    if set(fields) != set(names):
        raise ResultError(f"{where}: expected the keys {', '.join(names)}; got {', '.join(fields)}")
    try:
        return row(**fields)
    except ResultError as error:
        raise ResultError(f"{where}: {error}") from error


def _commit() -> str | None:
    """The commit of this checkout, marked where files differ from it; None outside a repository."""

    def git(*words: str) -> str:
        here = Path(__file__).parent
        return subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _cpu() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"
