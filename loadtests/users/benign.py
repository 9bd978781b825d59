"""The paying customer: sends test images, pauses, and checks the answer, not only the status."""

# mypy: disable-error-code="untyped-decorator"
# (it does not follow locust's imports)

from __future__ import annotations

import itertools
import random
from typing import ClassVar

import torch
from locust import task

from attacks import metrics
from handlers import oip, wire
from loadtests import answers
from loadtests.tally import Kind
from loadtests.users.service import PROTOCOL, ServiceUser, Verdict

SEVERAL = 8
UNAVAILABLE = 503  # TorchServe, when its queue is full


class BenignUser(ServiceUser):
    """Keeps to one model; the users of a run take the models in turn. Mostly single pictures, sometimes more rows."""

    numbers: ClassVar = itertools.count()

    def on_start(self) -> None:
        """Choose the model and the order of the images."""
        number = next(self.numbers)
        self.model = self.plan.models[number % len(self.plan.models)]
        self.principal = f"customer-{number}"
        self.random = random.Random(number)

    def wait_time(self) -> float:
        """Seconds until the next request: exponential around the recipe's think_ms."""
        think = self.plan.limits.think_ms / 1000
        return self.random.expovariate(1 / think) if think else 0.0

    @task(6)
    def picture(self) -> None:
        """One image as a PNG file."""
        self._classify(1, wire.PNG)

    @task(3)
    def batch(self) -> None:
        """Several images as raw float32."""
        self._classify(SEVERAL, wire.RAW)

    @task(1)
    def text(self) -> None:
        """Two images as JSON."""
        self._classify(2, wire.JSON)

    @task(1)
    def tensors(self) -> None:
        """Three images by the Open Inference Protocol."""
        self._classify(3, PROTOCOL)

    def _classify(self, rows: int, content_type: str) -> None:
        images = self.plan.images
        assert images.labels is not None, "a recipe's data set is labelled"
        chosen = torch.tensor(self.random.choices(range(len(images)), k=rows))
        truth = images.labels[chosen]

        pixels = images.pixels[chosen].numpy()
        protocol = content_type == PROTOCOL
        body, more = oip.encode_rows(pixels) if protocol else (wire.encode_rows(pixels, content_type), {})
        verdict = Verdict()

        def judge(status: int, body: bytes) -> None:
            if answers.refused(status, body, protocol=protocol):
                # its right, on some share of benign rows; how many stands in the accuracy
                verdict.rejected, verdict.right = True, 0
                return
            if status != 200:
                verdict.rejected = 400 <= status < 500 or status == UNAVAILABLE
                raise wire.WireError(f"status {status}, expected 200; body {body[:120]!a}")
            answer = answers.check_answer(
                body,
                rows=rows,
                classes=len(images.classes),
                sum_tolerance=self.plan.limits.sum_tolerance,
                protocol=protocol,
            )
            verdict.rejected = bool(answer.errors)
            verdict.right = round(metrics.accuracy(torch.from_numpy(answer.labels), truth) * rows)

        self.ask(
            Kind("benign", self.model, content_type, rows),
            body,
            {**self.headers(wire.RAW if protocol else content_type, self.principal), **more},
            judge,
            verdict,
        )
