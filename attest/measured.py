"""What an attest measured: `reports/attest-NAME/measured.json`, and the one reader and writer of it.

Everything that the report, the evidence and a comparison of two runs say is read from this file. It holds no secret, no
picture and no answer. Accuracies and shares are fractions in [0, 1], times in milliseconds, prices in the target's
currency. A query is one picture that was sent. What was not measured is None, and what was not tried is in `not_tried`.

    reports/attest-NAME/
        measured.json    this
        ledger.jsonl     one line a query (attest/ledger.py); `Ledger.sha256` is of the whole file
        answers.bin      the answers' bytes one after another: the owner's, like the ledger
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path

from recipes.fields import RecipeError, build
from report.atomic import write_json

FORMAT = 1
FILE, LEDGER, ANSWERS = "measured.json", "ledger.jsonl", "answers.bin"

SCALES = ("probabilities", "logits", "label", "top-k")
KINDS = ("deterministic", "keyed", "noisy", "unstable labels", "not measured")
WORDS = ("copied", "partly copied", "not copied", "no verdict")


class MeasuredError(ValueError):
    """A measured.json that is absent, damaged or of another format; the message says which key."""


@dataclass(frozen=True)
class TargetFacts:
    """What was attacked, as its target file says. url: without user and query. headers: their names alone. scale: one
    of SCALES. size: height and width. owner, authorised_until: "" for a server on this machine. sha256: of the target
    file, which names secrets and holds none."""

    name: str
    url: str
    send: str
    answer: str
    scale: str
    classes: tuple[str, ...]
    size: tuple[int, int]
    channels: int
    format: str
    headers: tuple[str, ...]
    rows: int
    rate: float
    budget: int
    price_per_1000: float
    currency: str
    owner: str
    authorised_until: str
    tls: str
    sha256: str


@dataclass(frozen=True)
class RunFacts:
    """Where and with what. started: ISO 8601, UTC. seconds: of all runs together that this attest took. resumed: how
    often it was taken up again. settings: the options of the command that decide the figures. images: digest of the
    owner's labelled images, and how many of them are the exam."""

    commit: str | None
    machine: str
    versions: dict[str, str]
    started: str
    seconds: float
    resumed: int
    seeds: tuple[int, ...]
    settings: dict[str, str]
    images_sha256: str
    exam_images: int


@dataclass(frozen=True)
class Utility:
    """The service on the owner's labelled images. accuracy: a refused row is wrong; low, high: its 95 % interval
    (Wilson). majority: the share of the commonest true class, which a constant answer reaches. largest: the share of
    the commonest served label. refused: answers that are none, by the service's choice; failed: by its fault."""

    images: int
    accuracy: float
    low: float
    high: float
    majority: float
    largest: float
    refused: float
    failed: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Consistency:
    """Whether the same picture gets the same answer. same_label: share of repeats with the first answer's label; l1:
    mean over repeats of sum_k |p - p_first|, None where no numbers are told. near_*: of copies that differ by one level
    in one pixel. kind: one of KINDS; keyed: repeats are equal, and near copies move as fresh draws do."""

    images: int
    repeats: int
    same_label: float | None
    l1: float | None
    near_copies: int
    near_same_label: float | None
    near_l1: float | None
    kind: str


@dataclass(frozen=True)
class Point:
    """A clone after so many queries. accuracy: on the exam; low, high: its 95 % interval over the exam's images.
    agreement: with the served labels. rejected: of the queries, those without an answer. price: of the queries."""

    queries: int
    accuracy: float
    low: float
    high: float
    agreement: float
    rejected: int
    price: float
    clone_training: str


