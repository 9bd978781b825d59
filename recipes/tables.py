"""Which dataclass describes each table of a recipe: "module:Class", imported when it is asked for.

A room's table stands next to the code that it configures; a recipe may not import that code, which loads torch, only to
be read. To add a table: its dataclass, its line here, then `python -m recipes schema`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from recipes import variants

# [NAME]
SINGLE = {
    "dataset": "zoo.datasets:Data",
    "model": "export.adopt.model:Model",
    "victim": "training.victim:Victim",
    "serving": "export.archive:Serving",
    "clone": "attacks.clone:Cloning",
    "loadtest": "loadtests.tally:LoadTest",
}
# [FAMILY.NAME]
MANY = {
    "policies": "export.archive:PolicyTable",
    "evaluate": "evaluation.tables:Evaluation",
    "detection": "evaluation.recordings:Asked",
    "benign": "evaluation.studies.false_positives:Benign",
}
# [networks.NAME], by program: the module that trains it holds the dataclass
PROGRAMS = {
    "hash": "training.perceptual_hash:Hash",
    "edm": "training.edm:EDM",
    "decoys": "training.decoys:Decoys",
    "outlier_exposure": "training.outlier_exposure:OutlierExposure",
    "misinformation": "training.misinformation:Misinformation",
    "surrogate": "training.surrogate:Surrogate",
    "meco": "training.meco:MeCo",
    "same": "training.same:Same",
    "misleader": "training.misleader:Misleader",
}
# [attacks.NAME], by name
ATTACKS = {
    "knockoff": "attacks.knockoff:Knockoff",
    "knockoff-adaptive": "attacks.knockoff_adaptive:KnockoffAdaptive",
    "in-distribution": "attacks.in_distribution:InDistribution",
    "near": "attacks.near:Near",
    "augmented-seeds": "attacks.augmented_seeds:AugmentedSeeds",
    "mixed": "attacks.mixed:Mixed",
    "jbda": "attacks.jbda:JBDA",
    "jbda-tr": "attacks.jbda_tr:JBDATR",
    "dfme": "attacks.dfme:DFME",
    "maze": "attacks.maze:MAZE",
    "dfms-hl": "attacks.dfms_hl:DfmsHl",
}


# and those that say nothing to a program of their own
OTHERS = ("networks", "attacks", "studies", "defaults")
NAMES = (*SINGLE, *MANY, *OTHERS)


def every() -> dict[str, str]:
    """All dataclasses, by the key of their schema."""
    found = {**SINGLE, **MANY}
    found |= {f"networks.{program}": spec for program, spec in PROGRAMS.items()}
    found |= {f"attacks.{name}": spec for name, spec in ATTACKS.items()}
    return found


def entries(tables: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Every table of an expanded recipe that a dataclass describes: where it stands, its key in `every`, its fields.

    An unknown program or attack has no dataclass and is left out; recipes/check.py reports those.
    """
    for name in SINGLE:
        if name in tables:
            yield f"[{name}]", name, tables[name]
    for family in MANY:
        for name, fields in tables.get(family, {}).items():
            yield f"[{family}.{name}]", family, fields
    for name, fields in tables.get("networks", {}).items():
        if fields["program"] in PROGRAMS:
            own = {key: value for key, value in fields.items() if key not in variants.OWN}
            yield f"[networks.{name}]", f"networks.{fields['program']}", own
    for name, fields in tables.get("attacks", {}).items():
        if name in ATTACKS:
            yield f"[attacks.{name}]", f"attacks.{name}", fields


def module(program: str) -> str:
    """What `python -m` runs to train a network of this program."""
    return PROGRAMS[program].partition(":")[0]


def resolve(spec: str) -> type[Any]:
    """The dataclass that "module:Class" names."""
    name, _, attribute = spec.partition(":")
    found: type[Any] = getattr(import_module(name), attribute)
    return found
