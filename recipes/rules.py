"""What make must know of a recipe: the rules that make its checkpoints, its archives and its results.

    python -m recipes rules RECIPE > build/rules/RECIPE.mk

The Makefile includes the file and reads no TOML itself. Of every recipe:

    policies     every [policies.NAME], in the recipe's order
    gates        those with a gate
    studies      every [studies.NAME]
    nets.NAME    the files that policy NAME runs: checkpoints under $(runs), or the graph of an adopted model
    studied.NAME the policies that study NAME looks at

and a rule for every checkpoint, calibration and archive, for `reproduce-STUDY`, and for `over-http-STUDY` where a study
says which of its evaluations a running server must repeat.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from recipes import Recipe, policies, tables
from recipes.fields import RecipeError
from recipes.variants import OF_EVALUATIONS

# what neither make nor the shell takes for more than one word, or for syntax of their own
WORD = re.compile(r"[\w./@+,~-]+")
KEY = "$(TORCHWARDEN_KEY_FILE)"
# a study of bench.costs; any other is one of evaluation.studies
COSTS = ("defenses", "gates", "ensembles", "precision")
# an ensemble's search for its strength starts from the network of this name, where a recipe has it
REGULAR = {"edm": "ensemble", "misleader": "distilled"}


def rules(recipe: Recipe) -> str:
    """The text that make includes. Raises RecipeError where a name cannot stand in it."""
    for word in _words(recipe):
        if not WORD.fullmatch(word):
            raise RecipeError(
                f"{word!r}: expected a name or path without spaces or signs, of letters, digits and . / @ + , ~ - _: "
                "make and the shell read it"
            )
    found = recipe.tables.get("policies", {})
    gates = [name for name, policy in found.items() if "gate" in policy]
    studies = recipe.tables.get("studies", {})
    measured = [name for name, study in studies.items() if _measured(study) or evaluations(name, study, recipe)]
    lines = [
        _line("policies", found),
        _line("gates", gates),
        _line("studies", measured),
        *(_line(f"nets.{name}", _files(policy, recipe)) for name, policy in found.items()),
        *(_line(f"studied.{name}", _studied(study)) for name, study in studies.items()),
    ]
    if "model" in recipe.tables:
        needs = [str(recipe.path), recipe.tables["model"]["file"], "$(adopting)"]
        lines += _rule(_victim(recipe), needs, "export.adopt --recipe $(spec)", touch=True)
    elif "victim" in recipe.tables:
        lines += _rule(_victim(recipe), [str(recipe.path)], "training.victim $(spec)", touch=True)
    for name, fields in recipe.tables.get("networks", {}).items():
        program = tables.module(fields["program"])
        needs = [str(recipe.path), *_needs(name, fields, recipe)]
        lines += _rule(f"$(runs)/{name}.safetensors", needs, f"{program} $(spec) --network {name}", touch=True)
    narrow = {name: _narrow(name) for name, policy in found.items() if policies.narrowed(policy)}
    for name, target in narrow.items():
        lines += _rule(target, ["$(graphs)"], f"export.quantise $(spec) --policies {name}", touch=True)
    for name in gates:
        needs = [f"$(nets.{name})", *([narrow[name]] if name in narrow else [])]
        lines += _rule(f"$(runs)/{name}.calibration.json", needs, f"training.calibration $(spec) --policies {name}")
    for name in found:
        scores = [f"$(runs)/{name}.calibration.json"] if name in gates else []
        needs = ["$(graphs)", *([narrow[name]] if name in narrow else []), *scores, "$(packed)"]
        lines += _rule(f"model_store/{recipe.name}-{name}.mar", needs, f"export.archive $(spec) --policies {name}")
    for name in measured:
        lines += _reproduced(name, studies[name], recipe)
    return "\n".join([f"# of {recipe.name}, by `python -m recipes rules`", *lines, ""])


def evaluations(name: str, study: Mapping[str, Any], recipe: Recipe) -> list[str]:
    """The [evaluate.NAME] tables of a study: those it lists, or those called as it is; but for those over HTTP."""
    known = recipe.tables.get("evaluate", {})
    stated = study.get("evaluate", [each for each in known if each == name or each.startswith(f"{name}-")])
    return [each for each in stated if each not in study.get("over-http", ())]


def _words(recipe: Recipe) -> Iterator[str]:
    """All that a recipe puts into the text: names, paths, and what studies are asked."""
    yield from (recipe.name, str(recipe.path))
    if "model" in recipe.tables:
        yield recipe.tables["model"]["file"]
    for name, policy in recipe.tables.get("policies", {}).items():
        yield from (name, policy["predictor"])
    for name, fields in recipe.tables.get("networks", {}).items():
        yield from (name, str(fields.get("victim", policies.VICTIM)))
    for name, study in recipe.tables.get("studies", {}).items():
        yield name
        for key, asked in study.items():
            yield key
            for option, given in asked.items() if isinstance(asked, Mapping) else [(key, asked)]:
                yield from (option, *map(str, given if isinstance(given, list) else [given]))
    yield from recipe.tables.get("evaluate", {})


def _narrow(name: str) -> str:
    """What says that a policy's graphs are there in its precision."""
    return f"build/$(name)/.{name}.quantised"


