"""The hash study: which policy's hash keeps an image's copies together, and which uses every member.

    python -m evaluation.studies hashes RECIPE --policies edm edm-class-confidence --run reports/mnist

For every policy of several members, and, for comparison, DCT pHash and SHA-1 modulo as many members:
- balance ("routing" rows): how many rows of each kind of traffic go to each member, every image as it is;
- invariance: random affine copies of an image at three strengths; the share that keeps the image's member, and the
  form of EDM's figure 6: each image's copies counted by member, sorted, summed over images (Kariyappa et al., ICLR
  2021, appendix A.2; flat is what a cryptographic hash gives, all in the first place what a perceptual one should);
- cost: of the route stage, hash network and all, and of the router's own Python, a row.

The paper compares EDM's hash with the same two, which anybody can compute: a perceptual one (Zauner, "Implementation
and Benchmarking of Perceptual Image Hash Functions", 2010) and one that any change of the image changes.
"""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from time import perf_counter

import numpy as np
import torch
from torch.nn import functional as F

from evaluation.oracles import InProcessOracle, OracleError
from evaluation.studies.study import Found, Option, Study, Task
from evaluation.traffic import SEED, kinds
from report.rows.routing import HashCostRow, InvarianceRow, RoutingRow, entropy
from zoo.augment import Affine

STRENGTHS = (Affine(5, 0.02, 0.02), Affine(15, 0.1, 0.1), Affine(25, 0.2, 0.2))
BATCHES = (1, 8, 32)
# DCT pHash: the image's side, and how many of its lowest frequencies a side
SIDE = 32
LOW = 8

# images (n,C,S,S) -> (n,) int64 members
Members = Callable[[torch.Tensor], torch.Tensor]
# images (n,C,S,S) float32 in [0,1] and a number of members -> (n,) int64 members
PublicHash = Callable[[torch.Tensor, int], torch.Tensor]


def study(task: Task, *, images: int, copies: int) -> Iterator[Found]:
    """The rows of each policy, then of the public hashes over as many members as each of the policies has."""
    yield Found(settings={"hash_images": images, "hash_copies": copies})
    traffic = dict(kinds(task.recipe, task.test, task.data))
    counts: list[int] = []
    for policy, oracle in task.oracles():
        if oracle.pipeline.policy.route is None:
            raise OracleError(f"{policy}: expected a policy that routes rows to its members, got one without")
        counts.append(len(oracle.pipeline.policy.members))
        place = {"recipe": task.recipe.name, "policy": policy}
        routing = balance(oracle.members, traffic, counts[-1], **place)
        invariance = keep(oracle.members, traffic, counts[-1], images, copies, **place)
        costs = [cost(oracle, task.test.pixels, batch, **place) for batch in BATCHES]
        yield Found([*routing, *invariance, *costs], says=lines(routing, invariance))
    for count in dict.fromkeys(counts):
        for name, public in PUBLIC_HASHES.items():
            place = {"recipe": task.recipe.name, "policy": name}
            routing = balance(_among(count, public), traffic, count, **place)
            invariance = keep(_among(count, public), traffic, count, images, copies, **place)
            yield Found([*routing, *invariance], says=lines(routing, invariance))


def balance(
    members: Members, traffic: Mapping[str, torch.Tensor], count: int, *, recipe: str, policy: str
) -> list[RoutingRow]:
    """How many rows of each traffic go to each of `count` members."""
    return [
        RoutingRow(recipe, policy, name, member, rows)
        for name, images in traffic.items()
        for member, rows in enumerate(members(images).bincount(minlength=count).tolist())
    ]


