"""Load a server for minutes at 80 percent of its capacity, a fifth of it an attacker's: results/soak.json.

    python -m loadtests.soak RECIPE --policies undefended edm same-pow --minutes 15

First a ramp finds the most answers a second: more and more users in a closed loop. They wait for one another, so that
batches are full; independent users get fewer answers. So an open loop, which asks at a constant rate whatever the
answers, comes down from there in steps: the first rate that the service keeps up is saturation. At a share of it
the same loop then asks for the minutes, and a clock looks at the server's processes. The mix is the same throughout:
test images, and the surrogate images of a Knockoff attacker, who pays what a gate asks up to a price.

Exits with 1 where a promise of loadtests/soak/summary.py is broken; the file is written all the same, and also where
the run is interrupted.
"""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import recipes
from loadtests import locust_run
from loadtests.own_server import Instance, ServerError, running
from loadtests.soak import records, schedule, summary
from loadtests.soak.records import Machine, Record
from loadtests.soak.sampler import Sampler
from report.rows.bounds import Bound
from report.rows.soak import Reached, Sample, SoakRow, Tried
from report.schema import Report, run_info, write

SHARE = 0.8
RAMP = (4, 8, 16, 32, 64)
# of the ramp's best, from the highest down
STEPS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
# of the open loop: more than are ever under way, unless the service stalls
USERS = 64
# Locust loads images before it begins, and waits for the last answers at the end
GRACE_S = 120.0
STOP_TIMEOUT_S = 40


class SoakError(RuntimeError):
    """The soak cannot be measured."""


@dataclass(frozen=True)
class Effort:
    """How long and how hard. share: of saturation. thieving: share of requests. level_s, try_s: seconds of a level of
    the ramp and of a rate that is tried. every_s: between samples, and of a window. most_hashes: what a client pays for
    an answer."""

    minutes: float
    share: float
    thieving: float
    warm_s: float
    level_s: float
    try_s: float
    every_s: float
    most_hashes: float

    @property
    def seconds(self) -> float:
        return 60 * self.minutes


@dataclass(frozen=True)
class Job:
    """The command line, read."""

    recipe: recipes.Recipe
    served: Instance
    policies: tuple[str, ...]
    data: Path | None
    effort: Effort
    output: Path

    def notes(self, name: str) -> Path:
        return self.served.run_folder / f"soak-{name}.jsonl"


@dataclass
class Measured:
    """What there is so far."""

    levels: list[Reached] = dataclasses.field(default_factory=list)
    tries: list[Tried] = dataclasses.field(default_factory=list)
    rate: float = 0.0
    records: list[Record] = dataclasses.field(default_factory=list)
    machines: list[Machine] = dataclasses.field(default_factory=list)
    samples: list[Sample] = dataclasses.field(default_factory=list)
    unfinished: str | None = "interrupted"


def main() -> None:
    """Run the command line; a mistake of the user's is a message and exit code 2."""
    options = _options()
    started = datetime.now(timezone.utc)
    try:
        job = _job(options)
        measured = Measured()
        try:
            run(job, measured)
        except KeyboardInterrupt:
            pass
        except SoakError as error:
            measured.unfinished = str(error)
        verdict = _verdict(job, measured)
        settings = {"effort": vars(job.effort), "policies": list(job.policies)}
        facts = run_info(seed=0, started=started, settings=settings)
        write(job.output, Report(facts, soak=(row(job, measured, verdict),)))
    except (recipes.RecipeError, ServerError) as error:
        print(f"loadtests.soak: {error}", file=sys.stderr)
        sys.exit(2)
    for bound in verdict:
        print(f"{'kept  ' if bound.met else 'BROKEN'} {bound.what}: {bound.measured}, at most {bound.limit}")
    for bound in summary.generator(measured.records, measured.machines, seconds=job.effort.seconds):
        if not bound.met:
            print(f"note   of the load generator, {bound.what}: {bound.measured}, at most {bound.limit} expected")
    if measured.unfinished:
        print(f"BROKEN the run did not get to its end: {measured.unfinished}")
    print(job.output)
    sys.exit(0 if verdict and all(bound.met for bound in verdict) and not measured.unfinished else 1)


