"""The battery: which thieves are set on a service, and what each of them is laid out for.

A thief that only reads the answers of another in its own way sends nothing (`shares`): labels alone, or the logarithms
of the probabilities. The thief that learns a gate comes in once something was refused; before that it has nothing to
learn.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from attacks import registry
from attacks.clone import Cloning
from attacks.service import Service
from attacks.thief import Thief

# labelled images that JBDA starts from
SEEDS = 50
# images that DFMS-HL's generator learns to draw like: as many as it has queries, within
FEWEST_PROXIES, MOST_PROXIES = 500, 5000


@dataclass(frozen=True)
class Plan:
    """One thief. labels: what it reads. recipes: the trainings of its clone, (): those of the campaign. gate_aware:
    only where something was refused."""

    name: str
    attack: str
    form: str | None = None
    labels: str = "soft"
    recipes: tuple[str, ...] = ()
    shares: str | None = None
    gate_aware: bool = False

    @property
    def asks(self) -> bool:
        """Whether it sends queries of its own."""
        return self.shares is None


BATTERY = (
    Plan("knockoff", "knockoff"),
    Plan("label-only", "knockoff", labels="hard", shares="knockoff"),
    Plan("log-p", "knockoff", recipes=("adamw-log-p",), shares="knockoff"),
    Plan("in-distribution", "in-distribution"),
    Plan("jbda", "jbda"),
    Plan("dfme", "dfme"),
    Plan("dfms-hl", "dfms-hl", labels="hard"),
    Plan("gate-aware", "knockoff", form="filtered", gate_aware=True),
)
NAMES = tuple(plan.name for plan in BATTERY)


def chosen(names: tuple[str, ...]) -> tuple[Plan, ...]:
    """The plans called so, and those that share their queries. Raises ValueError that names the known ones."""
    asking = {plan.name for plan in BATTERY if plan.asks}
    unknown = [name for name in names if name not in asking]
    if unknown:
        raise ValueError(f"thieves: expected some of {', '.join(sorted(asking))}, got {', '.join(unknown)}")
    return tuple(plan for plan in BATTERY if (plan.shares or plan.name) in names)


@dataclass(frozen=True)
class Means:
    """What thieves have: `surrogate`, images of another task, and `owned`, the owner's training images, which stand for
    images of the task that a thief has gathered; as zoo.datasets.load spells them. owned_images: how many those are."""

    surrogate: str
    owned: str
    owned_images: int
    cloning: Cloning
    seed: int


def parameters(plan: Plan, means: Means, budget: int) -> Any:
    """The attack's own, for so many queries."""
    own: dict[str, dict[str, Any]] = {
        "knockoff": {"surrogate": means.surrogate},
        "in-distribution": {"dataset": means.owned},
        "jbda": {"dataset": means.owned, "seeds": max(2, min(SEEDS, means.owned_images, budget // 4)), "rounds": 0},
        "dfme": {},
        "dfms-hl": {"proxy": means.surrogate, "proxies": max(FEWEST_PROXIES, min(MOST_PROXIES, budget))},
    }
    return registry.attack(plan.attack).parameters(budget=budget, **own[plan.attack])


def prepare(plan: Plan, means: Means, service: Service, budget: int) -> Thief:
    """The thief before its first query. Raises ValueError where it cannot be set on such a service."""
    config = parameters(plan, means, budget)
    thief = registry.attack(plan.attack).prepare(config, service, cloning=means.cloning, seed=means.seed)
    if plan.form is None:
        return thief
    return registry.form(plan.form).wrap(thief, service=service, cloning=means.cloning, seed=means.seed)


def sharing(plans: tuple[Plan, ...], name: str) -> Iterator[Plan]:
    """Those who learn from the queries of the thief called `name`, itself first."""
    yield from sorted((plan for plan in plans if name in (plan.name, plan.shares)), key=lambda plan: not plan.asks)
