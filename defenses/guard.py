"""Whether this machine answers as the one that exported: 32 rows, asked of every member when an archive loads.

Whole sums of a graph in 8 bits are the same on every CPU as long as nothing saturates (export/qdq.py), and what is
float around them differs by rounding. A CPU or a library that adds otherwise would serve other labels without a word,
so an archive whose precision is not float32 holds guard.json: what each member said of these rows when exported,

    row_i = round(255 ((1 - i/31) golden + i/31 noise_i)) / 255,      i = 0 .. 31

from the golden image to plain noise, which no owner's image but the golden one can be told from. Where the policy
perturbs, the members are shown what its graph makes of the rows under other noise. Noise is bytes of Philox under a
fixed key, so that no release of numpy can change it. A worker that answers further off than the tolerance, which the
rule of acceptance derives (export/quantise.py), refuses to start.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from defenses.policy import Policy
from defenses.routing import Outputs

NAME = "guard.json"
ROWS = 32
Floats = NDArray[np.float32]
Graph = Callable[..., Outputs]


class GuardError(ValueError):
    """A machine that computes otherwise, or rows that cannot be read."""


def _bytes(shape: tuple[int, ...], key: int) -> NDArray[np.uint8]:
    count = math.prod(shape)
    return np.random.Philox(key=key).random_raw(-(-count // 8)).astype("<u8").view(np.uint8)[:count].reshape(shape)


def rows(golden: Floats) -> Floats:
    """The rows (ROWS,C,H,W) float32 in [0,1], multiples of 1/255, of a golden image (C,H,W)."""
    share = np.arange(ROWS).reshape(-1, 1, 1, 1) / (ROWS - 1)
    levels = np.rint((1 - share) * 255.0 * golden + share * _bytes((ROWS, *golden.shape), key=1))
    return (levels / 255).astype(np.float32)


def answers(members: Mapping[str, Graph], perturb: Graph | None, images: Floats, noise: tuple[int, ...]) -> Outputs:
    """What each member says of `images`, (ROWS,K) by its name. noise: the shape of a row's, where one is perturbed."""
    if perturb is not None:
        drawn = (_bytes((len(images), *noise), key=2) - np.float32(127.5)) / np.float32(73.9)  # variance 1
        images = perturb(images, drawn.astype(np.float32))["perturbed"].reshape(images.shape)
    return {name: member(images)["probabilities"] for name, member in members.items()}


def stated(found: Outputs, tolerances: Mapping[str, float]) -> str:
    """The text of guard.json."""
    members = {
        name: {"tolerance": tolerances[name], "answers": base64.b64encode(values.astype("<f4").tobytes()).decode()}
        for name, values in found.items()
    }
    return json.dumps({"members": members})


def check(policy: Policy, graphs: Mapping[str, Graph], golden: str, held: str) -> None:
    """Raise GuardError where a member answers otherwise than it did when exported. golden, held: golden.json's text
    and guard.json's."""
    try:
        image = np.frombuffer(base64.b64decode(json.loads(golden)["image"]), "<f4")
        images = rows(image.reshape(policy.input.shape))
        members = json.loads(held)["members"]
        expected = {
            name: (float(members[name]["tolerance"]), np.frombuffer(base64.b64decode(members[name]["answers"]), "<f4"))
            for name in policy.members
        }
    except (ValueError, KeyError, TypeError) as error:
        raise GuardError(
            f"{NAME}: expected what every member said of {ROWS} rows when it was exported, found none that can be read "
            f"({type(error).__name__}: {error}). Build the archive again"
        ) from error
    perturb = policy.perturb
    got = answers(
        {name: graphs[name] for name in policy.members},
        None if perturb is None else graphs[perturb.graph],
        images,
        () if perturb is None else perturb.noise_shape,
    )
    for name, (tolerance, right) in expected.items():
        if right.size != got[name].size:
            raise GuardError(
                f"{NAME}: {name}: expected {got[name].size} numbers, got {right.size}. Build the archive again"
            )
        off = np.abs(got[name] - right.reshape(got[name].shape)).max(axis=1)
        worst = int(off.argmax())
        if not off[worst] <= tolerance:
            raise GuardError(
                f"graph {name!r}: row {worst} of the {ROWS} of {NAME}: expected the answer of the export within "
                f"{tolerance:.4f}, got one {off[worst]:.4f} away: this machine's CPU or library computes "
                f"{policy.precision} otherwise. Serve a float32 policy here, or build the archive on this machine"
            )
