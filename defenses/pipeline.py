"""The pipeline: one batch of images through the stages of a policy, each row answered for itself.

    route (hash graph -> member) -> perturb (noise and its graph -> other images) -> predict (member graphs)
          -> gate (its graph and the prediction -> score -> decision) -> respond (the rule's graphs -> response rule)
          -> mark (the row, the image as it was sent and the account -> a keyed class gets a little more)

A rule that only tells less of a row, as top-k does, comes after the mark; every other comes before it.

Without a route the one member answers, or all of them do and the row gets their mean (`average`).

The hash sees what the client sent: noise would send a repeated query to another member, and average the members for
the thief. So does the gate, which judges the query; the members and the rule see the perturbed images.

A batch is routed by index: each member graph runs once, on its own rows, and results return in the order of
the request. No row's answer depends on the other rows. A stage that fails does so for the rows it failed
on, and the answer to that is StageError (fail closed); a policy may say `on_stage_error: open`, which lets a
row whose *route* failed go to member 0, lets one whose *gate* failed pass without a score, and marks this in its
decision. A perturbation, a predictor and a response that fail always fail closed, the mark with the response: an answer
without what it should have passed is none.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from defenses.gate import ANSWER, ANSWER_OPEN, PROOF_OF_WORK, Scores
from defenses.limits import SHARED
from defenses.mark import Mark, Marker
from defenses.noise import Entropy, Fresh, Keyed, Noise
from defenses.policy import Perturb, Policy, PolicyError
from defenses.responses.rule import Context, Doubles, Probabilities
from defenses.routing import Integers, Outputs, Router, member_table

Images = NDArray[np.float32]
# (N,C,H,W) in [0, 1], and a perturbation's noise -> outputs by name, N rows each; rows of an output of
# DISTRIBUTIONS sum to 1.
Graph = Callable[..., Outputs]
Flags = NDArray[np.bool_]

DISTRIBUTIONS = ("probabilities", "auxiliary")
# in Answers.members, where the answer is the mean of all members'
EVERY = -1

# Largest |sum - 1| of a row of probabilities: far above float32's rounding over 1,000 classes, far below any
# softmax that was left out.
SUM_TOLERANCE = 1e-3

_FLOAT32 = np.dtype(np.float32)


class GraphError(ValueError):
    """A graph whose outputs are not what the policy reads, or not numbers that it can use."""


class StageError(Exception):
    """A stage that failed, closed. The rows it did not fail on may be asked again without the others.

    stage: "route", "perturb", "predict", "gate" or "respond". cause: the first exception met. rows: (n,) int64, the
    rows concerned, by their index in the batch.
    """

    def __init__(self, stage: str, cause: Exception, rows: Integers) -> None:
        super().__init__(f"stage {stage!r} failed on {len(rows)} rows: {type(cause).__name__}: {cause}")
        self.stage = stage
        self.cause = cause
        self.rows = rows


@dataclass(frozen=True, eq=False)
class Answers:
    """The pipeline's answers to N rows.

    labels: (N,) int64. probabilities: (N,K) float32 as the response rule shows them, or None. Both are there for rows
    that the decision keeps from the client too. members: (N,) int64, who answered, EVERY where all did. decisions: per
    row, "answer", "answer-open" (a stage failed on it and the policy let it pass) or the gate's decision. work:
    (N,) float64, expected hashes wanted of each row, 0 where none are. seconds: per stage of the policy. scores: of the
    gate, None where no row was scored. opened: the last failure that the policy let pass, if there was one. whole:
    (N,), rows that carry the whole strength of the mark, None where the policy has none. Members, scores and whole are
    for the operator alone.
    """

    labels: Integers
    probabilities: Probabilities | None
    members: Integers
    decisions: tuple[str, ...]
    work: Doubles
    seconds: Mapping[str, float]
    scores: Scores | None = None
    opened: StageError | None = None
    whole: Flags | None = None


def ask(graph: Graph, images: Images, reads: Mapping[str, int], *noise: NDArray[np.float32]) -> Outputs:
    """The outputs of `graph` that `reads` names (name -> columns), each (N, columns) float32.

    noise: what a perturbation's graph gets next to the images.

    Raises GraphError where an output is missing or has another shape or dtype; what the graph raises passes.
    """
    return _read(graph(images, *noise), len(images), reads)


def _read(outputs: Outputs, rows: int, reads: Mapping[str, int]) -> Outputs:
    """Those of a graph's outputs that `reads` names, each (rows, columns) float32. Raises GraphError."""
    for name, columns in reads.items():
        if name not in outputs:
            raise GraphError(f"expected an output named {name!r}, the graph has {', '.join(outputs)}")
        values, shape = outputs[name], (rows, columns)
        if values.shape != shape or values.dtype != _FLOAT32:
            raise GraphError(f"{name}: expected float32 {shape}, got {values.dtype} {values.shape}")
    return {name: outputs[name] for name in reads}


