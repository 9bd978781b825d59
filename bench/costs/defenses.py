"""What each defense adds to the victim's answer, in time and memory: the "defense_costs" rows of report.json.

    python -m bench.costs defenses RECIPE --run reports/RECIPE

MeCo (NeurIPS 2023, sec. 5.5) puts its test time 17 to 172 times below that of MAD and GRAD, which "solve
computationally expensive optimization during testing". In the papers' code they do, the "naive" form here
(bench/naive_poisoning.py); in the "served" one, a policy's archive as the server runs it, they do not. Measured are
the defenses of POLICIES that the recipe has: all of them served, MAD and GRAD naive too, behind the undefended archive
and with the surrogate and parameters of the policy.

Time: batches of test images in one process, the victim alone and then each defense, round after round; a ratio is
taken inside a round (bench/rounds.py). `undefended` is measured like any other: its ratio to the victim, the
same archive loaded twice, is what the machine's noise comes to.

Memory: for each row a fresh process answers the same batches; from its peak is taken that of one that holds the
undefended archive alone; `undefended` shows the noise again. All of them have imported torch, and what of it is first
used by autograd counts for the naive form.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import recipes
from attacks.clone import Cloning, untrained
from attacks.service import Service
from bench.costs.timing import PARTS, timing
from bench.inprocess import Call, Images, in_process, pipeline
from bench.memory import of_a_fresh_process
from bench.naive_poisoning import NAIVE
from bench.rounds import interleaved
from evaluation.oracles import InProcessOracle, OracleError
from evaluation.studies.study import Found, Option, Study, Task
from report.headline import UNDEFENDED
from report.rows.bench import DefenseCostRow

POLICIES = (UNDEFENDED, "randp", "mad", "grad", "meco", "meco-keyed")
BATCHES = (1, 8, 32)
SECONDS = 0.2


@dataclass(frozen=True)
class Naive:
    """A response rule the slow way. weights: the surrogate's TorchScript graph; planned: its network."""

    rule: str
    epsilon: float
    keep_label: bool
    weights: Path
    planned: Cloning

    @classmethod
    def of(cls, oracle: InProcessOracle, recipe: recipes.Recipe, build: Path) -> Naive | None:
        """That of an archive's rule, if there is one. Raises OracleError where `build` has another surrogate."""
        response = oracle.pipeline.policy.response
        if response.rule not in NAIVE:
            return None
        rule: Any = response.build()
        weights = build / f"{rule.graph}.ts.pt"
        packed, built = metadata(oracle, rule.graph)["checkpoint"], _script(weights)[1]["checkpoint"]
        if built != packed:
            raise OracleError(f"{weights}: of another checkpoint than the archive's; build it again (make archive)")
        own = recipe.networks.get(rule.graph, {})
        table = own if own.get("architecture") else recipe.tables["victim"]  # as training/surrogate.py has it
        planned = Cloning(table["architecture"], epochs=1, options=table.get("options", {}))
        return cls(response.rule, rule.epsilon, rule.keep_label, weights, planned)

    def network(self, service: Service) -> nn.Module:
        """The surrogate, images to logits. Raises OracleError where its weights do not fit what is planned."""
        weights = _script(self.weights)[0].state_dict()
        with torch.device("meta"):  # whose tensors take no memory: the weights come with the graph
            network = untrained(self.planned, service).eval()
        try:
            own = {name.removeprefix("network."): value for name, value in weights.items()}
            network.load_state_dict(own, assign=True)
        except RuntimeError as error:
            raise OracleError(f"{self.weights}: not the recipe's {self.planned.architecture}: {error}") from error
        return network

    def behind(self, oracle: InProcessOracle) -> Callable[[Images], NDArray[np.float32]]:
        """What is shown of the answers of `oracle`, by torch on the same device and as many threads."""
        policy = oracle.pipeline.policy
        victim: Any = oracle.pipeline.graphs[policy.members[0]]
        device = "cuda" if "cuda" in victim.device.lower() else "cpu"
        torch.set_num_threads(policy.threads)
        network = self.network(Service(policy.input.channels, policy.input.height, len(policy.class_names))).to(device)

        def answer(images: Images) -> NDArray[np.float32]:
            answers = oracle.pipeline(images).probabilities
            assert answers is not None, "an undefended victim returns its probabilities"
            shown = NAIVE[self.rule](
                network,
                torch.from_numpy(images).to(device),
                torch.from_numpy(answers).to(device),
                epsilon=self.epsilon,
                keep_label=self.keep_label,
            )
            return shown.cpu().numpy()

        return answer


@dataclass(frozen=True)
class Defense:
    """One defense in one form. archive: whose pipeline answers; threads: as it is served; naive: what then follows."""

    name: str
    archive: Path
    threads: int
    naive: Naive | None = None

    @property
    def form(self) -> str:
        """As DefenseCostRow has it."""
        return "naive" if self.naive else "served"

    @contextmanager
    def answering(self) -> Iterator[Call]:
        """The defense at work, in this process. Raises OracleError and LoadError."""
        with InProcessOracle(self.archive) as oracle:
            if self.naive is None:
                yield pipeline(oracle)
                return
            answer = self.naive.behind(oracle)

            def call(images: Images) -> Mapping[str, float]:
                answer(images)
                return {}

            yield call


