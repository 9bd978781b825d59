"""What a response reveals, and to whom: the gate, proof of work, response rules, noise, and members that take turns."""

from __future__ import annotations

import base64
import json
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from assurance.selftest.checks import Subject, absent, judged, shown, untried, warned
from evaluation import payment
from handlers import wire
from handlers.backends import BACKENDS
from handlers.errors import ExpiredSolution, InvalidSolution, Rejected, SpentSolution, TooMuchWork, WorkWanted
from report.rows.selftest import Finding
from training.leak import leak, signatures

# of the images that an attacker would send, the share that a gate must act upon
SHARE = 0.5
# of benign images, the share that it may act upon at most: many times what it was calibrated for, on few images
BENIGN_SHARE = 0.2
# what a challenge may cost that the self-test solves
MOST_HASHES = 5e6
# share of which member answered that a label may reveal before the operator is warned
MOST_LEAK = 0.5
CODES = {"reject": Rejected.code, "proof-of-work": WorkWanted.code}


def serves(subject: Subject) -> Iterator[Finding]:
    """Benign images: a service that stops everything would pass every other check."""
    acted, rows = _acted(subject, subject.benign, set(CODES.values()))
    answered = rows - acted
    yield judged(
        "gate",
        subject.name,
        f"{rows} benign images",
        f"at least {1 - BENIGN_SHARE:.0%} answered",
        f"{answered} answered",
        ok=answered >= (1 - BENIGN_SHARE) * rows,
    )


def gate(subject: Subject) -> Iterator[Finding]:
    """Images of the recipe's surrogate sets, which its attackers would send."""
    action = subject.stage("gate").get("action")
    if action is None:
        yield absent("gate", subject.name, "the policy has no gate")
        return
    if not len(subject.thieving):
        yield untried("gate", subject.name, "the recipe's attacks name no surrogate set")
        return
    before = subject.service.counted("torchwarden_rows_total", ModelName=subject.name, decision=action)
    if action == "observe":
        _, rows = _acted(subject, subject.thieving, set())
        least = before + SHARE * rows
        acted = (
            subject.service.reached("torchwarden_rows_total", least, ModelName=subject.name, decision=action) - before
        )
    else:
        acted, rows = _acted(subject, subject.thieving, {CODES[action]})
    yield judged(
        "gate",
        subject.name,
        f"{rows} images of an attacker's",
        f"{action} on at least {SHARE:.0%}",
        f"{action} on {acted:.0f} ({acted / rows:.0%})",
        ok=acted >= SHARE * rows,
    )


def proof_of_work(subject: Subject) -> Iterator[Finding]:
    """A solution that is used again, for another request, altered, or of a challenge that has expired."""
    if subject.stage("gate").get("action") != "proof-of-work":
        yield absent("proof-of-work", subject.name, "the policy asks for no work")
        return
    charged = _cheapest(subject)
    if charged is None:
        yield untried("proof-of-work", subject.name, f"no image is charged at {MOST_HASHES:.0f} hashes or less")
        return
    row, challenge = charged
    paid = payment.solve(challenge)
    if paid is None:
        yield untried("proof-of-work", subject.name, "the challenge expired before it was solved")
        return

    def ask(rows: Any, solution: str) -> Any:
        return subject.service.rows(
            subject.name, rows, principal=subject.service.principal("work"), Torchwarden_Solution=solution
        )

    other = np.concatenate([row, row])
    tries: list[tuple[str, Any, str, tuple[str, ...]]] = [
        ("a solution for another request", other, paid.solution, (InvalidSolution.code,)),
        ("a solution with another price", row, _altered(paid.solution, _cheaper), (InvalidSolution.code,)),
        (
            "a solution with another expiry",
            row,
            _altered(paid.solution, _later),
            (InvalidSolution.code, ExpiredSolution.code),
        ),
        (
            "a solution that has expired by its own words",
            row,
            _altered(paid.solution, _earlier),
            (InvalidSolution.code, ExpiredSolution.code),
        ),
        ("a text that is no solution", row, "AAAA", (InvalidSolution.code,)),
    ]
    for sent, rows, solution, codes in tries:
        reply = ask(rows, solution)
        yield judged(
            "proof-of-work", subject.name, sent, f"403 {' or '.join(codes)}", shown(reply), ok=reply.code in codes
        )
    first = ask(row, paid.solution)
    yield judged(
        "proof-of-work",
        subject.name,
        "its own solution",
        "200",
        shown(first),
        ok=first.status == 200 and not first.faults,
    )
    again = ask(row, paid.solution)
    yield judged(
        "proof-of-work",
        subject.name,
        "the same solution again",
        f"403 {SpentSolution.code}",
        shown(again),
        ok=again.code == SpentSolution.code,
    )


