"""What papers print, in percent, that pages hold measurements against."""

from __future__ import annotations

from dataclasses import dataclass

from report.headline import UNDEFENDED, Cell

# points below the literature that still count as met
TOLERANCE = 3.0


@dataclass(frozen=True)
class EDM:
    """EDM (Kariyappa et al., ICLR 2021) on one data set: Table 1's accuracies, Table 3's Knockoff clones (soft, hard),
    Table 4's clone of a regular ensemble, Table 5's clone of the averaging attacker (both soft)."""

    undefended: float
    edm: float
    soft: tuple[float, float]
    hard: tuple[float, float]
    regular: float
    averaging: float


EDM_PRINTS = {
    "mnist": EDM(99.49, 99.5, (90.18, 51.34), (61.20, 41.25), 88.04, 72.00),
    "fashionmnist": EDM(91.02, 91.01, (34.76, 15.28), (28.60, 15.64), 30.11, 15.02),
    "cifar10": EDM(94.83, 94.35, (85.39, 68.50), (73.64, 54.98), 84.25, 63.89),
}
# MeCo (Wang et al., NeurIPS 2023), Table 3: accuracy in percent, and l1; P-poison is MAD
MECO = {
    "mnist": {UNDEFENDED: (98.91, 0.0), "randp": (98.52, 1.0), "mad": (98.87, 1.0), "grad": (98.73, 1.0)},
    "cifar10": {UNDEFENDED: (94.91, 0.0), "randp": (93.98, 1.0), "mad": (94.58, 1.0), "grad": (94.65, 1.0)},
}
MECO["mnist"]["meco"], MECO["cifar10"]["meco"] = (98.63, 0.0126), (94.17, 0.099)
# SAME (Xie et al., AAAI 2024), Tables 1 and 2: AUROC of its gate in percent, by data set, queries and attack
SAME: dict[str, dict[int, dict[str, float]]] = {
    "mnist": {
        1000: {"jbda": 93.30, "knockoff": 99.37, "dfme": 100.00},
        4000: {"jbda": 93.10, "knockoff": 99.19, "dfme": 99.91},
    },
    "cifar10": {
        6000: {"jbda": 80.89, "knockoff": 84.03, "dfme": 97.64},
        10_000: {"jbda": 80.66, "knockoff": 83.84, "dfme": 98.21},
    },
}


@dataclass(frozen=True)
class Target:
    """What the literature reports of an attacker on an undefended MNIST classifier, in percent."""

    attack: str
    labels: str
    budget: int
    accuracy: float
    source: str


TARGETS = (
    Target("in-distribution", "soft", 1_000, 94, "Dziedzic et al. 2022, released logs: 94.2 after 1,024"),
    Target("in-distribution", "soft", 10_000, 98, "the same: 98.5 after 10,240"),
    Target("knockoff", "soft", 50_000, 90, "EDM, Table 3: 90.18"),
    Target("knockoff", "hard", 50_000, 61, "EDM, Table 3: 61.20"),
    Target("jbda", "soft", 50_000, 88, "EDM, Table 3: 88.48"),
    Target("dfme", "soft", 300_000, 84, "84 to 87, seen once with pixels in [0, 1]"),
)


@dataclass(frozen=True)
class Verdict:
    """A target, and what was seen at the largest budget up to its own. cell: None where it was not measured."""

    target: Target
    cell: Cell | None

    @property
    def met(self) -> bool | None:
        """None: not measured, or short of it with fewer queries, which settles nothing."""
        if self.cell is None:
            return None
        if round(100 * self.cell.accuracy, 6) >= self.target.accuracy - TOLERANCE:
            return True
        return None if self.cell.budget < self.target.budget else False

    def __str__(self) -> str:
        if self.cell is None:
            return "not measured"
        return {True: "yes", False: "**no**", None: "open: fewer queries than the literature's"}[self.met]
