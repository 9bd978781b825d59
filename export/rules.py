"""What make must know of a recipe: which networks its policies run, so that no other is trained.

    python -m export.rules RECIPE > build/rules/RECIPE.mk

Variables for the Makefile, which includes the file and reads no TOML itself:

    policies     every [policies.NAME], in the recipe's order
    gates        those with a gate
    tables       every table of the recipe
    evaluations  every [evaluate.NAME]
    nets.NAME    the files that policy NAME runs: checkpoints under $(runs), or the owner's own ONNX file
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable

import recipes
from export.archive import HASH_GRAPH, PolicyTable, response
from training.black_box import ONNX

# what make takes for more than one word, or for its own syntax
HOSTILE = re.compile(r"[\s$#:%=\\]")


def checkpoints(table: PolicyTable) -> list[str]:
    """The tables of the recipe whose checkpoints the policy's graphs come from, the predictor's first."""
    found = [] if table.predictor.endswith(ONNX) else [table.predictor]
    if table.route is not None:
        found.append(str(table.route.get("graph", HASH_GRAPH)))
    if table.perturb is not None:
        found.append(str(table.perturb.get("graph", table.predictor)).removesuffix("-perturbation"))
    if table.gate is not None:
        found.append(table.gate.graph)
    found += [str(graph) for graph in (response(table).get("graph"),) if graph is not None]
    return list(dict.fromkeys(found))


def rules(recipe: recipes.Recipe) -> str:
    """The text that make includes. Raises RecipeError where a policy runs a network that has no table."""
    policies = recipe.family("policies", PolicyTable)
    lines = [
        _line("policies", policies),
        _line("gates", (name for name, table in policies.items() if table.gate is not None)),
        _line("tables", recipe.tables),
        _line("evaluations", recipe.tables.get("evaluate", {})),
    ]
    for name, table in policies.items():
        needed = checkpoints(table)
        for network in needed:
            if network not in recipe.tables:
                raise recipes.RecipeError(
                    f"{recipe.path}: [policies.{name}] runs {network!r}, but there is no table [{network}] to train it"
                )
        own = [table.predictor] if table.predictor.endswith(ONNX) else []
        lines.append(_line(f"nets.{name}", own, [f"$(runs)/{network}.safetensors" for network in needed]))
    return "\n".join([f"# of {recipe.name}, by `python -m export.rules`", *lines, ""])


def _line(variable: str, words: Iterable[str], files: Iterable[str] = ()) -> str:
    """An assignment; `words` come from the recipe, `files` from here. Raises RecipeError."""
    words = list(words)
    for word in (variable, *words):
        if HOSTILE.search(word):
            raise recipes.RecipeError(f"{word!r}: expected a name or path without spaces and $ # : % = \\, for make")
    return " ".join([variable, "=", *words, *files])


def main() -> None:
    """Run the command line; a mistake of the user's is a message and exit code 1."""
    parser = argparse.ArgumentParser(prog="python -m export.rules", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("recipe", help="a recipe's name, or the path of its .toml file; @TIER may follow")
    try:
        sys.stdout.write(rules(recipes.read(parser.parse_args().recipe)))
    except recipes.RecipeError as error:
        sys.exit(f"export.rules: {error}")


if __name__ == "__main__":
    main()
