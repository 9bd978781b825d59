"""Graphs to archives: one `.mar` per policy of the recipe, with the code that serves it.

    python -m export.archive RECIPE [--policies NAME ...]

An archive holds handler.py, handlers/, defenses/ and pictures/ as they stand in this checkout, the graphs that the
policy needs, model-config.yaml whose `handler:` section *is* the policy, and golden.json, one image with its right
answers, by which a server is judged ready. Before anything is packed, a fresh interpreter that cannot see this checkout
loads the staged files and answers the golden image (export/prove.py). torch-model-archiver packs; its time stamps are
then set to a constant, so that the same inputs give the same bytes. An archive holds the secret hash network: treat it
as you treat a key (its file mode is 0600); the deployment's key itself is never inside.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

import recipes
from defenses import guard
from export.graphs import Answer, ExportError, graph_names, on_onnxruntime, only
from export.guarded import guarded
from export.predictor import Predictor, predictor_of
from pictures.geometry import Geometry
from recipes.policies import FLOAT32, FP16, HASH_GRAPH, RULE_GRAPHS, suffixed
from training.calibration.stored import CalibrationError, GateTable, calibrated
from training.checkpoint import CheckpointError, load
from zoo import datasets
from zoo.images import unit
from zoo.perturbation import Perturbation

CHECKOUT = Path(__file__).resolve().parent.parent
ENDINGS = {"onnxruntime": ".onnx", "torchscript": ".ts.pt"}
KEY = "TORCHWARDEN_KEY"
# the fields of each hash that its network decides, from the arguments of the network's architecture
HASH_FIELDS: Mapping[str, Callable[[Mapping[str, Any]], dict[str, int]]] = {
    "class-confidence": lambda network: {"classes": network["classes"]},
    "projection": lambda network: {"depth": network["projections"].bit_length()},
}
# the one output of its graph that each hash reads (defenses/routing.py)
HASH_READS = {"class-confidence": "probabilities", "projection": "projections"}
# of a geometry, what the networks give
SHAPE = {"channels", "height", "width"}
# images that the golden one is chosen from
GOLDEN_IMAGES = 64
# of noise, under which a golden image must be a sure one
GOLDEN_DRAWS = 8
# the earliest time stamp a zip can carry
EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Serving:
    """[serving]: how TorchServe runs an archive. workers x threads over all archives should be the cores.

    batch_size: most requests a worker is handed at once; max_batch_delay_ms: how long it waits for them, 0 not at all:
    a worker that is free takes what waits (deploy/batching.py).
    response_timeout_s: after it a worker counts as dead. queue: requests that may wait. max_rows: rows a request.
    """

    workers: int = 1
    threads: int = 1
    batch_size: int = 8
    max_batch_delay_ms: int = 0
    response_timeout_s: int = 30
    queue: int = 200
    max_rows: int = 256

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            least = 0 if name == "max_batch_delay_ms" else 1
            if value < least:
                raise ValueError(f"{name}: expected >= {least}, got {value}")


@dataclass(frozen=True)
class PolicyTable:
    """[policies.NAME]: predictor is the checkpoint that answers, or "victim", which may be an adopted model.

    route, perturb, gate, response and the rest as in the archive. The perturbation of a `perturb` table is the
    predictor's where it names no other graph. A gate comes with its calibration (training/calibration). average:
    the mean of all the predictor's networks answers. mark: what clones learn and the key reads (defenses/mark.py).
    limits: rows that may be asked in a window (defenses/limits.py). budget: how surprising a principal's queries may be
    together (defenses/budget.py).
    precision: of the graphs that answer and perturb (export/quantise.py).
    pictures: fields of pictures/geometry.py in place of the model's own, as `background = 255`, or `fit = "crop"` for
    networks that were trained on images of one size.
    about: a line for pages; tags: what recipes/variants.py finds it by. Neither is in the archive.
    """

    predictor: str
    average: bool = False
    route: dict[str, Any] | None = None
    perturb: dict[str, Any] | None = None
    gate: GateTable | None = None
    response: dict[str, Any] = field(default_factory=lambda: {"rule": "soft"})
    backend: str = "onnxruntime"
    precision: str = FLOAT32
    on_stage_error: str = "closed"
    mark: dict[str, Any] | None = None
    limits: dict[str, Any] | None = None
    budget: dict[str, Any] | None = None
    pictures: dict[str, Any] = field(default_factory=dict)
    principal_header: str = "Torchwarden-Principal"
    store: str | None = None
    about: str = ""
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.backend not in ENDINGS:
            raise ValueError(f"backend: expected one of {', '.join(ENDINGS)}, got {self.backend!r}")


def handler_section(
    recipe: str, name: str, table: PolicyTable, serving: Serving, predictor: Predictor, geometry: Geometry, runs: Path
) -> dict[str, Any]:
    """The policy as the archive's code reads it (defenses/policy.py)."""
    route = None
    if table.route is not None:
        graph = table.route.get("graph", HASH_GRAPH)
        network = load(runs / recipe / f"{graph}.safetensors").architectures[0].arguments
        if "projections" not in network:
            raise ExportError(f"{graph}.safetensors: expected a hash network in whole numbers, got another; retrain it")
        # a hash that is not in the table is reported by the policy
        hash_ = table.route.get("hash", "")
        decided = HASH_FIELDS[hash_](network) if hash_ in HASH_FIELDS else {}
        route = {**table.route, "graph": graph, **decided}
    perturb = None if table.perturb is None else perturbed(table, runs / recipe)
    if perturb is not None:
        perturb["graph"] = suffixed(perturb["graph"], table.precision)
    gate = None
    if table.gate is not None:
        gate = calibrated(name, table.gate, runs / recipe, predictor=predictor.digest)
    return {
        "recipe": recipe,
        "policy": name,
        "backend": table.backend,
        "precision": table.precision,
        "threads": serving.threads,
        "input": asdict(fitting(table, geometry)),
        "class_names": list(predictor.classes),
        "members": list(predictor.members),
        "average": table.average,
        "route": route,
        "perturb": perturb,
        "gate": gate,
        "response": response(table),
        "mark": table.mark,
        "limits": table.limits,
        "budget": table.budget,
        "max_rows": serving.max_rows,
        "on_stage_error": table.on_stage_error,
        "key_env": KEY if table.mark is not None or _keyed(route, perturb, gate, table.budget) else None,
        "principal_header": table.principal_header,
        "store": table.store,
    }


