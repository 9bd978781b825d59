from __future__ import annotations

from attest.campaign.division import ROUNDS, Standing, most, purse, survivors


def test_better_is_who_would_be_ahead_after_another_round_like_the_last() -> None:
    standings = {
        "ahead and done": Standing(0.80, 0.80),
        "behind and gaining": Standing(0.70, 0.40),
        "behind": Standing(0.60, 0.55),
        "lost": Standing(0.10, 0.10),
    }
    assert survivors(standings) == ["ahead and done", "behind and gaining"]
    assert survivors({name: standings[name] for name in ("ahead and done", "behind and gaining")}) == [
        "behind and gaining"
    ]


def test_one_goes_on_however_few_there_are_and_the_first_of_equals() -> None:
    assert survivors({"a": Standing(0.1, 0.1)}) == ["a"]
    assert survivors({"a": Standing(0.5, 0.2), "b": Standing(0.5, 0.2)}) == ["a"]


def test_rounds_cost_the_same_and_spend_the_budget() -> None:
    left, thieves, spent = 4000, 6, []
    for number in range(ROUNDS):
        each = purse(left, number, thieves)
        spent.append(each * thieves)
        left, thieves = left - each * thieves, -(-thieves // 2)
    assert spent == [996, 999, 1002, 1003]
    assert left == 0
    assert most(4000, 6) == 166 + 333 + 501 + 1003


def test_what_a_thief_leaves_goes_to_the_rounds_that_follow() -> None:
    assert purse(4000, 0, 4) == 250
    assert purse(3500, 1, 2) == 583  # 500 in place of 1,000 were spent
    assert purse(10, 3, 0) == 10