def run(job: Job, measured: Measured) -> None:
    """Start the server, find saturation, soak; `measured` has what there is at any time."""
    effort = job.effort
    with running(job.served):
        _say(f"serving {', '.join(job.policies)}; ramp: {', '.join(map(str, RAMP))} users, {effort.level_s:g} s each")
        levels = schedule.levels(RAMP, warm_s=effort.warm_s, level_s=effort.level_s)
        ramp = {"ramp": ",".join(map(str, RAMP)), "warm": effort.warm_s, "level": effort.level_s}
        _locust(job, "ramp", ramp, users=max(RAMP), seconds=levels[-1].ends)
        measured.levels = summary.reached(*records.read(job.notes("ramp")), levels)
        for level in measured.levels:
            _say(
                f"  {level.users:>3} users: {level.per_second:7.1f} requests/s, p50 {level.p50_ms} ms, "
                f"p99 {level.p99_ms} ms; the generator took {level.client_cpu or 0:.0%} of a core"
            )
        measured.rate = round(effort.share * _saturation(job, measured), 1)
        _say(f"open loop: {measured.rate:g} requests/s for {effort.minutes:g} minutes")
        _soak(job, measured)
    measured.unfinished = None


def _saturation(job: Job, measured: Measured) -> float:
    """The highest rate, in steps down from the ramp's best, that the service keeps up. Raises SoakError if none is."""
    best = max(level.per_second for level in measured.levels)
    if not best:
        raise SoakError(f"no request of the ramp was answered; see {job.notes('ramp').with_suffix('.log')}")
    seconds = job.effort.try_s
    for step in STEPS:
        rate = round(step * best, 1)
        _locust(job, "try", {"rate": rate, "seconds": seconds}, users=USERS, seconds=seconds)
        found = summary.tried(*records.read(job.notes("try")), rate=rate, seconds=seconds)
        measured.tries.append(found)
        _say(
            f"  {rate:g} requests/s for {seconds:g} s: {found.behind:.1%} of them found every user waiting, "
            f"p50 {found.p50_ms} ms, p99 {found.p99_ms} ms"
        )
        if found.kept_up:
            return rate
    raise SoakError(f"not even {rate:g} requests/s were kept up, {STEPS[-1]:.0%} of what the ramp reached")


def _soak(job: Job, measured: Measured) -> None:
    """The open loop, with the sampler next to it. Its clock starts when Locust's users do."""
    effort, notes = job.effort, job.notes("open")
    progress = Progress(job, measured)
    sampler = Sampler(job.served, every=effort.every_s, on_sample=progress.report)
    begun = time.monotonic()
    try:
        with sampler:
            options: dict[str, object] = {"rate": measured.rate, "seconds": effort.seconds}
            _locust(job, "open", options, users=USERS, seconds=effort.seconds)
    finally:
        measured.records, measured.machines = records.read(notes)
        start = measured.machines[-1].start if measured.machines else begun
        measured.samples = [dataclasses.replace(each, at=round(each.at - start, 2)) for each in sampler.samples]


class Progress:
    """Says every half minute how it goes."""

    EVERY_S = 30.0

    def __init__(self, job: Job, measured: Measured) -> None:
        self._job = job
        self._measured = measured
        self._lines = 0
        self._at = 0.0
        self._reported = time.monotonic()

    def report(self, sample: Sample) -> None:
        """A line, if it is time for one."""
        if time.monotonic() - self._reported < self.EVERY_S:
            return
        self._reported = time.monotonic()
        fresh, machines = records.read(self._job.notes("open"), skip=self._lines)
        self._lines += len(machines)
        if not machines:
            return
        seconds, self._at = machines[-1].at - self._at, machines[-1].at
        times = summary.latencies(fresh)
        failed = sum(each.status >= 500 or each.what == records.LOST for each in fresh)
        _say(
            f"  {self._at:6.0f} s: {len(fresh) / max(seconds, 1e-9):6.1f} requests/s, "
            f"p50 {summary.percentile(times, 50)} ms, p99 {summary.percentile(times, 99)} ms, {failed} failed, "
            f"memory {sample.pss_mb:.0f} MB"
        )


