"""What an owner can publish of its marks before there is a suspect: nobody can say that the key was chosen for one.

    python -m assurance.ownership.commitment RECIPE POLICY --keys secrets/torchwarden.key --accounts alice bob

The commitment of a key is SHA-256 of what it gives for marks, that of an account SHA-256 of what it gives for the
account (defenses/mark.py): neither tells anything of a cell or a class, and both bind the owner. The file also states
the mark's table, how everything is drawn, and by what a suspect is judged. A policy whose mark has these `commitments`
carries them into its archive, and is served with no other key. Have the file time-stamped where that matters (RFC
3161):

    openssl ts -query -data commitment.json -sha256 -cert -out commitment.tsq
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import recipes
from defenses.mark import Mark, commitment, derived, secret
from evaluation.marks.evidence import CAP, EPSILON
from handlers.errors import LoadError
from handlers.key import read_key
from report.atomic import write_json

DERIVATION = (
    "secret = HMAC-SHA256(key, 'torchwarden/mark/1'); account = HMAC-SHA256(secret, 'account/' + name); keyed classes "
    "are little-endian 64-bit numbers of SHAKE-256(account) modulo K - 1, those from the cell's own label on plus 1; "
    "commitments are SHA-256 of secret and account"
)
STATISTIC = (
    "of a suspect's q and the archive's unmarked v: the sums over a cell's images of l(q) - l(v), less their mean over "
    f"the K - 1 classes that are not the cell's label, where l(y) = log(min(y, {CAP}) + {EPSILON}); p is the share of "
    "redraws of all keyed classes whose total is as large"
)


def stated(mark: Mark, keys: Sequence[bytes], accounts: Sequence[str]) -> dict[str, object]:
    """What is published."""
    periods = []
    for key in keys:
        own = secret(key)
        named = {account: commitment(derived(own, account)) for account in accounts}
        periods.append({"commitment": commitment(own), "accounts": named})
    table = {name: value for name, value in asdict(mark).items() if name != "commitments"}
    return {"mark": table, "derivation": DERIVATION, "statistic": STATISTIC, "keys": periods}


def read_keys(paths: Sequence[Path]) -> list[bytes]:
    """The deployment's keys in files of mode 0600. Raises LoadError."""
    return [read_key("KEY", {"KEY_FILE": str(path)}) for path in paths]


def names(words: Sequence[str]) -> list[str]:
    """Accounts as they are named, or one a line in a file that is. Raises ValueError where there is none."""
    if len(words) == 1 and Path(words[0]).is_file():
        words = Path(words[0]).read_text("utf-8").split()
    found = list(dict.fromkeys(words))
    if not found:
        raise ValueError("accounts: expected one or more, got none")
    return found


def main() -> None:
    """Run the command line; a mistake of the user's is a message and exit code 1."""
    parser = argparse.ArgumentParser(
        prog="python -m assurance.ownership.commitment", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("recipe")
    parser.add_argument("policy", help="one with a mark")
    parser.add_argument("--keys", type=Path, nargs="+", required=True, metavar="FILE", help="of all periods")
    parser.add_argument("--accounts", nargs="*", default=[], metavar="NAME", help="principals, or a file of them")
    parser.add_argument("--output", type=Path, default=Path("commitment.json"), metavar="FILE")
    options = parser.parse_args()
    try:
        recipe = recipes.read(options.recipe)
        policy = recipe.tables.get("policies", {}).get(options.policy, {})
        if not policy.get("mark"):
            raise ValueError(f"{recipe.path}: expected [policies.{options.policy}] with a mark, found none")
        accounts, keys = names(options.accounts) if options.accounts else [], read_keys(options.keys)
        write_json(options.output, stated(Mark(**{**policy["mark"], "commitments": ()}), keys, accounts))
    except (recipes.RecipeError, LoadError, ValueError) as error:
        sys.exit(f"assurance.ownership.commitment: {error}")
    print(f"{options.output}; for the policy's mark:")
    print("commitments =", json.dumps([commitment(secret(key)) for key in keys]))


if __name__ == "__main__":
    main()
