"""From an unpacked archive to a pipeline that has answered once.

Used by the handler in TorchServe's worker and, without a server, by callers that want an archive's answers in process.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import yaml

from defenses import guard
from defenses.budget import Accounts
from defenses.limits import Limiter
from defenses.memory import StoreError
from defenses.pipeline import Pipeline, ask, sound
from defenses.policy import Policy, PolicyError
from defenses.work import Toll
from handlers.audit import AUDIT, AuditLog
from handlers.backends import BACKENDS, Backend, cuda
from handlers.errors import LoadError
from handlers.key import read_key
from handlers.ledger import open_ledger
from handlers.store import Store, open_store

# Two rows, so that no graph with a fixed batch of one passes; twice, because TorchScript optimises on its
# second run.
WARM_UP_ROWS = 2
WARM_UP_RUNS = 2

_log = logging.getLogger(__name__)


def load(
    model_dir: Path, *, environ: Mapping[str, str] = os.environ, gpu: int | None = None, seed: int | None = None
) -> Pipeline:
    """The pipeline of the archive unpacked in `model_dir`, its graphs checked and warm.

    environ: where the key is named. gpu: the CUDA device for the graphs, the first if None; ignored without
    CUDA. seed: of what response rules and fresh noise draw, for measurements that can be repeated; a server leaves
    it None and draws from the operating system's entropy. Raises LoadError, saying what to do about it.
    """
    policy = _read_policy(model_dir / "model-config.yaml")
    if policy.backend not in BACKENDS:
        raise LoadError(f"policy: backend: expected one of {', '.join(BACKENDS)}, got {policy.backend!r}")
    if policy.precision == "fp16" and not cuda():
        raise LoadError(
            "policy: precision: 'fp16' needs CUDA, and the installed onnxruntime has none. "
            "Serve a policy with precision 'int8' or 'float32' here, or install onnxruntime-gpu"
        )
    key = read_key(policy.key_env, environ) if policy.needs_key and policy.key_env else None
    graphs = {name: _open(model_dir / "graphs", name, policy, gpu) for name in policy.graphs}
    _warm_up(policy, graphs)
    _guard(policy, graphs, model_dir)
    device = graphs[policy.members[0]].device
    _log.info("%s-%s runs on %s, threads a graph: %d", policy.recipe, policy.policy, device, policy.threads)
    try:
        return Pipeline(
            policy,
            graphs,
            key=key,
            now=time.perf_counter,
            clock=time.time,
            random=np.random.default_rng(seed),
            entropy=os.urandom if seed is None else np.random.default_rng([seed, 1]).bytes,
        )
    except PolicyError as error:
        raise LoadError(f"policy: {error}") from error


def open_toll(policy: Policy, environ: Mapping[str, str] = os.environ) -> Toll | None:
    """What asks for proof of work where `policy` does, its store open. Raises LoadError.

    A Redis that does not answer is no error: it may come later. Until then rows that must pay get 503.
    """
    work = policy.work
    if work is None or policy.key_env is None:
        return None
    key = read_key(policy.key_env, environ)
    store = _opened(policy, environ, "rows that must pay get 503")
    return Toll(work, policy=f"{policy.recipe}-{policy.policy}", key=key, store=store, clock=time.time)


def open_limiter(policy: Policy, environ: Mapping[str, str] = os.environ) -> Limiter | None:
    """What counts rows where `policy` limits them, its store open. Raises LoadError; as for a silent Redis:
    see `open_toll`."""
    if policy.limits is None:
        return None
    without = "every request gets 503" if policy.on_stage_error == "closed" else "rows are not limited"
    return Limiter(policy.limits, recipe=policy.recipe, meter=_opened(policy, environ, without))


def open_accounts(policy: Policy, environ: Mapping[str, str] = os.environ) -> Accounts | None:
    """What adds up the scores of each principal where `policy` has a budget, its ledger open. Raises LoadError; a Redis
    that does not answer may come later."""
    if policy.budget is None or policy.gate is None:
        return None
    ledger = open_ledger(policy.store, environ)
    return Accounts(policy.budget, policy.gate.calibration, recipe=policy.recipe, ledger=ledger)


def open_audit_log(environ: Mapping[str, str] = os.environ) -> AuditLog | None:
    """The file that $TORCHWARDEN_AUDIT names, None where it names none. Raises LoadError where it cannot be written."""
    if not environ.get(AUDIT):
        return None
    log = AuditLog(Path(environ[AUDIT]))
    if not log.write([]):
        raise LoadError(f"${AUDIT}: {environ[AUDIT]} cannot be written to. Name a file in a folder of the server's own")
    return log


def _opened(policy: Policy, environ: Mapping[str, str], without: str) -> Store:
    """The policy's store; `without` describes what happens until it answers."""
    store = open_store(policy.store, environ)
    try:
        store.life()
    except StoreError as error:
        _log.warning("store: %s; until it answers, %s", error, without)
    return store


def _read_policy(path: Path) -> Policy:
    try:
        config = yaml.safe_load(path.read_text("utf-8"))
        return Policy.parse(config["handler"])
    except (OSError, yaml.YAMLError) as error:
        raise LoadError(f"{path}: cannot be read: {error}. Build the archive again") from error
    except (KeyError, TypeError) as error:
        raise LoadError(f"{path}: expected a `handler:` section, which is the policy; found none") from error
    except PolicyError as error:
        raise LoadError(f"{path}: {error}") from error


def _open(folder: Path, name: str, policy: Policy, gpu: int | None) -> Backend:
    backend = BACKENDS[policy.backend]
    path = folder / f"{name}{backend.suffix}"
    if not path.is_file():
        raise LoadError(f"graphs/{path.name}: the policy needs it and the archive has none. Build it again")
    try:
        return backend(path, threads=policy.threads, gpu=gpu)
    except ImportError as error:
        raise LoadError(f"backend {policy.backend!r} is not installed: {error}") from error
    except Exception as error:  # each runtime has its own exceptions for a file it cannot use
        raise LoadError(
            f"graphs/{path.name} cannot be opened by {policy.backend}: {error}. Build the archive again"
        ) from error


def _guard(policy: Policy, graphs: Mapping[str, Backend], folder: Path) -> None:
    """Raise LoadError where this machine answers stored rows otherwise than the exporting one."""
    if policy.precision == "float32":
        return
    try:
        golden, held = ((folder / name).read_text("utf-8") for name in ("golden.json", guard.NAME))
        guard.check(policy, graphs, golden, held)
    except OSError as error:
        raise LoadError(f"{guard.NAME}: cannot be read: {error}. Build the archive again") from error
    except guard.GuardError as error:
        raise LoadError(str(error)) from error


def _warm_up(policy: Policy, graphs: Mapping[str, Backend]) -> None:
    """Ask every graph: a wrong one fails here, and no client waits for what a runtime does on first use."""
    images = np.zeros((WARM_UP_ROWS, *policy.input.shape), np.float32)
    perturb = policy.perturb
    for name, reads in policy.graphs.items():
        noise = perturb is not None and name == perturb.graph
        extra = [np.zeros((WARM_UP_ROWS, *perturb.noise_shape), np.float32)] if perturb is not None and noise else []
        for _ in range(WARM_UP_RUNS):
            try:
                outputs = ask(graphs[name], images, reads, *extra)
            except Exception as error:
                raise LoadError(f"graph {name!r}, asked for {images.shape} images: {error}") from error
            if not sound(outputs).all():
                raise LoadError(f"graph {name!r}: expected finite outputs and probabilities that sum to 1, got others")