def coarse_prices(subject: Subject) -> Iterator[Finding]:
    """The words and numbers of a challenge: no score, no threshold, and prices of few levels."""
    if subject.stage("gate").get("action") != "proof-of-work":
        yield absent("coarse-prices", subject.name, "the policy asks for no work")
        return
    prices = set()
    words: set[str] = set()
    for image in subject.thieving:
        reply = _alone(subject, image[np.newaxis], "prices")
        challenge = wire.decode_challenge(reply.body)
        if challenge is not None:
            prices.add(payment.price(challenge))
        words |= {word for word in ("score", "threshold", "tail", "calibration") if word in reply.text}
    levels = subject.stage("gate")["work"].get("most", 12) // subject.stage("gate")["work"].get("step", 2) + 1
    yield judged(
        "coarse-prices",
        subject.name,
        f"{len(subject.thieving)} images of an attacker's, one by one",
        f"at most {levels} prices, no score",
        f"{len(prices)} prices{', ' + ', '.join(sorted(words)) if words else ''}",
        ok=0 < len(prices) <= levels and not words,
    )


def full_price(subject: Subject) -> Iterator[Finding]:
    """The most expensive of an attacker's images, and as many copies of it as a request may hold: no discount."""
    if subject.stage("gate").get("action") != "proof-of-work":
        yield absent("full-price", subject.name, "the policy asks for no work")
        return
    asked = [(image[np.newaxis], _alone(subject, image[np.newaxis], "price").body) for image in subject.thieving]
    charged_rows = [(row, challenge) for row, body in asked if (challenge := wire.decode_challenge(body)) is not None]
    if not charged_rows:
        yield untried("full-price", subject.name, "no image of an attacker's is charged")
        return
    row, challenge = max(charged_rows, key=lambda pair: payment.price(pair[1]))
    one, many = payment.price(challenge), subject.max_rows
    reply = _alone(subject, np.repeat(row, many, axis=0), "price")
    together = wire.decode_challenge(reply.body)
    least = many * (one - 0.5)  # the price of one row is rounded
    yield judged(
        "full-price",
        subject.name,
        f"{many} copies of an image that costs {one:.0f} hashes",
        f"{least:.0f} hashes or more, or {TooMuchWork.status} {TooMuchWork.code}",
        shown(reply) if together is None else f"{payment.price(together):.0f} hashes",
        ok=reply.code == TooMuchWork.code or (together is not None and payment.price(together) >= least),
    )


def fewer_answers(subject: Subject) -> Iterator[Finding]:
    """What an answer shows of its probabilities, under rules that return less of them."""
    response = subject.stage("response")
    rule = response.get("rule", "soft")
    if rule not in ("label", "top_k", "rounded"):
        yield absent("fewer-answers", subject.name, f"the response rule is `{rule}`")
        return
    reply = subject.service.rows(subject.name, subject.good, principal=subject.service.principal("rule"))
    probabilities = reply.answers[0].get("probabilities")
    expected, ok = {
        "label": ("no probabilities", probabilities is None),
        "top_k": (
            f"at most {response.get('k')} above 0",
            probabilities is not None and sum(value > 0 for value in probabilities) <= response.get("k", 0),
        ),
        "rounded": (
            f"{response.get('digits')} digits",
            probabilities is not None
            and all(abs(value - round(value, response.get("digits", 0))) < 1e-7 for value in probabilities),
        ),
    }[rule]
    got = "no probabilities" if probabilities is None else ", ".join(f"{value:g}" for value in probabilities)
    yield judged("fewer-answers", subject.name, "a benign image", expected, got, ok=ok)


