"""Campaigns against a real server, honest and otherwise."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tomli_w

from attest import measured, verdict
from attest.campaign import order
from attest.campaign.order import Campaign, CampaignError, Options
from attest.measured import Measured
from attest.report.page import render
from attest.target import table
from attest.target.table import TargetError
from attest.target.wires import wire
from tests.attest.service import Answer, Means, Reply, Service, honest, scores
from tests.attest.service import table as fields
from tests.processes import running
from zoo import datasets

OPTIONS = Options("digits", ("knockoff",), epochs=1, recipes=("adamw",), seeds=(0,), exam=60, workers=0)
BUDGET = 450


@pytest.fixture(scope="module")
def model() -> Means:
    return Means()


def campaign(folder: Path, url: str, options: Options = OPTIONS, **changes: object) -> Campaign:
    path = folder / "shop.toml"
    path.write_text(tomli_w.dumps({"target": fields(url, budget=BUDGET, **changes)}))
    return Campaign(table.read(path), "shop", table.digest(path), folder / "attest-shop", options)


def run(which: Campaign) -> Measured:
    return order.run(which, wire(which.target), say=lambda line: None)


def test_an_honest_service_is_attested(tmp_path: Path, model: Means) -> None:
    options = dataclasses.replace(OPTIONS, thieves=("knockoff", "in-distribution", "jbda"))
    with Service(model=model) as service:
        found = run(campaign(tmp_path, service.url, options))
        assert len(service.seen) == found.ledger.lines <= BUDGET
    assert found.verdict.word in ("copied", "partly copied", "not copied")
    assert found.utility.accuracy > 0.7
    assert found.consistency.kind == "deterministic"
    curves = {curve.thief: curve for curve in found.curves}
    assert set(curves) == {"knockoff", "label-only", "log-p", "in-distribution", "jbda"}
    assert sum(curve.ended == "dropped" for curve in found.curves if curve.shares is None) == 2
    for name in ("label-only", "log-p"):
        assert [point.queries for point in curves[name].points] == [
            point.queries for point in curves["knockoff"].points
        ]
    assert curves["knockoff"].no_query_accuracy is None
    assert curves["in-distribution"].no_query_accuracy is not None
    assert [each.stretch for each in found.felt] == ["quiet", "campaign"]
    assert {each.what for each in found.not_tried} >= {"dfme", "dfms-hl", "gate-aware"}
    assert found.spent == found.ledger.lines * 0.002
    assert measured.read(tmp_path / "attest-shop") == found


def test_a_thief_that_has_nothing_to_gain_spends_one_round(tmp_path: Path, model: Means) -> None:
    """A service that is right on half of the images is worth less than a clone of the owner's own labels; what the
    knockoff reaches with all the rest is what the service is judged by."""

    def poor(service: Service, pixels: np.ndarray) -> Reply:
        found = service.model(pixels)
        return scores(found if found.argmax() < 5 else np.roll(found, 1))

    options = dataclasses.replace(OPTIONS, thieves=("knockoff", "in-distribution"), epochs=8)
    with Service(poor, model) as service:
        found = run(campaign(tmp_path, service.url, options))
    curves = {curve.thief: curve for curve in found.curves}
    owned = curves["in-distribution"].no_query_accuracy
    assert owned is not None
    assert found.utility.accuracy - owned < verdict.BY.worth
    assert curves["in-distribution"].ended == "nothing to gain"
    assert (len(curves["in-distribution"].points), len(curves["knockoff"].points)) == (1, 4)


def test_it_is_taken_up_without_asking_anything_twice(tmp_path: Path, model: Means) -> None:
    def killing(service: Service, pixels: np.ndarray) -> Reply:
        if service.number == 230 and process.poll() is None:
            process.send_signal(signal.SIGKILL)
        return honest(service, pixels)

    with Service(killing, model) as service:
        which = campaign(tmp_path, service.url, connections=2)
        (tmp_path / "reports").mkdir()
        command = [sys.executable, "-m", "attest", str(tmp_path / "shop.toml"), "--images", "digits", "--workers", "0"]
        command += ["--thieves", "knockoff", "--epochs", "1", "--recipes", "adamw", "--seeds", "0", "--exam", "60"]
        command += ["--reports", str(tmp_path / "reports")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        with running(command, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
            process.wait(timeout=300)
        assert process.returncode == -signal.SIGKILL
        time.sleep(0.2)
        before = len(service.seen)
        assert before < BUDGET
        again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert again.returncode == 0, again.stderr
        found = measured.read(tmp_path / "reports" / "attest-shop")
        repeats = Counter(service.seen)
    assert which.target.budget == BUDGET
    assert found.run.resumed == 1
    # every picture that arrived is in the ledger once; the kill took answers, and pictures entered but not sent
    lines = [json.loads(line) for line in (tmp_path / "reports/attest-shop/ledger.jsonl").read_text().splitlines()]
    assert len(lines) == found.ledger.queries
    assert 0 <= len(lines) - sum(repeats.values()) <= found.ledger.lost
    assert len({(line["phase"], line["place"]) for line in lines}) == len(lines)
    assert found.ledger.lost <= 3  # two connections and the benign user


def random_labels(service: Service, pixels: np.ndarray) -> Reply:
    draw = np.random.default_rng(service.number).dirichlet(np.ones(10)).astype(np.float32)
    return scores(draw)


def constant(service: Service, pixels: np.ndarray) -> Reply:
    return scores(np.eye(10, dtype=np.float32)[3])


def tenth_fails(service: Service, pixels: np.ndarray) -> Reply:
    return (500, {}, b"oh") if service.number % 10 == 0 else honest(service, pixels)


def drops(service: Service, pixels: np.ndarray) -> Reply:
    return (0, {}, b"") if service.number % 5 == 0 else honest(service, pixels)


def elsewhere(service: Service, pixels: np.ndarray) -> Reply:
    return 302, {"Location": "http://127.0.0.1:1/"}, b""


def slow(service: Service, pixels: np.ndarray) -> Reply:
    time.sleep(0.15)
    return honest(service, pixels)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (random_labels, "random answers, wrong classes or wrong preprocessing"),
        (constant, "of the answers have one label, whatever the picture"),
        (tenth_fails, "of the owner's images (errors, timeouts, not readable)"),
        (drops, "of the owner's images (errors, timeouts, not readable)"),
        (elsewhere, "answers sent the campaign elsewhere"),
        (slow, "more than the 0.1 of this campaign"),
    ],
)
def test_a_service_that_lies_gets_no_grade(tmp_path: Path, model: Means, answer: Answer, said: str) -> None:
    options = dataclasses.replace(OPTIONS, minutes=0.1) if answer is slow else OPTIONS
    with Service(answer, model) as service:
        found = run(campaign(tmp_path, service.url, options))
        asked = len(service.seen)
    assert found.verdict.word == "no verdict"
    assert found.verdict.bought is None
    assert any(said in reason for reason in found.verdict.reasons), found.verdict.reasons
    assert asked < BUDGET / 2, "the owner's money is not spent on it"
    assert not found.complete
    assert {each.what for each in found.not_tried} >= {"knockoff", "dfme"}


def mixed_up(service: Service, pixels: np.ndarray) -> Reply:
    """The answer to the request before."""
    before, service.last = getattr(service, "last", honest(service, pixels)), honest(service, pixels)  # type: ignore[attr-defined]
    return before


def keyed(service: Service, pixels: np.ndarray) -> Reply:
    """Always the same to the same bytes, and right by chance."""
    draw = np.random.default_rng(list(pixels.tobytes())).random() < 0.6
    return scores(np.roll(service.model(pixels), 0 if draw else 3))


def not_a_number(service: Service, pixels: np.ndarray) -> Reply:
    return 200, {}, b'{"predictions": [{"scores": [NaN, 0, 0, 0, 0, 0, 0, 0, 0, 1]}]}'


def endless(service: Service, pixels: np.ndarray) -> Reply:
    return 200, {}, b'{"predictions": [{"scores": [1e999, 0, 0, 0, 0, 0, 0, 0, 0, 1e300]}]}'


def zeros(service: Service, pixels: np.ndarray) -> Reply:
    return scores(np.zeros(10, np.float32))


def in_words(service: Service, pixels: np.ndarray) -> Reply:
    return 200, {}, b'{"predictions": [{"scores": "high"}]}'


def gone(service: Service, pixels: np.ndarray) -> Reply:
    """The route, not the account."""
    return (404, {}, b"no such model") if service.number > 130 else honest(service, pixels)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (mixed_up, "random answers, wrong classes or wrong preprocessing"),
        (keyed, "of copies that differ by one level in one value get another label"),
        (not_a_number, "of the owner's images (errors, timeouts, not readable)"),
        (endless, "of the owner's images (errors, timeouts, not readable)"),
        (zeros, "of the owner's images (errors, timeouts, not readable)"),
        (in_words, "of the owner's images (errors, timeouts, not readable)"),
        (gone, "of the campaign's queries failed"),
    ],
)
def test_nor_does_one_that_nobody_listed(tmp_path: Path, model: Means, answer: Answer, said: str) -> None:
    with Service(answer, model) as service:
        found = run(campaign(tmp_path, service.url))
    assert found.verdict.word == "no verdict"
    assert any(said in reason for reason in found.verdict.reasons), found.verdict.reasons


def for_a_while(service: Service, pixels: np.ndarray) -> Reply:
    return (honest if service.number < 100 else random_labels)(service, pixels)


def other_order(service: Service, pixels: np.ndarray) -> Reply:
    return scores(np.roll(service.model(pixels), 0 if service.number < 100 else 1))


def by_heart(service: Service, pixels: np.ndarray) -> Reply:
    """Right on what it was asked before, be it the exam or users, and nowhere else."""
    if not hasattr(service, "known"):
        service.known = set()  # type: ignore[attr-defined]
    if service.number < 100:
        service.known.add(pixels.tobytes())  # type: ignore[attr-defined]
    return (honest if pixels.tobytes() in service.known else random_labels)(service, pixels)  # type: ignore[attr-defined]


@pytest.mark.parametrize("answer", [for_a_while, other_order, by_heart])
def test_a_service_that_was_right_until_the_exam_was_over_gets_no_grade(
    tmp_path: Path, model: Means, answer: Answer
) -> None:
    """Its users' other images show it; a thief's clone of such answers is worth nothing, which says nothing for it."""
    with Service(answer, model) as service:
        found = run(campaign(tmp_path, service.url, dataclasses.replace(OPTIONS, thieves=("knockoff",))))
    assert found.utility.accuracy > 0.7
    assert found.verdict.word == "no verdict"
    assert "its answers changed, or it knows the exam alone" in found.verdict.sentence


def test_a_service_that_knows_the_exam_alone_gets_no_grade(tmp_path: Path, model: Means) -> None:
    """As if its owner had shown it the exam before: users are answered at random from the first on."""
    service = Service(model=model)
    which = campaign(tmp_path, service.url)
    exam = {(image * 255).round().numpy().tobytes() for image in order.unit(order.images_of(which).exam.stored)}

    def the_exam(service: Service, pixels: np.ndarray) -> Reply:
        # copies of one level count as known, as a careful liar would have it
        known = any(
            np.abs(pixels * 255 - np.frombuffer(each, np.float32).reshape(1, 28, 28)).max() <= 1.5 for each in exam
        )
        return (honest if known else random_labels)(service, pixels)

    service.answer = the_exam
    with service:
        found = run(which)
    assert found.utility.accuracy > 0.7
    assert found.verdict.word == "no verdict"
    assert "of the owner's other images that it answered" in found.verdict.sentence


def test_users_ask_about_no_image_of_the_exam_and_about_none_twice(tmp_path: Path, model: Means) -> None:
    with Service(model=model) as service:
        run(campaign(tmp_path, service.url))
    lines = [json.loads(line) for line in (tmp_path / "attest-shop/ledger.jsonl").read_text().splitlines()]
    users = [line["image_sha256"] for line in lines if line["phase"].startswith("benign")]
    assert len(users) > 20
    assert len(set(users)) == len(users)
    assert not set(users) & {line["image_sha256"] for line in lines if line["phase"] == "utility"}


def test_numbers_that_are_withheld_midway_are_read_as_labels(tmp_path: Path, model: Means) -> None:
    """As a policy with a budget does, whose spent account gets labels alone."""

    def spent(service: Service, pixels: np.ndarray) -> Reply:
        whole = json.loads(honest(service, pixels)[2])["predictions"][0]
        told = {"label": int(np.argmax(whole["scores"])), **(whole if service.number <= 200 else {})}
        return 200, {}, json.dumps({"predictions": [told]}).encode()

    with Service(spent, model) as service:
        found = run(campaign(tmp_path, service.url, label="predictions[0].label"))
        asked = len(service.seen)
    assert found.resistance.unread == 0
    assert found.resistance.flagged == asked - 200
    assert 190 <= (found.resistance.flagged_after or 0) <= 200  # several are under way
    assert found.verdict.word != "no verdict"
    assert all(point.rejected == 0 for curve in found.curves for point in curve.points)
    assert "flagged" in render(found)


def test_a_service_that_asks_to_be_left_alone_too_long_ends_the_campaign(tmp_path: Path, model: Means) -> None:
    def closed(service: Service, pixels: np.ndarray) -> Reply:
        return (429, {"Retry-After": "90000"}, b"") if service.number > 250 else honest(service, pixels)

    with Service(closed, model) as service:
        found = run(campaign(tmp_path, service.url))
    assert found.resistance.throttled_after is not None
    assert found.resistance.throttled_after >= 240  # several are under way
    assert not found.complete
    assert found.verdict.word in ("no verdict", "copied")


def gated(service: Service, pixels: np.ndarray) -> Reply:
    """Refuses what is far from every class."""
    far = ((service.model.means - pixels.ravel()) ** 2).mean(axis=1).min() > 0.12
    return (403, {}, b"odd") if far else honest(service, pixels)


def test_refusals_bring_in_the_thief_that_learns_the_gate(tmp_path: Path, model: Means) -> None:
    with Service(gated, model) as service:
        options = dataclasses.replace(OPTIONS, thieves=("knockoff", "gate-aware"))
        found = run(campaign(tmp_path, service.url, options))
    refused = [json.loads(line) for line in (tmp_path / "attest-shop/ledger.jsonl").read_text().splitlines()]
    first = next(line["index"] for line in refused if line["status"] == 403)
    assert found.resistance.refused == sum(line["status"] == 403 for line in refused) > 20
    assert found.resistance.refused_after == first
    assert "gate-aware" in {curve.thief for curve in found.curves}
    assert found.utility.refused < 0.2
    assert all(point.rejected > 0 for curve in found.curves for point in curve.points)


def test_a_service_that_refuses_every_thief_was_not_copied(tmp_path: Path, model: Means) -> None:
    """A data-free thief has a network of its own, which is nobody's clone before it was told anything."""
    users = [(picture * 255).round() for picture in datasets.load("digits", "test").pixels.numpy()]

    def only_users(service: Service, pixels: np.ndarray) -> Reply:
        known = any(np.abs(pixels * 255 - user).max() <= 1.5 for user in users)
        return honest(service, pixels) if known else (403, {}, b"odd")

    with Service(only_users, model) as service:
        found = run(campaign(tmp_path, service.url, dataclasses.replace(OPTIONS, thieves=("knockoff", "dfms-hl"))))
    assert found.utility.refused == 0
    assert found.resistance.refused > BUDGET / 2
    assert [curve.points for curve in found.curves] == [()] * len(found.curves)
    assert (found.verdict.word, found.verdict.bought) == ("not copied", 0.0)
    assert found.verdict.sentence.startswith("Not copied: the service refused this campaign's thieves")
    assert "no thief that had something to gain was told enough" in render(found)


