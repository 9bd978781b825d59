"""The graphs of policies with a precision: float32 graphs to 8 bits (or fp16, bf16), accepted by a rule or refused.

    python -m export.quantise RECIPE [--policies NAME ...]

For every [policies.NAME] with `precision` it writes build/RECIPE/<graph>-<precision>.onnx of each graph that answers or
perturbs. A route's hash stays as it is, whole numbers already; so do a gate's graph, whose score is a distance that
256 steps would blur, and those that a response rule reads. The rule, on the validation split and through the policy's
own preprocessing and perturbation:

    accuracy   at most 0.2 points below float32's                     (not asked where the images have no labels)
    labels     the same as float32's on 99.5 % of the images, at least
    layers     at least half of them in 8 bits

Ranges are set by training images: by the first of `qdq.METHODS` that the rule holds with. Where it holds with none, the
best of them gives back to float32, one after another, the layers that alone move answers most, until it does. Where
more than half would have to be given back, nothing is written, and the refusal says what can be done.

What was found is in the graph's metadata, as `precision`, with the tolerance of the guard at load (defenses/guard.py):
half the margin between the two likeliest labels that all but 0.5 % of the validation images exceed, since what moves
probabilities by less can move no more labels than the rule allows.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from tqdm import tqdm

import recipes
from export.archive import PolicyTable, perturbed, present
from export.graphs import Answer, ExportError, on_onnxruntime, write
from export.guarded import ENTRY
from export.half import half
from export.made import CODE as EXPORTING
from export.made import maker
from export.predictor import predictor_of
from export.qdq import METHODS, MULTIPLY, Feed, Qdq
from recipes.policies import FLOAT32, FP16, INT8, suffixed
from training.victim import split
from zoo import datasets
from zoo.images import unit

DROP = 0.002
AGREEMENT = 0.995
# of the layers, that may be float32
MOST_KEPT = 0.5
# images that set ranges, that layers are ranked on, and the most that the rule is asked on
CALIBRATION, RANKING, JUDGED = 512, 256, 10_000
BATCH = 32
# of the guard: below it rounding alone may stand (export/prove.py)
LEAST_TOLERANCE = 1e-3
# the code that decides what a graph in another precision is
CODE = (
    *(*EXPORTING, "export/quantise.py", "export/qdq.py", "export/half.py"),
    *("export/layers.py", "export/equalisation.py", "export/compensation.py"),
)

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Found:
    """What the rule saw of a graph, in its metadata. source: SHA-256 of all that it was made of. kept: the layers in
    float32. accuracy, float32_accuracy: None without labels. agreement: share of equal labels, on `images` images.
    tolerance: of the guard."""

    precision: str
    source: str
    method: str
    layers: int
    kept: tuple[str, ...]
    images: int
    accuracy: float | None
    float32_accuracy: float | None
    agreement: float
    tolerance: float

    @property
    def holds(self) -> bool:
        """Whether the rule does."""
        if self.accuracy is None or self.float32_accuracy is None:
            return self.agreement >= AGREEMENT
        return self.agreement >= AGREEMENT and self.accuracy >= self.float32_accuracy - DROP

    def __str__(self) -> str:
        accuracy = (
            "accuracy not known (no labels)"
            if self.accuracy is None
            else f"accuracy {self.accuracy:.4f} (float32 {self.float32_accuracy:.4f}, at most {DROP} less)"
        )
        return (
            f"{accuracy}, labels equal on {self.agreement:.4f} of {self.images} images (at least {AGREEMENT}), "
            f"{self.layers - len(self.kept)} of {self.layers} layers in {self.precision}, ranges by {self.method}"
        )


@dataclass(frozen=True, eq=False)
class Judge:
    """The rule for one graph: expected (N,K), float32's probabilities for the validation images; labels (N,) or None;
    answered: a graph of the new precision -> its probabilities for them, (N,K)."""

    precision: str
    source: str
    expected: Floats
    labels: NDArray[np.int64] | None
    answered: Callable[[bytes], Floats]

    def found(self, graph: bytes, *, method: str, layers: int, kept: Sequence[str] = ()) -> Found:
        """What the rule sees of a graph."""
        got = self.answered(graph)
        two = np.sort(got, axis=1)[:, -2:]
        margin = float(np.quantile(two[:, 1] - two[:, 0], 1 - AGREEMENT))
        return Found(
            self.precision,
            self.source,
            method,
            layers,
            tuple(kept),
            len(got),
            accuracy=None if self.labels is None else _share(got, self.labels),
            float32_accuracy=None if self.labels is None else _share(self.expected, self.labels),
            agreement=_share(got, self.expected.argmax(1)),
            tolerance=max(LEAST_TOLERANCE, round(margin / 2, 6)),
        )


def _share(probabilities: Floats, labels: NDArray[np.int64]) -> float:
    return round(float((probabilities.argmax(1) == labels).mean()), 6)


def in_8_bits(path: Path, feeds: Sequence[Feed], judge: Judge) -> tuple[bytes, Found]:
    """The graph at `path` in 8 bits, by the rule. Raises ExportError where it does not hold."""
    made = Qdq(path, feeds)
    layers = len(made.layers)

    def tried(method: str, kept: Sequence[str]) -> tuple[bytes, Found]:
        graph = made.graph(method, kept)
        return graph, judge.found(graph, method=method, layers=layers, kept=kept)

    whole = []
    for method in METHODS:
        graph, found = tried(method, ())
        if found.holds:
            return graph, found
        whole.append(found)
    best = max(whole, key=lambda found: (found.agreement, found.accuracy or 0.0))
    ranked = _ranked(path, made, best.method, feeds)
    for count in range(1, int(MOST_KEPT * layers) + 1):
        graph, found = tried(best.method, ranked[:count])
        if found.holds:
            return graph, found
    most = int(MOST_KEPT * layers)
    raise ExportError(
        f"{path}: in 8 bits the rule does not hold: {best}; nor with {most} of its layers given back to float32. "
        'Serve it with precision = "float32", or train it longer: one that is unsure of its labels loses them first'
    )


def _ranked(path: Path, made: Qdq, method: str, feeds: Sequence[Feed]) -> list[str]:
    """The layers, those first that move answers most where they alone are in 8 bits."""
    some = list(feeds[: RANKING // BATCH])
    expected = _first(on_onnxruntime(path), some)
    moved = {}
    for layer in tqdm(made.layers, desc="layers", unit="layer"):
        alone = made.graph(method, [each for each in made.layers if each != layer])
        moved[layer] = float(np.square(_first(on_onnxruntime(alone), some) - expected).sum())
    return sorted(moved, key=lambda layer: -moved[layer])


def _first(graph: Answer, feeds: Sequence[Feed]) -> Floats:
    """A graph's first output for all feeds."""
    return np.concatenate([next(iter(graph(*feed.values()).values())) for feed in feeds])


