"""The policy: what one archive does with a row, as the `handler:` section of its model-config.yaml states it.

Every key is checked when the archive loads: an unknown or missing key, a wrong type and a value out of range
are errors that name the key, the value and what was expected. A policy holds no secret; `key_env` only names
where one is.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from defenses import memory, ranges
from defenses.budget import PRICE, Budget
from defenses.gate import Calibration, Gate, Threshold
from defenses.limits import Limits
from defenses.mark import Mark
from defenses.noise import PerceptualCode
from defenses.responses.registry import RULES
from defenses.responses.rule import Rule, rehearse
from defenses.routing import HASHES, Hash
from defenses.work import Work
from pictures.geometry import Geometry

T = TypeVar("T")
# bf16 is none: ONNX Runtime's convolutions do not take it in the opset of the graphs
PRECISIONS = ("float32", "int8", "fp16")
_HEADER = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,63}")


class PolicyError(ValueError):
    """A policy that cannot be carried out as it is written."""


@dataclass(frozen=True)
class Route:
    """How a row finds its member: a hash of HASHES by name, the graph it reads, and the hash's fields."""

    hash: str
    graph: str
    options: Mapping[str, Any]

    def __post_init__(self) -> None:
        ranges.identifier("graph", self.graph)
        self.build()

    def build(self) -> Hash:
        """The hash itself."""
        return _entry(HASHES, "hash", self.hash, self.options)


@dataclass(frozen=True)
class Perturb:
    """What is added to a row before the members see it: the graph that does it, and where its noise comes from.

    graph: reads images and noise, gives `perturbed`. noise_shape: of a row's noise. noise: "fresh" or "keyed"
    (defenses/noise.py). Of keyed noise alone: perceptual, the share of it that copies of an image have in common, from
    0 to 1; grid and step of the perceptual code; period, seconds after which every image gets a new draw, 0 for never.
    """

    graph: str
    noise_shape: tuple[int, ...]
    noise: str = "fresh"
    perceptual: float = 0.0
    grid: int = 4
    step: int = 128
    period: float = 0.0

    def __post_init__(self) -> None:
        ranges.identifier("graph", self.graph)
        sizes = self.noise_shape if isinstance(self.noise_shape, list | tuple) else ()
        if not 1 <= len(sizes) <= 3 or not all(type(size) is int and 1 <= size <= 2**16 for size in sizes):
            raise ValueError(f"noise_shape: expected one to three integers from 1 to 65536, got {self.noise_shape!r}")
        object.__setattr__(self, "noise_shape", tuple(sizes))  # YAML knows no tuples
        ranges.choice("noise", self.noise, ("fresh", "keyed"))
        ranges.between("perceptual", self.perceptual, 0, 1)
        ranges.between("period", self.period, 0, 10**9)
        if self.noise == "fresh" and (self.perceptual or self.period):
            raise ValueError("perceptual, period: expected 0, fresh noise has no key, got other values")
        if 0 < self.period < 1:
            raise ValueError(f"period: expected 0 or at least 1 second, got {self.period!r}")
        self.code  # noqa: B018  # its own checks

    @property
    def code(self) -> PerceptualCode:
        """The perceptual code of keyed noise."""
        return PerceptualCode(self.grid, self.step)


@dataclass(frozen=True)
class Response:
    """What a client is shown: a rule of RULES by name, and its fields. All of it is public."""

    rule: str
    options: Mapping[str, Any]

    def __post_init__(self) -> None:
        self.build()

    def build(self) -> Rule:
        """The rule itself."""
        return _entry(RULES, "rule", self.rule, self.options)


