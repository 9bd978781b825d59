"""A client that a gate suspects: it gets a challenge, solves it, and sends the solution, honestly or not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from assurance.faults.clients import Answer, Client, FaultError, refusal
from evaluation import payment
from handlers import wire

SOLVING_S = 60.0
ANSWERED, CHALLENGED = "200", "428 proof_of_work"


@dataclass
class Payer:
    """Asks one model about images that its gate suspects, each time another one."""

    client: Client
    model: str
    images: NDArray[np.float32]
    next: int = 0

    def image(self) -> NDArray[np.float32]:
        """The next suspected image, (C, H, W)."""
        self.next += 1
        chosen: NDArray[np.float32] = self.images[(self.next - 1) % len(self.images)]
        return chosen

    def solved(self) -> Solved:
        """A challenge for the next image, solved and not yet spent. Raises FaultError where none was asked."""
        image = self.image()
        answer = self.client.ask(self.model, image)
        challenge = wire.decode_challenge(answer.body)
        if challenge is None:
            raise FaultError(f"{self.model}: expected a challenge, got {result_of(answer)}")
        # not until its expiry: the server's clock is not always this one
        paid = payment.solve(challenge, seconds=SOLVING_S)
        if paid is None:
            raise FaultError(f"{self.model}: the challenge was not solved in {SOLVING_S:.0f} s")
        return Solved(image, paid.solution, float(challenge["parameters"]["expiresAt"]))

    def spend(self, solved: Solved) -> Answer:
        """What the solution's request gets with it."""
        return self.client.ask(self.model, solved.image, solved.solution)

    def pays(self) -> str:
        """What a new challenge's solution gets, for the service that is well again; or that there is no challenge."""
        try:
            return result_of(self.spend(self.solved()))
        except FaultError:
            return "no challenge"


@dataclass(frozen=True, eq=False)
class Solved:
    """An image and the solution of its challenge, which expires then (seconds since the epoch, the server's)."""

    image: NDArray[np.float32]
    solution: str
    expires: float


def result_of(answer: Answer) -> str:
    """The outcome of a request in a word: "200", status and code, or why there was no answer."""
    if answer.status == 0:
        return answer.what
    return ANSWERED if answer.status == 200 else refusal(answer)


def suspects(client: Client, model: str, images: NDArray[np.float32], *, enough: int) -> NDArray[np.float32]:
    """Of `images` the `enough` for which the model's gate asks for the least work, but for some. Raises FaultError for
    fewer."""
    asked = ((image, wire.decode_challenge(client.ask(model, image).body)) for image in images)
    found = [(payment.price(challenge), number) for number, (_, challenge) in enumerate(asked) if challenge is not None]
    if len(found) < enough:
        raise FaultError(f"{model}: expected its gate to suspect at least {enough} of {len(images)}, got {len(found)}")
    return images[[number for _, number in sorted(found)[:enough]]]