class Task:
    """The graphs of one policy that get its precision, and the images that they are calibrated and judged on."""

    def __init__(self, recipe: recipes.Recipe, name: str, *, runs: Path, build: Path, data: Path | None) -> None:
        self.table = recipe.family("policies", PolicyTable)[name]
        self.folder = build / recipe.name
        self.members = predictor_of(recipe, self.table.predictor, runs).members
        stage = None if self.table.perturb is None else perturbed(self.table, runs / recipe.name)
        self.perturbation: str | None = stage["graph"] if stage else None
        self.noise_shape: list[int] = stage["noise_shape"] if stage else []
        self.open = partial(on_onnxruntime, cuda=self.table.precision == FP16)
        self.described = recipe.section("dataset", datasets.Data)
        images = self.described.load("train", data)
        known = images.labels is not None
        if not known:  # which of them are held out depends on no label
            images = replace(images, labels=torch.zeros(len(images), dtype=torch.int64))
        parts = split(images, rows=self.described.rows)
        self.labels = parts.validation_labels.numpy()[:JUDGED] if known else None
        self.training, self.validation = parts.images[:CALIBRATION], parts.validation_images[:JUDGED]

    def path(self, graph: str) -> Path:
        """The float32 graph's file. Raises ExportError where there is none."""
        return present(self.folder / f"{graph}.onnx", self.folder.name)

    def made(self) -> Iterator[tuple[Path, Found]]:
        """Every graph in the policy's precision, written or there already, with what the rule saw. Raises ExportError
        where it does not hold."""
        perturb = None if self.perturbation is None else self.open(self.path(self.perturbation))
        for member in self.members:
            feeds = self._feeds(self.training, perturb, seen=True)
            yield self._one(member, feeds, lambda graph: self._answers([self.open(graph)], perturb))
        if self.perturbation is not None:
            narrow = [self.open(self.target(member)) for member in self.members]
            feeds = self._feeds(self.training, perturb, seen=False)
            full = [self.open(self.path(member)) for member in self.members]
            yield self._one(
                self.perturbation,
                feeds,
                lambda graph: self._answers(narrow, self.open(graph)),
                expected=lambda: self._answers(full, perturb),
            )

    def target(self, graph: str) -> Path:
        """Where a graph in the policy's precision lies."""
        return self.folder / f"{suffixed(graph, self.table.precision)}.onnx"

    def _one(
        self,
        graph: str,
        feeds: Sequence[Feed],
        answered: Callable[[Path | bytes], Floats],
        expected: Callable[[], Floats] | None = None,
    ) -> tuple[Path, Found]:
        path, target, precision = self.path(graph), self.target(graph), self.table.precision
        source = self._source(graph)
        if (there := found_in(target)) is not None and there.source == source:
            return target, there
        right = expected() if expected else answered(path)
        judge = Judge(precision, source, right, self.labels, answered)
        data, found = in_8_bits(path, feeds, judge) if precision == INT8 else in_halves(path, precision, judge)
        write(target, _noted(data, found))
        return target, found

    def _source(self, graph: str) -> str:
        """The hash of all that a graph in another precision is made of."""
        used = [graph, *([self.perturbation] if self.perturbation else []), *self.members]
        stated = {
            "graphs": [hashlib.sha256(self.path(each).read_bytes()).hexdigest() for each in dict.fromkeys(used)],
            "maker": maker(CODE),
            "data": repr(self.described),
        }
        return hashlib.sha256(json.dumps(stated).encode()).hexdigest()

    def _batches(self, images: torch.Tensor) -> Iterator[tuple[Floats, ...]]:
        """Images (n,C,H,W) float32 in batches, each with its noise where the policy perturbs, the same at each call."""
        random = np.random.default_rng(0)
        for part in images.split(BATCH):
            shown = np.ascontiguousarray(unit(part).numpy())
            drawn = random.standard_normal((len(shown), *self.noise_shape), dtype=np.float32)
            yield (shown, drawn) if self.perturbation else (shown,)

    def _seen(self, given: tuple[Floats, ...], perturb: Answer | None) -> Floats:
        """What the members are shown."""
        return given[0] if perturb is None else perturb(*given)["perturbed"].reshape(given[0].shape)

    def _feeds(self, images: torch.Tensor, perturb: Answer | None, *, seen: bool) -> list[Feed]:
        """Calibration inputs: of a member, what it is shown, or of the perturbation, images and noise."""
        if seen:
            return [{"images": self._seen(given, perturb)} for given in self._batches(images)]
        return [dict(zip(("images", "noise"), given, strict=True)) for given in self._batches(images)]

    def _answers(self, members: Sequence[Answer], perturb: Answer | None) -> Floats:
        """(N,K) the members' mean for the validation images."""
        rows = []
        for given in self._batches(self.validation):
            shown = self._seen(given, perturb)
            rows.append(np.mean([member(shown)["probabilities"] for member in members], axis=0))
        return np.concatenate(rows)


