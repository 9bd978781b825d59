"""By which score a gate should judge a query: the "gate_scores" and "gate_traffic" rows of a report.

    python -m evaluation.studies gate-scores RECIPE --policies same-reject --run reports/RECIPE-gate-scores

Every score of evaluation/scores/registry.py gets a threshold of its own, from images that trained nothing: one half of
the validation split fits the score, the other decides where a hundredth lies above it. Both halves a second time with
every shift of evaluation/traffic.py among their images, in turn. The test split judges: as it is, and after each shift.

Attackers are recorded as they query the victim alone, and every image they send is scored. Then each sends the same
images to a gate of each score, in the form `matched`: it tries sharpness, contrast and size by what that score refuses,
and what it sends after the last probe is judged. It could have probed from another account.

A score costs what is computed for it, in processor time: the gate's graph where it reads one, and its own arithmetic.
Features cost nothing more, since a graph that answers could give them with its answer.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from attacks.forms.matched import PROBES, MatchedThief
from attacks.oracle import REFUSED, Answers, Ledger
from attacks.script import Script, ScriptedThief
from attacks.thief import steal
from evaluation import roc, tables
from evaluation.recordings import Recorder, carried_out
from evaluation.scores.registry import SCORES, fitted
from evaluation.scores.score import Known, Rule, threshold
from evaluation.scores.sight import Doubles, Sight
from evaluation.studies.study import Found, Option, Study, StudyError, Task
from evaluation.traffic import SEED, SHIFTS
from report.rows.gate_scores import GateScoreRow, GateTrafficRow
from training.checkpoint import CheckpointError
from zoo.datasets import Data
from zoo.images import unit

RATE = 0.01
# images of one request
ROWS = 64
# of the test images, every so many of them in each shift
EVERY = 5
# images of one paired measurement of costs
COSTED = 32
# attacks as far as a recipe has them; the last one's images are the task's own, and no form helps it
THIEVES = ("knockoff", "near", "augmented-seeds", "mixed", "jbda")
CUSTOMER = "in-distribution"
MATCHED = "matched"
ROUNDS = 4
"""of MatchedThief, until one of fourteen variants is left"""


@dataclass(frozen=True, eq=False)
class Judge:
    """A score with its threshold, and what it says of the test images."""

    name: str
    rule: Rule
    threshold: float
    calibrated: int
    benign: Doubles


@dataclass(frozen=True, eq=False)
class Cost:
    """spent: of an answer with the score, as multiples of one without, one a round. reads_features: whether the score
    asks the network with its weights."""

    spent: Doubles
    reads_features: bool


def study(task: Task, *, runs: Path, queries: int, rounds: int) -> Iterator[Found]:
    """The rows of each score, with benign images as they are and with shifted ones among them."""
    for policy, oracle in task.oracles(seed=SEED):
        try:
            fresh = Sight.of(oracle, runs / task.recipe.name)
        except CheckpointError as error:
            raise StudyError(str(error)) from error
        training, labels, halves = parts(task)
        # most of what is asked for one score is asked for another
        sight = fresh.remembering()
        asked = {name: recorded(task, sight, name, queries) for name in (*THIEVES, CUSTOMER) if has(task, name)}
        seen = {name: sight(images) for name, images in asked.items()}
        moved = {name: sight(shift(task.test.pixels[::EVERY])) for name, shift in SHIFTS.items()}
        test, trained = sight(task.test.pixels), fresh(training)
        measured: Mapping[str, Cost] | None = None
        for shifted in (False, True):
            known, held = (sight(in_turn(half) if shifted else half) for half in halves)
            rules = fitted(Known(trained, labels, known))
            measured = measured or costs(fresh, rules, task.test.pixels[:COSTED], rounds)
            for name, rule in tqdm(rules.items(), desc=f"{policy}, shifted: {shifted}", unit="score"):
                benign = rule(held)
                judge = Judge(name, rule, threshold(benign, RATE), len(benign), rule(test))
                row = partial(traffic_row, task.recipe.name, policy, judge, shifted)
                rows = [row(traffic, rule(shown), malicious=True) for traffic, shown in seen.items()]
                rows += [row(traffic, rule(shown), malicious=False) for traffic, shown in moved.items()]
                for thief in (each for each in THIEVES if each in asked):
                    scores, variant = matched(judge, sight, task, asked[thief])
                    rows.append(row(thief, scores, malicious=True, form=MATCHED, variant=variant))
                own = scored(task.recipe.name, policy, judge, shifted, measured[name])
                yield Found([own, *rows], says=line(own, rows))


def parts(task: Task) -> tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    """The images that trained the victim with their labels, and both halves of the validation split."""
    # here, because it brings what trains networks, and no other study does
    from training.victim import split

    data = task.recipe.section("dataset", Data)
    images = data.load("train", task.data)
    if images.labels is None:
        raise StudyError(f"{images.name}: expected labelled training images, for the means of classes; got none")
    splits = split(images, rows=data.rows)
    held = unit(splits.validation_images)
    needed = 2 * (math.ceil(1 / RATE) - 1)
    if len(held) < needed:
        raise StudyError(
            f"{images.name}: expected at least {needed} validation images, one half for scores and one for thresholds "
            f"at {RATE}, got {len(held)}"
        )
    return unit(splits.images), splits.labels, (held[: len(held) // 2], held[len(held) // 2 :])


def has(task: Task, attack: str) -> bool:
    """Whether the recipe has a table [attacks.NAME]."""
    return attack in task.recipe.tables.get("attacks", {})


def in_turn(images: torch.Tensor) -> torch.Tensor:
    """One as it is, the next after the first shift, and so on; after the last shift one as it is again."""
    changed = images.clone()
    for number, shift in enumerate(SHIFTS.values(), start=1):
        mine = slice(number, None, len(SHIFTS) + 1)
        if len(images[mine]):
            changed[mine] = shift(images[mine])
    return changed


def recorded(task: Task, sight: Sight, attack: str, queries: int) -> torch.Tensor:
    """All that one attack asks a victim without a gate, in order."""

    def answer(images: torch.Tensor) -> Answers:
        probabilities = torch.from_numpy(sight(images).served).float()
        return Answers(probabilities.argmax(1), probabilities)

    recorder = Recorder(answer)
    carried_out(task.job, recorder, attack, seed=SEED, queries=queries, rows=ROWS)
    return recorder.images()


class Gated:
    """An oracle that refuses what a score refuses, and keeps the scores. Reads labels alone."""

    def __init__(self, judge: Judge, sight: Sight) -> None:
        self._judge = judge
        self._sight = sight
        self.scores: list[Doubles] = []

    def __call__(self, images: torch.Tensor) -> Answers:
        """Answers to float32 (N,C,S,S)."""
        seen = self._sight(images)
        scores = self._judge.rule(seen)
        self.scores.append(scores)
        labels = torch.from_numpy(seen.served.argmax(axis=1))
        return Answers(labels.masked_fill(torch.from_numpy(scores > self._judge.threshold), REFUSED))


def matched(judge: Judge, sight: Sight, task: Task, images: torch.Tensor) -> tuple[Doubles, str]:
    """The scores of what the matched form of a thief sends after its probes, and the variant it sends it in. images:
    the thief's own. Raises StudyError where there are no more than the probes."""
    probed = ROUNDS * PROBES
    if len(images) <= probed:
        raise StudyError(f"queries: expected more than the {probed} that a matched attacker probes with")
    cloning = tables.cloning(task.recipe)
    thief = MatchedThief(
        ScriptedThief(_once(images)), service=task.job.service, cloning=cloning, seed=SEED, probes=PROBES
    )
    victim = Gated(judge, sight)
    for _ in steal(thief, Ledger(victim, len(images)), rows=ROWS):
        pass
    (variant,) = thief.left
    return np.concatenate(victim.scores)[probed:], variant


