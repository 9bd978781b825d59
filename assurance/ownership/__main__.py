"""Whether a suspect model learnt from the answers of one of our accounts, and of which.

    python -m assurance.ownership clone.onnx mnist-marked --keys secrets/torchwarden.key --accounts alice bob carol
    python -m assurance.ownership http://127.0.0.1:8080/predictions/suspect mnist-marked --keys ... --accounts FILE

The suspect is asked about the recipe's test split, and so is the archive, in this process. Each account is tried under
the key of each period; p is that of evaluation/marks/evidence.py, multiplied by the number of tries. The bound is
stated before anything is tried: at most that share of models that learnt nothing of any account is accused. Where no p
is at most the bound, the answer is "not enough evidence", which is no acquittal. The exit code is 0 either way.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import recipes
from assurance.ownership.commitment import names, read_keys
from assurance.ownership.suspects import ROWS, Suspect, SuspectError, opened
from defenses.mark import Marker, commitment, secret
from evaluation.marks.evidence import Evidence, table
from evaluation.oracles import InProcessOracle, OracleError
from evaluation.truth import test_images
from handlers.errors import LoadError
from report.atomic import write_json
from zoo.datasets import DatasetError

BOUND = 0.01
# lines that are printed
SHOWN = 5


@dataclass(frozen=True)
class Try:
    """One account under one key. key: its commitment. committed: whether the archive states it. claimed: p times the
    tries, at most 1."""

    account: str
    key: str
    committed: bool
    evidence: Evidence
    claimed: float


def tries(
    oracle: InProcessOracle,
    suspect: Suspect,
    images: NDArray[np.float32],
    keys: Sequence[bytes],
    accounts: Sequence[str],
) -> list[Try]:
    """Every account under every key, the strongest evidence first. images: (N,C,H,W) float32 in [0, 1].

    Raises SuspectError, and OracleError where the archive has no mark.
    """
    policy = oracle.pipeline.policy
    if policy.mark is None:
        raise OracleError(
            f"{policy.recipe}-{policy.policy}: expected an archive whose policy has a mark, got one without"
        )
    served = np.concatenate([_owner(oracle, images[start : start + 500]) for start in range(0, len(images), 500)])
    said = suspect(images)
    found = []
    # the keys of other periods too, which this archive may not know
    mark = replace(policy.mark, commitments=())
    for key in keys:
        marker = Marker(mark, key=key, channels=policy.input.channels, classes=len(policy.class_names))
        cells = marker.cell(images, served.argmax(axis=1))
        read = table(said, served, cells, parts=policy.mark.parts)
        name = commitment(secret(key))
        for account in accounts:
            evidence = read.against(marker.keyed(account))
            found.append(
                Try(
                    account,
                    name,
                    name in policy.mark.commitments,
                    evidence,
                    min(1.0, evidence.p * len(keys) * len(accounts)),
                )
            )
    return sorted(found, key=lambda each: each.evidence.p)


def _owner(oracle: InProcessOracle, images: NDArray[np.float32]) -> NDArray[np.float64]:
    """(N,K): the mean of the archive's members, before any rule."""
    graphs, members = oracle.pipeline.graphs, oracle.pipeline.policy.members
    mean: NDArray[np.float64] = np.mean(
        [graphs[member](images)["probabilities"] for member in members], axis=0, dtype=np.float64
    )
    return mean


def verdict(found: Sequence[Try], bound: float) -> str:
    """In a sentence."""
    count = len(found)
    accused = [each for each in found if each.claimed <= bound]
    if not accused:
        return f"not enough evidence: {count} tries, least p times tries {found[0].claimed:.2g}, stated bound {bound:g}"
    whose = ", ".join(f"{each.account} (p times {count} tries {each.claimed:.2g})" for each in accused)
    return f"learnt from answers to {whose}; at most {bound:g} of models that did not are accused"


def main() -> None:
    """Run the command line; a mistake of the user's is a message and exit code 1."""
    parser = argparse.ArgumentParser(prog="python -m assurance.ownership", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("suspect", help="an ONNX file, or the URL of a server with our wire format")
    parser.add_argument("archive", help="RECIPE-POLICY, as in model_store/")
    parser.add_argument("--recipe", required=True, help="whose test split both are asked about")
    parser.add_argument("--keys", type=Path, nargs="+", required=True, metavar="FILE", help="of all periods")
    parser.add_argument("--accounts", nargs="+", required=True, metavar="NAME", help="principals, or a file of them")
    parser.add_argument("--bound", type=float, default=BOUND, help=f"stated chance of a false accusation ({BOUND})")
    parser.add_argument("--token", type=Path, default=None, metavar="FILE", help="with the suspect server's token")
    parser.add_argument("--rows", type=int, default=ROWS, help=f"in one request to a server ({ROWS})")
    parser.add_argument("--store", type=Path, default=Path("model_store"), help="folder of archives (model_store)")
    parser.add_argument("--data", type=Path, default=None, help="folder of the data sets, searched first")
    parser.add_argument("--output", type=Path, default=None, metavar="FILE", help="every try, as JSON")
    options = parser.parse_args()
    if not 0 < options.bound <= 0.5:
        parser.error(f"--bound: expected a number above 0, at most 0.5, got {options.bound}")
    try:
        keys, accounts = read_keys(options.keys), names(options.accounts)
        images = test_images(recipes.read(options.recipe), options.data, options.store).pixels.numpy()
        environ = {"TORCHWARDEN_KEY_FILE": str(options.keys[0])}
        with InProcessOracle(options.store / f"{options.archive}.mar", environ=environ) as oracle:
            classes = len(oracle.pipeline.policy.class_names)
            token = None if options.token is None else options.token.read_text("utf-8").strip()
            found = tries(
                oracle, opened(options.suspect, classes=classes, token=token, rows=options.rows), images, keys, accounts
            )
    except (recipes.RecipeError, DatasetError, OracleError, LoadError, SuspectError, ValueError, OSError) as error:
        sys.exit(f"assurance.ownership: {error}")
    for each in found[:SHOWN]:
        seen = each.evidence
        print(
            f"{each.account}, key {each.key[:12]}{' (in the archive)' if each.committed else ''}: z {seen.z:.1f}, "
            f"p {seen.p:.2g}, e {seen.e:.2g}, {seen.images} images"
        )
    print(verdict(found, options.bound))
    if options.output is not None:
        write_json(options.output, {"bound": options.bound, "tries": [asdict(each) for each in found]})


if __name__ == "__main__":
    main()
