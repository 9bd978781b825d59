"""What a policy's input noise does to its users' images and to thieves': the "noise" rows of a report.

    python -m evaluation.studies.input_noise RECIPE --policies meco meco-keyed --run reports/RECIPE

Of every kind of traffic (evaluation/traffic.py, and benign images rotated and shifted as in utility.py here), in each
of five draws: the mean ||T(x + h) - T(x)||_1 between the policy's answer and its own predictor's without noise, which a
client never sees; how many labels the noise changes; where there are labels, the accuracy. Keyed noise has one draw an
image, and is measured once.

The l1 of Wang et al. (MeCo, NeurIPS 2023, Table 3) is the benign one. It is what users lose beside accuracy; the same
number on a thief's images is what the thief's transfer set is off by.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from statistics import mean

import numpy as np
import torch

import recipes
from evaluation.oracles import InProcessOracle, OracleError
from evaluation.studies.utility import shifted
from evaluation.traffic import SEED, kinds
from handlers.errors import LoadError
from report.rows.noise import NoiseRow
from report.schema import Report, ResultError, merge, run_info
from zoo import datasets
from zoo.datasets import Images

DRAWS = 5
ROWS = 5000

# images, and labels where there are some
Traffic = dict[str, tuple[torch.Tensor, torch.Tensor | None]]


def main() -> None:
    """Run the command line; a mistake of the user's is a message and exit code 1."""
    options = _options()
    started = datetime.now(timezone.utc)
    try:
        recipe = recipes.read(options.recipe)
        test = recipe.section("dataset", datasets.Data).load("test", options.data)
        met = traffic(recipe, test, options.data)
        rows = [row for policy in options.policies for row in measure(recipe.name, policy, options.store, met)]
        facts = run_info(seed=SEED, started=started, settings={})
        merge(options.run / "report.json", Report(facts, noise=tuple(rows)))
    except (recipes.RecipeError, OracleError, LoadError, ResultError, datasets.DatasetError) as error:
        sys.exit(f"evaluation.studies.input_noise: {error}")
    for row in rows:
        print(f"{recipe.name}-{row.policy}, {row.traffic}: l1 {np.mean(row.l1):.4f}, RMS of h {row.rms:.3f}")


def traffic(recipe: recipes.Recipe, test: Images, data: Path | None) -> Traffic:
    """At most ROWS images of each kind; those of the test split, as they are and shifted, have labels. Raises
    DatasetError."""
    assert test.labels is not None, "a recipe's data set is labelled"
    labels = test.labels[:ROWS]
    found: Traffic = {
        f"benign ({test.name})": (test.pixels[:ROWS], labels),
        f"shifted benign ({test.name})": (shifted(test.pixels)[:ROWS], labels),
    }
    return {**{name: (images[:ROWS], None) for name, images in kinds(recipe, test, data)}, **found}


def measure(recipe: str, policy: str, store: Path, met: Traffic) -> Iterator[NoiseRow]:
    """One row for each kind of traffic. Raises OracleError where the policy has no noise, or several members."""
    with InProcessOracle(store / f"{recipe}-{policy}.mar", seed=SEED) as oracle:
        rules = oracle.pipeline.policy
        if rules.perturb is None or len(rules.members) != 1:
            raise OracleError(f"{recipe}-{policy}: expected a policy with noise and one member")
        draws = DRAWS if rules.perturb.noise == "fresh" else 1
        for name, (images, labels) in met.items():
            found = [drawn(oracle, images, labels) for _ in range(draws)]
            yield NoiseRow(
                recipe,
                policy,
                name,
                images=len(images),
                l1=tuple(each.l1 for each in found),
                label_flips=tuple(each.label_flips for each in found),
                accuracy=tuple(each.accuracy for each in found if each.accuracy is not None),
                rms=mean(each.rms for each in found),
                largest=max(each.largest for each in found),
            )


@dataclass(frozen=True)
class Drawn:
    """One draw's figures; see report.rows.noise.NoiseRow."""

    l1: float
    label_flips: float
    accuracy: float | None
    rms: float
    largest: float


def drawn(oracle: InProcessOracle, images: torch.Tensor, labels: torch.Tensor | None) -> Drawn:
    """What one draw does to `images` (N,C,S,S), with their labels (N,) where they have some."""
    pipeline = oracle.pipeline
    member = pipeline.graphs[pipeline.policy.members[0]]
    noisy, clean, h = [], [], []
    for part in (part.numpy() for part in images.split(pipeline.policy.max_rows)):
        seen = pipeline.perturbed(part)
        h.append((seen - part).reshape(len(part), -1))
        noisy.append(member(seen)["probabilities"])
        clean.append(member(part)["probabilities"])
    told, plain, added = np.concatenate(noisy), np.concatenate(clean), np.concatenate(h)
    found = told.argmax(1)
    return Drawn(
        l1=float(np.abs(told - plain).sum(1).mean()),
        label_flips=float((found != plain.argmax(1)).mean()),
        accuracy=None if labels is None else float((found == labels.numpy()).mean()),
        rms=float(np.sqrt(np.square(added).mean(1)).mean()),
        largest=float(np.abs(added).max()),
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.studies.input_noise", description="what input noise does to answers"
    )
    parser.add_argument("recipe", help="a recipe's name, or the path of its .toml file; @TIER may follow")
    parser.add_argument("--policies", nargs="+", required=True, help="policies with noise")
    parser.add_argument("--run", type=Path, required=True, help="folder of the report, such as reports/mnist")
    parser.add_argument("--store", type=Path, default=Path("model_store"), help="folder of archives (model_store)")
    parser.add_argument("--data", type=Path, default=None, help="folder of the data sets, searched first")
    return parser.parse_args()


if __name__ == "__main__":
    main()