def _locust(job: Job, name: str, options: dict[str, object], *, users: int, seconds: float) -> None:
    """One run of loadtests/soak/locustfile.py. Raises SoakError where it ends badly or not at all."""
    notes = job.notes(name)
    notes.parent.mkdir(parents=True, exist_ok=True)
    notes.unlink(missing_ok=True)
    effort = job.effort
    given: dict[str, object] = {
        "recipe": job.recipe.spec,
        "policies": ",".join(job.policies),
        "instance": job.served.name,
        "run-folder": job.served.run_folder,
        "data": job.data,
        "notes": notes,
        "thieving": effort.thieving,
        "most-hashes": effort.most_hashes,
        **options,
    }
    words = locust_run.headless("loadtests/soak/locustfile.py", users=users, stop_timeout_s=STOP_TIMEOUT_S)
    words += [word for key, value in given.items() if value is not None for word in (f"--{key}", str(value))]
    log = notes.with_suffix(".log")
    with log.open("wb") as output, locust_run.undisturbed() as where:
        process = subprocess.Popen(words, stdout=output, stderr=subprocess.STDOUT, **where)
        try:
            code = process.wait(seconds + GRACE_S)
        except subprocess.TimeoutExpired:
            raise SoakError(f"Locust did not end {GRACE_S:g} s after its time; see {log}") from None
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    if code:
        raise SoakError(f"Locust ended with {code}; see {log}")


def _verdict(job: Job, measured: Measured) -> tuple[Bound, ...]:
    try:
        return summary.verdict(measured.records, measured.samples, rate=measured.rate, seconds=job.effort.seconds)
    except ValueError as error:
        measured.unfinished = measured.unfinished or str(error)
        return ()


def row(job: Job, measured: Measured, verdict: Sequence[Bound]) -> SoakRow:
    """What was measured, with the verdict on it."""
    seconds, every = job.effort.seconds, job.effort.every_s
    samples = [each for each in measured.samples if 0 <= each.at < seconds]
    return SoakRow(
        recipe=job.recipe.name,
        policies=job.policies,
        effort=vars(job.effort),
        ramp=tuple(measured.levels),
        tries=tuple(measured.tries),
        rate=measured.rate,
        unfinished=measured.unfinished,
        verdict=tuple(verdict),
        generator=summary.generator(measured.records, measured.machines, seconds=seconds),
        growth=tuple(summary.growths(samples, seconds=seconds)) if verdict else (),
        windows=tuple(summary.windows(measured.records, samples, seconds=seconds, every=every)),
        samples=tuple(samples),
    )


def _say(line: str) -> None:
    print(line, flush=True)


def _job(options: argparse.Namespace) -> Job:
    recipe = recipes.read(options.recipe)
    archives = tuple(options.store.absolute() / f"{recipe.name}-{policy}.mar" for policy in options.policies)
    return Job(
        recipe=recipe,
        served=Instance("soak", options.run_folder.absolute(), archives),
        policies=tuple(options.policies),
        data=options.data,
        effort=Effort(
            minutes=options.minutes,
            share=options.share,
            thieving=options.thieving,
            warm_s=options.warm,
            level_s=options.level,
            try_s=options.trying,
            every_s=options.every,
            most_hashes=options.most_hashes,
        ),
        output=options.output,
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtests.soak", description="minutes at 80 % of saturation")
    parser.add_argument("recipe", help="a recipe's name, or the path of its .toml file")
    parser.add_argument("--policies", nargs="+", required=True, help="served at once, asked in turn")
    parser.add_argument("--minutes", type=float, default=15.0, help="of the open loop (15)")
    parser.add_argument("--share", type=float, default=SHARE, help=f"of saturation ({SHARE})")
    parser.add_argument("--thieving", type=float, default=0.2, help="share of requests that are an attacker's (0.2)")
    parser.add_argument("--warm", type=float, default=30.0, help="seconds before the ramp, for Java's compiler (30)")
    parser.add_argument("--level", type=float, default=12.0, help="seconds of each level of the ramp (12)")
    parser.add_argument("--trying", type=float, default=40.0, help="seconds of each rate that is tried (40)")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between looks at the processes (5)")
    parser.add_argument("--most-hashes", type=float, default=5000.0, help="what a client pays for an answer (5000)")
    parser.add_argument("--store", type=Path, default=Path("model_store"), help="folder of the archives (model_store)")
    parser.add_argument("--run-folder", type=Path, default=Path("run"), help="holds the instances (run)")
    parser.add_argument("--data", type=Path, default=None, help="folder of the data sets, searched first")
    parser.add_argument("--output", type=Path, default=Path("results/soak.json"), help="(results/soak.json)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
