"""What a gate makes of images: RUN/reconstructions.png, benign images and each thief's above their reconstructions.

    python -m evaluation.studies.reconstructions RECIPE --policy same-observe --run reports/RECIPE

A gate's error is the distance between the two; where a thief's image comes back as well as a customer's, the error
cannot tell them apart, and only the auxiliary model is left. The images lie at even distances in what was sent (of
JBDA's, after its seeds), and are of the benchmark's public data sets, not of any client.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import recipes
from bench.gates import graph_of
from evaluation import recordings
from evaluation.matrix import Job
from evaluation.oracles import InProcessOracle, OracleError
from handlers.errors import LoadError
from report.atomic import write_bytes
from report.figures import gates
from report.html import PICTURE
from report.schema import ResultError
from zoo import datasets

SHOWN = 8


def main() -> None:
    """Run the command line; a mistake of the user's is a message and exit code 1."""
    options = _options()
    try:
        recipe = recipes.read(options.recipe)
        test = recipe.section("dataset", datasets.Data).load("test", options.data)
        job = Job(recipe, test, options.run, options.store, options.data)
        shown = {f"benign ({test.name})": some(test.pixels)}
        for stream in recordings.recorded(job):
            part = stream.whole[-1]  # the one without seeds, where there are two
            shown[part.traffic] = some(stream.images[part.rows])
        with InProcessOracle(job.archive(options.policy)) as oracle:
            picture = gates.pictures({name: (rows, made(oracle, rows)) for name, rows in shown.items()})
    except (recipes.RecipeError, OracleError, LoadError, ResultError, datasets.DatasetError) as error:
        sys.exit(f"evaluation.studies.reconstructions: {error}")
    path = options.run / PICTURE
    write_bytes(path, picture)
    print(path)


def some(images: torch.Tensor) -> NDArray[np.float32]:
    """SHOWN of images (N,C,S,S), at even distances."""
    chosen = torch.linspace(0, len(images) - 1, SHOWN).round().long()
    return np.ascontiguousarray(images[chosen].numpy())


def made(oracle: InProcessOracle, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """x^ of images (n,C,S,S), the same shape. Raises OracleError where the gate's graph does not tell it."""
    name = graph_of(oracle)
    outputs = oracle.pipeline.graphs[name](images)
    if "reconstruction" not in outputs:
        raise OracleError(f"graph {name!r}: expected an output `reconstruction`, got {', '.join(outputs)}")
    return outputs["reconstruction"].reshape(images.shape)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.studies.reconstructions", description="what a gate reconstructs"
    )
    parser.add_argument("recipe", help="a recipe's name, or the path of its .toml file; @TIER may follow")
    parser.add_argument("--policy", required=True, help="a policy with a gate")
    parser.add_argument("--run", type=Path, required=True, help="folder of the report, such as reports/mnist")
    parser.add_argument("--store", type=Path, default=Path("model_store"), help="folder of archives (model_store)")
    parser.add_argument("--data", type=Path, default=None, help="folder of the data sets, searched first")
    return parser.parse_args()


if __name__ == "__main__":
    torch.set_num_threads(1)  # as evaluation.studies.detection does, which made or makes the same recordings
    main()