@dataclass(frozen=True)
class Curve:
    """One thief. thief: its name in reports, such as "knockoff" or "knockoff (label-only)". labels: "soft" or "hard".
    shares: name of the thief whose queries it learns from, where it sends none of its own. no_query_accuracy: what it
    has before its first query, None where it has nothing of the task. ended: "budget", "exhausted" (it has no more to
    ask), "dropped" (others gained more), "nothing to gain" (it knows as much without a query) or "stopped" (the service
    no longer answers). spread: of the last point's
    accuracy over `seeds` clones (standard deviation), None for one seed."""

    thief: str
    attack: str
    form: str | None
    labels: str
    shares: str | None
    seed: int
    no_query_accuracy: float | None
    points: tuple[Point, ...]
    ended: str
    spread: float | None = None

    @property
    def last(self) -> Point | None:
        """The clone of all its queries; None where no clone could be trained."""
        return self.points[-1] if self.points else None


@dataclass(frozen=True)
class Resistance:
    """What the service did against the campaign. *_after: queries until it first happened, None: never. throttled: 429
    (and 503 with Retry-After); waited_s: obeyed. refused: 401, 403, 406, 422, 451 and the like after the check had
    passed. flagged: answers in which the target's `flag` was true, or that withheld their numbers. challenges:
    proofs of work solved; hashes: expected for them. failed: 5xx, and that the path is not there; dropped: no whole
    answer; redirected: elsewhere, never followed; unread: no answer found."""

    throttled: int = 0
    throttled_after: int | None = None
    waited_s: float = 0.0
    refused: int = 0
    refused_after: int | None = None
    flagged: int = 0
    flagged_after: int | None = None
    challenges: int = 0
    challenged_after: int | None = None
    hashes: float = 0.0
    failed: int = 0
    dropped: int = 0
    redirected: int = 0
    unread: int = 0


@dataclass(frozen=True)
class Felt:
    """What benign users felt: owner's images asked one by one, before the campaign ("quiet") and beside it
    ("campaign"). failed: share without an answer."""

    stretch: str
    requests: int
    failed: float
    accuracy: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class NotTried:
    """what: a thief, a control or a question. why: one sentence."""

    what: str
    why: str


@dataclass(frozen=True)
class Verdict:
    """word: one of WORDS. sentence: for people. bought: (best clone - floor) / (service - floor), where the floor is
    the better of a constant answer and what that thief had without a query; None without a verdict. low, high: of
    `bought`, from the exam's size. confident: whether another draw of the exam's images would give the same word.
    reasons: why there is no verdict, or what limits it."""

    word: str
    sentence: str
    bought: float | None
    low: float | None
    high: float | None
    confident: bool
    best: str | None
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class LedgerFacts:
    """lines, sha256: of ledger.jsonl. queries: pictures sent, those sent again after a 429 among them. lost: sent, but
    the campaign was killed before its answer was on disk, or its sender before it told it; never asked again."""

    lines: int
    sha256: str
    queries: int
    lost: int


@dataclass(frozen=True)
class Measured:
    """One attest. spent: price of all queries. complete: False where it was stopped before its end. notes: first why it
    was, then what else a reader should know."""

    format: int
    target: TargetFacts
    run: RunFacts
    utility: Utility
    consistency: Consistency
    curves: tuple[Curve, ...]
    resistance: Resistance
    felt: tuple[Felt, ...]
    spent: float
    ledger: LedgerFacts
    not_tried: tuple[NotTried, ...]
    verdict: Verdict
    complete: bool = True
    notes: tuple[str, ...] = field(default=())


def write(measured: Measured, folder: Path) -> Path:
    """Write `folder`/measured.json, whole or not at all; its path."""
    path = folder / FILE
    write_json(path, dataclasses.asdict(measured))
    return path


def read(path: Path) -> Measured:
    """Read a measured.json, or the one in a folder. Raises MeasuredError."""
    path = path / FILE if path.is_dir() else path
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise MeasuredError(f"{path}: no such file; attest first (make attest TARGET=NAME IMAGES=DIR)") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise MeasuredError(f"{path}: not JSON ({error})") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise MeasuredError(f"{path}: format: expected {FORMAT}, got {found!r}; attest again with this version")
    try:
        return build(Measured, content, where=str(path))
    except RecipeError as error:
        raise MeasuredError(str(error)) from None
