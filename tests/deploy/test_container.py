"""What the image is built from: requirements that are the lock's and hold no torch, images by digest, files by hash."""

from __future__ import annotations

import fnmatch
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from deploy import settings
from deploy.container import front
from tests.deploy.lean_environment import REQUIREMENTS, canonical, pins

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CHECKOUT = Path(__file__).resolve().parents[2]
DOCKERFILE = CHECKOUT / "deploy" / "container" / "Dockerfile"
# The image's interpreter: Debian 12's.
MARKERS = {"python_version": "3.11", "python_full_version": "3.11.2", "extra": ""}


LISTS = {target: REQUIREMENTS.with_name(f"requirements{target}.txt") for target in ("", "-torch", "-gpu")}
LOCKS = [CHECKOUT / "requirements.lock", CHECKOUT / "requirements-gpu.lock"]


def blocks(path: Path) -> list[str]:
    """A list's packages, each with the lines of its hashes."""
    return [block for block in re.split(r"\n(?=\S)", path.read_text("utf-8")) if not block.startswith("#")]


@cache
def locked() -> dict[str, str]:
    """The locks' versions for the image's interpreter."""
    found = {}
    for block in [block for path in LOCKS for block in blocks(path)]:
        requirement = Requirement(block.partition(" \\")[0])
        if requirement.marker is None or requirement.marker.evaluate(MARKERS):
            (specifier,) = requirement.specifier
            found[canonical(requirement.name)] = specifier.version
    return found


def wanted(names: list[str]) -> Iterator[str]:
    """All that these packages need, themselves included, as the installed ones say."""
    seen: set[str] = set()
    while names:
        requirement = Requirement(names.pop())
        name = canonical(requirement.name)
        if name in seen or (requirement.marker and not requirement.marker.evaluate(MARKERS)):
            continue
        seen.add(name)
        yield name
        try:
            names += metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            assert name == "async-timeout", f"{name} is in the image and not installed here"


@pytest.mark.parametrize("target", LISTS)
def test_every_pin_is_the_locks(target: str) -> None:
    pinned = pins(LISTS[target])
    # NVIDIA's packages that onnxruntime-gpu alone asks for are in no lock: a checkout has torch's
    pinned = {name: version for name, version in pinned.items() if name in locked() or not name.startswith("nvidia-")}
    assert len(pinned) > 15
    assert pinned.items() <= locked().items(), "make lock"


def test_a_target_has_what_the_others_have_and_its_own() -> None:
    lean, torch, gpu = (set(pins(path)) for path in LISTS.values())
    assert lean < torch
    assert "torch" in torch - lean
    assert lean - {"onnxruntime"} < gpu
    # both packages hold the same module
    assert "onnxruntime" not in gpu
    assert "onnxruntime-gpu" in gpu - lean


def test_the_pins_are_what_serving_needs_and_no_more() -> None:
    extras = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))["project"]
    optional = extras["optional-dependencies"]
    named = [*extras["dependencies"], *optional["serve"], *optional["grpc"]]
    assert set(pins()) == set(wanted(named)), "make lock"


def test_there_is_no_torch_in_it() -> None:
    heavy = [name for name in pins() if re.match(r"torch$|torchvision|triton|nvidia|cuda", name)]
    assert not heavy


@pytest.mark.parametrize("path", [*LISTS.values(), *LOCKS], ids=lambda path: path.name)
def test_every_file_of_a_package_is_known_by_its_hash(path: Path) -> None:
    assert blocks(path)
    for block in blocks(path):
        assert "--hash=sha256:" in block, block.splitlines()[0]


def test_nothing_is_installed_without_its_hash() -> None:
    for path in (DOCKERFILE, CHECKOUT / "make/environment.mk"):
        commands = path.read_text("utf-8").replace("\\\n", " ").splitlines()
        installs = [line for line in commands if re.search(r"\bpip install\b", line)]
        assert installs, path
        assert [line for line in installs if "--require-hashes" not in line] == [], path