def noise(subject: Subject) -> Iterator[Finding]:
    """The same image twice in one request: fresh noise gives two answers, keyed noise one."""
    mode = subject.stage("perturb").get("noise")
    for control, own in (("input-noise", "fresh"), ("keyed-noise", "keyed")):
        if mode != own:
            yield absent(control, subject.name, f"the policy has no {own} noise")
            continue
        twice = np.concatenate([subject.good, subject.good])
        reply = subject.service.rows(subject.name, twice, principal=subject.service.principal("noise"))
        pair = [each.get("probabilities") for each in reply.answers]
        if len(pair) != 2 or pair[0] is None:
            yield untried(control, subject.name, "answers without probabilities show no noise")
            continue
        same = pair[0] == pair[1]
        yield judged(
            control,
            subject.name,
            "a benign image, twice",
            "one answer" if mode == "keyed" else "two answers",
            "one answer" if same else "two answers",
            ok=same is (mode == "keyed"),
        )


def marks(subject: Subject) -> Iterator[Finding]:
    """Benign images for two principals: the same labels, other probabilities, and for one of them twice the same."""
    if not subject.stage("mark"):
        yield absent("marks", subject.name, "the policy has no mark")
        return
    rows = subject.benign[: subject.max_rows]
    first, second, again = (_shown(subject, rows, purpose) for purpose in ("mark-a", "mark-b", "mark-a"))
    labels = first[0] == second[0]
    yield judged(
        "marks",
        subject.name,
        f"{len(first[0])} benign images, for two principals",
        "the same labels, other probabilities",
        f"{'the same' if labels else 'other'} labels, {'the same' if first[1] == second[1] else 'other'} probabilities",
        ok=labels and first[1] != second[1] and first == again,
    )


def _shown(subject: Subject, rows: Any, purpose: str) -> tuple[list[int], list[list[float]]]:
    """The labels and the probabilities that a principal is shown, of the rows that are answered."""
    reply = subject.service.rows(subject.name, rows, principal=subject.service.principal(purpose))
    return [each["label"] for each in reply.answers], [each["probabilities"] for each in reply.answers]


def members(subject: Subject) -> Iterator[Finding]:
    """Who answers: several members where a hash picks one, all of them where their mean is returned."""
    names = subject.served.get("members", [])
    routed = bool(subject.stage("route"))
    averaged = bool(subject.promised.get("average") or subject.served.get("average"))
    if not routed:
        yield absent("diverse-members", subject.name, "no hash picks who answers")
    if not averaged:
        yield absent("misled-thieves", subject.name, "no mean of several networks is returned")
    if not routed and not averaged:
        return
    images = np.concatenate([subject.benign, subject.thieving])

    def counts() -> list[float]:
        counted = subject.service.counted
        return [counted("torchwarden_member_rows_total", ModelName=subject.name, member=name) for name in names]

    before = counts()
    _acted(subject, images, set())
    time.sleep(0.5)  # until TorchServe has read the last batch's counts
    asked = [after - earlier for after, earlier in zip(counts(), before, strict=True)]
    busy = sum(rows > 0 for rows in asked)
    yield judged(
        "misled-thieves" if averaged else "diverse-members",
        subject.name,
        f"{len(images)} images",
        "all members asked" if averaged else "two members or more asked, one for each row",
        f"{busy} of {len(names)} asked",
        ok=busy == len(names) if averaged else busy > 1 and sum(asked) <= len(images) * 1.01,
    )