def test_of_labels_alone_every_thief_learns_from_labels(tmp_path: Path, model: Means) -> None:
    def label(service: Service, pixels: np.ndarray) -> Reply:
        return 200, {}, json.dumps({"label": int(service.model(pixels).argmax())}).encode()

    with Service(label, model) as service:
        found = run(campaign(tmp_path, service.url, answer="label", scale="label"))
    assert {curve.thief: curve.labels for curve in found.curves} == {"knockoff": "hard", "label-only": "hard"}
    assert {each.what: each.why for each in found.not_tried}["log-p"].startswith("the service tells no probabilities")


def test_retries_are_charged_and_the_spent_budget_is_the_campaign_s_own_end(tmp_path: Path, model: Means) -> None:
    def busy(service: Service, pixels: np.ndarray) -> Reply:
        return (429, {"Retry-After": "0"}, b"") if service.number % 4 == 0 else honest(service, pixels)

    with Service(busy, model) as service:
        found = run(campaign(tmp_path, service.url))
        assert len(service.seen) == BUDGET == found.ledger.queries
    assert found.complete
    assert found.resistance.throttled > 80


def test_another_campaign_s_folder_is_refused_before_anything_is_sent(tmp_path: Path, model: Means) -> None:
    with Service(model=model) as service:
        run(campaign(tmp_path, service.url))
        asked = len(service.seen)
        with pytest.raises(CampaignError, match=r"holds another attest \(epochs was '1', now '2'\)"):
            run(campaign(tmp_path, service.url, dataclasses.replace(OPTIONS, epochs=2)))
        run(campaign(tmp_path, service.url))  # nothing is left to ask
        assert len(service.seen) == asked


