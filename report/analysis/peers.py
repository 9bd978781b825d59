"""This server against others around the same file (results/peers.json): how it stands to each, and what it must reach.

    throughput   rows/s from many clients / those of the best other server, the same int8 file      >= 0.95
    one client   rows/s of one client / those of the best other server, the same int8 file          >= 0.90
    memory       PSS of the whole server with two workers / nvidia-pytriton's, either file          <= 1.00

The best is the server whose median over rounds is highest in what is compared. Ratios are taken round by round.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from report.analysis.finding import Finding
from report.bench_targets import Verdict, verdict
from report.format import number, ratios
from report.rows.peers import FLOAT32, INT8, OURS, TRITON, PeerRow

RATE, SINGLE, MEMORY = 0.95, 0.90, 1.00


@dataclass(frozen=True)
class Standing:
    """A server, and ours around the same file over it; a ratio for each round, none where either was not measured."""

    row: PeerRow
    rates: list[float]
    singles: list[float]
    memory: list[float]

    @property
    def lost(self) -> bool:
        """Whether ours is slower or larger in anything."""
        return any(median(each) < 1 for each in (self.rates, self.singles) if each) or bool(
            self.memory and median(self.memory) > 1
        )


def standings(rows: Sequence[PeerRow]) -> list[Standing]:
    """Of every server that was measured: first those that beat ours in something, ours after them."""
    found = [_standing(rows, row) for row in rows if row.why is None]
    return sorted(found, key=lambda each: (not each.lost, each.row.server != OURS))


def own(rows: Sequence[PeerRow]) -> list[Standing]:
    """Our int8 file over our float32 file, a network each."""
    plain = [row for row in rows if (row.server, row.file, row.why) == (OURS, FLOAT32, None)]
    pairs = [(row, _one(rows, row.network, INT8, OURS)) for row in plain]
    return [_over(mine, row) for row, mine in pairs if mine is not None]


def verdicts(rows: Sequence[PeerRow]) -> list[Verdict]:
    """The targets of every network, met or not; one whose rows were not measured is not met."""
    out = []
    for network in dict.fromkeys(row.network for row in rows):
        here = [each for each in standings(rows) if each.row.network == network]
        others = [each for each in here if each.row.server != OURS and each.row.file == INT8]
        fast = max(others, key=lambda each: median(each.row.rate_rounds), default=None)
        quick = max(others, key=lambda each: median(each.row.single_rounds), default=None)
        rates, singles = (fast.rates if fast else ()), (quick.singles if quick else ())
        out += [
            verdict(f"rows/s at saturation against {_name(fast)}, int8", "≥", RATE, rates, network),
            verdict(f"rows/s of one client against {_name(quick)}, int8", "≥", SINGLE, singles, network),
        ]
        for file in (FLOAT32, INT8):
            triton = next((each.memory for each in here if (each.row.server, each.row.file) == (TRITON, file)), ())
            what = f"memory of the whole server against {TRITON}'s, {file}"
            out.append(verdict(what, "≤", MEMORY, triton, network))
    return out


def findings(found: Sequence[Verdict]) -> Iterator[Finding]:
    """One sentence on all targets."""
    known = [each for each in found if each.measured is not None]
    if not known:
        return
    lost = [each for each in known if not each.met]
    missed = "; ".join(f"{each.target} {number(each.measured, 3)} ({each.limit})" for each in lost)
    met = f"against other servers with the same file: {len(known) - len(lost)} of {len(known)} met"
    yield Finding(not lost, f"{met}{f'; missed: {missed}' if missed else ''}.")


def _standing(rows: Sequence[PeerRow], row: PeerRow) -> Standing:
    mine = _one(rows, row.network, row.file, OURS)
    return _over(mine, row) if mine is not None and row.server != OURS else Standing(row, [], [], [])


def _over(mine: PeerRow, row: PeerRow) -> Standing:
    return Standing(
        row,
        ratios(mine.rate_rounds, row.rate_rounds),
        ratios(mine.single_rounds, row.single_rounds),
        ratios(mine.memory_rounds, row.memory_rounds),
    )


def _one(rows: Sequence[PeerRow], network: str, file: str, server: str) -> PeerRow | None:
    """The row, where it was measured."""
    wanted = (network, file, server, None)
    return next((row for row in rows if (row.network, row.file, row.server, row.why) == wanted), None)


def _name(best: Standing | None) -> str:
    return "the best other server" if best is None else f"the best other server, {best.row.server}"
