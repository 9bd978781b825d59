"""Owners' models in all their forms: adopted, packed, served by TorchServe, and asked about photographs as files.

    python -m assurance.owners                        results/owners.json
    python -m assurance.owners --only docorient "resnet18: state dict"

What is served must give the owner's own label, that of the owner's own code, on 99 % of the pictures. Packages are
installed from PyPI, pinned, in a temporary folder, so this is no part of the tests; the same forms, smaller, are
(tests/export/adopt). Each row is written at once, and replaces its like alone.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from assurance.owners import packages, timm_forms
from assurance.owners.brought import Brought, Form
from deploy import direct
from evaluation.oracles import CHECKOUT
from handlers.key import make_key
from loadtests.own_server import Instance, ServerError
from report.rows.owners import OwnerRow
from report.schema import Report, ResultError, merge, run_info

# archives that one server has at a time
TOGETHER = 4
SEED = 0
SECONDS = 600


def main() -> None:
    """Run the command line; a mistake of the user's is a message and exit code 1."""
    forms = {form.name: form for form in (*packages.forms(), *timm_forms.forms())}
    parser = argparse.ArgumentParser(prog="python -m assurance.owners", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=forms, default=list(forms), metavar="FORM", help=", ".join(forms))
    parser.add_argument("--output", type=Path, default=Path("results/owners.json"), metavar="FILE")
    options = parser.parse_args()
    chosen = [forms[name] for name in options.only]
    try:
        with tempfile.TemporaryDirectory(prefix="owners-") as folder:
            for start in range(0, len(chosen), TOGETHER):
                together(chosen[start : start + TOGETHER], Path(folder).resolve(), options.output)
    except (packages.PackageError, ProgramError, ServerError, ResultError) as error:
        sys.exit(f"assurance.owners: {error}")
    print(options.output)


class ProgramError(RuntimeError):
    """A program of ours that failed where it should not."""


def together(forms: Sequence[Form], folder: Path, output: Path) -> None:
    """Adopt, pack, serve and ask some forms. Raises PackageError, ProgramError, ServerError, ResultError."""
    started = datetime.now(timezone.utc)
    rows, served = [], {}
    for form in forms:
        print(f"{form.name} ({form.source}):", flush=True)
        place = folder / slug(form.name)
        place.mkdir(parents=True, exist_ok=True)
        brought = form.bring(place)
        seconds, refusal = adopted(form, brought, place)
        if refusal:
            print(f"  refused in {seconds:.1f} s: {refusal}", flush=True)
            rows.append(OwnerRow(form.name, form.source, False, round(seconds, 1), 0, 0, 0.0, refusal))
        else:
            print(f"  adopted in {seconds:.1f} s", flush=True)
            served[form] = (brought, seconds, archive(form, place))
    if served:
        server = Instance(
            "owners", folder / "run", tuple(path for _, _, path in served.values()), environ=environment(folder)
        )
        server.start(seconds=300)
        try:
            for form, (brought, seconds, path) in served.items():
                labels = asked(server, path.stem, brought)
                agreement = sum(labels[file] == name for file, name in brought.expected.items()) / len(labels)
                kinds = len(set(brought.expected.values()))
                print(f"{form.name}: {agreement:.1%} of {len(labels)} labels are the owner's own", flush=True)
                rows.append(
                    OwnerRow(form.name, form.source, True, round(seconds, 1), len(labels), kinds, agreement, "")
                )
        finally:
            server.stop()
    merge(
        output,
        Report(
            run_info(seed=SEED, started=started, settings={"load": round(os.getloadavg()[0], 1)}), owners=tuple(rows)
        ),
    )


def adopted(form: Form, brought: Brought, place: Path) -> tuple[float, str]:
    """Seconds of `export.adopt`, and the words of its refusal, "" where there is none. Raises ProgramError."""
    words = ["--name", slug(form.name), "--replace", "--recipes", str(place), "--runs", str(place / "runs")]
    begun = time.monotonic()
    done = run("export.adopt", *brought.told(place), *words, folder=place.parent)
    seconds = time.monotonic() - begun
    said = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else ""
    if bool(done.returncode) != bool(form.refused) or (form.refused and form.refused not in done.stderr):
        raise ProgramError(f"{form.name}: export.adopt ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    return seconds, said.replace(str(brought.file), brought.file.name) if done.returncode else ""


def archive(form: Form, place: Path) -> Path:
    """The archive of the model without any defense. Raises ProgramError."""
    recipe = place / f"{slug(form.name)}.toml"
    folders = ["--runs", str(place / "runs"), "--build", str(place / "build")]
    store = place.parent / "model_store"
    for module, words in {
        "export.graphs": [str(recipe), *folders],
        "export.archive": [str(recipe), "--policies", "undefended", *folders, "--store", str(store)],
    }.items():
        done = run(module, *words, folder=place.parent)
        if done.returncode:
            raise ProgramError(f"{form.name}: {module} ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    return store / f"{recipe.stem}-undefended.mar"


def asked(server: Instance, model: str, brought: Brought) -> dict[Path, str]:
    """The served label of each picture, sent as the file that it is. Raises ProgramError."""
    target = server.target
    found = {}
    with direct.session() as session:
        session.headers.update(target.authorization)
        for file in brought.expected:
            answer = session.post(f"{target.inference}{target.path(model)}", data=file.read_bytes(), timeout=60)
            if answer.status_code != 200:
                raise ProgramError(f"{model}: {file.name}: {answer.status_code} {answer.text[:300]}")
            found[file] = str(answer.json()["predictions"][0]["name"])
    return found


def run(module: str, *words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """One of our programs, as an owner runs it."""
    command = [sys.executable, "-m", module, *words]
    return subprocess.run(
        command, cwd=CHECKOUT, env=environment(folder), capture_output=True, text=True, timeout=SECONDS, check=False
    )


def environment(folder: Path) -> dict[str, str]:
    """A key and a place for decoded pictures of this measurement's own."""
    key = folder / "key"
    if not key.exists():
        make_key(key)
    return {**os.environ, "TORCHWARDEN_KEY_FILE": str(key), "TORCHWARDEN_PICTURES": str(folder / "pictures")}


def slug(name: str) -> str:
    """A name for files and addresses."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


if __name__ == "__main__":
    main()
