"""What a recipe says of its evaluation: [attacks.NAME], [clone] and [evaluate.NAME].

Attacks in process and over HTTP read the same tables here. Every function raises RecipeError, which names the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import recipes
from attacks import registry
from attacks.clone import LABELS, Cloning
from zoo.augment import Variation
from zoo.writing import Writing


@dataclass(frozen=True)
class Evaluation:
    """[evaluate.NAME]: which policies, under which attacks, how much of it.

    budgets: charged images at which clones are judged; the largest is stolen. attacks: tables [attacks.NAME].
    adaptive: forms of attacks.registry; none: the attacks as they are. labels: what the attacker reads. seeds: of the
    clones; an attack that trains its own clone is carried out once a seed, any other once with the run's seed.
    clone: keys of [clone] that are different here; overrides: of [attacks.NAME]. called: the name of this form in
    reports, which distinguishes it from the plain attack where either is different. own_strength: at which the baseline
    without a query varies the attacker's seed set (zoo.writing.Writing), besides what the attack itself does with it;
    0: nothing else.
    """

    policies: tuple[str, ...]
    budgets: tuple[int, ...]
    attacks: tuple[str, ...] = ("knockoff",)
    adaptive: tuple[str, ...] = ()
    labels: tuple[str, ...] = LABELS
    seeds: tuple[int, ...] = (0,)
    clone: dict[str, Any] = field(default_factory=dict)
    overrides: dict[str, Any] = field(default_factory=dict)
    called: str | None = None
    own_strength: float = 0.0

    def __post_init__(self) -> None:
        for name in ("policies", "budgets", "attacks", "labels", "seeds"):
            if not getattr(self, name):
                raise ValueError(f"{name}: expected at least one, got none")
        if min(self.budgets) < 1:
            raise ValueError(f"budgets: expected at least 1 image, got {self.budgets}")
        for label in self.labels:
            if label not in LABELS:
                raise ValueError(f"labels: expected some of {', '.join(LABELS)}, got {label!r}")
        for name in self.attacks:
            registry.attack(name)
        if not 0 <= self.own_strength <= 1:
            raise ValueError(f"own_strength: expected 0 to 1, got {self.own_strength}")
        for name in self.adaptive:
            registry.form(name)
        if "budget" in self.overrides:
            raise ValueError("overrides: expected no budget, that is what `budgets` is for")
        if self.overrides and self.called is None:
            raise ValueError(f"called: expected a name for the attack with {self.overrides}, got none")
        if self.called is not None and self.adaptive:
            raise ValueError(f"called: expected no other name of the form, got adaptive {self.adaptive} too")

    def variations(self, config: Any) -> tuple[Variation | None, ...]:
        """What makes copies of the seed set of an attacker with the parameters `config`, each way once: as the attack
        does, as `own_strength` says, and None, the images as they are."""
        ways: list[Variation | None] = [getattr(config, "variation", None)]
        if self.own_strength:
            ways.append(Writing(self.own_strength))
        return tuple(dict.fromkeys([*(way for way in ways if way is not None), None]))

    def parameters(self, recipe: recipes.Recipe, attack: str) -> Any:
        """[attacks.NAME] with the largest budget, and whatever else is different here."""
        plain = parameters(recipe, attack)  # what is wrong with the table itself is said there
        changed = {**recipe.tables["attacks"][attack], **self.overrides, "budget": max(self.budgets)}
        return recipes.build(type(plain), changed, where=f"{recipe.path}: [evaluate]: overrides of {attack}")


def evaluations(recipe: recipes.Recipe, only: Sequence[str] | None = None) -> dict[str, Evaluation]:
    """The recipe's [evaluate.NAME] tables, or those that `only` names; at least one."""
    tables = recipe.family("evaluate", Evaluation)
    for name in only or ():
        if name not in tables:
            raise recipes.RecipeError(f"{recipe.path}: no [evaluate.{name}]; it has {', '.join(tables) or 'none'}")
    if not tables:
        raise recipes.RecipeError(f"{recipe.path}: no [evaluate.NAME] table; an evaluation needs one")
    return {name: tables[name] for name in only or tables}


def parameters(recipe: recipes.Recipe, name: str) -> Any:
    """The hyper-parameters [attacks.NAME] of a recipe, as the attack's own dataclass."""
    where = f"{recipe.path}: [attacks.{name}]"
    try:
        return recipes.build(registry.attack(name).parameters, recipe.tables.get("attacks", {}).get(name), where=where)
    except ValueError as error:
        raise error if isinstance(error, recipes.RecipeError) else recipes.RecipeError(f"{where}: {error}") from None


def first_attack(recipe: recipes.Recipe) -> str:
    """The recipe's first table [attacks.NAME]."""
    return str(next(iter(recipe.tables["attacks"])))


def cloning(recipe: recipes.Recipe, changes: Mapping[str, Any] | None = None) -> Cloning:
    """[clone], with some of its keys changed."""
    if not changes:
        return recipe.section("clone", Cloning)
    return recipes.build(Cloning, {**recipe.tables.get("clone", {}), **changes}, where=f"{recipe.path}: [clone]")
