"""The options that every study of costs shares: how much is timed (bench/rounds.py)."""

from __future__ import annotations

from evaluation.studies.study import Option

ROUNDS = 7
# different batches that are answered in turn
PARTS = 4


def timing(*, batches: tuple[int, ...], seconds: float) -> tuple[Option, ...]:
    """Options of a study that times `batches`, rows a call, each for `seconds` a round."""
    return (
        Option("batches", batches, "rows a call", least=1),
        Option("rounds", ROUNDS, "rounds of measurements", least=1),
        Option("seconds", seconds, "of one measurement"),
    )
