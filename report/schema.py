"""The one schema of a run's report.json and of every results/*.json that documents are made from.

A file holds the facts of its run, and rows in sections: one class of rows each, in report/rows/. Accuracies and rates
are fractions in [0, 1]; an attack is the positive class; accuracy counts a refused row as wrong. None means "not
measured in this run" or "does not apply". Rows are checked when they are made, so a file that was read can be trusted.
No row holds a secret, a host name or a path.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import subprocess
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from report import atomic, older
from report.build import build
from report.fields import ResultError as ResultError
from report.rows.adopted import PictureRow, ProgramRow, ReadingRow
from report.rows.attack_speeds import AttackSpeedRow
from report.rows.bench import BenchRow, DefenseCostRow
from report.rows.budgets import BudgetRow
from report.rows.builds import BuildRow
from report.rows.campaigns import CampaignRow, StrangerRow
from report.rows.clones import AgreementRow, AttackRow
from report.rows.controls import ControlRow
from report.rows.faults import FaultRow
from report.rows.fusing import FusingRow
from report.rows.fuzz import FuzzRow
from report.rows.gate_scores import GateScoreRow, GateTrafficRow
from report.rows.gates import (
    DetectionRow,
    FalsePositiveRow,
    GateCostRow,
    GatePrecisionRow,
    ScoreCurveRow,
    WorkRow,
)
from report.rows.gradients import GradientRow
from report.rows.growth import MemberGrowthRow, StoreGrowthRow
from report.rows.impact import FeltRow
from report.rows.marks import MarkCostRow, MarkNullRow, MarkRow
from report.rows.members import EnsembleCostRow, MemberRow, ShiftRow
from report.rows.memory import EnvironmentRow, MemoryRow
from report.rows.noise import DenoisingRow, NoiseRow
from report.rows.owners import OwnerRow
from report.rows.peers import PeerRow
from report.rows.policies import PolicyRow
from report.rows.profile import ProfileRow
from report.rows.quantised import QuantisedRow
from report.rows.refusals import RefusalRow
from report.rows.routing import CoherenceRow, HashCostRow, InvarianceRow, RoutingRow
from report.rows.run import RunInfo
from report.rows.selftest import Finding
from report.rows.soak import SoakRow
from report.rows.training import TrainingRow

VERSIONS = ("torch", "numpy", "onnxruntime", "torchserve", "locust")


@dataclass(frozen=True)
class Report:
    """Facts of the run, and the rows of each section. To add a section: its class in report/rows/, then a line here."""

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
    marks: tuple[MarkRow, ...] = ()
    mark_nulls: tuple[MarkNullRow, ...] = ()
    mark_costs: tuple[MarkCostRow, ...] = ()
    defense_costs: tuple[DefenseCostRow, ...] = ()
    score_curves: tuple[ScoreCurveRow, ...] = ()
    false_positives: tuple[FalsePositiveRow, ...] = ()
    work: tuple[WorkRow, ...] = ()
    budgets: tuple[BudgetRow, ...] = ()
    gate_scores: tuple[GateScoreRow, ...] = ()
    gate_traffic: tuple[GateTrafficRow, ...] = ()
    strangers: tuple[StrangerRow, ...] = ()
    campaigns: tuple[CampaignRow, ...] = ()
    gate_costs: tuple[GateCostRow, ...] = ()
    gate_precision: tuple[GatePrecisionRow, ...] = ()
    members: tuple[MemberRow, ...] = ()
    shifts: tuple[ShiftRow, ...] = ()
    ensemble_costs: tuple[EnsembleCostRow, ...] = ()
    ensemble_growth: tuple[MemberGrowthRow, ...] = ()
    store_growth: tuple[StoreGrowthRow, ...] = ()
    attack_speeds: tuple[AttackSpeedRow, ...] = ()
    fusing: tuple[FusingRow, ...] = ()
    profiles: tuple[ProfileRow, ...] = ()
    memory: tuple[MemoryRow, ...] = ()
    environments: tuple[EnvironmentRow, ...] = ()
    adopted_programs: tuple[ProgramRow, ...] = ()
    adopted_reading: tuple[ReadingRow, ...] = ()
    adopted_pictures: tuple[PictureRow, ...] = ()
    owners: tuple[OwnerRow, ...] = ()
    refusals: tuple[RefusalRow, ...] = ()
    builds: tuple[BuildRow, ...] = ()
    peers: tuple[PeerRow, ...] = ()
    quantised: tuple[QuantisedRow, ...] = ()
    soak: tuple[SoakRow, ...] = ()
    faults: tuple[FaultRow, ...] = ()
    fuzz: tuple[FuzzRow, ...] = ()
    selftest: tuple[Finding, ...] = ()
    controls: tuple[ControlRow, ...] = ()

    def counts(self) -> dict[str, int]:
        """Rows by section, of those that have some."""
        return {name: len(getattr(self, name)) for name in ROWS if getattr(self, name)}


ROWS: Mapping[str, type[Any]] = {
    name: typing.get_args(hint)[0] for name, hint in typing.get_type_hints(Report).items() if name != "run"
}


def read(path: Path, *, measured_by: str = "make attack") -> Report:
    """The report in a file. measured_by: what the message for a missing file says to run.

    Raises ResultError with a line for each fault: file, section, row and field, what was expected, and what is there.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ResultError(f"{path}: no such file; run `{measured_by}` first") from None
    except ValueError as error:
        raise ResultError(f"{path}: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ResultError(f"{path}: expected an object with the section run, got {type(content).__name__}")
    content = older.lifted(content)
    faults: list[str] = []
    unknown = set(content) - {"run", *ROWS}
    if unknown or "run" not in content:
        faults.append(f"{path}: expected the sections run, {', '.join(ROWS)}; got {', '.join(content) or 'none'}")
    run: RunInfo = build(RunInfo, content.get("run", {}), f"{path}: run", faults if "run" in content else [])
    sections = {name: _section(name, content.get(name, ()), path, faults) for name in ROWS}
    if faults:
        raise ResultError("\n".join(faults))
    return Report(run, **sections)


def write(path: Path, report: Report) -> None:
    """Write a report whole or not at all; sections without rows are left out."""
    sections = {name: [dataclasses.asdict(row) for row in getattr(report, name)] for name in report.counts()}
    atomic.write_json(path, {"run": dataclasses.asdict(report.run), **sections})


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
    write(path, merged)
    return merged


def run_info(*, seed: int, started: datetime, settings: Mapping[str, Any]) -> RunInfo:
    """Facts of this machine and checkout, for a command that began at `started` (UTC) and ends now."""
    import torch

    return RunInfo(
        commit=commit(),
        seed=seed,
        machine=f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        cpu=_cpu(),
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        versions={"python": platform.python_version(), **{name: _version(name) for name in VERSIONS}},
        started=started.isoformat(timespec="seconds"),
        seconds=round((datetime.now(timezone.utc) - started).total_seconds(), 1),
        settings={name: _without_folders(value) for name, value in settings.items()},
    )


def vnni() -> bool | None:
    """Whether this CPU multiplies bytes into 32 bits in one step; None where it does not say."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text("utf-8").split())
    except OSError:
        return None
    return bool(flags & {"avx512_vnni", "avx_vnni"})


def _without_folders(value: Any) -> Any:
    """The same, with the folder of a user's own images (imagefolder:PATH) reduced to its name."""
    if isinstance(value, Mapping):
        return {key: _without_folders(item) for key, item in value.items()}
    if isinstance(value, str) and value.startswith("imagefolder:"):
        return f"imagefolder:{Path(value).name}"
    return value


def _section(name: str, rows: object, path: Path, faults: list[str]) -> tuple[Any, ...]:
    if not isinstance(rows, (list, tuple)):
        faults.append(f"{path}: {name}: expected a list of rows, got {type(rows).__name__}")
        return ()
    return tuple(build(ROWS[name], fields, f"{path}: {name}[{i}]", faults) for i, fields in enumerate(rows))


def _replaced(old: Iterable[Any], new: tuple[Any, ...]) -> tuple[Any, ...]:
    def scope(row: Any) -> tuple[Any, ...]:
        return tuple(getattr(row, name) for name in row.SCOPE)

    renewed = {scope(row) for row in new}
    return (*(row for row in old if scope(row) not in renewed), *new)


def commit() -> str | None:
    """The checkout's commit, with "+changes" where files differ from it; None outside a checkout.

    training/checkpoint.py, which may not import this room, has the same notation; a test holds them together.
    """

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