@dataclass(frozen=True)
class Policy:
    """One archive's policy; see the fields' checks for what each may be.

    members: the predictor graphs, by name; more than one needs a route, which picks one a row, or average: every
    member answers every row, and the answer is the mean of their probabilities. class_names: the K classes, in the
    order of the graphs' columns. backend: what runs the graphs (handlers/backends.py knows which). precision: of the
    graphs that answer and perturb, one of PRECISIONS; the hash's and the gate's are float32. threads: what each graph
    may use. max_rows: rows in one request. on_stage_error: "closed" refuses the rows of a stage that
    failed, "open" lets them pass where that stage is the route or the gate, or the count of rows. key_env: environment
    variable of the deployment's key. principal_header: the header in which a gateway names the client. store: what
    remembers spent solutions and rows taken, a Redis URL without user and password, or None for an SQLite file of the
    server's instance. budget: how surprising a principal's queries may be together; needs a gate, whose scores it adds
    up.
    """

    recipe: str
    policy: str
    backend: str
    threads: int
    input: Geometry
    class_names: tuple[str, ...]
    members: tuple[str, ...]
    response: Response
    precision: str = "float32"
    average: bool = False
    route: Route | None = None
    perturb: Perturb | None = None
    gate: Gate | None = None
    mark: Mark | None = None
    limits: Limits | None = None
    budget: Budget | None = None
    max_rows: int = 256
    on_stage_error: str = "closed"
    key_env: str | None = None
    principal_header: str = "Torchwarden-Principal"
    store: str | None = None

    @classmethod
    def parse(cls, mapping: Mapping[str, Any]) -> Policy:
        """The policy that a `handler:` section states. Raises PolicyError."""
        try:
            fields = dict(_table(mapping))
            for key, read in _READERS.items():
                if key in fields:
                    with _within(key):
                        fields[key] = read(fields[key])
            return _build(cls, fields)
        except ValueError as error:
            raise PolicyError(f"policy: {error}") from error

    def __post_init__(self) -> None:
        ranges.identifier("recipe", self.recipe)
        ranges.identifier("policy", self.policy)
        ranges.identifier("backend", self.backend)
        self._check_precision()
        ranges.integer("threads", self.threads, 1, 1024)
        ranges.integer("max_rows", self.max_rows, 1, 65_536)
        ranges.choice("on_stage_error", self.on_stage_error, ("closed", "open"))
        ranges.integer("class_names: their number", len(self.class_names), 2, 10_000)
        ranges.integer("members: their number", len(self.members), 1, 1_000)
        for member in self.members:
            ranges.identifier("members", member)
        self._check_average()
        self._check_route()
        with _within("perturb"):
            self._check_perturb()
        self._check_key()
        with _within("response"):
            self._check_response()
        with _within("gate"):
            self._check_gate()
        with _within("mark"):
            self._check_mark()
        with _within("limits"):
            self._check_limits()
        with _within("budget"):
            self._check_budget()
        memory.check_url(self.store)
        if not isinstance(self.principal_header, str) or not _HEADER.fullmatch(self.principal_header):
            raise ValueError(f"principal_header: expected letters, digits and hyphens, got {self.principal_header!r}")

    def _check_precision(self) -> None:
        ranges.choice("precision", self.precision, PRECISIONS)
        if self.precision != "float32" and self.backend != "onnxruntime":
            raise ValueError(
                f"precision: expected 'float32', {self.backend!r} has no graphs in {self.precision} (backend = "
                f"'onnxruntime' has), got {self.precision!r}"
            )

    def _check_average(self) -> None:
        if type(self.average) is not bool:
            raise ValueError(f"average: expected true or false, got {self.average!r}")
        if self.average and len(self.members) == 1:
            raise ValueError("average: expected false, the one member needs none, got true")
        if self.average and self.route is not None:
            raise ValueError(f"average: expected false, the route {self.route.hash!r} picks one member, got true")

    def _check_route(self) -> None:
        if self.route is None:
            if len(self.members) > 1 and not self.average:
                needs = f"{len(self.members)} members need one, or `average: true`"
                raise ValueError(f"route: expected a table, {needs}, got null")
            return
        if len(self.members) == 1:
            raise ValueError(f"route: expected null, the one member needs none, got {self.route.hash!r}")
        if self.route.graph in self.members:
            raise ValueError(f"route: graph: expected a graph that is no member, got {self.route.graph!r}")
        values = self.route.build().values
        if values < len(self.members):
            raise ValueError(f"route: expected {len(self.members)} hash values or more, one a member, got {values}")

    def _check_perturb(self) -> None:
        if self.perturb is None:
            return
        if self.perturb.graph in self._busy:
            raise ValueError(f"graph: expected one that neither answers nor routes, got {self.perturb.graph!r}")
        side = min(self.input.height, self.input.width)
        if self.perturb.noise == "keyed" and self.perturb.grid > side:
            raise ValueError(f"grid: expected at most the image's side, {side}, got {self.perturb.grid}")

    def _check_response(self) -> None:
        rule = self.response.build()
        taken = {*self._busy, *self._perturbs}
        for graph in rule.reads(len(self.class_names)):
            if graph in taken:
                raise ValueError(f"graph: expected one that neither answers nor routes, got {graph!r}")
        rehearse(rule, len(self.class_names))

    def _check_gate(self) -> None:
        if self.gate is not None and self.gate.graph in {*self._busy, *self._perturbs, *self.consulted}:
            raise ValueError(f"graph: expected one that nothing else reads, got {self.gate.graph!r}")

    def _check_mark(self) -> None:
        if self.mark is None:
            return
        if len(self.class_names) < 3:
            raise ValueError("expected null, of two classes there is none to choose; a mark needs 3 or more")
        side = min(self.input.height, self.input.width)
        if self.mark.grid > side:
            raise ValueError(f"grid: expected at most the image's side, {side}, got {self.mark.grid}")
        why = self.response.build().hides(self.mark.strength)
        if why:
            raise ValueError(
                f"strength: expected a rule under which clients see a mark of {self.mark.strength:g}, such as 'soft'; "
                f"{why}. Change the rule or leave out `mark`"
            )

    def _check_limits(self) -> None:
        if self.limits is None:
            return
        if self.limits.rows < self.max_rows:
            raise ValueError(f"rows: expected at least max_rows, {self.max_rows}, got {self.limits.rows}")
        if self.limits.bad_rows * self.max_rows > self.limits.rows:
            most = self.limits.rows // self.max_rows
            raise ValueError(f"bad_rows: expected at most rows / max_rows, {most}, got {self.limits.bad_rows}")

    def _check_budget(self) -> None:
        if self.budget is None:
            return
        if self.gate is None:
            raise ValueError(
                "expected null, a budget adds up the scores of a gate and this policy has none, got a table"
            )
        own = self.budget.work is not None
        if self.budget.then != PRICE and own:
            raise ValueError(f"work: expected null, {self.budget.then!r} has no price, got a table")
        if self.budget.then == PRICE and own == (self.gate.work is not None):
            wanted = "null, the gate's price is asked" if own else "a table, neither it nor the gate has a price"
            raise ValueError(f"work: expected {wanted}, got {'a table' if own else 'null'}")
        if self.budget.work is not None:
            with _within("work"):
                self.budget.work.check(self.gate.false_positive_rate)

    @property
    def work(self) -> Work | None:
        """What proof of work costs here, asked for by the gate or for a spent budget."""
        stated = [stage.work for stage in (self.gate, self.budget) if stage is not None and stage.work is not None]
        return stated[0] if stated else None

    @property
    def price(self) -> float:
        """Expected hashes of a row of an account whose budget is spent, where that has a price: what the gate's most
        suspicious row costs."""
        if self.budget is None or self.budget.then != PRICE or self.gate is None or self.work is None:
            return 0.0
        return self.work.dearest(self.gate.false_positive_rate)

    @property
    def _busy(self) -> set[str]:
        """The graphs that answer or route."""
        return {*self.members, *([self.route.graph] if self.route is not None else [])}

    @property
    def _perturbs(self) -> set[str]:
        """The graph that perturbs, if there is one."""
        return set() if self.perturb is None else {self.perturb.graph}

    def _check_key(self) -> None:
        if self.key_env is None:
            if self.needs_key:
                needs = f"{self._keyed[0]} needs"
                raise ValueError(f"key_env: expected an environment variable's name, {needs} a key, got null")
        elif not isinstance(self.key_env, str) or not re.fullmatch(r"[A-Z_][A-Z0-9_]*", self.key_env):
            raise ValueError(f"key_env: expected a name of A-Z, 0-9 and _, or null, got {self.key_env!r}")

    @property
    def needs_key(self) -> bool:
        """Whether a stage draws from the deployment's key."""
        return bool(self._keyed)

    @property
    def _keyed(self) -> list[str]:
        """The stages that do, as errors call them."""
        stages = {
            "the route": self.route is not None,
            "keyed noise": self.perturb is not None and self.perturb.noise == "keyed",
            "a mark": self.mark is not None,
            "proof of work": self.work is not None,
        }
        return [stage for stage, keyed in stages.items() if keyed]

    @property
    def graphs(self) -> Mapping[str, Mapping[str, int]]:
        """Every graph that the policy runs: name -> the outputs read from it, name -> columns."""
        needed: dict[str, Mapping[str, int]] = {
            member: {"probabilities": len(self.class_names)} for member in self.members
        }
        if self.route is not None:
            needed[self.route.graph] = self.route.build().reads
        if self.perturb is not None:
            needed[self.perturb.graph] = {"perturbed": math.prod(self.input.shape)}
        if self.gate is not None:
            needed[self.gate.graph] = self.gate.reads(len(self.class_names))
        return {**needed, **self.consulted}

    @property
    def consulted(self) -> Mapping[str, Mapping[str, int]]:
        """The graphs among them that the response rule reads, on every row."""
        return self.response.build().reads(len(self.class_names))


