"""What got better or worse between two attests, for the CI of a model.

    python -m attest.diff reports/attest-OLD reports/attest-NEW [--max-bought POINTS] [--max-accuracy-loss POINTS]
        [--max-p99 TIMES] [--max-clone POINTS] [--word] [--although target budget seeds images settings]

Exit code 0: within the thresholds that were given; 1: one of them is passed, or NEW has no verdict; 2: the two cannot
be compared. Attests of different targets, budgets, seeds, images or settings are not compared unless --although names
what differs, and then the first lines say so. Without a threshold the changes are printed, and only a missing verdict
fails. Differences within the exam's 95 % intervals are called noise, and count all the same: a threshold is a margin.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from attest import measured, verdict
from attest.measured import WORDS, Measured
from report.format import number, percent, points

BREACH, INCOMPARABLE = 1, 2

# what two attests must have in common, and what of each says so
COMMON: Mapping[str, Callable[[Measured], object]] = {
    "target": lambda it: (it.target.name, it.target.url, it.target.sha256),
    "budget": lambda it: it.target.budget,
    "seeds": lambda it: it.run.seeds,
    "images": lambda it: (it.run.images_sha256, it.run.exam_images),
    "settings": lambda it: it.run.settings,
}


@dataclass(frozen=True)
class Change:
    """One figure of both. worse: by how much it got worse, in its own unit; None where that cannot be said. noise:
    whether their intervals overlap, None where there are none."""

    what: str
    old: str
    new: str
    worse: float | None
    noise: bool | None = None

    @property
    def word(self) -> str:
        if self.worse is None or self.worse == 0:
            return "same" if self.old == self.new else "changed"
        return ("worse" if self.worse > 0 else "better") + (" (within noise)" if self.noise else "")


@dataclass(frozen=True)
class Thresholds:
    """How much worse NEW may be; None: not asked. bought, accuracy_loss, clone: fractions; p99: times as long; word:
    whether the verdict's word may not get worse."""

    bought: float | None = None
    accuracy_loss: float | None = None
    clone: float | None = None
    p99: float | None = None
    word: bool = False


def main() -> None:
    """Run the command line; see the exit codes above."""
    parser = argparse.ArgumentParser(prog="python -m attest.diff", description="what changed between two attests")
    parser.add_argument("old", type=Path, help="folder of a measured.json, or the file")
    parser.add_argument("new", type=Path, help="the same, of the later one")
    parser.add_argument("--max-bought", type=float, metavar="POINTS", help="more bought of what there is to buy")
    parser.add_argument("--max-accuracy-loss", type=float, metavar="POINTS", help="less accuracy of the service")
    parser.add_argument("--max-clone", type=float, metavar="POINTS", help="more accuracy of any thief's clone")
    parser.add_argument("--max-p99", type=float, metavar="TIMES", help="users' p99 beside the campaign, times the old")
    parser.add_argument("--word", action="store_true", help="the verdict's word may not get worse")
    parser.add_argument(
        "--although", nargs="+", choices=tuple(COMMON), default=[], help="compare although these differ"
    )
    options = parser.parse_args()
    try:
        old, new = measured.read(options.old), measured.read(options.new)
    except measured.MeasuredError as error:
        print(f"attest.diff: {error}", file=sys.stderr)
        sys.exit(INCOMPARABLE)
    differing = differences(old, new)
    for line in differing.values():
        print(line)
    if refused := set(differing) - set(options.although):
        print(
            f"attest.diff: not compared; name what may differ: --although {' '.join(sorted(refused))}", file=sys.stderr
        )
        sys.exit(INCOMPARABLE)
    print(table(list(changes(old, new))))
    asked = Thresholds(
        bought=_share(options.max_bought),
        accuracy_loss=_share(options.max_accuracy_loss),
        clone=_share(options.max_clone),
        p99=options.max_p99,
        word=options.word,
    )
    passed = list(breaches(old, new, asked))
    for line in passed:
        print(f"FAILED: {line}")
    sys.exit(BREACH if passed else 0)


def differences(old: Measured, new: Measured) -> dict[str, str]:
    """What the two do not have in common, a line each."""
    pairs = {name: (of(old), of(new)) for name, of in COMMON.items()}
    return {
        name: f"different {name}: {before} and {after}" for name, (before, after) in pairs.items() if before != after
    }


