"""The thief as traffic: runs one attack through HTTP, one request a task, and stops the run when it is done.

Nothing is trained here: Locust's users share one thread, and a training step would stall all of them. The transfer
set goes to a file, and clones are trained from it when the run is over (loadtests.attack).
"""

# mypy: disable-error-code="untyped-decorator"
# (it does not follow locust's imports)

from __future__ import annotations

from locust import constant, task
from locust.exception import StopUser

from attacks.clone import Cloning
from attacks.oracle import Ledger
from attacks.registry import attack
from attacks.thief import steal
from handlers import wire
from loadtests.oracles import HttpOracle, OracleError
from loadtests.tally import Kind
from loadtests.users.plan import parameters
from loadtests.users.service import ServiceUser


class ThiefUser(ServiceUser):
    """One attack on the run's first model; have exactly one such user in a run."""

    wait_time = constant(0)
    fixed_count = 1

    def on_start(self) -> None:
        """Prepare the attack named on the command line from its table of the recipe."""
        plan = self.plan
        prepare, how = attack(plan.theft.attack).prepare, parameters(plan.recipe, plan.theft.attack)
        self.thief = prepare(
            how, plan.service, cloning=plan.recipe.section("clone", Cloning), seed=plan.theft.seed, root=plan.data
        )
        self.steps = steal(self.thief, Ledger(HttpOracle(self._post, rows=how.rows), how.budget), rows=how.rows)
        self.kind = Kind("thief", plan.models[0], plan.theft.attack, how.rows)
        plan.tally.errors.append(UNFINISHED)

    @task
    def step(self) -> None:
        """One exchange; at the end of the attack save the transfer set and end the run."""
        plan = self.plan
        try:
            next(self.steps)
            return
        except StopIteration:
            self.thief.transfer_set().save(plan.theft.transfer)
            plan.tally.errors.remove(UNFINISHED)
        except OracleError as error:
            plan.tally.errors.append(f"thief: {error}")
        self.end_run()
        raise StopUser

    def _post(self, body: bytes, content_type: str) -> tuple[int, bytes]:
        headers = {**self.plan.target.authorization, "Content-Type": content_type}

        def judge(status: int, answer: bytes) -> None:
            if status != 200:
                # a refusal is the defense's right, and decode_error proves that it is one of ours
                wire.decode_error(answer)

        return self.ask(self.kind, body, headers, judge)


UNFINISHED = "thief: the run ended before the attack did"
