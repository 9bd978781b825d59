"""The recipe of an adopted model: what was found, commented, and every defense at a small tier.

Written once; from then on it is its owner's. `make adopt` with the same name and other findings refuses to replace it.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import recipes
from export.adopt.adoption import Adopted
from export.adopt.asked import Asked
from export.adopt.model import Model
from export.graphs import ExportError
from pictures.model_input import ModelInput
from recipes.rules import rules

# a side from which on a network for photographs is taken for the members, and small copies for the rest
LARGE = 64
SMALL_COPY = 64
HASH_COPY = 28
# the smallest side that conv3 takes (zoo/conv3.py)
CONV3_LEAST = 14
# stands in where no images were given: crops of a photograph that scikit-learn carries along
STAND_IN = "china"
DEFAULTS = ModelInput(1)


def write(path: Path, asked: Asked, found: Adopted, *, replace: bool) -> None:
    """Write the recipe, whole or not at all. Raises ExportError where another one is there, RecipeError where make
    could not read it."""
    text = recipe(path.stem, asked, found)
    if path.exists() and path.read_text("utf-8") != text and not replace:
        raise ExportError(f"{path}: there is such a recipe, with other content; remove it, or give another NAME")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".adopted-") as folder:
        temporary = Path(folder) / path.name
        temporary.write_text(text, "utf-8")
        rules(recipes.read(temporary))  # what is written here is checked as every recipe is, for make as well
        temporary.replace(path)


def recipe(name: str, asked: Asked, found: Adopted) -> str:
    """Its text."""
    model = found.model
    large = min(model.input.height, model.input.width) >= LARGE
    parts = [
        _head(name, asked, found),
        _model(model),
        _dataset(asked),
        _networks(model, large=large),
        _policies(model),
        _attacks(model, large=large),
        *([_small(model)] if large else []),
    ]
    return "\n\n".join(parts) + "\n"


def _head(name: str, asked: Asked, found: Adopted) -> str:
    lines = [f"{asked.file.name}, adopted as {name} by make adopt. What was found, and how:", "", *found.said]
    if found.shown:
        lines += ["", *found.shown.splitlines()]
    return "\n".join(f"# {line}".rstrip() for line in lines)


def _model(model: Model) -> str:
    lines = ["[model]", f"file = {_text(model.file)}"]
    if model.architecture:
        lines.append(f"architecture = {_text(model.architecture)}      # whose weights the file holds")
    lines.append(f"classes = {_list(model.classes)}")
    lines.append(f"gives = {_text(model.gives)}      # probabilities, logits, probability (of the second), logit")
    if model.output:
        lines.append(f"output = {_text(model.output)}      # the value of the graph that is the answer")
    if model.batch:
        lines.append(f"batch = {model.batch}      # images that it takes at a time: it is looped over")
    if model.expect:
        lines.append(f"expect = {_text(model.expect)}      # the owner's own predictions: 99 % must be given again")
    lines.append(f"proven = {_text(model.proven)}")
    taken = model.input
    size = taken.height if taken.height == taken.width else f"[{taken.height}, {taken.width}]"
    lines += ["", "[model.input]      # value = (pixel in [0,1] * scale - mean) / std", f"size = {size}"]
    comments = {
        "channels": "1: gray, 3: RGB",
        "fit": "crop, stretch or letterbox",
        "resize": "the shorter side, before the centre is cut out; 0: what just covers",
        "fill": "gray level around a letterboxed picture",
        "background": "gray level under transparent parts, which are refused without it",
        "megapixels": "the most that a picture may have",
        "interpolation": "of `library`",
        "library": "pillow or opencv: libraries resize differently by one name",
        "colour": "the order that the network takes",
        "layout": "NCHW, NHWC, NHW or flat",
        "type": "float32, float16, float64 or uint8",
    }
    always = ("channels", "fit", "resize", "interpolation", "library", "mean", "std")
    for key, value in asdict(taken).items():
        if key != "size" and (key in always or value != getattr(DEFAULTS, key)):
            comment = f"      # {comments[key]}" if key in comments else ""
            lines.append(f"{key} = {_value(value)}{comment}")
    return "\n".join(lines)


def _dataset(asked: Asked) -> str:
    if asked.images is None:
        return (
            "# no images were given: crops of one photograph stand in, labelled by the model itself;\n"
            '# with images of your own: name = "imagefolder:/data/photos"\n[dataset]\n'
            f"name = {_text(STAND_IN)}"
        )
    return (
        f"[dataset]\nname = {_text('imagefolder:' + str(asked.images.resolve()))}\nsplit = 0.2        # held out for "
        "tests, by content, where the folder is not split\nbroken = 0.01      # the share of files that may be "
        "broken"
    )


def _networks(model: Model, *, large: bool) -> str:
    gray = model.input.channels == 1
    tiny = _is_tiny(model)
    member = model.architecture or ("timm:resnet18" if large else "conv3" if gray and not tiny else "resnet18-8x")
    started = (
        "from_victim = true      # each member starts as your model, with a fresh last layer\n"
        if model.architecture
        else ""
    )
    copy = (
        f"size = {SMALL_COPY}          # of the copy that it looks at: its cost does not grow with the image\n"
        if large
        else f"size = {HASH_COPY}\n"
        if tiny
        else ""
    )
    patch = "patch = 8\n" if large else ""
    auxiliary = 'auxiliary = "conv3"\nauxiliary_options = { width = 1 }\nauxiliary_fit = { epochs = 12, lr = 1e-3 }'
    hashed = f"size = {HASH_COPY}\n" if model.input.height != HASH_COPY or model.input.width != HASH_COPY else ""
    members = ", ".join(f'{{ architecture = "{member}", lambda_attacker = 0.01 }}' for _ in range(3))
    step = 0.5 * math.sqrt(math.prod(model.input.shape) / 28**2)
    meco_start = "from_victim = true" if model.architecture else "from_victim = false      # a student, from labels"
    few = (
        "judged = 500       # images of each kind that it is reported on\n"
        "optimisation = { epochs = 2, lr = 1e-4, batch_size = 32 }      # three images a row are held in a step"
        if large
        else "optimisation = { epochs = 2, lr = 1e-4 }"
    )
    meco = f"""[networks.meco]
