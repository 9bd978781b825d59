"""Attack the running server over HTTP, then judge the clones: the "attacks" and "felt" rows of report.json.

    python -m loadtests.attack RECIPE --instance default --policies undefended edm --run reports/RECIPE
    python -m loadtests.attack RECIPE --policies edm --attacks knockoff jbda --clients 10 --dilution 50 --run ...
    python -m loadtests.attack RECIPE --policies same-reject --attacks augmented-seeds --adaptive matched --run ...

For each policy and attack a headless Locust run sends a campaign of clients, which share the attack, and a few benign
users next to them, until the attack's budget is spent (docs/loadtests.md). Afterwards, with nothing left to disturb,
clones are trained here as evaluation.matrix trains them: for every recipe of [clone], seed, share of the budget and
reading of the answers; or the clone that the attack itself has trained is judged at every share of its budget. They are
judged on the victim's test split, which no attacker has seen; the policy's own answers on it come from its archive, in
process.

An interrupted run continues: answers already paid for are kept if the service still gives the same ones, and a clone
that was trained is not trained again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import requests
import torch

import recipes
from attacks import registry
from attacks.names import FORMS, GATE_AWARE, LABELS, in_form
from attacks.transfer import TransferSet
from deploy import direct
from evaluation import matrix, payment, tables, thefts
from evaluation.matrix import Plan, Victim
from evaluation.oracles import HttpOracle
from evaluation.tables import Evaluation
from loadtests import locust_run, target
from loadtests.locust_run import TrafficError
from loadtests.target import Target, TargetError
from report.rows.clones import HTTP
from report.rows.impact import FeltRow
from report.schema import Report, merge, run_info
from zoo import datasets

BENIGN_USERS = 2
# forms that ask the same however many clients share an attack; the others draw again for each exchange
ADAPTIVE = tuple(name for name in FORMS if name in GATE_AWARE)
TIMEOUT_S = (5, 30)
# answers that are equal but for the batches they were computed in
SAME = 1e-4
# mistakes of the user's and broken thresholds, whose message is all that he needs
MISTAKES = (*matrix.MISTAKES, TargetError, TrafficError)


@dataclass(frozen=True)
class Job:
    """The command line, read. work: recipe and folders, as for attacks in process. adaptive: the form that all attacks
    take, if any. See loadtests.users.plan.Theft for clients, dilution and quiet_s."""

    work: matrix.Job
    server: Target
    instance: str
    run_folder: Path
    policies: tuple[str, ...]
    attacks: tuple[str, ...]
    labels: tuple[str, ...]
    seed: int
    clients: int
    dilution: int
    quiet_s: float
    adaptive: str | None = None

    def model(self, policy: str) -> str:
        return f"{self.work.recipe.name}-{policy}"

    def summary(self, plan: Plan) -> Path:
        """What the Locust run of an attack leaves."""
        return self.work.folder / f"attack-{plan.victim.policy}-{plan.theft.name}.json"


def main() -> None:
    """Run the command line; a mistake of the user's or a broken threshold is a message and exit code 1."""
    options = _options()
    try:
        recipe = recipes.read(options.recipe)
        server = target.read(options.instance, run_folder=options.run_folder)
        test = recipe.section("dataset", datasets.Data).load("test", options.data)
        run(
            Job(
                work=matrix.Job(recipe, test, options.run, options.store, options.data),
                server=server,
                instance=options.instance,
                run_folder=options.run_folder,
                policies=tuple(options.policies),
                attacks=tuple(options.attacks or [tables.first_attack(recipe)]),
                adaptive=options.adaptive,
                labels=tuple(options.labels),
                seed=options.seed,
                clients=options.clients,
                dilution=options.dilution,
                quiet_s=options.quiet,
            )
        )
    except MISTAKES as error:
        sys.exit(f"loadtests.attack: {error}")
    except KeyboardInterrupt:
        sys.exit("loadtests.attack: interrupted; the same command continues with the next clone")


