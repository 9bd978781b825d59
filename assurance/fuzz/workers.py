"""The processes behind the server: their pids, which must not change, and the memory they hold."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from deploy import direct
from handlers import wire
from loadtests.target import TargetError


@dataclass(frozen=True)
class Workers:
    """An instance's management address. token: of it."""

    management: str
    java: int
    token: str = field(repr=False)

    @classmethod
    def of(cls, instance: str, run_folder: Path) -> Workers:
        """Those of a running instance. Raises TargetError."""
        record = run_folder / instance / "server.json"
        try:
            facts = json.loads(record.read_text("utf-8"))
            keys = json.loads(Path(facts["key_file"]).read_text("utf-8"))
            return cls(facts["management"], facts["pid"], keys["management"]["key"])
        except (OSError, ValueError, KeyError) as error:
            raise TargetError(f"{record}: expected a running instance's record, got {type(error).__name__}") from None

    def pids(self, models: Iterable[str]) -> dict[str, list[int]]:
        """Of each model's workers, with Java's under "java"; 0 where a worker is not ready."""
        found = {"java": [self.java if psutil.pid_exists(self.java) else 0]}
        for model in models:
            workers = self._get(f"models/{model}")[0]["workers"]
            found[model] = sorted(int(each["pid"]) if each["status"] == "READY" else 0 for each in workers)
        return found

    def accepts(self, model: str) -> wire.Accepts:
        """What the model says of its input."""
        return wire.read_description(self._description(model))

    def names(self, model: str) -> tuple[str, ...]:
        """Of the model's classes."""
        return tuple(self._description(model)["class_names"])

    def _description(self, model: str) -> Any:
        facts = self._get(f"models/{model}?customized=true")[0]["customizedMetadata"]
        return json.loads(facts) if isinstance(facts, str) else facts

    def _get(self, path: str) -> Any:
        with direct.session() as session:
            answer = session.get(
                f"{self.management}/{path}", headers={"Authorization": f"Bearer {self.token}"}, timeout=30
            )
        answer.raise_for_status()
        return answer.json()


def memory_mb(pids: dict[str, list[int]]) -> dict[str, float]:
    """Resident memory of each model's workers, and of Java, in MB."""
    return {model: round(sum(_resident(pid) for pid in each) / 2**20, 1) for model, each in pids.items()}


def _resident(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss) if pid else 0
    except psutil.NoSuchProcess:
        return 0