rms = 0.1
filters = 16
step = {step:.2g}          # of the particles, L2 over an image: it grows with the image's side
{copy}{meco_start}
{few}"""
    return f"""[victim]      # not trained: what EDM's and MISLEADER's members are, and how they are fitted
architecture = "{member}"
optimisation = {{ epochs = 4, lr = 3e-4, batch_size = 32 }}

[networks.hash]      # EDM's secret perceptual hash
task = "glyphs"
architecture = "conv3"
options = {{ width = 1 }}
optimisation = {{ epochs = 3 }}
affine = {{ degrees = 25.0, shift = 0.2, scale = 0.2 }}
{hashed}
[networks.edm]
auxiliary = "china"      # images of anything else: crops of a photograph; better: 10,000 of yours, "imagefolder:DIR"
members = 3
lambda_diversity = 0.3
{started}
[networks.misleader]      # distilled from your model's probabilities
augment = {{ affine = {{ degrees = 15.0, shift = 0.1, scale = 0.1 }}, crop = 0.8 }}
augmented_batch = 8
attacker_steps = 1
members = [{members}]
{started}
{meco}

[networks.same]      # the gate
{copy}{patch}mask_ratio = 0.25
fit = {{ epochs = 12 }}
{auxiliary}"""


def _policies(model: Model) -> str:
    gate = 'form = "robust", alpha = 0.95, false_positive_rate = 0.01'
    return f"""[policies.undefended]
predictor = "victim"

[policies.label]
predictor = "victim"
response = {{ rule = "label" }}

[policies.limited]
predictor = "victim"
limits = {{ rows = 3600, window = 3600 }}

[policies.same-observe]
predictor = "victim"
gate = {{ action = "observe", {gate} }}

[policies.same-reject]
predictor = "victim"
gate = {{ action = "reject", {gate} }}

[policies.edm]
predictor = "edm"
route = {{ hash = "projection" }}
response = {{ rule = "label" }}      # its probabilities give it away: docs/results/unmixing.md

[policies.misleader]
predictor = "misleader"
average = true

[policies.meco]
predictor = "meco"
perturb = {{ noise = "fresh" }}

[serving]
max_rows = {max(1, min(256, 2**24 // (4 * model.input.channels * model.input.height * model.input.width)))}"""


def _is_tiny(model: Model) -> bool:
    """Whether images are smaller than the smallest that conv3 takes: it looks at a larger copy then."""
    return min(model.input.height, model.input.width) < CONV3_LEAST


def _attacks(model: Model, *, large: bool) -> str:
    gray = model.input.channels == 1
    clone = "conv3" if gray or large or _is_tiny(model) else "resnet18-8x"
    options = (
        "{ width = 1, shrunk = 32 }"
        if large or _is_tiny(model) or model.input.height != model.input.width
        else ("{ width = 1 }" if clone == "conv3" else "{}")
    )
    return f"""[attacks.knockoff]      # images of anything, none twice
surrogate = "flower"
budget = {1000 if large else 4000}

[clone]      # what an attacker trains; small here, for two cores
architecture = "{clone}"
options = {options}
epochs = 10
recipes = ["adamw"]
seeds = [0, 1]
fractions = [0.25, 1.0]

[loadtest]
p99_ms = 2000.0
benign_accuracy = 0.0"""


def _small(model: Model) -> str:
    member = model.architecture or "timm:resnet18"
    looked = f"options = {{ shrunk = {SMALL_COPY} }}"
    members = ", ".join(f'{{ architecture = "{member}", {looked}, lambda_attacker = 0.01 }}' for _ in range(2))
    return f"""# Every defense in minutes on two cores, to see that it works: TIER=small. Members look at small copies.
[tiers.small]
dataset = {{ rows = 600 }}
victim = {{ {looked}, optimisation = {{ epochs = 2 }} }}
networks.hash = {{ per_class = 200, mix_rows = 200 }}
networks.edm = {{ members = 2, held_out = 200 }}
networks.misleader = {{ members = [{members}] }}
networks.meco = {{ steps = 1, judged = 100, optimisation = {{ epochs = 1 }} }}
networks.same = {{ fit = {{ epochs = 6 }}, auxiliary_fit = {{ epochs = 6 }} }}
attacks.knockoff = {{ budget = 400 }}
clone = {{ seeds = [0], epochs = 6 }}"""


def _value(value: object) -> str:
    if isinstance(value, tuple):
        return _list(value)
    return _text(value) if isinstance(value, str) else json.dumps(value)


def _list(values: Sequence[object]) -> str:
    return "[" + ", ".join(map(_value, values)) + "]"


def _text(value: str) -> str:
    """A string as TOML has it, whose escapes are JSON's."""
    return json.dumps(value, ensure_ascii=False)
