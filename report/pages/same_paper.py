"""What SAME's paper prints (Xie et al., AAAI 2024): its Tables 1, 2 and 4, in percent.

Its thieves ask images of EMNIST's digits (MNIST) and CIFAR-100 (CIFAR-10); outlier exposure and EDM were trained with
KMNIST and Tiny ImageNet; as many benign rows as attack rows were judged. Its text says 92.53 where Table 2 prints 84.03
(Knockoff, CIFAR-10, 6,000 queries), and 100.00 where it prints 97.64 (DFME); the tables stand here.
"""

from __future__ import annotations

from typing import NamedTuple


class Paper(NamedTuple):
    """A cell of the paper's Tables 1 and 2, in percent."""

    auroc: float
    aupr: float
    fpr95: float


class Ratio(NamedTuple):
    """A line of its Table 4, in percent."""

    auroc: float
    aupr: float
    fpr95: float
    fpr90: float


ATTACKS = ("jbda", "knockoff", "dfme")


def _line(*values: float) -> dict[str, Paper]:
    """Nine numbers as they stand in a line of the paper, three for each of ATTACKS."""
    return {attack: Paper(*values[3 * n : 3 * n + 3]) for n, attack in enumerate(ATTACKS)}


# by data set, queries and what is scored by: outlier exposure (OE), disagreement (EDM), the gate (SAME)
PAPER: dict[str, dict[int, dict[str, dict[str, Paper]]]] = {
    "mnist": {
        1000: {
            "outlier-exposure": _line(58.70, 56.28, 84.60, 91.78, 92.59, 43.60, 100.00, 100.00, 0.00),
            "disagreement": _line(66.06, 59.73, 79.60, 86.01, 86.70, 64.20, 100.00, 100.00, 0.00),
            "gate": _line(93.30, 92.95, 27.40, 99.37, 99.47, 1.30, 100.00, 100.00, 0.00),
        },
        4000: {
            "outlier-exposure": _line(60.05, 56.79, 83.50, 91.70, 92.24, 42.90, 100.00, 100.00, 0.03),
            "disagreement": _line(71.37, 65.42, 74.65, 85.04, 85.63, 67.11, 99.99, 99.99, 0.00),
            "gate": _line(93.10, 92.84, 28.52, 99.19, 99.38, 1.25, 99.91, 99.75, 0.15),
        },
    },
    "cifar10": {
        6000: {
            "outlier-exposure": _line(74.53, 70.41, 64.37, 77.38, 72.74, 60.77, 74.02, 60.64, 44.30),
            "disagreement": _line(73.59, 69.50, 71.35, 71.72, 67.63, 72.52, 80.35, 73.55, 49.72),
            "gate": _line(80.89, 79.07, 56.68, 84.03, 79.97, 43.98, 97.64, 97.43, 12.52),
        },
        10_000: {
            "outlier-exposure": _line(73.68, 69.53, 63.14, 77.82, 72.96, 59.96, 76.17, 62.99, 43.28),
            "disagreement": _line(74.17, 69.89, 69.98, 71.27, 67.02, 73.03, 81.41, 75.31, 48.52),
            "gate": _line(80.66, 78.77, 58.18, 83.84, 79.71, 44.13, 98.21, 97.96, 8.02),
        },
    },
}
PAPER_RATIOS = {
    "mnist": {
        0.01: Ratio(98.93, 82.78, 3.90, 3.05),
        0.05: Ratio(99.07, 95.42, 3.82, 3.12),
        0.1: Ratio(99.15, 97.79, 3.70, 2.95),
        0.3: Ratio(99.23, 99.30, 3.65, 2.80),
        0.5: Ratio(99.21, 99.56, 3.70, 2.80),
        0.9: Ratio(99.21, 99.71, 3.70, 2.80),
    },
    "cifar10": {
        0.01: Ratio(86.91, 50.91, 61.20, 46.62),
        0.05: Ratio(87.22, 70.90, 61.20, 42.05),
        0.1: Ratio(87.64, 79.53, 60.45, 40.58),
        0.3: Ratio(88.84, 90.94, 51.40, 33.90),
        0.5: Ratio(89.39, 94.23, 47.20, 31.45),
        0.9: Ratio(89.39, 95.98, 47.88, 31.47),
    },
}
