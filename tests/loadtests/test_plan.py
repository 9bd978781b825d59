"""What a recipe says to the users of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

import recipes
from loadtests.tally import LoadTest
from loadtests.users import plan


def recipe(tmp_path: Path, text: str) -> recipes.Recipe:
    path = tmp_path / "small.toml"
    path.write_text(text)
    return recipes.read(path)


def test_limits_have_defaults_and_a_table(tmp_path: Path) -> None:
    assert plan.limits(recipe(tmp_path, "")) == LoadTest()
    assert plan.limits(recipe(tmp_path, "[loadtest]\np99_ms = 20\n")) == LoadTest(p99_ms=20.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clients": 0}, "clients: expected at least 1, got 0"),
        ({"dilution": 100}, "dilution: expected 0 to 99 percent, got 100"),
        ({"quiet_s": -1.0}, r"quiet: expected >= 0 seconds, got -1.0"),
        ({"budgets": ()}, r"budgets: expected at least 1 image, got \(\)"),
    ],
)
def test_what_attackers_cannot_do(changes: dict[str, object], message: str) -> None:
    fine: dict[str, object] = {"attack": "knockoff", "labels": "both", "seed": 0, "budgets": (5,), "rows": 4}
    fine |= {"clients": 1, "dilution": 0, "quiet_s": 0.0, "outcome": Path("theft")}
    plan.Theft(**fine)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        plan.Theft(**{**fine, **changes})  # type: ignore[arg-type]
