"""The hash study: which policy's hash keeps an image's copies together, and which uses every member.

    python -m evaluation.studies.hashes RECIPE --policies edm edm-class-confidence --run reports/mnist

For every policy of several members, and for DCT pHash and SHA-1 modulo as many members beside them:
- balance ("routing" rows): how many rows of each kind of traffic go to each member, every image as it is;
- invariance: random affine copies of an image at three strengths; the share that keeps the image's member, and the
  form of EDM's figure 6: each image's copies counted by member, sorted, summed over images (Kariyappa et al., ICLR
  2021, appendix A.2; flat is what a cryptographic hash gives, all in the first place what a perceptual one should);
- cost: of the route stage, hash network and all, and of the router's own Python, a row.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

import recipes
from evaluation.oracles import InProcessOracle, OracleError
from evaluation.studies.public_hashes import PUBLIC_HASHES
from evaluation.traffic import SEED, kinds
from handlers.errors import LoadError
from report.rows.routing import HashCostRow, InvarianceRow, RoutingRow, entropy
from report.schema import Report, ResultError, merge, run_info
from zoo import datasets
from zoo.augment import Affine

STRENGTHS = (Affine(5, 0.02, 0.02), Affine(15, 0.1, 0.1), Affine(25, 0.2, 0.2))
BATCHES = (1, 8, 32)

# images (n,C,S,S) -> (n,) int64 members
Members = Callable[[torch.Tensor], torch.Tensor]


def main() -> None:
    """Run the command line; a mistake of the user's is a message and exit code 1."""
    options = _options()
    started = datetime.now(timezone.utc)
    try:
        recipe = recipes.read(options.recipe)
        test = recipe.section("dataset", datasets.Data).load("test", options.data)
        traffic = dict(kinds(recipe, test, options.data))
        routing, invariance, costs, compared = [], [], [], {}
        for policy in options.policies:
            with InProcessOracle(options.store / f"{recipe.name}-{policy}.mar") as oracle:
                count = len(oracle.pipeline.policy.members)
                if oracle.pipeline.policy.route is None:
                    raise OracleError(f"{policy}: expected a policy that routes rows to its members, got one without")
                compared[count] = [(name, _modulo(public, count)) for name, public in PUBLIC_HASHES.items()]
                routing += balance(oracle.members, traffic, count, recipe=recipe.name, policy=policy)
                invariance += keep(
                    oracle.members, traffic, count, options.images, options.copies, recipe=recipe.name, policy=policy
                )
                costs += [cost(oracle, test.pixels, batch, recipe=recipe.name, policy=policy) for batch in BATCHES]
            print(told(policy, routing, invariance), flush=True)
        for count, others in compared.items():
            for name, members in others:
                routing += balance(members, traffic, count, recipe=recipe.name, policy=name)
                invariance += keep(
                    members, traffic, count, options.images, options.copies, recipe=recipe.name, policy=name
                )
                print(told(name, routing, invariance), flush=True)
        run = run_info(
            seed=SEED, started=started, settings={"hash_images": options.images, "hash_copies": options.copies}
        )
        report = Report(run, routing=tuple(routing), invariance=tuple(invariance), hash_costs=tuple(costs))
        merge(options.run / "report.json", report)
    except (recipes.RecipeError, OracleError, LoadError, ResultError, datasets.DatasetError) as error:
        sys.exit(f"evaluation.studies.hashes: {error}")


def balance(
    members: Members, traffic: Mapping[str, torch.Tensor], count: int, *, recipe: str, policy: str
) -> list[RoutingRow]:
    """How many rows of each traffic go to each of `count` members."""
    return [
        RoutingRow(recipe, policy, name, member, rows)
        for name, images in traffic.items()
        for member, rows in enumerate(members(images).bincount(minlength=count).tolist())
    ]


def keep(
    members: Members,
    traffic: Mapping[str, torch.Tensor],
    count: int,
    images: int,
    copies: int,
    *,
    recipe: str,
    policy: str,
) -> list[InvarianceRow]:
    """Where `copies` random affine copies of the first `images` images of each traffic go, at each strength."""
    found = []
    for name, pixels in traffic.items():
        first = pixels[:images]
        own = members(first)
        for affine in STRENGTHS:
            generator = torch.Generator().manual_seed(SEED)
            drawn = [members(affine(first, generator=generator).clamp(0, 1)) for _ in range(copies)]
            gone = torch.stack(drawn)
            counts = torch.stack([(gone == member).sum(0) for member in range(count)])
            found.append(
                InvarianceRow(
                    recipe=recipe,
                    policy=policy,
                    traffic=name,
                    degrees=affine.degrees,
                    shift=affine.shift,
                    scale=affine.scale,
                    images=len(first),
                    copies=copies,
                    kept=(gone == own).float().mean().item(),
                    sorted_counts=tuple(counts.sort(0, descending=True).values.sum(1).tolist()),
                )
            )
    return found


def cost(oracle: InProcessOracle, images: torch.Tensor, batch: int, *, recipe: str, policy: str) -> HashCostRow:
    """Median times of routing `batch` rows, a row: 200 calls of the pipeline, and as many of the hash alone."""
    pipeline = oracle.pipeline
    assert pipeline.policy.route is not None
    hash_ = pipeline.policy.route.build()
    table = np.zeros(hash_.values, np.int64)
    rng = np.random.default_rng(SEED)
    outputs = {name: rng.random((batch, columns), np.float32) for name, columns in hash_.reads.items()}
    pixels = images[:batch].numpy()
    stage, router = [], []
    for _ in range(200):
        stage.append(pipeline(pixels).seconds["route"])
        before = perf_counter()
        table[hash_(outputs)]
        router.append(perf_counter() - before)
    rows = len(pixels)
    return HashCostRow(
        recipe, policy, rows, 1e6 * statistics.median(stage) / rows, 1e6 * statistics.median(router) / rows
    )


def told(policy: str, routing: Sequence[RoutingRow], invariance: Sequence[InvarianceRow]) -> str:
    """A line a traffic: entropy, and the share kept at each strength."""
    lines = []
    for traffic in dict.fromkeys(row.traffic for row in routing if row.policy == policy):
        used = entropy([row.rows for row in routing if (row.policy, row.traffic) == (policy, traffic)])
        kept = [row.kept for row in invariance if (row.policy, row.traffic) == (policy, traffic)]
        lines.append(f"{policy:<24}{traffic:<26}balance {used:.3f}  kept {' '.join(f'{share:.3f}' for share in kept)}")
    return "\n".join(lines)


def _modulo(public: Callable[[torch.Tensor, int], torch.Tensor], count: int) -> Members:
    return lambda images: public(images, count)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.studies.hashes", description="invariance, balance, cost of hashes"
    )
    parser.add_argument("recipe", help="a recipe's name, or the path of its .toml file; @TIER may follow")
    parser.add_argument("--policies", nargs="+", required=True, help="policies of several members, in the store")
    parser.add_argument("--run", type=Path, required=True, help="folder of the report, such as reports/mnist")
    parser.add_argument("--images", type=int, default=200, help="images of each traffic that are copied (200)")
    parser.add_argument("--copies", type=int, default=50, help="copies of each image at each strength (50)")
    parser.add_argument("--store", type=Path, default=Path("model_store"), help="folder of archives (model_store)")
    parser.add_argument("--data", type=Path, default=None, help="folder of the data sets, searched first")
    return parser.parse_args()


if __name__ == "__main__":
    main()