def _once(images: torch.Tensor) -> Script:
    yield images


def traffic_row(
    recipe: str,
    policy: str,
    judge: Judge,
    shifted: bool,
    traffic: str,
    scores: Doubles,
    *,
    malicious: bool,
    form: str | None = None,
    variant: str | None = None,
) -> GateTrafficRow:
    """What the score makes of traffic with these scores (N,)."""
    return GateTrafficRow(
        recipe=recipe,
        policy=policy,
        score=judge.name,
        shifted=shifted,
        traffic=traffic,
        malicious=malicious,
        form=form,
        variant=variant,
        images=len(scores),
        refused=float((scores > judge.threshold).mean()),
        auroc=roc.figures(judge.benign, scores).auroc,
    )


def scored(recipe: str, policy: str, judge: Judge, shifted: bool, cost: Cost) -> GateScoreRow:
    """The score's own row."""
    hits = int((judge.benign > judge.threshold).sum())
    low, high = roc.wilson(hits, len(judge.benign))
    quartiles = np.percentile(cost.spent, (25, 50, 75))
    return GateScoreRow(
        recipe=recipe,
        policy=policy,
        score=judge.name,
        family=SCORES[judge.name].family,
        reads_features=cost.reads_features,
        shifted=shifted,
        images=judge.calibrated,
        rate=RATE,
        benign=len(judge.benign),
        flagged=hits / len(judge.benign),
        low=low,
        high=high,
        cost=float(quartiles[1]),
        cost_low=float(quartiles[0]),
        cost_high=float(quartiles[2]),
        rows=COSTED,
        rounds=len(cost.spent),
    )


