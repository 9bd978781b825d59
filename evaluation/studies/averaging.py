"""How much of a policy's noise goes when a thief averages: the "denoising" rows of a report.

    python -m evaluation.studies.averaging RECIPE --policies meco meco-keyed --run reports/RECIPE

A thief asks about an image x in K copies, identical or jittered by a grey level or two (attacks/jittered.py), and
believes the mean answer. Here that mean is held against T(x), which no client sees: what the draws do not have in
common goes with 1 / sqrt(K), what they have in common, E[T(x + h)] - T(x), stays. Of keyed noise identical copies have
all in common. The first K of one set of copies are averaged, so a line over K is one thief who goes on asking.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import torch

import recipes
from attacks.averaging import Variation
from attacks.jittered import STRENGTH
from evaluation.oracles import InProcessOracle, OracleError
from evaluation.traffic import SEED, kinds
from handlers.errors import LoadError
from report.rows.noise import DenoisingRow
from report.schema import Report, ResultError, merge, run_info
from zoo import datasets

COPIES = (1, 2, 4, 8, 16)
IMAGES = 500
COPYING: dict[str, Variation | None] = {"identical": None, "jittered": STRENGTH}
# traffic of evaluation.traffic, by how its names begin
TRAFFIC = ("benign (", "thief (", "untrained generators")


def main() -> None:
    """Run the command line; a mistake of the user's is a message and exit code 1."""
    options = _options()
    started = datetime.now(timezone.utc)
    try:
        recipe = recipes.read(options.recipe)
        test = recipe.section("dataset", datasets.Data).load("test", options.data)
        met = {name: images[:IMAGES] for name, images in kinds(recipe, test, options.data) if name.startswith(TRAFFIC)}
        rows = [row for policy in options.policies for row in measure(recipe.name, policy, options.store, met)]
        facts = run_info(seed=SEED, started=started, settings={})
        merge(options.run / "report.json", Report(facts, denoising=tuple(rows)))
    except (recipes.RecipeError, OracleError, LoadError, ResultError, datasets.DatasetError) as error:
        sys.exit(f"evaluation.studies.averaging: {error}")
    for row in rows:
        print(f"{recipe.name}-{row.policy}, {row.traffic}, {row.copies} {row.copying} copies: l1 {row.l1:.4f}")


def measure(recipe: str, policy: str, store: Path, met: dict[str, torch.Tensor]) -> Iterator[DenoisingRow]:
    """A row for each kind of traffic, of copies, and their number. Raises OracleError where the policy has several
    members or tells no probabilities."""
    with InProcessOracle(store / f"{recipe}-{policy}.mar", seed=SEED) as oracle:
        if len(oracle.pipeline.policy.members) != 1:
            raise OracleError(f"{recipe}-{policy}: expected a policy of one member")
        for name, images in met.items():
            clean = oracle.everyone(images)[:, 0]
            for copying, strength in COPYING.items():
                answers = asked(oracle, images, strength)
                for copies in COPIES:
                    mean = answers[:, :copies].mean(1)
                    yield DenoisingRow(
                        recipe,
                        policy,
                        name,
                        copying,
                        copies,
                        images=len(images),
                        l1=(mean - clean).abs().sum(1).mean().item(),
                        kept=(mean.argmax(1) == clean.argmax(1)).float().mean().item(),
                    )


def asked(oracle: InProcessOracle, images: torch.Tensor, strength: Variation | None) -> torch.Tensor:
    """The answers (N, copies, K) float32 to the most copies of each of N images. Raises OracleError."""
    most = max(COPIES)
    copies = images.repeat_interleave(most, dim=0)
    if strength is not None:
        copies = strength(copies, generator=torch.Generator().manual_seed(SEED)).clamp(0, 1)
    told = oracle(copies).probabilities
    if told is None:
        raise OracleError("expected probabilities to average, the policy tells labels only")
    return told.view(len(images), most, -1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.studies.averaging", description="how much averaging brings"
    )
    parser.add_argument("recipe", help="a recipe's name, or the path of its .toml file; @TIER may follow")
    parser.add_argument("--policies", nargs="+", required=True, help="policies of one member that tell probabilities")
    parser.add_argument("--run", type=Path, required=True, help="folder of the report, such as reports/mnist")
    parser.add_argument("--store", type=Path, default=Path("model_store"), help="folder of archives (model_store)")
    parser.add_argument("--data", type=Path, default=None, help="folder of the data sets, searched first")
    return parser.parse_args()


if __name__ == "__main__":
    main()
