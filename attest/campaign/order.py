"""A campaign from its first query to measured.json, in this order:

    benign users alone -> utility -> consistency -> is there anything to steal? -> thieves, benign users beside them

Nothing is kept between these but the ledger: a campaign that was interrupted runs again from its start, is answered
from there, and goes on.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from attacks.clone import Cloning
from attacks.service import Service
from attest import measured, verdict
from attest.asking import Asking
from attest.campaign import benign, consistency, thieves
from attest.campaign.battery import Battery, Result, digest
from attest.campaign.benign import Users
from attest.campaign.resistance import resistance
from attest.campaign.thieves import Means
from attest.campaign.utility import served, utility
from attest.ledger import Ledger
from attest.measured import LedgerFacts, Measured, NotTried, RunFacts
from attest.target.check import classes_of, load, named
from attest.target.pace import Pace, Stopped
from attest.target.table import Target
from attest.target.wires import Wire
from evaluation.clones import Exam
from report.atomic import write_json
from report.schema import run_info
from zoo.images import Images, sides, unit

# parts of the budget; the thieves have the rest
EXAM_SHARE, CONSISTENCY_SHARE, QUIET_SHARE, BENIGN_SHARE = 0.1, 0.03, 0.02, 0.05
FEWEST_EXAM, FEWEST_BUDGET = verdict.BY.least_exam, 300
CONSISTENT, QUIET = 20, 100
# images that users ask about, in turn
MOST_USERS = 1000
ASKED_EACH = 1 + consistency.REPEATS + consistency.COPIES
# images that a clone is shown in all, where the epochs that come of it lie within bounds; and its batches
SHOWN, FEWEST_EPOCHS, MOST_EPOCHS, BATCH = 100_000, 10, 60, 64
RUN = "run.json"
# what only --remote-senders look at
HERE = NotTried("several addresses", "every request came from one machine: what is limited by address was not told")
# options that may change when a campaign goes on
UNSAID = ("workers", "minutes", "remote_senders")
# what no run of this command looks at
NEVER = (
    NotTried("colluding accounts", "one key was given: what many accounts could share was not asked"),
    NotTried("foundation-model thief", "the thieves start from random weights"),
    NotTried("membership and inversion", "the campaign copies a function, it asks nothing of the training data"),
)


class CampaignError(ValueError):
    """A campaign that cannot be started or taken up; the message says what to change."""


@dataclass(frozen=True)
class Options:
    """What decides the figures, next to the target file. images: the owner's. surrogate, architecture, epochs: "" and
    0: as fits target and budget. exam: the most images that are asked about. seeds: one clone each. minutes: after
    which the campaign ends where it is. workers: as evaluation.pool has them; changes no figure. remote_senders: on
    other machines, so more addresses; fewer may go on with a campaign than began it."""

    images: str
    thieves: tuple[str, ...] = tuple(plan.name for plan in thieves.BATTERY if plan.asks)
    surrogate: str = ""
    architecture: str = ""
    epochs: int = 0
    recipes: tuple[str, ...] = ("sgd", "adamw", "adamw-augmented")
    exam: int = 1000
    seed: int = 0
    seeds: tuple[int, ...] = (0, 1)
    minutes: float = 24 * 60.0
    workers: int | None = None
    remote_senders: int = 0

    def settings(self) -> dict[str, str]:
        """What reports say of it: of a folder its name alone."""
        said = {key: value for key, value in asdict(self).items() if key not in UNSAID}
        said["images"] = Path(self.images).name
        return {
            key: ", ".join(map(str, value)) if isinstance(value, tuple) else str(value) for key, value in said.items()
        }


@dataclass(frozen=True)
class Campaign:
    """One attest. sha256: of the target file. folder: reports/attest-NAME."""

    target: Target
    name: str
    sha256: str
    folder: Path
    options: Options


def run(
    campaign: Campaign,
    wire: Wire,
    *,
    say: Callable[[str], None] = tqdm.write,
    sleep: Callable[[float], None] = time.sleep,
) -> Measured:
    """Carry it out, or take it up; what was measured, which lies in `folder` too.

    wire: closed at the end. Raises CampaignError, TargetError, LedgerError, zoo's DatasetError, before anything is
    sent, and WireError where nothing more can be sent.
    """
    target, options = campaign.target, campaign.options
    owners = images_of(campaign)
    exam = owners.exam
    assert exam.labels is not None, "images_of gives a labelled exam"
    pixels, truth = unit(exam.stored), exam.labels
    classes = classes_of(exam, target, options.images)
    sha256 = digest(pixels, truth)
    record = Record(campaign, sha256)
    budget = target.budget
    with Ledger(campaign.folder) as ledger:
        pace = Pace(target, sent=ledger.lines, seconds=60 * options.minutes, sleep=sleep)
        with (
            tqdm(total=budget, initial=ledger.lines, desc=campaign.name, unit="query", leave=False) as bar,
            Asking(target, wire, pace, ledger, classes=classes, progress=bar.update) as asking,
        ):
            asked = _asked(asking, campaign, pixels, truth, owners, say)
            worth = utility(asking, truth)
            held = resistance(asking, waited_s=record.waited_s + pace.waited_s)
            felt = benign.felt(asking, owners.users)
            ledger.flush()
            lines, lost = ledger.lines, ledger.lost
        found = Measured(
            format=measured.FORMAT,
            target=target.facts(campaign.name, campaign.sha256),
            run=record.finished(pace.waited_s, len(truth)),
            utility=worth,
            consistency=asked.consistency,
            curves=asked.battery.curves,
            resistance=held,
            felt=felt,
            spent=target.price(lines),
            ledger=LedgerFacts(lines, hashlib.sha256(ledger.path.read_bytes()).hexdigest(), lines, lost),
            not_tried=(*asked.battery.not_tried, *asked.left_out, *record.one_address, *NEVER),
            verdict=verdict.UNJUDGED,
            complete=asked.battery.stopped is None,
            notes=() if asked.battery.stopped is None else (asked.battery.stopped,),
        )
    found = verdict.judged(found)
    measured.write(found, campaign.folder)
    return found


@dataclass(frozen=True)
class _Asked:
    consistency: measured.Consistency
    battery: Result
    left_out: tuple[NotTried, ...] = ()


def _asked(
    asking: Asking,
    campaign: Campaign,
    pixels: torch.Tensor,
    truth: torch.Tensor,
    owners: Owners,
    say: Callable[[str], None],
) -> _Asked:
    """All the asking; where the campaign has to end before its end, what there is."""
    options, budget = campaign.options, campaign.target.budget
    same = consistency.UNKNOWN
    try:
        benign.quiet(asking, owners.users)
        labels = served(asking, pixels)
        count = max(2, min(CONSISTENT, int(CONSISTENCY_SHARE * budget / ASKED_EACH)))
        rows = torch.linspace(0, len(pixels) - 1, min(count, len(pixels))).long()
        same = consistency.consistency(asking, pixels[rows], seed=options.seed)
    except Stopped as event:
        return _Asked(same, Result((), _none_tried(campaign, str(event)), str(event)))
    worth = utility(asking, truth)
    reasons = [*verdict.no_worth(worth, same), *_too_slow(asking, worth.p50_ms, options.minutes)]
    if reasons:
        return _Asked(same, Result((), _none_tried(campaign, reasons[0]), reasons[0]))
    plans = thieves.chosen(options.thieves)
    target = campaign.target
    service = Service(target.channels, _size(target), len(target.class_names))
    clones = cloning(options, service, budget)
    means = Means(surrogate(options, service), named(options.images), len(owners.thieves), clones, options.seed)
    battery = Battery(
        asking, plans, means, service, Exam(pixels, truth, labels), campaign.folder / "work",
        name=campaign.name, workers=options.workers, say=say,
    )  # fmt: skip
    most = int(BENIGN_SHARE * budget)
    already = {phase: asking.ledger.count(phase) for phase in (benign.QUIET, "utility", consistency.PHASE)}
    with benign.Beside(asking, owners.users, most):
        found = battery.run(max(0, budget - sum(already.values()) - most))
    names = {plan.name for plan in plans}
    left_out = [NotTried(plan.name, "left out by the command") for plan in thieves.BATTERY if plan.name not in names]
    return _Asked(same, found, tuple(left_out))


def _none_tried(campaign: Campaign, why: str) -> tuple[NotTried, ...]:
    return tuple(NotTried(plan.name, why) for plan in thieves.BATTERY)


def _too_slow(asking: Asking, p50_ms: float, minutes: float) -> list[str]:
    """Whether the budget cannot be spent in time at the pace of the answers so far."""
    target, left = asking.target, asking.target.budget - asking.pace.sent
    each = max(p50_ms / 1000 / (target.rows * target.connections), 1 / target.rate)
    needed = left * each / 60
    if needed <= minutes:
        return []
    return [
        f"at {p50_ms:.0f} ms an answer and {target.rate:g} a second, {left:,} queries take {needed:.1f} minutes, more "
        f"than the {minutes:g} of this campaign"
    ]


@dataclass(frozen=True)
class Owners:
    """The owner's images, all labelled. exam: those that the service and every clone are judged by. users: others,
    where there are any. thieves: those that thieves may have."""

    exam: Images
    users: Users
    thieves: Images


def images_of(campaign: Campaign) -> Owners:
    """Which of the owner's images are for what. Raises CampaignError, DatasetError."""
    target, options = campaign.target, campaign.options
    if target.budget < FEWEST_BUDGET:
        raise CampaignError(f"budget: expected at least {FEWEST_BUDGET} queries for an attest, got {target.budget}")
    test, train = (load(options.images, target, split) for split in ("test", "train"))
    if test.labels is None:
        raise CampaignError(f"images: {options.images}: expected a folder for each class, got images without labels")
    count = min(len(test), options.exam, max(FEWEST_EXAM, int(EXAM_SHARE * target.budget)))
    if count < FEWEST_EXAM:
        raise CampaignError(f"images: expected at least {FEWEST_EXAM} labelled ones for the exam, got {count}")
    rows = torch.linspace(0, len(test) - 1, count).long()
    exam = replace(test, stored=test.stored[rows].contiguous(), labels=test.labels[rows])
    return Owners(exam, _users(test, rows, train, min(QUIET, int(QUIET_SHARE * target.budget))), train)