def _keyed(
    route: object,
    perturb: Mapping[str, Any] | None,
    gate: Mapping[str, Any] | None,
    budget: Mapping[str, Any] | None,
) -> bool:
    """Whether a stage needs the deployment's key."""
    priced = any((stage or {}).get("work") is not None for stage in (gate, budget))
    return route is not None or (perturb or {}).get("noise") == "keyed" or priced


def fitting(table: PolicyTable, geometry: Geometry) -> Geometry:
    """What the policy makes of a picture. Raises ExportError."""
    if SHAPE & table.pictures.keys():
        raise ExportError(f"pictures: expected no {', '.join(sorted(SHAPE))}, the networks give them")
    try:
        return replace(geometry, **table.pictures)
    except (ValueError, TypeError) as error:
        raise ExportError(f"pictures: {error}") from error


def perturbed(table: PolicyTable, runs: Path) -> dict[str, Any]:
    """The `perturb` section of a policy: its table, with the graph and the shape of its noise. Raises ExportError."""
    stated = table.perturb or {}
    graph = str(stated.get("graph", f"{table.predictor}-perturbation"))
    source = load(runs / f"{graph.removesuffix('-perturbation')}.safetensors")
    found = dict(zip(graph_names(source), source.networks, strict=True)).get(graph)
    if not isinstance(found, Perturbation):
        raise ExportError(
            f"perturb: {source.path} holds no perturbation {graph!r}; train one (python -m training.meco)"
        )
    return {**stated, "graph": graph, "noise_shape": list(found.noise_shape)}


def response(table: PolicyTable) -> dict[str, Any]:
    """The response rule of a policy, the graph that it reads among its fields."""
    # a rule that is not in the table reads none; one that does not exist is reported by the policy
    graph = RULE_GRAPHS.get(str(table.response.get("rule")))
    return {**table.response} if graph is None else {"graph": graph, **table.response}


def graphs_of(section: Mapping[str, Any]) -> list[str]:
    """The names of all graphs that a policy runs."""
    names = list(section["members"])
    if section["route"] is not None:
        names.append(section["route"]["graph"])
    names += [section[stage]["graph"] for stage in ("perturb", "gate") if section[stage] is not None]
    if "graph" in section["response"]:
        names.append(section["response"]["graph"])
    return names


