"""Send a running service what each control must stop; exit code 1 where one lets it through.

    python -m assurance.selftest RECIPE --instance NAME --policies NAME ... [--output results/selftest.json]

Prints a table: control, model, what was sent, what had to come back, what came. Controls that do not apply, and those
that could not be tried, are listed with the reason and count for nothing; so are warnings of what is known not to be
enough. With --gateway, the one in front is tested as well. Run it against a service without other traffic: limits that
others use up make it fail.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import recipes
from assurance.selftest import answers, budgets, doors, gateway, inputs, limits, traces
from assurance.selftest.checks import GATEWAY, SERVER, Check, Subject, exit_code, guarded, stopped, table, untried
from assurance.selftest.gateway import Gateway
from assurance.selftest.service import Row, Service, ServiceError
from evaluation import traffic
from loadtests.target import TargetError
from report.rows.selftest import STOPPED, Finding
from report.schema import Report, run_info, write
from zoo import datasets
from zoo.datasets import DatasetError

# images of each kind that a check sends
IMAGES = 64
# the checks of a model, and the control that one stands for where it breaks off
CHECKS: tuple[tuple[Check, str], ...] = (
    (answers.serves, "gate"),
    (inputs.hostile, "bounded-input"),
    (inputs.one_row_too_many, "bounded-input"),
    (inputs.metadata, "unread-metadata"),
    (inputs.neighbours, "row-independence"),
    (inputs.forged_lines, "silent-log"),
    (inputs.principals, "limits"),
    (answers.gate, "gate"),
    (answers.proof_of_work, "proof-of-work"),
    (answers.coarse_prices, "coarse-prices"),
    (answers.full_price, "full-price"),
    (answers.fewer_answers, "fewer-answers"),
    (answers.noise, "input-noise"),
    (answers.marks, "marks"),
    (answers.members, "diverse-members"),
    (answers.unnamed_members, "diverse-members"),
    (limits.limits, "limits"),
    (budgets.budget, "budget"),
)
# controls that no request can show from outside; the tests that docs/threat-model.md names do
UNSEEN = {
    "balanced-hash": "no response shows which leaf an image reaches",
    "keyed-hash": "no response shows which member answers an image",
    "decoys": "no response shows whether an image passed for one of the task's",
    "same-answers": "a worker that answers its stored rows otherwise does not start",
    "kept-labels": "graphs are held to it when they are made",
    "disturbed-answers": "no response shows the answer without the disturbance",
    "fail-closed": "no request makes a stage fail",
    "checked-start": "the service has started",
    "hashed-install": "no response shows what was installed",
    "store-kind": "no response shows which Redis remembers",
    "budget-kept": "it would stop a service at work",
    "honest-accounts": "it would take thousands of honest accounts",
    "any-window": "no request holds up another at a moment of its choosing",
    "audit-flood": "it would push out what the log holds, if it could",
    "constant-time": "a request's time says little of a comparison",
    "token-rotation": "it would renew the tokens of a service at work",
    "gateway-grpc": "it asks over HTTP",
    "gateway-drain": "it would stop a gateway at work",
    "alerts": "Prometheus is not asked",
    "readiness": "python -m deploy.health reports it",
    "self-test": "this is it",
}
# and those that only a gateway can show
FRONT = ("gateway-tls", "gateway-keys", "gateway-way", "gateway-limits", "gateway-shares")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = _options(arguments)
    started = datetime.now(timezone.utc)
    try:
        recipe = recipes.read(options.recipe)
        service = Service(options.instance, run_folder=options.run_folder, patience=options.patience)
        subjects = list(_subjects(recipe, options, service))
        findings = run(service, subjects)
        if options.gateway:
            with Gateway.of(options.instance, options.run_folder) as own:
                findings += gateway.run(own, subjects[0])
        elif options.url is not None:
            findings += gateway.run(Gateway.read(options.url, options.cafile, options.user), subjects[0])
        else:
            findings += [untried(control, GATEWAY, "no --gateway was given") for control in FRONT]
        findings += traces.secrets(service, [subject.name for subject in subjects])
    except (recipes.RecipeError, TargetError, ServiceError, DatasetError) as error:
        print(f"assurance.selftest: {error}", file=sys.stderr)
        return 2
    print(table(findings))
    tries = stopped(findings) + sum(finding.failed for finding in findings)
    print(f"\n{stopped(findings)} of {tries} tries were stopped, by {len(_controls(findings))} controls")
    if options.output is not None:
        info = run_info(
            seed=0,
            started=started,
            settings={"policies": options.policies, "gateway": options.gateway or options.url is not None},
        )
        write(options.output, Report(info, selftest=tuple(findings)))
        print(f"results: {options.output}")
    return exit_code(findings)


def run(service: Service, subjects: Sequence[Subject]) -> list[Finding]:
    """All that was found out, in the order in which it was tried."""
    offset = service.audit_file.stat().st_size if service.audit_file.exists() else 0
    models = [subject.name for subject in subjects]
    findings: list[Finding] = []
    before = {model: service.errors(model) for model in models}
    for door in (doors.management, doors.model_api, doors.remote_code, doors.loopback, doors.private_files):
        findings += door(service)
    findings += doors.tokens(subjects[0])
    steps = [(check, control, subject) for subject in subjects for check, control in CHECKS]
    for check, control, subject in tqdm(steps, desc="selftest", unit="check", disable=None):
        findings += guarded(check, control)(subject)
    for model in models:
        findings += traces.counted(service, model, before[model])
    findings += traces.audited(service, list(subjects), offset)
    return findings + [untried(control, SERVER, why) for control, why in UNSEEN.items()]


def _subjects(recipe: recipes.Recipe, options: argparse.Namespace, service: Service) -> Iterator[Subject]:
    """What is tested of each policy. Raises RecipeError, ServiceError, TargetError, DatasetError."""
    test = recipe.section("dataset", datasets.Data).load("test", options.data)
    sets = traffic.surrogates(recipe, test, options.data).values()
    share = -(-IMAGES // len(sets)) if sets else 0
    thieving = np.concatenate([images[:share].numpy() for images in sets]) if sets else np.empty((0,), np.float32)
    benign = test.pixels[:IMAGES].numpy()
    for policy in options.policies:
        tables: dict[str, dict[str, Any]] = recipe.tables.get("policies", {})
        if policy not in tables:
            raise recipes.RecipeError(f"{recipe.path}: no table [policies.{policy}]; there are {', '.join(tables)}")
        name = f"{recipe.name}-{policy}"
        service.target.path(name)
        good = _answered(service, name, benign)
        yield Subject(name, service, tables[policy], good, benign, thieving)


def _answered(service: Service, model: str, benign: Row) -> Row:
    """The first of the images that the model answers alone. Raises ServiceError where there is none."""
    for number in range(len(benign)):
        image = benign[number : number + 1]
        reply = service.rows(model, image, principal=service.principal("first"))
        if reply.status == 200:
            return image
    raise ServiceError(
        f"{model} answers none of {len(benign)} images of its own task, the last with {reply.status} {reply.code}; "
        "a self-test needs a service that works (make status)"
    )


def _controls(findings: Sequence[Finding]) -> set[str]:
    return {finding.control for finding in findings if finding.verdict == STOPPED}


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m assurance.selftest", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("recipe", help="a recipe's name, or the path of its .toml file")
    parser.add_argument("--policies", nargs="+", required=True, help="policies that the instance serves")
    parser.add_argument("--instance", default="default", help="the running instance (default)")
    parser.add_argument("--run-folder", type=Path, default=Path("run"), help="holds the instances (run)")
    parser.add_argument("--data", type=Path, default=None, help="folder of the data sets, searched first")
    parser.add_argument("--output", type=Path, default=None, metavar="FILE", help="such as results/selftest.json")
    parser.add_argument(
        "--patience", type=float, default=180.0, metavar="SECONDS", help="that a limit's window may last (180)"
    )
    parser.add_argument("--gateway", action="store_true", help="test the instance's gateway as well")
    parser.add_argument("--url", default=None, help="https://HOST:PORT of another gateway that is tested as well")
    parser.add_argument("--cafile", type=Path, default=None, help="PEM of whom its certificate is trusted by")
    parser.add_argument("--user", type=Path, default=None, metavar="FILE", help="with LOGIN:KEY of one of its clients")
    options = parser.parse_args(arguments)
    if (options.url is None) != (options.user is None):
        parser.error("--url, --user: expected both or neither; a gateway answers nobody without a key")
    return options


if __name__ == "__main__":
    sys.exit(main())