def _input(value: object) -> Geometry:
    return _build(Geometry, _table(value))


def _names(value: object) -> tuple[str, ...]:
    names = value if isinstance(value, list | tuple) else []
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"expected a list of strings (quote numbers), got {value!r}")
    if len(set(names)) < len(names):
        raise ValueError(f"expected each name once, got {value!r}")
    return tuple(names)


def _route(value: object) -> Route | None:
    if value is None:
        return None
    return _build(Route, _split(value, "hash", "graph"))


def _perturb(value: object) -> Perturb | None:
    return None if value is None else _build(Perturb, _table(value))


def _gate(value: object) -> Gate | None:
    if value is None:
        return None
    fields = dict(_table(value))
    for key, read in (("calibration", _calibration), ("work", _work)):
        if key in fields:
            with _within(key):
                fields[key] = read(fields[key])
    return _build(Gate, fields)


def _calibration(value: object) -> Calibration:
    fields = dict(_table(value))
    if "thresholds" in fields:
        with _within("thresholds"):
            fields["thresholds"] = tuple(_build(Threshold, _table(each)) for each in _list(fields["thresholds"]))
    return _build(Calibration, fields)


def _work(value: object) -> Work | None:
    return None if value is None else _build(Work, _table(value))


def _mark(value: object) -> Mark | None:
    if value is None:
        return None
    fields = dict(_table(value))
    if "commitments" in fields:
        fields["commitments"] = _names(fields["commitments"])
    return _build(Mark, fields)


