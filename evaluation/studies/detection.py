"""How well gates and their baselines see what attackers really send: "detection" and "score_curves" of a report.

    python -m evaluation.studies detection RECIPE --policies same-observe --run reports/RECIPE

Tables 1, 2 and 4 of SAME (Xie et al., AAAI 2024) on this project's archives. Detectors are the gated policies given and
the recipe's `outlier-exposure` and `edm` (evaluation/detectors.py), the attack's images those of the recipe's tables
[detection.NAME] (evaluation/recordings.py), the benign ones its test split. Every image is judged by itself.

All of them are used, and AUPR is reported for equal shares of both, as in the paper's tables. Its Table 4 is made as
there: subsamples in which the attack has its share, of Knockoff under the first policy given.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import recipes
from attacks.clone import Cloning
from evaluation import recordings, roc
from evaluation.detectors import Detector, detectors
from evaluation.matrix import Job
from evaluation.oracles import InProcessOracle
from evaluation.recordings import Asked, Part, Stream
from evaluation.roc import Scores
from evaluation.studies.study import Found, Option, Study, Task
from report.rows.gates import DetectionRow, ScoreCurveRow

EQUAL = 0.5
# the paper's Table 4
RATIOS = (0.01, 0.05, 0.1, 0.3, 0.5, 0.9)
DILUTED = "knockoff"


def study(task: Task, *, outlier_exposure: str | None, ensemble: str | None, only: Sequence[str]) -> Iterator[Found]:
    """The rows and curves of each detector, gates first."""
    job = task.job
    streams = recordings.recorded(job, only=list(only) or None)
    chosen = detectors(task.recipe, list(task.policies), outlier_exposure=outlier_exposure, ensemble=ensemble)
    yield Found(settings={**thieves(task.recipe), **baselines(task.recipe, chosen)})
    opened = task.oracles(detector.policy for detector in chosen)
    for number, (detector, (_, oracle)) in enumerate(zip(chosen, opened, strict=True)):
        rows, curves = judge(oracle, detector, job, streams, diluted=number == 0)
        yield Found([*rows, *curves], says=lines(rows), settings=gate(oracle))


def judge(
    oracle: InProcessOracle, detector: Detector, job: Job, streams: Sequence[Stream], *, diluted: bool
) -> tuple[list[DetectionRow], list[ScoreCurveRow]]:
    """Everything of one detector. diluted: whether Table 4 is wanted of it."""
    benign = detector.score(oracle, job.test.pixels)
    curves = [_curve(job, detector, f"benign ({job.test.name})", benign, malicious=False)]
    rows = []
    for stream in streams:
        scores = detector.score(oracle, stream.images)
        for part in stream.parts:
            figures = roc.figures(benign, scores[part.rows], ratio=EQUAL)
            counts = len(scores[part.rows]), len(benign)
            rows.append(_row(job, detector, stream, part, figures, counts, ratio=EQUAL, draws=0))
        for part in stream.whole:
            curves.append(_curve(job, detector, part.traffic, scores[part.rows], malicious=True))
        if diluted and stream.attack == DILUTED:
            rows += _table_4(job, detector, stream, benign, scores)
    return rows, curves


def _table_4(job: Job, detector: Detector, stream: Stream, benign: Scores, scores: Scores) -> Iterator[DetectionRow]:
    part = stream.whole[0]
    for ratio in RATIOS:
        figures, *counts = roc.at_ratio(benign, scores[part.rows], ratio)
        yield _row(job, detector, stream, part, figures, (counts[0], counts[1]), ratio=ratio, draws=roc.DRAWS)


def _row(
    job: Job,
    detector: Detector,
    stream: Stream,
    part: Part,
    figures: roc.Figures,
    counts: tuple[int, int],
    *,
    ratio: float,
    draws: int,
) -> DetectionRow:
    return DetectionRow(
        recipe=job.recipe.name,
        detector=detector.policy,
        kind=detector.kind,
        attack=stream.name,
        budget=part.budget,
        seeds_left_out=part.seeds_left_out,
        ratio=ratio,
        draws=draws,
        n_attack=counts[0],
        n_benign=counts[1],
        **dataclasses.asdict(figures),
    )


def _curve(job: Job, detector: Detector, traffic: str, scores: Scores, *, malicious: bool) -> ScoreCurveRow:
    return ScoreCurveRow(
        job.recipe.name, detector.policy, traffic, malicious, images=len(scores), percentiles=roc.percentiles(scores)
    )


def thieves(recipe: recipes.Recipe) -> dict[str, Any]:
    """What a report says of the recipe's attackers, with their parameters as they are here."""
    clone = dataclasses.asdict(recipe.section("clone", Cloning))
    found: dict[str, Any] = {"dataset": recipe.tables["dataset"], "clone": clone}
    for name, asked in recipe.family("detection", Asked).items():
        parameters = dataclasses.asdict(recordings.parameters(recipe, name, asked))
        own = {"attack": asked.attack, "after": asked.after, **({"clone": asked.clone} if asked.clone else {})}
        found[f"detection.{asked.called or name}"] = {**own, **parameters}
    return found


def baselines(recipe: recipes.Recipe, chosen: Sequence[Detector]) -> dict[str, Any]:
    """What a report says of the detectors without a gate: the images that they were trained to take for an attack's."""
    policies = recipe.tables.get("policies", {})
    found = {}
    for detector in (each for each in chosen if each.kind != "gate"):
        predictor = policies.get(detector.policy, {}).get("predictor")
        auxiliary = recipe.networks.get(predictor, {}).get("auxiliary")
        found[f"baseline.{detector.policy}"] = {"predictor": predictor, "auxiliary": auxiliary}
    return found


def gate(oracle: InProcessOracle) -> dict[str, Any]:
    """What a report says of an archive's gate, if it has one; nothing in it is secret."""
    policy = oracle.pipeline.policy
    if policy.gate is None:
        return {}
    settings = dataclasses.asdict(policy.gate)
    calibration = settings.pop("calibration")
    thresholds = {f"{each['rate']:g}": each["score"] for each in calibration["thresholds"]}
    return {
        f"gate.{policy.policy}": {
            **settings,
            "images": calibration["images"],
            "threshold": policy.gate.threshold,
            "thresholds": thresholds,
        }
    }


def lines(rows: Sequence[DetectionRow]) -> str:
    """A line a row, those of Table 4 left out."""
    return "\n".join(
        f"{row.detector:<20}{row.attack}{', without its seeds' if row.seeds_left_out else ''}, {row.budget}: "
        f"AUROC {row.auroc:.4f}, AUPR {row.aupr:.4f}, FPR95 {row.fpr95:.4f}, TPR at 1 % {row.tpr_at_1pct:.4f}"
        for row in rows
        if not row.draws
    )


STUDY = Study(
    "detection",
    "how well gates and their baselines see what attackers send",
    study,
    policies="policies with a gate, the default one first",
    sections=("detection", "score_curves"),
    options=(
        Option("outlier_exposure", None, "policy that is the baseline of one network (outlier-exposure)"),
        Option("ensemble", None, "policy that is the baseline of several members that disagree (edm)"),
        Option("only", (), "which [detection.NAME] (all)"),
    ),
    one_thread=True,
)