def test_what_cannot_be_attested_is_said_before(tmp_path: Path) -> None:
    which = campaign(tmp_path, "http://127.0.0.1:1/x")
    with pytest.raises(CampaignError, match="budget: expected at least 300 queries for an attest, got 100"):
        order.images_of(dataclasses.replace(which, target=dataclasses.replace(which.target, budget=100)))
    with pytest.raises(CampaignError, match="images: flower: expected a folder for each class, got images without"):
        order.images_of(dataclasses.replace(which, options=dataclasses.replace(OPTIONS, images="flower")))
    with pytest.raises(TargetError, match="images: digits: class '7' is none of the target's"):
        run(dataclasses.replace(which, target=dataclasses.replace(which.target, classes=7)))


def test_classes_may_stand_in_any_order_in_the_file(tmp_path: Path, model: Means) -> None:
    """The owner's folders are sorted; the service's columns are not."""
    order_there = np.array([3, 1, 4, 0, 5, 9, 2, 6, 8, 7])

    def shuffled(service: Service, pixels: np.ndarray) -> Reply:
        return scores(service.model(pixels)[order_there])

    options = dataclasses.replace(OPTIONS, thieves=("in-distribution",))
    with Service(shuffled, model) as service:
        found = run(campaign(tmp_path, service.url, options, classes=[str(kind) for kind in order_there]))
    with Service(honest, model) as service:
        (tmp_path / "plain").mkdir()
        plain = run(campaign(tmp_path / "plain", service.url, options))
    assert found.utility.accuracy == plain.utility.accuracy > 0.7
    assert found.curves == plain.curves
