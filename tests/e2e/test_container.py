"""The image and the pod without a container: the same files, commands, users and modes, in folders of this machine.

What is built and run is read from the Dockerfile and from the Deployment. What a container would add is not here: its
root, its network and its process namespace.
"""

from __future__ import annotations

import base64
import functools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
import requests
import tritonclient.grpc as triton

from deploy import ports, settings
from deploy.gateway import certificates, client_keys
from tests.conftest import Smoke
from tests.deploy import kustomize, lean_environment
from tests.e2e.fronted import authorization

CHECKOUT = Path(__file__).resolve().parents[2]
DOCKERFILE = (CHECKOUT / "deploy/container/Dockerfile").read_text("utf-8")
# the image's own, which is no user of this machine
USER = 10001
SECONDS = 90.0
# of a client's channel: one connection, with none of its waits, is shared by all to an address otherwise
OWN = [("grpc.use_local_subchannel_pool", 1)]


def dockerfile(word: str) -> list[str]:
    """The arguments of an instruction, each time it stands there."""
    joined = DOCKERFILE.replace("\\\n", " ")
    return [line.removeprefix(word).strip() for line in joined.splitlines() if line.startswith(f"{word} ")]


def until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < deadline, f"not within {SECONDS:g} s: {what}"
        time.sleep(0.2)


@dataclass
class Pod:
    """The Deployment's containers as processes. places: what stands where a container has its paths."""

    root: Path
    image: Path
    python: Path
    places: dict[str, dict[str, Path]]
    key: str
    addresses: dict[str, ports.Endpoint]

    def command(self, name: str, words: list[str]) -> list[str]:
        """A container's words with its paths replaced."""
        moved = []
        for word in words:
            for path, place in self.places[name].items():
                word = re.sub(rf"(?<![\w/]){path}\b", str(place), word)
            moved.append(word)
        return moved

    def environment(self, **more: str) -> dict[str, str]:
        return {"PATH": f"{self.python.parent}:/usr/local/bin:/usr/bin:/bin", "HOME": str(self.root / "run"), **more}

    def start(self, name: str, words: list[str], **more: str) -> subprocess.Popen[bytes]:
        with (self.root / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                self.command(name, words),
                cwd=self.image,
                env=self.environment(**more),
                stdout=log,
                stderr=log,
                start_new_session=True,
                **who(),
            )

    def probe(self, name: str, words: list[str]) -> bool:
        done = subprocess.run(
            self.command(name, words), cwd=self.image, env=self.environment(), capture_output=True, check=False, **who()
        )
        return done.returncode == 0

    def get(self, path: str) -> int:
        certificate = self.root / "mounted" / "gateway.crt"
        url = f"https://localhost:{self.addresses['gateway'].port}{path}"
        try:
            return requests.get(url, verify=str(certificate), timeout=10).status_code
        except requests.RequestException:
            return 0

    def ask(self, archive: Mapping[str, Any]) -> tuple[int, Any]:
        """The golden prediction, as a client with a key asks for it."""
        url = f"https://localhost:{self.addresses['gateway'].port}/predictions/smoke-undefended"
        answer = requests.post(
            url,
            data=base64.b64decode(archive["image"]),
            headers={"Content-Type": "application/octet-stream"},
            auth=("acme", self.key),
            verify=str(self.root / "mounted" / "gateway.crt"),
            timeout=20,
        )
        return answer.status_code, answer.json()

    def call(self, archive: Mapping[str, Any]) -> int | str:
        """The label of the golden prediction over gRPC, or what went wrong."""
        certificate = (self.root / "mounted" / "gateway.crt").read_bytes()
        pixels = np.frombuffer(base64.b64decode(archive["image"]), "<f4").reshape(1, 1, 28, 28)
        given = triton.InferInput("images", list(pixels.shape), "FP32")
        given.set_data_from_numpy(pixels)
        headers = {"authorization": authorization(("acme", self.key))[1]}
        address = f"localhost:{self.addresses['gateway_grpc'].port}"
        credentials = grpc.ssl_channel_credentials(certificate)
        with triton.InferenceServerClient(address, ssl=True, creds=credentials, channel_args=OWN) as client:
            try:
                answer = client.infer("smoke-undefended", [given], headers=headers, client_timeout=20)
            except triton.InferenceServerException as error:
                return str(error)
        return int(answer.as_numpy("label")[0])