def _noted(graph: bytes, found: Found) -> bytes:
    """The graph with what the rule saw of it among its metadata."""
    model = onnx.load_from_string(graph)
    kept = {each.key: each.value for each in model.metadata_props}
    onnx.helper.set_model_props(model, dict(sorted({**kept, ENTRY: json.dumps(asdict(found))}.items())))
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def found_in(path: Path) -> Found | None:
    """What the rule saw of the graph at `path`; None where there is none, or another's."""
    try:
        stated = {each.key: each.value for each in onnx.load(path).metadata_props}[ENTRY]
        return Found(**{**json.loads(stated), "kept": tuple(json.loads(stated)["kept"])})
    except Exception:  # protobuf's own among them, of a file that is no graph
        return None


def in_halves(path: Path, precision: str, judge: Judge) -> tuple[bytes, Found]:
    """The graph at `path` in 16 bits, by the rule, on the CUDA device that it is for. Raises ExportError."""
    graph = half(path)
    layers = sum(node.op_type in MULTIPLY for node in onnx.load(path).graph.node)
    found = judge.found(graph, method="none", layers=layers)
    if not found.holds:
        raise ExportError(
            f"{path}: in {precision} the rule does not hold: {found}. Serve it with precision = 'float32'"
        )
    return graph, found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m export.quantise", description="graphs in fewer bits, by a rule")
    parser.add_argument("recipe", help="a recipe's name, or the path of its .toml file; @TIER may follow")
    parser.add_argument("--policies", nargs="+", default=None, help="which [policies.NAME] (all with a precision)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the checkpoints (runs)")
    parser.add_argument("--build", type=Path, default=Path("build"), help="folder of the graphs (build)")
    parser.add_argument("--data", type=Path, default=None, help="folder of the data sets, searched first")
    options = parser.parse_args(arguments)
    try:
        recipe = recipes.read(options.recipe)
        tables = recipe.family("policies", PolicyTable)
        known = [name for name, table in tables.items() if table.precision != FLOAT32]
        strange = [name for name in options.policies or () if name not in known]
        if strange or not known:
            asks = "none; precision = 'int8' in a [policies.NAME] asks for one"
            raise ExportError(
                f"{recipe.path}: expected policies with a precision, got {', '.join(strange) or 'none'}; "
                f"it has {', '.join(known) or asks}"
            )
        for name in options.policies or known:
            task = Task(recipe, name, runs=options.runs, build=options.build, data=options.data)
            for path, found in task.made():
                print(f"{path}: {found}")
    except (ValueError, datasets.DatasetError) as error:
        sys.exit(f"export.quantise: {error}")


if __name__ == "__main__":
    main()