def keep(
    members: Members,
    traffic: Mapping[str, torch.Tensor],
    count: int,
    images: int,
    copies: int,
    *,
    recipe: str,
    policy: str,
) -> list[InvarianceRow]:
    """Where `copies` random affine copies of the first `images` images of each traffic go, at each strength."""
    found = []
    for name, pixels in traffic.items():
        first = pixels[:images]
        own = members(first)
        for affine in STRENGTHS:
            generator = torch.Generator().manual_seed(SEED)
            drawn = [members(affine(first, generator=generator).clamp(0, 1)) for _ in range(copies)]
            gone = torch.stack(drawn)
            counts = torch.stack([(gone == member).sum(0) for member in range(count)])
            found.append(
                InvarianceRow(
                    recipe=recipe,
                    policy=policy,
                    traffic=name,
                    degrees=affine.degrees,
                    shift=affine.shift,
                    scale=affine.scale,
                    images=len(first),
                    copies=copies,
                    kept=(gone == own).float().mean().item(),
                    sorted_counts=tuple(counts.sort(0, descending=True).values.sum(1).tolist()),
                )
            )
    return found


def cost(oracle: InProcessOracle, images: torch.Tensor, batch: int, *, recipe: str, policy: str) -> HashCostRow:
    """Median times of routing `batch` rows, a row: 200 calls of the pipeline, and as many of the hash alone."""
    pipeline = oracle.pipeline
    assert pipeline.policy.route is not None
    hash_ = pipeline.policy.route.build()
    table = np.zeros(hash_.values, np.int64)
    rng = np.random.default_rng(SEED)
    outputs = {name: rng.random((batch, columns), np.float32) for name, columns in hash_.reads.items()}
    pixels = images[:batch].numpy()
    stage, router = [], []
    for _ in range(200):
        stage.append(pipeline(pixels).seconds["route"])
        before = perf_counter()
        table[hash_(outputs)]
        router.append(perf_counter() - before)
    rows = len(pixels)
    return HashCostRow(
        recipe, policy, rows, 1e6 * statistics.median(stage) / rows, 1e6 * statistics.median(router) / rows
    )


def lines(routing: Sequence[RoutingRow], invariance: Sequence[InvarianceRow]) -> str:
    """A line for each traffic of one hash: entropy, and the share kept at each strength."""
    found = []
    for traffic in dict.fromkeys(row.traffic for row in routing):
        used = entropy([row.rows for row in routing if row.traffic == traffic])
        kept = [row.kept for row in invariance if row.traffic == traffic]
        found.append(
            f"{routing[0].policy:<24}{traffic:<26}balance {used:.3f}  kept {' '.join(f'{share:.3f}' for share in kept)}"
        )
    return "\n".join(found)


def dct(images: torch.Tensor, members: int) -> torch.Tensor:
    """The 64 low frequencies of the gray image at 32 x 32, each above their median or not, as a number mod N."""
    small = F.interpolate(images.mean(1, keepdim=True), size=(SIDE, SIDE), mode="bilinear", antialias=True)
    gray = small.squeeze(1).numpy()
    angles = np.pi / SIDE * (np.arange(SIDE) + 0.5) * np.arange(LOW)[:, None]
    low = (np.cos(angles) @ gray @ np.cos(angles).T).reshape(len(gray), LOW * LOW)
    bits = low > np.median(low, axis=1, keepdims=True)
    return _numbered([np.packbits(row).tobytes() for row in bits], members)


def sha1(images: torch.Tensor, members: int) -> torch.Tensor:
    """SHA-1 of the image's bytes, as a number mod N."""
    pixels = (images * 255).round().byte().numpy()
    return _numbered([hashlib.sha1(image.tobytes(), usedforsecurity=False).digest() for image in pixels], members)


def _among(count: int, public: PublicHash) -> Members:
    return lambda images: public(images, count)


def _numbered(digests: list[bytes], members: int) -> torch.Tensor:
    return torch.tensor([int.from_bytes(digest, "big") % members for digest in digests])


PUBLIC_HASHES: Mapping[str, PublicHash] = {"dct": dct, "sha1": sha1}


STUDY = Study(
    "hashes",
    "invariance, balance and cost of hashes",
    study,
    policies="policies of several members that route",
    sections=("routing", "invariance", "hash_costs"),
    options=(
        Option("images", 200, "images of each traffic that are copied", least=1),
        Option("copies", 50, "copies of each image at each strength", least=1),
    ),
)
