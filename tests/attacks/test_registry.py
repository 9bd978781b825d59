"""Every registered attack and adaptive form, held to the same promises."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from attacks import names
from attacks.clone import Cloning
from attacks.label_only import labels_only
from attacks.oracle import Answers, Ledger
from attacks.registry import ATTACKS, FORMS, MOST_COPIES, attack, form, without_copies
from attacks.service import Service
from attacks.thief import Thief, steal

SERVICE = Service(channels=1, size=28, classes=10)
CLONING = Cloning("lenet5", epochs=1)
# an attack's parameters at their smallest; a new attack adds its line
SMALL = {
    "knockoff": {"surrogate": "flower", "budget": 50, "rows": 16},
    "knockoff-adaptive": {"surrogate": "digits", "budget": 50, "rows": 16, "per_action": 8},
    "in-distribution": {"dataset": "digits", "budget": 50, "rows": 16},
    "near": {"corpora": ("digits:test",), "budget": 50, "rows": 16, "boxed": ("digits:test",)},
    "augmented-seeds": {"dataset": "digits", "budget": 50, "rows": 16, "seeds": 12},
    "mixed": {"dataset": "digits", "budget": 50, "rows": 16, "seeds": 12},
    "jbda": {"dataset": "digits", "budget": 50, "rows": 16, "seeds": 12, "rounds": 3, "epochs": 1},
    "jbda-tr": {"dataset": "digits", "budget": 50, "rows": 16, "seeds": 12, "rounds": 3, "epochs": 1},
    "dfme": {"budget": 100, "rows": 16, "batch": 8, "filters": 4},
    "maze": {"budget": 150, "rows": 16, "batch": 8, "filters": 4, "directions": 2, "replay_images": 40},
    "dfms-hl": {
        "proxy": "flower",
        "budget": 200,
        "rows": 16,
        "proxies": 64,
        "filters": 4,
        "gan_epochs": 1,
        "diverse_epochs": 1,
        "clone_epochs": 1,
        "batch": 16,
    },
}


def oracle(images: torch.Tensor) -> Answers:
    transfer = images.flatten(1)[:, :10].softmax(dim=1)
    return Answers(transfer.argmax(dim=1), transfer)


def prepared(name: str) -> Thief:
    return attack(name).prepare(attack(name).parameters(**SMALL[name]), SERVICE, cloning=CLONING, seed=0)


def asked(thief: Thief, name: str, *, rows: int, labels: str) -> torch.Tensor:
    """All images that the thief shows a service."""
    shown = []

    def watched(images: torch.Tensor) -> Answers:
        assert images.dtype == torch.float32
        assert images.shape[1:] == (1, 28, 28)
        assert 0 < len(images) <= rows
        assert 0 <= images.min() <= images.max() <= 1
        shown.append(images.clone())
        return oracle(images)

    ledger = Ledger(labels_only(watched) if labels == "hard" else watched, int(SMALL[name]["budget"]))  # type: ignore[call-overload]
    assert list(steal(thief, ledger, rows=rows))
    assert thief.transfer_set().charged <= ledger.queries <= ledger.budget
    return torch.cat(shown)


def test_every_attack_has_small_parameters_here() -> None:
    assert SMALL.keys() == ATTACKS.keys(), "add the attack's smallest parameters to SMALL in this file"


@pytest.mark.parametrize(("name", "labels"), [(name, labels) for name in ATTACKS for labels in ATTACKS[name].readings])
def test_an_attack_keeps_its_promises(name: str, labels: str) -> None:
    entry = attack(name)
    parameters = entry.parameters(**SMALL[name])
    assert dataclasses.asdict(parameters).items() >= SMALL[name].items()
    thief = prepared(name)
    before = torch.random.get_rng_state()
    whole = asked(thief, name, rows=parameters.rows, labels=labels)
    assert torch.equal(torch.random.get_rng_state(), before), "torch's global generator is not a thief's to use"
    assert (thief.clone() is not None) == entry.ends_with_clone
    transfer = thief.transfer_set()
    assert (transfer.probabilities is None) == (labels == "hard")

    # how many images a request holds is nothing to the attack
    assert torch.equal(asked(prepared(name), name, rows=7, labels=labels), whole)


@pytest.mark.parametrize("name", [name for name in ATTACKS if not ATTACKS[name].learns])
def test_an_attack_that_does_not_learn_asks_the_same_whatever_it_reads(name: str) -> None:
    soft, hard = (asked(prepared(name), name, rows=16, labels=labels) for labels in ("soft", "hard"))
    assert torch.equal(soft, hard)


@pytest.mark.parametrize("name", [name for name in ATTACKS if ATTACKS[name].ends_with_clone])
def test_an_attacks_own_clone_is_a_copy_that_later_steps_leave_alone(name: str) -> None:
    thief = prepared(name)
    # not all of it, so that there are later steps
    steps = steal(thief, Ledger(oracle, int(SMALL[name]["budget"])), rows=16)  # type: ignore[call-overload]
    for queries in steps:
        if queries >= 64:
            break
    first = thief.clone()
    assert first is not None
    assert 0 <= first.held_out <= 1
    assert not first.network.training
    kept = [tensor.clone() for tensor in first.network.state_dict().values()]
    for _ in steps:
        pass
    assert all(map(torch.equal, kept, first.network.state_dict().values()))


@pytest.mark.parametrize("name", ["matched", "filtered", "reconstructed"])
def test_what_a_form_against_gates_asks_does_not_depend_on_what_a_request_holds(name: str) -> None:
    assert name in names.GATE_AWARE
    shown = []
    for rows in (16, 7):
        thief = form(name).wrap(prepared("knockoff"), service=SERVICE, cloning=CLONING, seed=0)
        shown.append(asked(thief, "knockoff", rows=rows, labels="soft"))
    assert torch.equal(*shown)


COPYING = [name for name in FORMS if FORMS[name].copies]


@pytest.mark.parametrize("name", [*FORMS, *(f"{name}-3" for name in COPYING)])
def test_a_form_charges_every_image_and_passes_the_wrapped_thief_through(name: str) -> None:
    inner = prepared("jbda")
    thief = form(name).wrap(inner, service=SERVICE, cloning=CLONING, seed=0)
    shown = asked(thief, "jbda", rows=25, labels="soft")
    assert thief.transfer_set().charged == len(shown)
    own, inner_own = thief.own(), inner.own()
    assert own is not None
    assert inner_own is not None
    assert torch.equal(own.images, inner_own.images)
    assert thief.clone() is None


@pytest.mark.parametrize("name", COPYING)
def test_a_form_may_say_how_often_it_copies_an_image(name: str) -> None:
    def asked_at_once(called: str, rows: int) -> int:
        wrapped = form(called).wrap(prepared("knockoff"), service=SERVICE, cloning=CLONING, seed=0)
        images = wrapped.propose(rows)
        return 0 if images is None else len(images)

    assert asked_at_once(name, 9) == 5
    assert asked_at_once(f"{name}-4", 9) == 8
    assert asked_at_once(f"{name}-{MOST_COPIES}", MOST_COPIES - 1) == 0
    assert asked_at_once(f"{name}-{MOST_COPIES}", MOST_COPIES) == MOST_COPIES
    assert form(f"{name}-4").learns == form(name).learns


def test_the_names_without_torch_are_the_registry() -> None:
    assert {name: entry.readings for name, entry in ATTACKS.items()} == names.ATTACKS
    assert tuple(FORMS) == names.FORMS


def test_a_form_without_its_number_is_the_registered_one() -> None:
    assert COPYING == ["averaging", "repeats", "jittered", "consensus"]
    assert all(form(name) is FORMS[name] for name in FORMS)
    assert [without_copies(name) for name in ("repeats-16", "repeats", "own-noise", "log-p")] == [
        "repeats",
        "repeats",
        "own-noise",
        "log-p",
    ]


@pytest.mark.parametrize(
    "name", ["patience-4", "repeats-0", "repeats-04", "repeats-", "repeats--4", "repeats-4.5", "4"]
)
def test_what_is_no_number_of_copies_is_an_error_that_names_the_syntax(name: str) -> None:
    with pytest.raises(ValueError, match=r"expected one of averaging, .*may follow, 1 to 64, as in repeats-16"):
        form(name)


def test_copies_that_are_too_many_or_make_no_sense_are_an_error() -> None:
    with pytest.raises(ValueError, match="'jittered-65': expected 1 to 64 copies, got 65"):
        form("jittered-65")
    with pytest.raises(ValueError, match="'own-noise-4': own-noise makes no copies"):
        form("own-noise-4")


def test_an_unknown_name_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown attack 'crayon'; expected one of knockoff, "):
        attack("crayon")
    with pytest.raises(ValueError, match="unknown adaptive form 'patience'; expected one of averaging, "):
        form("patience")