def sound(outputs: Outputs) -> Flags:
    """(N,) whether each row can be used: a distribution in an output of DISTRIBUTIONS, finite in any other."""
    usable = np.ones(len(next(iter(outputs.values()))), np.bool_)
    for name, values in outputs.items():
        # as a rule nothing is wrong, and a look at the whole batch tells: flags for each row take several times as long
        least, most = float(values.min()), float(values.max())  # NaN where any is
        if name not in DISTRIBUTIONS:
            if not (math.isfinite(least) and math.isfinite(most)):
                usable &= np.isfinite(values).all(axis=1)
        elif not (
            least >= 0
            and most <= 1 + SUM_TOLERANCE
            and all(abs(total - 1) <= SUM_TOLERANCE for total in values.sum(axis=1).tolist())
        ):
            usable &= _distributions(values)
    return usable


def _distributions(values: Probabilities) -> Flags:
    with np.errstate(invalid="ignore", over="ignore"):  # a NaN or an infinity fails one of the comparisons
        normalised = np.abs(values.sum(axis=1) - 1) <= SUM_TOLERANCE
        usable: Flags = normalised & (values.min(axis=1) >= 0)
    return usable


def _of(outputs: Outputs, usable: Flags) -> Outputs:
    """The outputs of the usable rows; of all of them, as a rule, and then nothing is copied."""
    return outputs if usable.all() else {name: values[usable] for name, values in outputs.items()}


class _Gated(NamedTuple):
    """What the gate makes of N rows; see Answers."""

    decisions: list[str]
    work: Doubles
    scores: Scores | None = None
    opened: StageError | None = None