def run(job: Job) -> None:
    """Steal from every policy with every attack, judge the clones, merge their rows into the report."""
    started = datetime.now(timezone.utc)
    recipe = job.work.recipe
    for policy in job.policies:
        job.server.path(job.model(policy))
    victims = {policy: Victim.evaluate(job.work, policy) for policy in job.policies}
    plans = [plan for name in job.attacks for plan in _plans(job, name, victims)]
    for line in dict.fromkeys(filter(None, (thefts.short_of_images(plan.theft) for plan in plans))):
        _say(line)
    folders: dict[str, Path] = {}
    impacts: list[FeltRow] = []
    for plan in plans:
        folders[plan.theft.name] = steal(job, plan)
        impacts += impact(job, plan)
    rows = tuple(dataclasses.replace(row, path=HTTP) for row in matrix.rows(job.work, plans, folders))
    settings = {
        "dataset": recipe.tables["dataset"],
        "classes": len(job.work.test.classes),
        **{f"attacks.{name}": dataclasses.asdict(tables.parameters(recipe, name)) for name in job.attacks},
        "clone": dataclasses.asdict(tables.cloning(recipe)),
    }
    facts = run_info(seed=job.seed, started=started, settings=settings)
    merge(job.work.folder / "report.json", Report(facts, attacks=rows, felt=tuple(impacts)))
    _say(f"{len(rows)} rows in {job.work.folder / 'report.json'}")


def _plans(job: Job, name: str, victims: dict[str, Victim]) -> Iterator[Plan]:
    """The runs of one attack, one a policy, and one a reading where what it asks depends on that."""
    cloning, budget = tables.cloning(job.work.recipe), tables.parameters(job.work.recipe, name).budget
    asked = Evaluation(
        policies=job.policies,
        budgets=tuple(round(fraction * budget) for fraction in cloning.fractions),
        attacks=(name,),
        adaptive=(job.adaptive,) if job.adaptive else (),
        labels=job.labels,
        seeds=(job.seed,) if registry.attack(name).ends_with_clone else cloning.seeds,
    )
    for plan in matrix.plans(job.work, asked, victims):
        yield served(job, dataclasses.replace(plan, theft=dataclasses.replace(plan.theft, seed=job.seed)))


def served(job: Job, plan: Plan) -> Plan:
    """The same attack over HTTP. How it was sent decides its impact on neighbours, so it is an attack of its own."""
    asked = json.dumps([plan.theft.identity, plan.victim.policy, job.clients, job.dilution])
    return dataclasses.replace(plan, theft=dataclasses.replace(plan.theft, identity=asked))


def steal(job: Job, plan: Plan) -> Path:
    """The folder of one attack: kept from an earlier run if still true, else made now."""
    theft, model = plan.theft, job.model(plan.victim.policy)
    folder = job.work.folder / "transfer" / theft.name
    most = job.work.recipe.max_rows
    known = folder.is_dir() and _still_true(
        TransferSet.load(folder / "transfer.npz"), job.server, model, plan=plan, most=most
    )
    if known:
        _say(f"{model}: the service still gives the answers of {folder.name}; not stolen again")
        return folder
    _say(f"{model}: {job.clients} clients query {theft.how.budget} images over HTTP with {theft.attack}")
    result = locust_run.run(
        {"ThiefUser": job.clients, "BenignUser": BENIGN_USERS},
        {
            "recipe": job.work.recipe.spec,
            "policies": plan.victim.policy,
            "instance": job.instance,
            "run_folder": job.run_folder,
            "data": job.work.data,
            "attack": theft.attack,
            "adaptive": theft.form,
            "labels": theft.labels,
            "seed": theft.seed,
            "budgets": ",".join(map(str, theft.budgets)),
            "clients": job.clients,
            "dilution": job.dilution,
            "quiet": job.quiet_s,
            "outcome": folder,
        },
        summary=job.summary(plan),
    )
    made = thefts.queries_made(folder, max(theft.budgets))
    _say(f"{model}: {made} in {result['seconds']:.1f} s next to {BENIGN_USERS} benign users")
    return folder


