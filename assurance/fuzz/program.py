"""Send hostile requests to a running server, by the thousand, and say how they end.

    python -m assurance.fuzz digits --instance default --policies undefended edm --cases 10000 --seed 0
    python -m assurance.fuzz digits --policies edm --replay reports/fuzz/0-17.json
    python -m assurance.fuzz digits --policies edm --url https://localhost:8443 --cafile ca.pem --user client.txt

Of every case must be true: it is answered or refused within a deadline, never by a status of 5xx; a refusal of ours has
a documented code; rows get what the decoder and the same pixels, asked plainly, say they must; no worker dies; and
honest requests in the same batches get their known answers. Case n of a seed is the same in every run. What fails is
made smaller and kept under --kept. With --url the same requests go through a gateway in front of the instance.

Exit codes: 0 all true; 1 not; 2 refused, nothing was sent, or the results file is no such thing.
"""

from __future__ import annotations

import argparse
import base64
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import recipes
from assurance.fuzz import case as cases
from assurance.fuzz.campaign import Campaign
from assurance.fuzz.case import Subject
from assurance.fuzz.contract import Contract
from assurance.fuzz.door import Door
from assurance.fuzz.neighbours import NotSteadyError, known
from assurance.fuzz.reference import ReferenceFailedError
from assurance.fuzz.workers import Workers
from loadtests import target
from report.build import build
from report.rows.fuzz import DIRECT, GATEWAY, FuzzRow
from report.rows.run import RunInfo
from report.schema import Report, ResultError, merge, run_info
from zoo.datasets import Data

IMAGES = 64


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; returns the exit code."""
    options = parse(arguments)
    try:
        campaign = prepared(options)
        if options.replay:
            return replay(campaign, options.replay)
        return full(campaign, options)
    except (target.TargetError, NotSteadyError, ReferenceFailedError, ResultError) as error:
        print(f"fuzz: {error}", file=sys.stderr)
        return 2


def prepared(options: argparse.Namespace) -> Campaign:
    """The campaign against the instance, or its gateway, that the options name."""
    recipe = recipes.read(options.recipe)
    served = target.read(options.instance, run_folder=options.run_folder)
    workers = Workers.of(options.instance, options.run_folder)
    models = [f"{recipe.name}-{policy}" for policy in options.policies]
    for model in models:
        served.path(model)
    images = honest_images(recipe, options.data)
    subjects = [
        Subject(model, workers.accepts(model), served.max_request_size, images, workers.names(model))
        for model in models
    ]
    for subject in subjects:
        if subject.images.shape[1:] != subject.accepts.input.shape:
            raise target.TargetError(
                f"{subject.model} takes {subject.accepts.input}, and the recipe's images are no such"
            )
    door = Door.at(options.url or served.inference, authorization(options, served), options.cafile)
    return Campaign(door, subjects, workers, known(door, subjects), options.kept, direct=not options.url)


def full(campaign: Campaign, options: argparse.Namespace) -> int:
    """All cases, then the contract; write the section of the results file."""
    started = datetime.now(timezone.utc)
    section = campaign.run(options.cases, options.seed)
    if options.contract:
        contract = Contract(campaign.door, options.cafile, campaign.direct)
        section["contract"] = contract.run(campaign.subjects, options.contract, options.seed)
    settings = {"policies": list(options.policies), "cases": options.cases, "contract": options.contract}
    if options.output:
        run = run_info(seed=options.seed, started=started, settings=settings)
        write(options.output, GATEWAY if options.url else DIRECT, section, run)
    faults = broken(section)
    for fault in faults:
        print(f"fuzz: {fault}", file=sys.stderr)
    print(summary(section))
    return 1 if faults else 0


def replay(campaign: Campaign, file: Path) -> int:
    """One kept case again."""
    verdict = campaign.verdict(cases.load(file))
    print(f"{file}: {verdict.label}: {verdict.complaint or 'as it should be'}")
    return 0 if verdict.complaint is None else 1


def broken(section: dict[str, Any]) -> list[str]:
    """What must be true and is not."""
    faults = [
        f"{each['kind']}, {each['idea']}: {each['complaint']} (case {each['first']})" for each in section["findings"]
    ]
    faults += [f"a worker changed {each}" for each in section["workers"]["restarts"]]
    faults += [f"a neighbour was answered wrongly: {each}" for each in section["neighbours"]["examples"]]
    faults += [f"contract: {each}" for each in section.get("contract", {}).get("findings", ())]
    return faults


def summary(section: dict[str, Any]) -> str:
    """A run in a line."""
    neighbours, workers = section["neighbours"], section["workers"]
    return (
        f"{section['cases']} cases in {section['seconds']:.0f} s: {len(section['findings'])} kinds of findings, "
        f"{len(section['front_end'])} known ones of TorchServe's own; {neighbours['wrong']} of {neighbours['asked']} "
        f"neighbours answered wrongly; {len(workers['restarts'])} of {workers['count']} workers restarted"
    )


def write(file: Path, door: str, section: dict[str, Any], run: RunInfo) -> None:
    """Put the row of this door in the results file; that of the other door stays. Raises ResultError."""
    faults: list[str] = []
    row = build(FuzzRow, {"door": door, "contract": None, **section, "run": asdict(run)}, f"fuzz: {door}", faults)
    if faults:
        raise ResultError("\n".join(faults))
    merge(file, Report(run, fuzz=(row,)))


def honest_images(recipe: recipes.Recipe, root: str | None) -> NDArray[np.float32]:
    """Test images in 8-bit steps, as a picture carries them: every content type brings the same pixels."""
    pixels: NDArray[np.float32] = recipe.section("dataset", Data).load("test", root).pixels[:IMAGES].numpy()
    return np.asarray(np.rint(pixels * 255) / 255, np.float32)


def authorization(options: argparse.Namespace, served: target.Target) -> str:
    """The header's value: TorchServe's token, or a client's login at the gateway."""
    if not options.url:
        return served.authorization["Authorization"]
    if options.user is None:
        raise target.TargetError("--url: expected --user FILE with it, whose first line is LOGIN:KEY of the gateway")
    return basic(options.user.read_text("utf-8").splitlines()[0].strip())


def basic(login: str) -> str:
    """HTTP's basic authorization of LOGIN:KEY."""
    return "Basic " + base64.b64encode(login.encode()).decode()


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m assurance.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("recipe", help="a recipe's name, or the path of its .toml file")
    parser.add_argument("--instance", default="default", metavar="NAME", help="default: default")
    parser.add_argument("--run-folder", type=Path, default=Path("run"), metavar="FOLDER", help="default: run")
    parser.add_argument("--policies", nargs="+", required=True, metavar="NAME", help="served, and not random")
    parser.add_argument("--cases", type=int, default=10_000, metavar="N", help="default: 10000")
    parser.add_argument("--contract", type=int, default=50, metavar="N", help="schemathesis' cases a model, mode, path")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--output", type=Path, metavar="FILE", help="results, such as results/fuzz.json")
    parser.add_argument("--kept", type=Path, default=Path("reports/fuzz"), metavar="FOLDER", help="of failing cases")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="send one kept case again, and nothing else")
    parser.add_argument("--url", help="the gateway's, in place of the instance's own address")
    parser.add_argument("--cafile", metavar="FILE", help="certificate that the gateway's is signed by")
    parser.add_argument("--user", type=Path, metavar="FILE", help="its first line: LOGIN:KEY of the gateway")
    parser.add_argument("--data", metavar="FOLDER", help="of the data sets, searched first")
    return parser.parse_args(arguments)