def _victim(recipe: Recipe) -> str:
    """The victim's file."""
    return f"$(runs)/{policies.victim_file(recipe.tables)}"


def _file(network: str, recipe: Recipe) -> str:
    return _victim(recipe) if network == policies.VICTIM else f"$(runs)/{network}.safetensors"


def _files(policy: Mapping[str, Any], recipe: Recipe) -> list[str]:
    """What a policy runs."""
    return [_file(network, recipe) for network in policies.networks(policy)]


def _needs(name: str, fields: Mapping[str, Any], recipe: Recipe) -> list[str]:
    """What must be there before a network is trained; what is only looked at stands behind a bar."""
    victim = _victim(recipe)
    program, networks = fields["program"], recipe.tables["networks"]
    regular = REGULAR.get(program)
    first = [f"$(runs)/{regular}.safetensors"] if regular in networks and regular != name else []
    if program == "edm":
        searched = isinstance(fields.get("lambda_diversity"), list) or fields.get("from_ensemble")
        if fields.get("from_victim"):
            return [victim]
        # what an adopted model says of images without labels is their label
        return [*first, "|", victim] if searched or "model" in recipe.tables else []
    if program == "same":
        answers = str(fields.get("victim", policies.VICTIM))
        return [_file(answers, recipe), *([KEY] if fields.get("groups") else [])]
    if program == "decoys":
        return [KEY, *([victim] if fields.get("from_victim", True) or "model" in recipe.tables else [])]
    return {
        "hash": [KEY],
        "misinformation": ["$(runs)/outlier_exposure.safetensors"],
        "surrogate": [victim, KEY],
        "meco": [victim],
        "misleader": [*first, victim],
    }.get(program, [])


def _measured(study: Mapping[str, Any]) -> list[str]:
    """The studies and costs among the keys of [studies.NAME]."""
    return [key for key in study if key not in (*OF_EVALUATIONS, "policies")]


def _studied(study: Mapping[str, Any]) -> list[str]:
    """The policies of a study, each once."""
    found: list[str] = []
    for key, asked in study.items():
        if key not in OF_EVALUATIONS:
            found += asked if isinstance(asked, list) else [*asked.get("policies", ()), *_named(asked)]
    return list(dict.fromkeys(found))


def _named(asked: Mapping[str, Any]) -> list[str]:
    """Policies that an option of a study names."""
    return [str(asked["ensemble"])] if "ensemble" in asked else []


def _reproduced(name: str, study: Mapping[str, Any], recipe: Recipe) -> Iterator[str]:
    """`reproduce-NAME`: every study in the order of the table, the evaluations, the report, the pages."""
    asked = {key: value if isinstance(value, dict) else {"policies": value} for key, value in study.items()}
    run = f"reports/$(name)-{name}"
    yield f".PHONY: reproduce-{name}"
    yield f"reproduce-{name}: key"
    yield f'\t$(MAKE) archive POLICIES="$(studied.{name})"'
    for key in _measured(study):
        value = asked[key]
        program = "bench.costs" if key in COSTS else "evaluation.studies"
        options = [f"--{option.replace('_', '-')} {given}" for option, given in value.items() if option != "policies"]
        names = value.get("policies", ())
        words = [key, "$(spec)", *(["--policies", *names] if names else []), *options, "--run", run]
        yield f"\t$(py) -m {program} {' '.join(words)}"
    tables_ = evaluations(name, study, recipe)
    if tables_:
        yield f"\t$(py) -m evaluation.matrix $(spec) --only {' '.join(tables_)} --run {run}"
    yield f"\t$(call published,{run},{name})"
    if "over-http" in study:
        yield f".PHONY: over-http-{name}"
        yield f"over-http-{name}:"
        served = dict.fromkeys(
            each for table in study["over-http"] for each in recipe.tables["evaluate"][table]["policies"]
        )
        yield f'\t$(MAKE) serve POLICIES="{" ".join(served)}"'
        asked_again = f"--clients 10 --only {' '.join(study['over-http'])} --run {run}"
        command = f"$(py) -m loadtests.agreement $(spec) --instance $(INSTANCE) {asked_again}"
        yield f"\t{command} || {{ $(MAKE) stop; exit 1; }}"
        yield "\t$(MAKE) stop"
        yield f"\t$(call published,{run},{name})"


def _rule(target: str, needs: list[str], command: str, *, touch: bool = False) -> list[str]:
    return [f"{target}: {' '.join(needs)}", f"\t$(py) -m {command}{' && touch $@' if touch else ''}"]


def _line(variable: str, words: Iterable[str]) -> str:
    return " ".join([variable, "=", *words])