def _users(test: Images, exam: torch.Tensor, train: Images, quiet: int) -> Users:
    """Images in random order that are not in the exam: the rest of its split, or the thieves', or the exam's where
    those have no labels."""
    assert test.labels is not None, "the exam is labelled"
    rest = torch.ones(len(test), dtype=torch.bool)
    rest[exam] = False
    stored, labels = test.stored[rest], test.labels[rest]
    if not len(labels):
        stored, labels = (test.stored, test.labels) if train.labels is None else (train.stored, train.labels)
    mixed = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))[:MOST_USERS]
    return Users(unit(stored[mixed]), labels[mixed], quiet)


def surrogate(options: Options, service: Service) -> str:
    """The images of another task that thieves have: those asked for, letters for a service that takes gray pictures,
    crops of a photograph for one that takes colour."""
    return options.surrogate or ("font-letters" if service.channels == 1 else "flower")


def cloning(options: Options, service: Service, budget: int) -> Cloning:
    """The thieves' clone: the architecture asked for, or a LeNet5, which looks at a small copy of a larger image. Of
    few queries it is trained for more epochs: a clone that had no time to learn would say nothing for the service."""
    height, width = sides(service.size)
    fits = height == width and 28 <= height <= 32
    shrunk = {} if options.architecture or fits else {"shrunk": min(32, height, width)}
    small = min(height, width) < 28
    return Cloning(
        architecture=options.architecture or ("conv3" if small else "lenet5"),
        epochs=options.epochs or max(FEWEST_EPOCHS, min(MOST_EPOCHS, SHOWN // budget)),
        batch_size=BATCH,
        options=shrunk,
        recipes=options.recipes,
        seeds=options.seeds,
    )


def _size(target: Target) -> int | tuple[int, int]:
    height, width = target.size
    return height if height == width else (height, width)


class Record:
    """run.json: when a campaign began, how long it has taken, and what decided its figures, so that it is not taken up
    as another. Raises CampaignError."""

    def __init__(self, campaign: Campaign, images_sha256: str) -> None:
        self._path = campaign.folder / RUN
        self._began = datetime.now(timezone.utc)
        self._campaign, self._images = campaign, images_sha256
        deciding = {
            "target": campaign.sha256,
            "budget": str(campaign.target.budget),
            "images_sha256": images_sha256,
            **campaign.options.settings(),
        }
        self._content: dict[str, Any] = {"deciding": deciding, "started": self._began.isoformat(timespec="seconds")}
        self._content |= {"seconds": 0.0, "waited_s": 0.0, "resumed": -1}
        if self._path.exists():
            self._content = json.loads(self._path.read_text("utf-8"))
            then = self._content["deciding"]
            other = [key for key in deciding if then.get(key) != deciding[key]]
            if other:
                raise CampaignError(
                    f"{campaign.folder}: holds another attest ({other[0]} was {then.get(other[0])!r}, now "
                    f"{deciding[other[0]]!r}); give the same, or move the folder away to begin anew"
                )
        self._content["resumed"] += 1
        self._remote = max(campaign.options.remote_senders, self._content.get("remote_senders", 0))
        self._content["remote_senders"] = self._remote
        self.waited_s = float(self._content["waited_s"])
        write_json(self._path, self._content)

    @property
    def one_address(self) -> tuple[NotTried, ...]:
        """What was not tried where no other machine sent."""
        return () if self._remote else (HERE,)

    def finished(self, waited_s: float, exam: int) -> RunFacts:
        """What reports say, with this run's time added."""
        elsewhere = {"remote_senders": str(self._remote)} if self._remote else {}
        info = run_info(seed=self._campaign.options.seed, started=self._began, settings={})
        self._content["seconds"] = round(self._content["seconds"] + info.seconds, 1)
        self._content["waited_s"] = self.waited_s + waited_s
        write_json(self._path, self._content)
        return RunFacts(
            commit=info.commit,
            machine=f"{info.machine}, {info.cpu}",
            versions=info.versions,
            started=self._content["started"],
            seconds=self._content["seconds"],
            resumed=self._content["resumed"],
            seeds=self._campaign.options.seeds,
            settings=self._campaign.options.settings() | elsewhere,
            images_sha256=self._images,
            exam_images=exam,
        )