def _limits(value: object) -> Limits | None:
    return None if value is None else _build(Limits, _table(value))


def _budget(value: object) -> Budget | None:
    if value is None:
        return None
    fields = dict(_table(value))
    if "work" in fields:
        with _within("work"):
            fields["work"] = _work(fields["work"])
    return _build(Budget, fields)


def _response(value: object) -> Response:
    return _build(Response, _split(value, "rule"))


_READERS: dict[str, Callable[[object], object]] = {
    "input": _input,
    "class_names": _names,
    "members": _names,
    "route": _route,
    "perturb": _perturb,
    "gate": _gate,
    "mark": _mark,
    "limits": _limits,
    "budget": _budget,
    "response": _response,
}


def _split(value: object, *own: str) -> dict[str, Any]:
    """The table's known keys as they are, and whatever else it holds as the `options` of a registry's entry."""
    table = _table(value)
    fields = {key: table[key] for key in own if key in table}
    return {**fields, "options": {key: table[key] for key in table if key not in own}}


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"expected a list, got {value!r}")
    return value


def _table(value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"expected a table, got {value!r}")
    return value


def _entry(registry: Mapping[str, type[T]], key: str, name: object, options: Mapping[str, Any]) -> T:
    ranges.choice(key, name, tuple(registry))
    return _build(registry[str(name)], options)


def _build(cls: type[T], fields: Mapping[str, Any]) -> T:
    """The dataclass from its fields, whose own checks speak of ranges. Raises ValueError."""
    declared = dataclasses.fields(cls)  # type: ignore[arg-type]
    known = ", ".join(field.name for field in declared) or "none"
    for key in fields:
        if key not in {field.name for field in declared}:
            raise ValueError(f"unknown key {key!r}; known keys: {known}")
    for field in declared:
        if field.default is dataclasses.MISSING and field.name not in fields:
            raise ValueError(f"missing key {field.name!r}; keys: {known}")
    return cls(**fields)


@contextmanager
def _within(where: str) -> Iterator[None]:
    """Let a ValueError say which key it is about."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