def costs(sight: Sight, rules: Mapping[str, Rule], images: torch.Tensor, rounds: int) -> dict[str, Cost]:
    """Of each score: (answer + gate, where the score reads it, + arithmetic) / answer, in each of the rounds."""
    ready = sight(images)
    asked = (ready.served, ready.gated, ready.features)  # so that a rule's own time is all that it takes on `ready`
    del asked
    reading = {name: sight(images) for name in rules}
    for name, rule in rules.items():
        rule(reading[name])
    spent: dict[str, list[float]] = {name: [] for name in rules}
    for _ in range(rounds + 1):
        answer = _seconds(lambda: sight(images).served)
        gate = _seconds(lambda: sight(images).gated)
        for name, rule in rules.items():
            shown = ready.unscored()
            own = _seconds(lambda: rule(shown))  # noqa: B023 - called at once
            # about other images than these a rule asks the gate in its own time
            spent[name].append((answer + reading[name].asked_gate * gate + own) / answer)
    # the first round warms up
    return {name: Cost(np.array(each[1:]), reading[name].asked_network) for name, each in spent.items()}


def _seconds(work: Callable[[], object]) -> float:
    # of the processor, which others on the machine take nothing from
    started = time.process_time()
    work()
    return time.process_time() - started


def line(own: GateScoreRow, rows: Sequence[GateTrafficRow]) -> str:
    """A line for the terminal."""
    matched_ = [row for row in rows if row.form == MATCHED]
    shifts = [row.refused for row in rows if not row.malicious]
    worst = min((row.auroc for row in matched_), default=float("nan"))
    passed = max((1 - row.refused for row in matched_), default=float("nan"))
    return (
        f"{own.score:<30}{'shifted' if own.shifted else '':<8} false positives {own.flagged:.4f}, of shifts "
        f"{max(shifts):.3f}; matched: AUROC {worst:.3f}, accepted {passed:.3f}; cost {own.cost:.2f}"
    )


STUDY = Study(
    "gate-scores",
    "by which score a gate should judge a query",
    study,
    policies="policies with a gate and one network behind it",
    sections=("gate_scores", "gate_traffic"),
    options=(
        Option("runs", Path("runs"), "folder of the checkpoints"),
        Option("queries", 1_500, "of each attacker, probes of the matched form among them", least=1),
        Option("rounds", 30, "paired measurements of costs", least=1),
    ),
    one_thread=True,
)
