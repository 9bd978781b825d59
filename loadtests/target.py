"""The server under test: where an instance answers, and the token a client needs.

Read from run/<instance>/server.json, which `make serve` writes. The token stays in memory: it is never printed, and
neither this object nor an error shows it.

    python -m loadtests.target check NAME     any other endpoint, by targets/NAME.toml (attest/target/check.py)
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

# where config.properties does not say
TORCHSERVE_MAX_REQUEST_SIZE = 6_553_500


class TargetError(RuntimeError):
    """The instance cannot be reached; the message says what to start."""


@dataclass(frozen=True)
class Target:
    """One running instance. inference: URL without a trailing slash. models: what it serves.

    max_request_size: bytes; a longer body is refused by TorchServe itself.
    """

    inference: str
    models: tuple[str, ...]
    max_request_size: int
    token: str = field(repr=False)

    def path(self, model: str) -> str:
        """URL path of a model's predictions. Raises TargetError where the instance does not serve it."""
        if model not in self.models:
            raise TargetError(
                f"the instance at {self.inference} does not serve {model!r}, only {', '.join(self.models)}; "
                "build the archive and start the server again (make archive serve)"
            )
        return f"/predictions/{model}"

    def inference_path(self, model: str) -> str:
        """URL path of a model in the Open Inference Protocol. Raises TargetError as `path` does."""
        self.path(model)
        return f"/v2/models/{model}/infer"

    @property
    def authorization(self) -> dict[str, str]:
        """The header without which TorchServe answers 400."""
        return {"Authorization": f"Bearer {self.token}"}


def read(instance: str, *, run_folder: Path = Path("run")) -> Target:
    """The running instance of that name. Raises TargetError."""
    record = run_folder / instance / "server.json"
    try:
        facts = json.loads(record.read_text("utf-8"))
        keys = json.loads(Path(facts["key_file"]).read_text("utf-8"))
        settings = (run_folder / instance / "config.properties").read_text("utf-8")
        limit = re.search(r"^max_request_size=(\d+)\s*$", settings, re.MULTILINE)
        return Target(
            facts["inference"],
            tuple(facts["models"]),
            max_request_size=int(limit[1]) if limit else TORCHSERVE_MAX_REQUEST_SIZE,
            token=keys["inference"]["key"],
        )
    except FileNotFoundError as error:
        raise TargetError(f"{error.filename}: no such file; is the instance running? (make serve)") from None
    except (json.JSONDecodeError, KeyError) as error:
        raise TargetError(f"{record}: not what `make serve` writes ({type(error).__name__}: {error})") from None


def main() -> None:
    """Hand the command line to what knows other endpoints."""
    from attest.target import check

    check.main()


if __name__ == "__main__":
    main()