def unnamed_members(subject: Subject) -> Iterator[Finding]:
    """What every member says of an attacker's images, by the archive's own graphs: whether labels name their member."""
    names = subject.served.get("members", [])
    if not subject.stage("route") or len(names) < 2:
        yield absent("diverse-members", subject.name, "no label names a member where no hash picks one")
        return
    if not len(subject.thieving):
        yield untried("diverse-members", subject.name, "the recipe's attacks name no surrogate set")
        return
    outputs = _everyone(subject, names)
    found = leak(outputs)
    sent = f"{len(outputs)} images of an attacker's, to each member"
    expected = f"labels reveal at most {MOST_LEAK:.0%} of who gave them"
    if found <= MOST_LEAK:
        yield judged("diverse-members", subject.name, sent, expected, f"{found:.0%}", ok=True)
        return
    own = ", ".join(f"{each['class']} ({each['share']:.0%})" for each in signatures(outputs))
    hides = subject.stage("response").get("rule") == "label"
    advice = "it answers labels alone, which gives least away" if hides else "serve labels alone"
    got = (
        f"{found:.0%}, members' own classes {own}: attackers can unmix its answers (docs/results/unmixing.md); {advice}"
    )
    yield warned("diverse-members", subject.name, sent, expected, got)


def _everyone(subject: Subject, members: list[str]) -> torch.Tensor:
    """(B,N,K) probabilities of every member for the attacker's images."""
    backend = BACKENDS[subject.served["backend"]]
    outputs = []
    with zipfile.ZipFile(subject.archive) as packed, tempfile.TemporaryDirectory(prefix="torchwarden-") as folder:
        for member in members:
            path = Path(packed.extract(f"graphs/{member}{backend.suffix}", folder))
            outputs.append(backend(path, threads=1, gpu=None)(subject.thieving)["probabilities"])
    return torch.from_numpy(np.stack(outputs, axis=1))


def _acted(subject: Subject, images: Any, codes: set[str]) -> tuple[int, int]:
    """How many of the images got one of these codes in place of an answer, and how many there are."""
    acted = 0
    rows = min(subject.max_rows, 32)
    for start in range(0, len(images), rows):
        part = images[start : start + rows]
        reply = subject.service.rows(subject.name, part, principal=subject.service.principal("gate"))
        if reply.status == 200:
            acted += sum(code in codes for code in reply.faults.values())
        elif reply.code in codes:  # every row of the request
            acted += len(part)
        elif reply.code not in CODES.values():
            raise ValueError(f"expected answers to {len(part)} good rows, got {shown(reply)}")
    return acted, len(images)


def _alone(subject: Subject, row: Any, purpose: str) -> Any:
    return subject.service.rows(subject.name, row, principal=subject.service.principal(purpose))


def _cheapest(subject: Subject) -> tuple[Any, dict[str, Any]] | None:
    """The image whose challenge asks for the fewest hashes, and that challenge."""
    found: tuple[Any, dict[str, Any]] | None = None
    for image in subject.thieving:
        challenge = wire.decode_challenge(_alone(subject, image[np.newaxis], "work").body)
        if payment.affordable(challenge, MOST_HASHES):
            assert challenge is not None
            if found is None or payment.price(challenge) < payment.price(found[1]):
                found = image[np.newaxis], challenge
    return found


def _altered(solution: str, change: Callable[[dict[str, Any]], None]) -> str:
    decoded = json.loads(base64.b64decode(solution))
    change(decoded["challenge"]["parameters"])
    return base64.b64encode(json.dumps(decoded).encode()).decode()


def _cheaper(parameters: dict[str, Any]) -> None:
    parameters["keyPrefix"] = "00"


def _later(parameters: dict[str, Any]) -> None:
    parameters["expiresAt"] += 100_000


def _earlier(parameters: dict[str, Any]) -> None:
    parameters["expiresAt"] = int(time.time()) - 1
