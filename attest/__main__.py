"""Red-team a classifier's endpoint under a budget, and write down what came of it.

    python -m attest NAME --images DIR [--budget N] [--thieves knockoff jbda] [--senders N] [--dry-run]

NAME is a file of targets/ (docs/attest.md). Everything lies in reports/attest-NAME: measured.json for the report and
the evidence, ledger.jsonl and answers.bin for the owner. An attest that was interrupted goes on with the same command.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import torch

from attest.campaign import order, thieves
from attest.campaign.order import Campaign, CampaignError, Options
from attest.ledger import LedgerError
from attest.measured import Measured
from attest.senders.wire import ANY_PORT, Senders
from attest.target import check, table
from attest.target.table import TargetError
from attest.target.wires import Wire, WireError, wire
from zoo.datasets import DatasetError

MISTAKES = (TargetError, CampaignError, LedgerError, DatasetError, WireError)


def main() -> None:
    """Run the command line; a mistake of the user's is a message and exit code 1."""
    torch.set_num_threads(1)  # clones train in processes of one thread
    options = _options()
    try:
        campaign = _campaign(options)
        if options.dry_run:
            print("\n".join(_dry(campaign)))
            return
        with closing(_wire(campaign, options)) as sending:
            measured = order.run(campaign, sending)
    except MISTAKES as error:
        sys.exit(f"attest: {error}")
    except KeyboardInterrupt:
        sys.exit("attest: interrupted; the same command continues where it was")
    print("\n".join(summary(measured, campaign.folder)))


def summary(measured: Measured, folder: Path) -> Iterator[str]:
    """Lines for the terminal."""
    for curve in measured.curves:
        if curve.last is not None:
            points = ", ".join(f"{point.accuracy:.3f} at {point.queries:,}" for point in curve.points)
            yield f"{curve.thief}: {points} ({curve.last.price:.2f} {measured.target.currency}; {curve.ended})"
        else:
            yield f"{curve.thief}: no clone ({curve.ended})"
    yield measured.verdict.sentence
    yield from (f"  {reason}" for reason in measured.verdict.reasons)
    cost = f"{measured.spent:.2f} {measured.target.currency}"
    yield f"{measured.ledger.queries:,} queries, {cost}: {folder / 'measured.json'}"


def _campaign(options: argparse.Namespace) -> Campaign:
    path = table.path_of(options.name, options.targets)
    target = table.read(path)
    if options.budget is not None:
        if not 1 <= options.budget <= target.budget:
            raise CampaignError(f"budget: expected 1 to the target's {target.budget}, got {options.budget}")
        target = dataclasses.replace(target, budget=options.budget)
    thieves.chosen(tuple(options.thieves))
    asked = {field.name: getattr(options, field.name) for field in dataclasses.fields(Options)}
    lists = {name: tuple(asked[name]) for name in ("thieves", "recipes", "seeds")}
    folder = options.reports / f"attest-{path.stem}"
    return Campaign(target, path.stem, table.digest(path), folder, Options(**{**asked, **lists}))


def _wire(campaign: Campaign, options: argparse.Namespace) -> Wire:
    """This process's own, or Locust's workers'."""
    if min(options.senders, options.remote_senders) < 0:
        raise CampaignError(f"senders: expected 0 or more, got {options.senders} and {options.remote_senders} remote")
    if not options.senders + options.remote_senders:
        return wire(campaign.target)
    if options.remote_senders and options.senders_address == ANY_PORT:
        raise CampaignError("senders-address: expected this machine's HOST:PORT, which other machines reach, got none")
    return Senders(
        campaign.target,
        table.path_of(options.name, options.targets),
        here=options.senders,
        elsewhere=options.remote_senders,
        address=options.senders_address,
        log=campaign.folder / "senders.log",
    )


def _dry(campaign: Campaign) -> Iterator[str]:
    owners = order.images_of(campaign)
    exam, had = len(owners.exam), len(owners.thieves)
    yield from check.dry(campaign.target, campaign.name, owners.exam.pixels[: check.PICTURES])
    yield f"  {exam} labelled images for the exam, {had} that thieves may have; into {campaign.folder}"


def _options() -> argparse.Namespace:
    usual = Options("")
    parser = argparse.ArgumentParser(
        prog="python -m attest", description="attack a classifier's endpoint, and attest it"
    )
    parser.add_argument("name", help="a target's name, or the path of its .toml file")
    parser.add_argument("--images", required=True, help="labelled images: a folder, a .csv file or a data set's name")
    parser.add_argument("--budget", type=int, help="queries in all, at most the target's")
    parser.add_argument("--thieves", nargs="+", default=usual.thieves, help="of the battery (all)")
    parser.add_argument(
        "--surrogate",
        default=usual.surrogate,
        help="other images that thieves have (letters, or crops of a photo)",
    )
    parser.add_argument("--architecture", default="", help="of the clones, as zoo.models has it (a LeNet5)")
    parser.add_argument("--epochs", type=int, default=usual.epochs, help="of a clone (more for fewer queries)")
    parser.add_argument("--recipes", nargs="+", default=usual.recipes, help="trainings of a clone that a thief tries")
    parser.add_argument("--exam", type=int, default=usual.exam, help="the most images of the exam (1000)")
    parser.add_argument("--seed", type=int, default=0, help="of the thieves' choices (0)")
    parser.add_argument("--seeds", type=int, nargs="+", default=usual.seeds, help="of the clones, one each (0 1)")
    parser.add_argument("--minutes", type=float, default=usual.minutes, help="after which it ends where it is (a day)")
    parser.add_argument("--workers", type=int, help="processes that train clones (one a core)")
    parser.add_argument("--senders", type=int, default=0, help="processes that send (this one, with threads)")
    parser.add_argument("--remote-senders", type=int, default=0, help="senders on other machines to wait for (none)")
    parser.add_argument("--senders-address", default=ANY_PORT, metavar="HOST:PORT", help="where those find this one")
    parser.add_argument("--targets", type=Path, default=table.FOLDER, help="folder of the target files (targets)")
    parser.add_argument("--reports", type=Path, default=Path("reports"), help="folder of the results (reports)")
    parser.add_argument("--dry-run", action="store_true", help="show what would be sent and what it would cost")
    return parser.parse_args()


if __name__ == "__main__":
    main()