def impact(job: Job, plan: Plan) -> tuple[FeltRow, ...]:
    """The impact of an attack on benign users: a row for the stretch before the attack and one for the attack.

    Read from the summary of its Locust run (loadtests.tally.Tally); none where that is gone.
    """
    path = job.summary(plan)
    if not path.exists():
        return ()
    seen = json.loads(path.read_text("utf-8"))["attack"]
    return tuple(
        FeltRow(
            recipe=job.work.recipe.name,
            policy=plan.victim.policy,
            attack=in_form(plan.theft.attack, plan.adaptive),
            labels=plan.theft.labels,
            stretch=stretch,
            users=BENIGN_USERS,
            **{name: seen[name] for name in ("clients", "dilution", "stolen", "sent")},
            **seen[stretch],
        )
        for stretch in FeltRow.STRETCHES
    )


def _still_true(transfer: TransferSet, server: Target, model: str, *, plan: Plan, most: int) -> bool:
    """Whether the service answers the first images as it did when they were stolen, as far as the attacker could see.
    most: rows in a request.

    A new key, archive or a service that answers at random make this false.
    """
    rows = min(plan.theft.how.rows, most)
    with direct.session() as session:

        def post(body: bytes, content_type: str, more: Mapping[str, str] | None = None) -> tuple[int, bytes]:
            headers = {**server.authorization, "Content-Type": content_type, **(more or {})}
            url = server.inference + server.path(model)
            try:
                response = session.post(url, data=body, headers=headers, timeout=TIMEOUT_S)
            except requests.RequestException as error:
                raise TargetError(f"{url}: no answer ({type(error).__name__}); is it running? (make status)") from error
            return response.status_code, response.content

        now = plan.theft.reads(HttpOracle(post, rows=rows, solver=payment.solve))(transfer.images[:rows])
    if not torch.equal(now.labels, transfer.labels[:rows]):
        return False
    if now.probabilities is None or transfer.probabilities is None:
        return now.probabilities is transfer.probabilities
    return torch.allclose(now.probabilities, transfer.probabilities[:rows], rtol=0, atol=SAME)


def _say(line: str) -> None:
    print(line, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtests.attack", description="steal, clone, report")
    parser.add_argument("recipe", help="a recipe's name, or the path of its .toml file")
    parser.add_argument("--policies", nargs="+", required=True, help="policies that the instance serves")
    parser.add_argument("--run", type=Path, required=True, help="folder of the report, such as reports/digits")
    parser.add_argument("--attacks", nargs="+", metavar="NAME", help="tables [attacks.NAME] (the recipe's first)")
    parser.add_argument("--adaptive", choices=ADAPTIVE, help="a form that the attacks take, made against a gate (none)")
    parser.add_argument("--clients", type=at_least_one, default=1, help="that share an attack (1)")
    parser.add_argument("--dilution", type=_percent, default=0, help="percent of benign images among theirs (0)")
    parser.add_argument(
        "--labels", nargs="+", choices=LABELS, default=LABELS, help="what attackers and clones learn from (both)"
    )
    parser.add_argument("--quiet", type=float, default=5.0, help="seconds of benign traffic before an attack (5)")
    parser.add_argument("--instance", default="default", help="the running instance (default)")
    parser.add_argument("--run-folder", type=Path, default=Path("run"), help="holds the instances (run)")
    parser.add_argument("--store", type=Path, default=Path("model_store"), help="folder of archives (model_store)")
    parser.add_argument("--data", type=Path, default=None, help="folder of the data sets, searched first")
    parser.add_argument("--seed", type=int, default=0, help="of the attacker's choices (0)")
    return parser.parse_args()


def at_least_one(text: str) -> int:
    """A number of clients from the command line."""
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {text}")
    return value


def _percent(text: str) -> int:
    if not 0 <= (value := int(text)) < 100:
        raise argparse.ArgumentTypeError(f"expected 0 to 99 percent, got {text}")
    return value


if __name__ == "__main__":
    torch.set_num_threads(1)  # clones train in processes of one thread; the archives have their own
    main()
