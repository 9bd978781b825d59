"""What every fault gets: the server, the images to send, and how long to observe."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from assurance.faults import clients
from assurance.faults.clients import Client, Crowd, Door
from assurance.faults.figures import impact
from loadtests.own_server import Instance
from report.rows.bounds import Bound
from report.rows.faults import WRONG, Impact

# what the issue promises of a service that something has happened to
BACK_S = 10.0


@dataclass(frozen=True)
class Scene:
    """See the module's docstring.

    served: the running instance. benign, suspect: images (N, C, H, W); a gate takes the second for an attacker's.
    clients: of each model. patience_s: how long they wait for an answer. settle_s: of traffic before and after a fault.
    """

    served: Instance
    benign: NDArray[np.float32]
    suspect: NDArray[np.float32]
    clients: int = 12
    patience_s: float = 15.0
    settle_s: float = 2.0

    @property
    def door(self) -> Door:
        """Where a client with TorchServe's token asks."""
        server = self.served.target
        return Door(server.inference, server.authorization)

    def crowd(self, *models: str, door: Door | None = None) -> Crowd:
        """Clients of these models, who have seen the answers to benign images before. door: another than the server's
        own."""
        door = door or self.door
        asked = [clients.known(door, model, self.benign) for model in models]
        return Crowd(door, asked, self.clients, self.patience_s)

    def client(self) -> Client:
        """One client more."""
        return Client(self.door, patience_s=self.patience_s)

    def settle(self) -> None:
        """Let the traffic go on for a while."""
        time.sleep(self.settle_s)

    def impact(self, crowd: Crowd, *models: str, since: float) -> Impact:
        """The impact on the clients of these models since then."""
        return impact(crowd.of(*models), since, crowd.ended, clients=self.clients * len(models))


def unharmed(neighbours: Impact, *, gap_s: float) -> tuple[Bound, ...]:
    """The promise to clients that a fault does not concern: every answer the known one, and none much later."""
    return (
        Bound("neighbours' requests without the right answer", neighbours.sent - neighbours.right, 0),
        Bound("neighbours' longest time without an answer, seconds", neighbours.gap_s, gap_s),
    )


def no_wrong_answer(struck: Impact) -> Bound:
    """A fault may cost answers. It may not make one wrong."""
    return Bound("wrong answers", struck.count(WRONG), 0)


def unanswered(struck: Impact) -> int:
    """Requests that were sent and got no answer, or an error in its place."""
    return struck.sent - struck.right - struck.count(WRONG)