def study(task: Task, *, build: Path, batches: Sequence[int], rounds: int, seconds: float) -> Iterator[Found]:
    """A row for each defense, form and size of batch. Of POLICIES those are measured that the recipe has."""
    has = task.recipe.tables.get("policies", {})
    policies = dict.fromkeys([*(name for name in POLICIES if name in has), *task.policies])
    architecture, compared = defenses(task.recipe, list(policies), store=task.store, build=build)
    yield Found(settings={"defense_costs.rounds": rounds, "defense_costs.seconds": seconds})
    for batch in batches:
        images = np.ascontiguousarray(task.test.pixels[: PARTS * batch].numpy())
        for row in measure(architecture, compared, images, batch=batch, rounds=rounds, seconds=seconds):
            yield Found([row], says=line(row))


def defenses(recipe: recipes.Recipe, policies: Sequence[str], *, store: Path, build: Path) -> tuple[str, list[Defense]]:
    """The undefended victim's architecture, and the policies in every form. Raises OracleError and LoadError."""
    victim = store / f"{recipe.name}-{UNDEFENDED}.mar"
    with InProcessOracle(victim) as oracle:
        policy = oracle.pipeline.policy
        architecture, threads = metadata(oracle, policy.members[0])["architecture"], policy.threads
    found = []
    for name in policies:
        archive = store / f"{recipe.name}-{name}.mar"
        with InProcessOracle(archive) as oracle:
            found.append(Defense(name, archive, oracle.pipeline.policy.threads))
            naive = Naive.of(oracle, recipe, build / recipe.name)
            if naive is not None:
                found.append(Defense(name, victim, threads, naive))
    return architecture, found


def measure(
    architecture: str, compared: Sequence[Defense], images: Images, *, batch: int, rounds: int, seconds: float
) -> Iterator[DefenseCostRow]:
    """A row for each of `compared`, `undefended` among them, on `images` in batches of `batch`."""
    victim = next(defense for defense in compared if defense.name == UNDEFENDED)
    with ExitStack() as opened:
        probes = [
            in_process(
                opened.enter_context(defense.answering()),
                images,
                batch=batch,
                seconds=seconds,
                policy=defense.name,
                architecture=architecture,
                path="pipeline",
            )
            for defense in (victim, *compared)
        ]
        alone, *others = interleaved(probes, rounds=rounds, name=f"batches of {batch}")
    least = of_a_fresh_process(victim, images, batch)
    for defense, timed in zip(compared, others, strict=True):
        memory = of_a_fresh_process(defense, images, batch)
        yield DefenseCostRow(
            architecture=architecture,
            batch=batch,
            defense=defense.name,
            form=defense.form,
            threads=defense.threads,
            ms=timed.p50_ms,
            ms_rounds=timed.p50_rounds,
            victim_ms_rounds=alone.p50_rounds,
            peak_mb=None if memory is None or least is None else round(memory.peak - least.peak, 1),
        )


def line(row: DefenseCostRow) -> str:
    """A row's line on the terminal."""
    memory = "not measured" if row.peak_mb is None else f"{row.peak_mb:+.1f} MB"
    return (
        f"{row.defense} ({row.form}), batches of {row.batch}: {row.ms:.3f} ms, "
        f"{row.times:.2f} times the victim alone; memory {memory}"
    )


def metadata(oracle: InProcessOracle, name: str) -> Mapping[str, str]:
    """What the exporter wrote into one of the archive's graphs."""
    graph: Any = oracle.pipeline.graphs[name]  # one of handlers.backends
    written: Mapping[str, str] = graph.metadata
    return written


def _script(path: Path) -> tuple[nn.Module, Mapping[str, str]]:
    """A TorchScript graph and what the exporter wrote into it. Raises OracleError where there is none."""
    if not path.is_file():
        raise OracleError(f"{path}: no such graph; export the recipe first (make export)")
    extra = {"metadata.json": ""}  # filled by the call
    with warnings.catch_warnings():
        # torch 2.15 announces the end of TorchScript; until then it is exported
        warnings.filterwarnings("ignore", r".*torch\.jit\.", FutureWarning)
        warnings.filterwarnings("ignore", r".*torch\.jit\.", DeprecationWarning)
        graph: nn.Module = torch.jit.load(path, map_location="cpu", _extra_files=extra)
    return graph, json.loads(extra["metadata.json"])


STUDY = Study(
    "defenses",
    "time and memory that defenses add",
    study,
    policies=f"more policies than {', '.join(POLICIES)}",
    more_policies=True,
    sections=("defense_costs",),
    options=(Option("build", Path("build"), "folder of exported graphs"), *timing(batches=BATCHES, seconds=SECONDS)),
)