def test_other_people_s_images_are_named_by_digest() -> None:
    named = re.findall(r"^FROM (\S*[:/]\S*)", DOCKERFILE.read_text("utf-8"), re.MULTILINE)
    for manifest in sorted((CHECKOUT / "deploy").glob("k*/**/*.yaml")):
        named += re.findall(r"^\s*image: (?!torchwarden$)(\S+)$", manifest.read_text("utf-8"), re.MULTILINE)
    assert len(named) >= 3
    assert [name for name in named if not re.search(r"^[a-z]+:[\w.-]+@sha256:[0-9a-f]{64}$", name)] == []


@pytest.mark.drill
def test_the_bill_of_materials_names_what_the_image_installs(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("cyclonedx-py")
    words = ["requirements", REQUIREMENTS, "--pyproject", CHECKOUT / "pyproject.toml", "-o", tmp_path / "bom.json"]
    subprocess.run([program, *words], check=True, capture_output=True)
    bill = json.loads((tmp_path / "bom.json").read_text("utf-8"))
    assert {canonical(part["name"]): part["version"] for part in bill["components"]} == pins()
    assert bill["metadata"]["component"]["name"] == "torchwarden"
    for part in bill["components"]:
        hashes = [each for reference in part["externalReferences"] for each in reference.get("hashes", [])]
        assert hashes, part["name"]


def test_the_dockerfile_is_clean() -> None:
    said = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), DOCKERFILE], capture_output=True, text=True, check=False
    )
    assert (said.returncode, said.stdout) == (0, "")


def test_what_is_copied_is_there_and_let_in() -> None:
    rules = [line for line in (CHECKOUT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert rules[0] == "*", "everything stays out that is not named"
    let_in = {rule[1:] for rule in rules if rule.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(\S+)", DOCKERFILE.read_text("utf-8"), re.MULTILINE)
    assert len(copied) >= 6
    for source in copied:
        assert (CHECKOUT / source).exists(), source
        assert source.split("/")[0] in let_in, source
    for private in ("secrets", "model_store", "runs", "run", ".git", "results"):
        assert private not in let_in
    assert not [name for name in let_in if fnmatch.fnmatch(name, "*.mar")]


def test_the_image_listens_where_a_pod_is_entered_and_nowhere_else(tmp_path: Path) -> None:
    joined = DOCKERFILE.read_text("utf-8").replace("\\\n", " ")
    (edit,) = re.findall(r"^RUN (sed .*)$", joined, re.MULTILINE)
    original = CHECKOUT / "config.properties"
    (tmp_path / "config.properties").write_bytes(original.read_bytes())
    subprocess.run(["sh", "-c", edit], cwd=tmp_path, check=True)
    before, after = settings.read(original), settings.read(tmp_path / "config.properties")
    changed = {key: (before[key], after[key]) for key in before if before[key] != after[key]}
    assert set(changed) == {"gateway_address", "gateway_grpc_address", "metrics_address", "health_address"}
    for old, new in changed.values():
        assert new == old.replace("//127.0.0.1:", "//0.0.0.0:")


def test_mounted_secrets_are_copied_for_this_user_alone(tmp_path: Path) -> None:
    mounted, secrets = tmp_path / "mounted", tmp_path / "secrets"
    mounted.mkdir()
    for name in front.FILES[:2]:
        (mounted / name).write_text(name)
        (mounted / name).chmod(0o444)
    first = front.take(mounted, secrets)
    assert {path.name: path.stat().st_mode & 0o777 for path in secrets.iterdir()} == dict.fromkeys(
        front.FILES[:2], 0o600
    )
    assert front.take(mounted, secrets) == first
    (mounted / front.FILES[0]).chmod(0o644)
    (mounted / front.FILES[0]).write_text("another")
    assert front.take(mounted, secrets) != first
    assert (secrets / front.FILES[0]).read_text() == "another"


@pytest.mark.parametrize("target", ["serving", "serving-torch", "serving-gpu"])
def test_a_target_takes_its_own_environment(target: str) -> None:
    stage = re.search(
        rf"^FROM base AS {target}\nCOPY --from=(\S+) /opt/environment /opt/environment$",
        DOCKERFILE.read_text("utf-8"),
        re.MULTILINE,
    )
    assert stage is not None
    assert stage[1] == target.replace("serving", "environment")
