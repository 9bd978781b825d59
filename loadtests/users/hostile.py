"""The vandal: goes through every bad request of loadtests.malformed and checks how it is refused."""

# mypy: disable-error-code="untyped-decorator"
# (it does not follow locust's imports)

from __future__ import annotations

import itertools
from typing import ClassVar

from locust import constant_pacing, task

from loadtests.answers import check_answer, check_refusal
from loadtests.malformed import CASES
from loadtests.tally import Kind
from loadtests.users.service import ServiceUser


class HostileUser(ServiceUser):
    """Goes through all cases, on every model in turn, ten requests a second at most."""

    wait_time = constant_pacing(0.1)
    numbers: ClassVar = itertools.count()

    def on_start(self) -> None:
        """Start at another case than the other hostile users."""
        plan = self.plan
        number = next(self.numbers)
        self.turns = itertools.islice(itertools.cycle(itertools.product(CASES, plan.models)), number, None)

    @task
    def attack(self) -> None:
        """Send the next case and check how it was refused."""
        case, model = next(self.turns)
        plan = self.plan
        row = plan.images.pixels[:1].numpy()
        request = case.make(row, plan.target.max_request_size)
        headers = {"Content-Type": request.content_type, **request.headers}
        if request.token == "right":
            headers |= plan.target.authorization
        elif request.token == "wrong":
            headers["Authorization"] = "Bearer AAAAAAAA"

        def judge(status: int, body: bytes) -> None:
            check_refusal(status, body, statuses=case.statuses, code=case.code)
            if status == 200:
                tolerance = plan.limits.sum_tolerance
                check_answer(body, rows=1, classes=len(plan.images.classes), sum_tolerance=tolerance)

        self.ask(Kind("hostile", model, case.name, 1), request.body, headers, judge)