def changes(old: Measured, new: Measured) -> Iterator[Change]:
    """Every figure that both have, the verdict first."""
    was, now = old.verdict, new.verdict
    rank = _rank(new) - _rank(old) if "no verdict" not in (was.word, now.word) else None
    yield Change("verdict", was.word, now.word, rank)
    yield Change("confidence", verdict.confidence(was), verdict.confidence(now), None)
    if was.bought is not None and now.bought is not None and was.low is not None and now.low is not None:
        noise = was.low <= (now.high or now.bought) and now.low <= (was.high or was.bought)
        yield Change(
            "bought by the best thief", percent(was.bought), percent(now.bought), now.bought - was.bought, noise
        )
    before, after = old.utility, new.utility
    noise = before.low <= after.high and after.low <= before.high
    loss = before.accuracy - after.accuracy
    yield Change("accuracy of the service", percent(before.accuracy), percent(after.accuracy), loss, noise)
    for thief, (first, then) in _clones(old, new).items():
        noise = first.low <= then.high and then.low <= first.high
        yield Change(
            f"clone of {thief}", percent(first.accuracy), percent(then.accuracy), then.accuracy - first.accuracy, noise
        )
    for what, of in _EVENTS.items():
        a, b = of(old), of(new)
        if a is not None or b is not None:
            # never is later than any query
            later = (math.inf if b is None else b) - (math.inf if a is None else a)
            yield Change(f"first {what} after queries", number(a, 0), number(b, 0), later)
    users, later_users = _users(old), _users(new)
    if users and later_users:
        yield Change(
            "users' p50 beside the campaign, ms",
            number(users.p50_ms),
            number(later_users.p50_ms),
            later_users.p50_ms - users.p50_ms,
        )
        yield Change(
            "users' p99 beside the campaign, ms",
            number(users.p99_ms),
            number(later_users.p99_ms),
            later_users.p99_ms - users.p99_ms,
        )


def breaches(old: Measured, new: Measured, asked: Thresholds) -> Iterator[str]:
    """The thresholds that NEW passes, a line each. What cannot be measured passes its threshold."""
    if new.verdict.word == "no verdict":
        yield new.verdict.sentence
        return
    if asked.word and _rank(new) > _rank(old):
        yield f"verdict: {old.verdict.word!r} became {new.verdict.word!r}"
    if asked.bought is not None:
        yield from _over("bought", old.verdict.bought, new.verdict.bought, asked.bought)
    if asked.accuracy_loss is not None:
        yield from _over("loss of accuracy", -old.utility.accuracy, -new.utility.accuracy, asked.accuracy_loss)
    if asked.clone is not None:
        for thief, (first, then) in _clones(old, new).items():
            yield from _over(f"clone of {thief}", first.accuracy, then.accuracy, asked.clone)
        for thief in sorted(_last(old).keys() - _last(new).keys()):
            yield f"clone of {thief}: OLD has one, NEW has none, so it cannot be compared"
    if asked.p99 is not None:
        users, later_users = _users(old), _users(new)
        if users is None or later_users is None:
            yield "p99: users were not measured in both"
        elif later_users.p99_ms > asked.p99 * users.p99_ms:
            times = later_users.p99_ms / users.p99_ms
            yield f"p99: {number(later_users.p99_ms)} ms, {times:.2f} times as long, expected at most {asked.p99:g}"


def table(rows: list[Change]) -> str:
    """The changes as plain text, a line each."""
    cells = [("", "old", "new", ""), *((each.what, each.old, each.new, each.word) for each in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(4)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in cells
    )


def _over(what: str, old: float | None, new: float | None, most: float) -> Iterator[str]:
    if old is None or new is None:
        yield f"{what}: was not measured in both"
    # a threshold is in tenths of points at the finest; a float's own error is not a breach
    elif new - old > most + 1e-9:
        yield f"{what}: {points(new - old)} points, expected at most {points(most)}"


def _rank(it: Measured) -> int:
    """The lower the better."""
    order = {word: place for place, word in enumerate(("not copied", "partly copied", "copied", "no verdict"))}
    assert set(order) == set(WORDS)
    return order[it.verdict.word]


def _last(it: Measured) -> dict[str, measured.Point]:
    return {curve.thief: curve.last for curve in it.curves if curve.last}


def _clones(old: Measured, new: Measured) -> dict[str, tuple[measured.Point, measured.Point]]:
    """The last clones of the thieves that both have."""
    first, then = _last(old), _last(new)
    return {thief: (first[thief], then[thief]) for thief in first if thief in then}


_EVENTS: Mapping[str, Callable[[Measured], int | None]] = {
    "throttled": lambda it: it.resistance.throttled_after,
    "refused": lambda it: it.resistance.refused_after,
    "flagged": lambda it: it.resistance.flagged_after,
    "asked for work": lambda it: it.resistance.challenged_after,
}


def _users(it: Measured) -> measured.Felt | None:
    return next((each for each in it.felt if each.stretch == "campaign"), None)


def _share(percentage: float | None) -> float | None:
    return None if percentage is None else percentage / 100


if __name__ == "__main__":
    main()