class Pipeline:
    """A policy at work. Calling it is pure but for the graphs it runs, the clock it reads and the draws it takes.

    graphs: every graph of `policy.graphs`, by name. key: the deployment's secret, at least 32 bytes, where
    `policy.needs_key`; kept by keyed noise alone, which draws a new secret from it each period. now: a clock in
    seconds, for `Answers.seconds` alone. clock: seconds since the epoch, for those periods. random: what a response
    rule draws from; seeded by the caller. entropy: count -> random bytes, the seeds of fresh noise. Raises
    PolicyError where a graph or the key is missing.
    """

    def __init__(
        self,
        policy: Policy,
        graphs: Mapping[str, Graph],
        *,
        key: bytes | None,
        now: Callable[[], float],
        clock: Callable[[], float],
        random: np.random.Generator,
        entropy: Entropy,
    ) -> None:
        for name in policy.graphs:
            if name not in graphs:
                raise PolicyError(f"expected a graph named {name!r}, got {', '.join(graphs) or 'none'}")
        self.policy = policy
        self.graphs = graphs
        self._now = now
        self._random = random
        self._reads = policy.graphs
        self._consulted = policy.consulted
        self._rule = policy.response.build()
        self._noise = None if policy.perturb is None else _noise(policy.perturb, key, clock, entropy)
        self._marker = None if policy.mark is None else _marker(policy.mark, policy, key)
        self._router: Router | None = None
        if policy.route is not None:
            if key is None:
                raise PolicyError(f"the route {policy.route.hash!r} draws its table from a key, got none")
            hash_ = policy.route.build()
            table = member_table(key, values=hash_.values, members=len(policy.members))
            self._router = Router(hash_, table)

    def __call__(self, images: Images, paid: Flags | None = None, accounts: Sequence[str] | None = None) -> Answers:
        """Answer images (N,C,H,W) float32 in [0, 1], N >= 1, of the policy's geometry. Raises StageError.

        paid: (N,), rows that the gate lets pass unseen, their proof of work being done; none where it is left out.
        accounts: (N,), whose answers they are, for the mark; SHARED where it is left out.
        """
        shape = self.policy.input.shape
        if images.ndim != 4 or images.shape[1:] != shape or not len(images) or images.dtype != np.float32:
            raise ValueError(f"expected float32 (N >= 1, {shape}), got {images.dtype} {images.shape}")
        if paid is None:
            paid = np.zeros(len(images), np.bool_)
        if paid.shape != (len(images),) or paid.dtype != np.bool_:
            raise ValueError(f"paid: expected bool ({len(images)},), got {paid.dtype} {paid.shape}")
        if accounts is None:
            accounts = [SHARED] * len(images)
        if len(accounts) != len(images):
            raise ValueError(f"accounts: expected {len(images)}, got {len(accounts)}")
        started = self._now()
        members, opened = self._route(images)
        routed = self._now()
        seen = self.perturbed(images)
        perturbed = routed if self._noise is None else self._now()
        probabilities = self._predict(seen, members)
        predicted = self._now()
        gated = self._gate(images, probabilities, paid)
        judged = predicted if self.policy.gate is None else self._now()
        labels, shown, whole = self._respond(seen, probabilities, images, accounts)
        seconds = {"predict": predicted - perturbed, "respond": self._now() - judged}
        if self._router is not None:
            seconds["route"] = routed - started
        if self._noise is not None:
            seconds["perturb"] = perturbed - routed
        if self.policy.gate is not None:
            seconds["gate"] = judged - predicted
        decisions = gated.decisions
        for row in opened.rows if opened is not None else ():
            if decisions[row] == ANSWER:
                decisions[row] = ANSWER_OPEN
        opened = gated.opened or opened
        return Answers(labels, shown, members, tuple(decisions), gated.work, seconds, gated.scores, opened, whole)

    def _route(self, images: Images) -> tuple[Integers, StageError | None]:
        """Each row's member, and the failure that the policy lets pass. Raises StageError where it does not."""
        members = np.full(len(images), EVERY if self.policy.average else 0, np.int64)
        route = self.policy.route
        if route is None or self._router is None:
            return members, None
        cause: Exception = GraphError("the hash graph's output is not finite or not normalised")
        usable = np.zeros(len(images), np.bool_)
        try:
            outputs = ask(self.graphs[route.graph], images, self._reads[route.graph])
            usable = sound(outputs)
            if usable.all():
                return self._router(outputs), None
            members[usable] = self._router(_of(outputs, usable))
        except MemoryError:
            raise
        except Exception as error:
            usable[:], cause = False, error
        return members, self._let_pass("route", cause, np.flatnonzero(~usable))

    def _let_pass(self, stage: str, cause: Exception, rows: Integers) -> StageError | None:
        """The failure of a stage on `rows`, None where there are none. Raises it where the policy fails closed."""
        if not len(rows):
            return None
        failed = StageError(stage, cause, rows)
        if self.policy.on_stage_error == "closed":
            raise failed from cause
        return failed

    def perturbed(self, images: Images) -> Images:
        """What the members are shown for images (N,C,H,W); fresh noise is redrawn. Raises StageError."""
        perturb = self.policy.perturb
        if perturb is None or self._noise is None:
            return images
        cause: Exception = GraphError("the perturbation's output is not finite")
        usable = np.zeros(len(images), np.bool_)
        seen: Images = images
        try:
            known = self._noise.canonical(images)
            outputs = ask(self.graphs[perturb.graph], known, self._reads[perturb.graph], self._noise(known))
            usable, seen = sound(outputs), outputs["perturbed"].reshape(images.shape)
        except MemoryError:
            raise
        except Exception as error:
            cause = error
        if not usable.all():
            raise StageError("perturb", cause, np.flatnonzero(~usable)) from cause
        return seen

    def _predict(self, images: Images, members: Integers) -> Probabilities:
        """(N,K) probabilities, of each row's member or the mean of all. Raises StageError."""
        served, cause = self._mean(images) if self.policy.average else self._routed(images, members)
        answered = sound({"probabilities": served})
        if not answered.all():
            raise StageError("predict", cause, np.flatnonzero(~answered)) from cause
        return served

    def _mean(self, images: Images) -> tuple[Probabilities, Exception]:
        """The members' mean, and why rows are NaN where they are: of fewer members it would be another answer."""
        total = np.zeros((len(images), len(self.policy.class_names)), np.float32)
        for name in self.policy.members:
            try:
                outputs = ask(self.graphs[name], images, self._reads[name])
                total += outputs["probabilities"]
                total[~sound(outputs)] = np.nan
            except MemoryError:
                raise
            except Exception as error:  # no row has a mean: the other members need not be asked
                return np.full_like(total, np.nan), error
        total /= len(self.policy.members)
        return total, GraphError("a member's output is not finite or not normalised")

    def _routed(self, images: Images, members: Integers) -> tuple[Probabilities, Exception]:
        """Every member asked once, on its rows, and why rows are NaN where they are."""
        cause: Exception = GraphError("a member's output is not finite or not normalised")
        counts = np.bincount(members, minlength=len(self.policy.members)).tolist()
        back = None
        if max(counts) == len(images):  # one member gets the batch as it came
            groups = [(self.policy.members[members[0]], images)]
        else:
            order = members.argsort(kind="stable")
            back = order.argsort()
            ends = itertools.accumulate(counts)
            grouped = images.take(order, axis=0)  # rows of one member lie side by side, so that each graph gets a view
            groups = [
                (name, grouped[end - count : end])
                for name, count, end in zip(self.policy.members, counts, ends, strict=True)
                if count
            ]
        # graphs one after the other, and what they answered after that: each graph pushes our code out of the caches
        answered: list[Outputs | Exception] = []
        for name, asked in groups:
            try:
                answered.append(self.graphs[name](asked))
            except MemoryError:
                raise
            except Exception as error:
                answered.append(error)
        answers = []
        for (name, asked), outputs in zip(groups, answered, strict=True):
            try:
                if isinstance(outputs, Exception):
                    raise outputs
                answers.append(_read(outputs, len(asked), self._reads[name])["probabilities"])
            except MemoryError:
                raise
            except Exception as error:
                cause = error
                answers.append(np.full((len(asked), len(self.policy.class_names)), np.nan, np.float32))
        return answers[0] if back is None else np.concatenate(answers).take(back, axis=0), cause

    def _gate(self, images: Images, probabilities: Probabilities, paid: Flags) -> _Gated:
        """Every row's score, but those of `paid` rows, and what becomes of it. Raises StageError."""
        gate = self.policy.gate
        if gate is None:
            return _Gated([ANSWER] * len(images), np.zeros(len(images)))
        if gate.action != PROOF_OF_WORK:  # nothing else can be paid for
            paid = np.zeros_like(paid)
        rows = np.flatnonzero(~paid)
        cause: Exception = GraphError("the gate's output is not finite or not normalised")
        usable = np.zeros(len(rows), np.bool_)
        terms = np.full((len(images), 2), np.nan)
        try:
            if len(rows):
                asked = images if len(rows) == len(images) else images[rows]
                outputs = ask(self.graphs[gate.graph], asked, self._reads[gate.graph])
                usable = sound(outputs)
                served = probabilities if usable.all() and asked is images else probabilities[rows[usable]]
                terms[rows[usable]] = gate.terms(_of(outputs, usable), served, math.prod(images.shape[1:]))
        except MemoryError:
            raise
        except Exception as error:
            usable[:], cause = False, error
        opened = self._let_pass("gate", cause, rows[~usable])
        scores = gate.scores(terms)
        decisions, work = gate.decide(scores, paid)
        return _Gated(decisions, work, scores if usable.any() else None, opened)

    def _respond(
        self, seen: Images, probabilities: Probabilities, images: Images, accounts: Sequence[str]
    ) -> tuple[Integers, Probabilities | None, Flags | None]:
        """Labels, what is shown of the probabilities, and which rows carry the whole mark. Raises StageError.

        seen: what the members were shown. images: as they were sent, which the mark's cells are of: noise would move
        a row to another.
        """
        context = Context(self._consult(seen), self._random)
        whole = None
        try:
            marked = probabilities
            if self._marker is not None and self._rule.presents:
                marked, whole = self._marker(images, probabilities, accounts)
            shown = self._rule(marked, context)
            if self._marker is not None and not self._rule.presents and shown is not None:
                shown, whole = self._marker(images, shown, accounts)
        except MemoryError:
            raise
        except Exception as error:
            raise StageError("respond", error, np.arange(len(probabilities))) from error
        # A rule that moves the largest entry moves the label with it: the two never contradict each other.
        decides = probabilities if shown is None or self._rule.keeps_label else shown
        return decides.argmax(axis=1), shown, whole

    def _consult(self, images: Images) -> dict[str, Outputs]:
        """The outputs of the response rule's graphs for the batch. Raises StageError, naming the rows they fail on."""
        outputs: dict[str, Outputs] = {}
        if not self._consulted:
            return outputs
        usable = np.ones(len(images), np.bool_)
        cause: Exception = GraphError("the output of a response rule's graph is not finite or not normalised")
        for name, reads in self._consulted.items():
            try:
                outputs[name] = ask(self.graphs[name], images, reads)
                usable &= sound(outputs[name])
            except MemoryError:
                raise
            except Exception as error:
                usable[:], cause = False, error
        if not usable.all():
            raise StageError("respond", cause, np.flatnonzero(~usable)) from cause
        return outputs


def _marker(mark: Mark, policy: Policy, key: bytes | None) -> Marker:
    """What marks a policy's rows. Raises PolicyError where there is no key, or one that nobody committed to."""
    if key is None:
        raise PolicyError("a mark is drawn from a key, got none")
    try:
        return Marker(mark, key=key, channels=policy.input.channels, classes=len(policy.class_names))
    except ValueError as error:
        raise PolicyError(f"mark: {error}") from error


def _noise(perturb: Perturb, key: bytes | None, clock: Callable[[], float], entropy: Entropy) -> Noise:
    """Where a policy's noise comes from. Raises PolicyError where it needs a key and there is none."""
    if perturb.noise == "fresh":
        return Fresh(perturb.noise_shape, entropy)
    if key is None:
        raise PolicyError("keyed noise is drawn from a key, got none")
    return Keyed(
        perturb.noise_shape,
        key=key,
        share=perturb.perceptual,
        code=perturb.code,
        period=perturb.period,
        clock=clock,
    )