def golden(section: Mapping[str, Any], graphs: Path, images: np.ndarray) -> dict[str, Any]:
    """golden.json: of `images` (N,C,H,W) float32 the one that every member is surest of, and each member's answer.

    Which member answers depends on a key that the archive does not hold, so any member's answer is a right one; where
    all members answer, their mean is, and it is the mean that must be sure. Where images are perturbed, sure means
    under GOLDEN_DRAWS draws of noise too, and so are right answers. Before a gate it is one that the gate's graph finds
    nothing strange in. Where the response rule moves labels, the proof puts in what it makes of them (export/prove.py).
    """
    seen = [images]
    plain = np.ones(len(images))
    if section["gate"] is not None:
        plain = _unsuspected(_opened(section, graphs, section["gate"]["graph"])(images))
    if section["perturb"] is not None:
        perturb = _opened(section, graphs, section["perturb"]["graph"])
        random = np.random.default_rng(0)
        for _ in range(GOLDEN_DRAWS):
            noise = random.standard_normal((len(images), *section["perturb"]["noise_shape"]), dtype=np.float32)
            seen.append(perturb(images, noise)["perturbed"].reshape(images.shape))
    members = [_opened(section, graphs, name) for name in section["members"]]
    responses = np.stack([[member(each)["probabilities"] for member in members] for each in seen])
    if section["average"]:
        responses = responses.mean(axis=1, keepdims=True, dtype=np.float32)
    answers = responses.reshape(-1, *responses.shape[2:]).swapaxes(0, 1)
    best = int((answers.max(2).min(1) * plain).argmax())
    image = images[best : best + 1].astype("<f4")
    return {"image": base64.b64encode(image.tobytes()).decode(), "accepted": answers[best].tolist()}


def _unsuspected(responses: Mapping[str, np.ndarray]) -> np.ndarray:
    """(N,) how sure the auxiliary model is of each image; 0 for the half that is reconstructed worse than the other."""
    error = responses["error"][:, 0]
    sure: np.ndarray = responses["auxiliary"].max(1) * (error <= np.median(error))
    return sure


def _opened(section: Mapping[str, Any], graphs: Path, name: str) -> Answer:
    path = present(graphs / f"{name}.onnx", section["recipe"])
    return on_onnxruntime(path, cuda=section["precision"] == FP16)


def present(source: Path, recipe: str) -> Path:
    """The path of a graph that is there. Raises ExportError where it is not."""
    if not source.is_file():
        raise ExportError(f"no graph at {source}: export it first (python -m export.graphs {recipe})")
    return source


def stage(folder: Path, section: Mapping[str, Any], graphs: Path, golden_answer: Mapping[str, Any]) -> None:
    """Lay out an archive's files in `folder`, as TorchServe's worker will find them. Raises ExportError."""
    for room in ("handlers", "defenses", "pictures"):
        for file in sorted((CHECKOUT / room).rglob("*.py")):
            packed = folder / file.relative_to(CHECKOUT)
            packed.parent.mkdir(exist_ok=True)
            shutil.copyfile(file, packed)
    shutil.copyfile(CHECKOUT / "handlers" / "handler.py", folder / "handler.py")
    (folder / "graphs").mkdir()
    # a hash that does not exist is reported by the policy
    route = section["route"] or {}
    routes = route.get("graph") if route.get("hash") in HASH_READS else None
    for name in graphs_of(section):
        source = present(graphs / f"{name}{ENDINGS[section['backend']]}", section["recipe"])
        packed = folder / "graphs" / source.name
        if name == routes and section["backend"] == "onnxruntime":
            packed.write_bytes(only(source, [HASH_READS[route["hash"]]]))
        else:
            shutil.copyfile(source, packed)
    (folder / "golden.json").write_text(json.dumps(golden_answer))


def model_config(section: Mapping[str, Any], serving: Serving) -> str:
    """model-config.yaml: TorchServe's keys, then the policy."""
    return yaml.safe_dump(
        {
            "minWorkers": serving.workers,
            "maxWorkers": serving.workers,
            "batchSize": serving.batch_size,
            "maxBatchDelay": serving.max_batch_delay_ms,
            "responseTimeout": serving.response_timeout_s,
            "startupTimeout": 60,
            "maxRetryTimeoutInSec": 300,
            "jobQueueSize": serving.queue,
            "handler": dict(section),
        },
        sort_keys=False,
    )