@functools.cache
def who() -> dict[str, Any]:
    """Start a process as the image's user, where this one may and that one can reach this Python."""
    other: dict[str, Any] = {"user": USER, "group": USER, "extra_groups": []}
    try:
        subprocess.run([sys.executable, "-c", "import yaml"], check=True, **other)
    except (OSError, subprocess.CalledProcessError):
        return {}
    return other


def containers(root: str = "base") -> dict[str, dict[str, Any]]:
    (deployment,) = (
        each for each in kustomize.build(CHECKOUT / "deploy/kubernetes" / root) if each["kind"] == "Deployment"
    )
    spec = deployment["spec"]["template"]["spec"]
    return {each["name"]: each for each in (*spec["initContainers"], *spec["containers"])}


def words(container: dict[str, Any]) -> list[str]:
    """What a container runs, the image's ENTRYPOINT where it names no command."""
    entry: list[str] = json.loads(dockerfile("ENTRYPOINT")[0])
    return [*container.get("command", entry), *container.get("args", ())]


@pytest.fixture
def pod(smoke: Smoke) -> Iterator[Pod]:
    root = Path(tempfile.mkdtemp(prefix="pod-"))
    root.chmod(0o755)
    try:
        image = root / "image"
        image.mkdir()
        for source, *rest in (line.split() for line in dockerfile("COPY") if not line.startswith("--from")):
            if source.startswith(("deploy/container/", "requirements")):
                continue  # what the environment is built from
            assert rest in (["./"], [source])
            if (CHECKOUT / source).is_dir():
                shutil.copytree(CHECKOUT / source, image / source, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(CHECKOUT / source, image / source)
        (edit,) = (line for line in dockerfile("RUN") if line.startswith("sed "))
        subprocess.run(["sh", "-c", edit], cwd=image, check=True)
        addresses = moved(image / "config.properties")
        python = lean_environment.make(root / "environment")
        mounted, run, tmp = (root / name for name in ("mounted", "run", "tmp"))
        secrets = {name: root / f"{name}-secrets" for name in ("torchserve", "gateway")}
        for folder in (mounted, run, tmp, *secrets.values()):
            folder.mkdir()
        certificates.make(mounted / "gateway.crt", mounted / "gateway.key", host="localhost")
        _, key = client_keys.add(mounted / client_keys.FILE, "acme")
        shutil.copy(smoke.key_file, mounted / "torchwarden.key")
        (root / "models").mkdir()
        shutil.copy(smoke.archive("undefended"), root / "models")
        for path in (*mounted.iterdir(), *(root / "models").iterdir()):
            path.chmod(0o444)  # a Secret's files: root's, and not this user's alone
        if who():
            for folder in (run, tmp, *secrets.values()):
                os.chown(folder, USER, USER)
        shared = {"/run/torchwarden": run, "/tmp": tmp, "/models": root / "models", "/mounted": mounted}
        places = {
            "key": shared | {"/secrets": secrets["torchserve"]},
            "torchserve": shared | {"/secrets": secrets["torchserve"]},
            "gateway": shared | {"/secrets": secrets["gateway"]},
        }
        yield Pod(root, image, python, places, key, addresses)
    finally:
        for process in psutil.process_iter(["cmdline"]):
            if any(str(root) in word for word in process.info["cmdline"] or ()):
                process.kill()
        shutil.rmtree(root)


def moved(configuration: Path) -> dict[str, ports.Endpoint]:
    """Put free ports into a configuration; the addresses by name."""
    given = settings.read(configuration)
    named = [*ports.read(given), *ports.read_gateway(given).values()]
    free = ports.free(named)
    text = configuration.read_text("latin-1")
    for old, new in zip(named, free, strict=True):
        text = re.sub(rf"(^\w+(?:=.*:|_port=)){old.port}$", rf"\g<1>{new.port}", text, flags=re.MULTILINE)
    configuration.write_text(text, "latin-1")
    given = settings.read(configuration)
    return {each.name: each for each in (*ports.read(given), *ports.read_gateway(given).values())}


@pytest.mark.server
def test_a_pod_starts_answers_follows_a_restart_and_drains(pod: Pod, smoke: Smoke) -> None:
    """With gRPC, which adds a port to what the base has."""
    parts = containers("grpc")
    golden = json.loads(
        subprocess.run(
            ["unzip", "-p", str(smoke.archive("undefended")), "golden.json"], capture_output=True, check=True
        ).stdout
    )
    assert {pod.addresses[name].host for name in ("gateway", "gateway_grpc", "metrics", "health")} == {"0.0.0.0"}
    assert pod.addresses["inference"].host == pod.addresses["management"].host == "127.0.0.1"

    subprocess.run(pod.command("key", words(parts["key"])), check=True, **who())
    kept = pod.places["key"]["/secrets"] / "torchwarden.key"
    assert kept.stat().st_mode & 0o777 == 0o600

    torchserve = {"TORCHWARDEN_KEY_FILE": str(kept), "MODELS": "smoke-undefended"}
    server = pod.start("torchserve", words(parts["torchserve"]), **torchserve)
    ready = parts["torchserve"]["startupProbe"]["exec"]["command"]
    until(lambda: pod.probe("torchserve", ready), f"ready; see {pod.root}/torchserve.log")
    gateway = pod.start("gateway", words(parts["gateway"]))
    try:
        probe = parts["gateway"]["readinessProbe"]["httpGet"]
        until(lambda: pod.get(probe["path"]) == 200, (pod.root / "gateway.log").read_text())
        status, answer = pod.ask(golden)
        assert status == 200, answer
        label = answer["predictions"][0]["label"]
        assert label in {row.index(max(row)) for row in golden["accepted"]}
        assert pod.call(golden) == label

        # TorchServe's container ends and is started again: its tokens are others, and the gateway follows
        server.kill()
        server.wait()
        server = pod.start("torchserve", words(parts["torchserve"]), **torchserve)
        until(lambda: pod.get(probe["path"]) == 200 and pod.ask(golden)[0] == 200, "answers after a restart")
        assert pod.call(golden) == label

        # the pod is ended: not ready at once, still answering, then gone, and TorchServe after it
        gateway.send_signal(signal.SIGTERM)
        until(lambda: pod.get(probe["path"]) == 503, "not ready")
        assert pod.ask(golden)[0] == 200
        assert gateway.wait(SECONDS) == 0, (pod.root / "gateway.log").read_text()
        assert pod.get(probe["path"]) == 0
        live = parts["torchserve"]["livenessProbe"]["exec"]["command"]
        assert pod.probe("torchserve", live)
        assert isinstance(pod.call(golden), str)

        # without the program behind gRPC the gateway ends by itself, to be started again
        gateway = pod.start("gateway", words(parts["gateway"]))
        until(lambda: pod.call(golden) == label, (pod.root / "gateway.log").read_text())
        (behind,) = (each for each in psutil.process_iter(["cmdline"]) if behind_grpc(each, pod.root))
        behind.kill()
        assert gateway.wait(SECONDS) == 1
        assert "a helper of nginx has ended" in (pod.root / "gateway.log").read_text()
        assert pod.get(probe["path"]) == 0
        server.send_signal(signal.SIGTERM)
        assert server.wait(SECONDS) == 143
    finally:
        for process in (gateway, server):
            if process.poll() is None:
                process.kill()
                process.wait()


def behind_grpc(each: psutil.Process, root: Path) -> bool:
    words = each.info["cmdline"] or ()
    return "deploy.grpc_front" in words and any(str(root) in word for word in words)


def test_the_images_command_is_the_pods_but_for_the_choice_of_models() -> None:
    """`docker run` without arguments serves what /models holds."""
    command = ["python", "-m", *json.loads(dockerfile("CMD")[0])]
    (script,) = containers()["torchserve"]["args"]
    assert shlex.split(script) == ["exec", *command, "--models", "$MODELS"]
