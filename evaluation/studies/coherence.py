"""How far members agree on a thief's images: the "coherence" rows of a report (EDM, ICLR 2021, equation 1, Figure 5).

    python -m evaluation.studies.coherence RECIPE --policies ensemble edm --run reports/RECIPE

coherence(x) = the largest cosine between the answers of any two members to x, in [0, 1]. A thief never sees it: each
query is answered by one member. It is read here from all members of an archive, on every kind of traffic of
evaluation/traffic.py.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import torch

import recipes
from evaluation.oracles import InProcessOracle, OracleError
from evaluation.traffic import SEED, kinds
from handlers.errors import LoadError
from report.rows.routing import CoherenceRow
from report.schema import Report, ResultError, merge, run_info
from zoo import datasets

ROWS = 5000


def main() -> None:
    """Run the command line; a mistake of the user's is a message and exit code 1."""
    options = _options()
    started = datetime.now(timezone.utc)
    try:
        recipe = recipes.read(options.recipe)
        test = recipe.section("dataset", datasets.Data).load("test", options.data)
        traffic = dict(kinds(recipe, test, options.data))
        rows = [row for policy in options.policies for row in measure(recipe.name, policy, options.store, traffic)]
        facts = run_info(seed=SEED, started=started, settings={})
        merge(options.run / "report.json", Report(facts, coherence=tuple(rows)))
    except (recipes.RecipeError, OracleError, LoadError, ResultError, datasets.DatasetError) as error:
        sys.exit(f"evaluation.studies.coherence: {error}")
    for row in rows:
        print(f"{recipe.name}-{row.policy}, {row.traffic}: mean coherence {row.mean:.3f}")


def measure(recipe: str, policy: str, store: Path, traffic: dict[str, torch.Tensor]) -> Iterator[CoherenceRow]:
    """One row for each kind of traffic, on at most ROWS of its images. Raises OracleError where there is one member."""
    with InProcessOracle(store / f"{recipe}-{policy}.mar") as oracle:
        members = oracle.pipeline.policy.members
        if len(members) < 2:
            raise OracleError(f"{recipe}-{policy}: coherence is between members; this policy has one")
        for name, images in traffic.items():
            told = oracle.everyone(images[:ROWS])
            values = coherence(told)
            yield CoherenceRow(
                recipe,
                policy,
                name,
                images=len(values),
                mean=float(values.mean()),
                percentiles=tuple(float(value) for value in np.percentile(values, np.arange(101))),
            )


def coherence(answers: torch.Tensor) -> np.ndarray:
    """Equation 1 of every image: (N, members, K) float32 probabilities to (N,) in [0, 1]."""
    unit = torch.nn.functional.normalize(answers.double(), dim=-1)
    gram = unit @ unit.transpose(1, 2)
    first, second = torch.triu_indices(answers.shape[1], answers.shape[1], offset=1)
    largest: np.ndarray = gram[:, first, second].amax(1).clamp(0, 1).numpy()
    return largest


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m evaluation.studies.coherence", description="how far members agree")
    parser.add_argument("recipe", help="a recipe's name, or the path of its .toml file; @TIER may follow")
    parser.add_argument("--policies", nargs="+", required=True, help="policies of several members")
    parser.add_argument("--run", type=Path, required=True, help="folder of the report, such as reports/mnist")
    parser.add_argument("--store", type=Path, default=Path("model_store"), help="folder of archives (model_store)")
    parser.add_argument("--data", type=Path, default=None, help="folder of the data sets, searched first")
    return parser.parse_args()


if __name__ == "__main__":
    main()