def prove(folder: Path) -> None:
    """Load the staged archive in a fresh interpreter that cannot see this checkout. Raises ExportError.

    Completes golden.json where the response rule moves labels.
    """
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "ORT_DISABLE_TELEMETRY": "1",
        KEY: secrets.token_hex(32),  # any key will do: the golden answer does not depend on it
    }
    command = [sys.executable, "-I", "-B", str(CHECKOUT / "export" / "prove.py"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise ExportError(f"the archive's code does not serve by itself:\n{done.stderr.strip()[-2000:]}")


def pack(folder: Path, name: str, target: Path) -> None:
    """Pack a staged folder with torch-model-archiver and write it to `target` with constant time stamps."""
    config = folder / "model-config.yaml"
    with tempfile.TemporaryDirectory() as private:  # the archiver clears a folder named after the model in TMPDIR
        out = Path(private) / "out"
        out.mkdir()
        command = [
            *(sys.executable, "-m", "model_archiver.model_packaging"),
            # "python" is the server's interpreter; "python3" would be the first on PATH
            *("--model-name", name, "--version", "1.0", "--runtime", "python"),
            *("--handler", str(folder / "handler.py"), "--config-file", str(config)),
            *("--extra-files", str(folder), "--export-path", str(out)),
        ]
        environment = {**os.environ, "TMPDIR": private}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if done.returncode:
            raise ExportError(f"torch-model-archiver failed on {name}:\n{done.stderr.strip()[-2000:]}")
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            _repack(out / f"{name}.mar", temporary)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)


def _repack(source: Path, target: Path) -> None:
    """Copy a zip, members in order of name, with constant time stamps and a manifest without a date."""
    descriptor = os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with (
        zipfile.ZipFile(source) as packed,
        os.fdopen(descriptor, "wb") as file,
        zipfile.ZipFile(file, "w") as out,
    ):
        for name in sorted(name for name in packed.namelist() if not name.endswith("/")):
            data = packed.read(name)
            if name == "MAR-INF/MANIFEST.json":
                data = json.dumps({**json.loads(data), "createdOn": "01/01/1980 00:00:00"}, indent=2).encode()
            out.writestr(zipfile.ZipInfo(name, EPOCH), data, zipfile.ZIP_DEFLATED)


def archive(
    recipe: recipes.Recipe,
    name: str,
    table: PolicyTable,
    serving: Serving,
    *,
    runs: Path,
    build: Path,
    store: Path,
    data: Path | None,
) -> Path:
    """Build model_store/<recipe>-<policy>.mar and give its path. Raises ExportError, CheckpointError."""
    graphs = build / recipe.name
    data_set = recipe.section("dataset", datasets.Data)
    images = data_set.load("test", data)
    predictor = predictor_of(recipe, table.predictor, runs)
    if table.precision != FLOAT32:
        behind = [] if table.perturb is None else [perturbed(table, runs / recipe.name)["graph"]]
        predictor = predictor.served(table.precision, graphs, *behind)
    section = handler_section(recipe.name, name, table, serving, predictor, data_set.geometry(predictor.shape), runs)
    target = store / f"{recipe.name}-{name}.mar"
    with tempfile.TemporaryDirectory() as private:
        folder = Path(private)
        right = golden(section, graphs, unit(images.stored[:GOLDEN_IMAGES]).numpy())
        stage(folder, section, graphs, right)
        if table.precision != FLOAT32:
            text = guarded(section, graphs, right["image"], lambda graph: _opened(section, graphs, graph))
            (folder / guard.NAME).write_text(text)
        (folder / "model-config.yaml").write_text(model_config(section, serving))
        prove(folder)
        pack(folder, target.stem, target)
    return target


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m export.archive", description="graphs to .mar archives")
    parser.add_argument("recipe", help="a recipe's name, or the path of its .toml file")
    parser.add_argument("--policies", nargs="+", default=None, help="which [policies.NAME] to build (all)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the checkpoints (runs)")
    parser.add_argument("--build", type=Path, default=Path("build"), help="folder of the graphs (build)")
    parser.add_argument("--store", type=Path, default=Path("model_store"), help="where archives go (model_store)")
    parser.add_argument("--data", type=Path, default=None, help="folder of the data sets, searched first")
    options = parser.parse_args(arguments)
    try:
        recipe = recipes.read(options.recipe)
        serving = recipe.section("serving", Serving)
        tables = recipe.family("policies", PolicyTable)
        for name in options.policies or tables:
            if name not in tables:
                raise ExportError(f"{recipe.path}: no [policies.{name}]; it has {', '.join(tables)}")
            folders = {
                "runs": options.runs,
                "build": options.build,
                "store": options.store,
                "data": options.data,
            }
            print(archive(recipe, name, tables[name], serving, **folders))
    except (recipes.RecipeError, ExportError, CheckpointError, CalibrationError, datasets.DatasetError) as error:
        sys.exit(f"export.archive: {error}")


if __name__ == "__main__":
    main()
