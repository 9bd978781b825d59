"""The manifests: objects as Kubernetes' own schemas have them, ports as config.properties does, pods closed.

No cluster is asked.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from bench.redis_server import RedisServer
from deploy import ports, settings
from deploy.container import front
from deploy.gateway import certificates, client_keys
from deploy.gateway.configuration import Limits
from deploy.gateway.servers import Upstream
from handlers.store import open_store
from tests.deploy import kustomize

CHECKOUT = Path(__file__).resolve().parents[2]
DEPLOY = CHECKOUT / "deploy"
VERSION = "1.37"
ROOTS = (
    "kubernetes/base",
    "kubernetes/redis",
    "kubernetes/shared",
    "kubernetes/monitoring",
    "kubernetes/gpu",
    "kubernetes/grpc",
    "kserve",
    "kserve-grpc",
)
# Kinds of other projects, which Kubernetes' schemas do not know.
FOREIGN = {"InferenceService", "PodMonitor"}
REDIS, DNS, HTTPS = 6379, 53, 443
GIVEN = settings.read(CHECKOUT / "config.properties")
PORTS = {name: each.port for name, each in ports.read_gateway(GIVEN).items()} | {
    each.name: each.port for each in ports.read(GIVEN)
}


def objects(root: str) -> list[dict[str, Any]]:
    return kustomize.build(DEPLOY / root)


def pod_spec(each: dict[str, Any]) -> dict[str, Any]:
    """The pod of a Deployment, a StatefulSet or an InferenceService; an InferenceService's is its predictor."""
    if each["kind"] != "InferenceService":
        spec: dict[str, Any] = each["spec"]["template"]["spec"]
        return spec
    own = ("minReplicas", "maxReplicas", "scaleMetric", "scaleTarget", "labels")
    return {key: value for key, value in each["spec"]["predictor"].items() if key not in own}


def pods(root: str) -> list[dict[str, Any]]:
    return [
        pod_spec(each) for each in objects(root) if each["kind"] in ("Deployment", "StatefulSet", "InferenceService")
    ]


def containers(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [*spec.get("initContainers", ()), *spec["containers"]]


def serving(root: str) -> dict[str, Any]:
    """The pod that serves."""
    (found,) = (spec for spec in pods(root) if any(each["name"] == "torchserve" for each in containers(spec)))
    return found


def walk(node: Any) -> Iterator[tuple[str, Any]]:
    """Every key and value below a node."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield key, value
            yield from walk(value)
    elif isinstance(node, list):
        for each in node:
            yield from walk(each)


@pytest.mark.parametrize("root", ROOTS)
def test_every_native_object_is_valid(root: str) -> None:
    native = [each for each in objects(root) if each["kind"] not in FOREIGN]
    assert native
    for each in native:
        kubernetes_validate.validate(each, VERSION, strict=True)


def test_the_validation_can_fail() -> None:
    broken = next(each for each in objects("kubernetes/base") if each["kind"] == "Deployment")
    containers(pod_spec(broken))[0]["imagePulPolicy"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError, match="imagePulPolicy"):
        kubernetes_validate.validate(broken, VERSION, strict=True)


def test_the_template_of_the_secrets_is_valid_and_holds_none() -> None:
    secrets = list(yaml.safe_load_all((DEPLOY / "kubernetes/secrets.template.yaml").read_text("utf-8")))
    for each in secrets:
        kubernetes_validate.validate(each, VERSION, strict=True)
        assert set(each["stringData"].values()) == {""}
    assert not [each for root in ROOTS for each in objects(root) if each["kind"] == "Secret"]
    known = {(each["metadata"]["name"], key) for each in secrets for key in each["stringData"]}
    gateway = {("torchwarden-gateway", name) for name in front.FILES}
    assert gateway == {("torchwarden-gateway", name) for name in (client_keys.FILE, *certificates.FILES)}
    assert known == gateway | {
        ("torchwarden-key", "torchwarden.key"),
        ("torchwarden-store", "url"),
        ("torchwarden-store", "redis.conf"),
    }
    # and whatever a pod mounts or reads is among them
    used = {
        value["secretName"] for root in ROOTS for spec in pods(root) for key, value in walk(spec) if key == "secret"
    }
    used |= {
        value["name"] for root in ROOTS for spec in pods(root) for key, value in walk(spec) if key == "secretKeyRef"
    }
    assert used == {name for name, _ in known}


def test_the_inference_service_is_as_kserve_has_it() -> None:
    schema = json.loads((DEPLOY / "kserve/inferenceservice.schema.json").read_text("utf-8"))
    (service,) = (each for each in objects("kserve") if each["kind"] == "InferenceService")
    jsonschema.validate(service, schema, jsonschema.Draft202012Validator)
    labels = service["spec"]["predictor"]["labels"]
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "predictor"},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod_spec(service)},
        },
    }
    kubernetes_validate.validate(deployment, VERSION, strict=True)
    service["spec"]["predictor"]["containers"][0]["name"] = "other"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(service, schema, jsonschema.Draft202012Validator)


def test_the_inference_services_pod_is_the_deployments() -> None:
    ours, theirs = (json.dumps(serving(root), sort_keys=True) for root in ("kubernetes/base", "kserve"))
    theirs = theirs.replace("torchwarden-kserve", "torchwarden").replace("kserve-container", "gateway")
    assert json.loads(theirs) == json.loads(ours)


@pytest.mark.parametrize(("plain", "root"), [("kubernetes/base", "kubernetes/grpc"), ("kserve", "kserve-grpc")])
def test_grpc_is_a_second_port_of_the_gateway_and_nothing_else(plain: str, root: str) -> None:
    def gateway(root: str) -> dict[str, Any]:
        (found,) = serving(root)["containers"]
        return dict(found)

    def ports_of(root: str, kind: str) -> list[dict[str, Any]]:
        found = {each["metadata"]["name"]: each["spec"] for each in objects(root) if each["kind"] == kind}
        spec = found["torchwarden-kserve" if kind == "NetworkPolicy" and "kserve" in root else "torchwarden"]
        return list(spec["ports"] if kind == "Service" else spec["ingress"][0]["ports"])

    assert front._parser().parse_args(gateway(root)["args"][1:]).grpc
    assert gateway(root)["args"] == [*gateway(plain)["args"], "--grpc"]
    port = {"name": "gateway-grpc", "containerPort": PORTS["gateway_grpc"]}
    assert gateway(root)["ports"] == [*gateway(plain)["ports"], port]
    # each call's message is held twice, beside what the gateway has without them
    queue = int(GIVEN["job_queue_size"])
    limits = Limits.of(GIVEN, [Upstream("peer0", "default", "", Path(), None, queue, seconds=30, principal_headers=())])
    held = 2 * 2 * limits.large * limits.body
    memory = {each: int(gateway(each)["resources"]["limits"]["memory"][:-2]) for each in (plain, root)}
    assert memory[root] * 2**30 >= memory[plain] * 2**20 + held
    assert ports_of(root, "NetworkPolicy") == [
        *ports_of(plain, "NetworkPolicy"),
        {"protocol": "TCP", "port": "gateway-grpc"},
    ]
    more = {"name": "grpc", "port": PORTS["gateway_grpc"], "targetPort": "gateway-grpc"}
    assert ports_of(root, "Service") == [*ports_of(plain, "Service"), more]
    changed = {"Service", "NetworkPolicy", "Deployment", "InferenceService"}
    same = [[each for each in objects(one) if each["kind"] not in changed] for one in (plain, root)]
    assert same[0] == same[1]


@pytest.mark.parametrize("root", ROOTS)
def test_every_port_is_that_of_config_properties(root: str) -> None:
    known = {*PORTS.values(), REDIS, DNS, HTTPS}
    found = set()
    for each in objects(root):
        for key, value in walk(each):
            if key in ("port", "containerPort", "targetPort"):
                found.add(value)
            if key == "ports" and isinstance(value, list):
                for port in value:
                    name, number = port.get("name"), port.get("containerPort")
                    if number is not None and name != "redis":
                        assert number == PORTS[name.replace("-", "_")], f"{each['metadata']['name']}: port {name}"
    assert {port for port in found if isinstance(port, int)} <= known
    # a name stands for a port that a container has
    named = {port["name"] for spec in pods(root) for each in containers(spec) for port in each.get("ports", ())}
    assert {port for port in found if isinstance(port, str)} <= named


def test_the_scan_of_ports_sees_some() -> None:
    numbers = {value for each in objects("kubernetes/base") for key, value in walk(each) if key == "containerPort"}
    assert numbers == {PORTS["gateway"], PORTS["metrics"], PORTS["health"], REDIS}


@pytest.mark.parametrize("root", ROOTS)
def test_every_container_is_closed(root: str) -> None:
    for spec in pods(root):
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] >= 100
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for each in containers(spec):
            assert each["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, each["name"]
            assert "memory" in each["resources"]["limits"], each["name"]
            assert {"cpu", "memory"} <= set(each["resources"]["requests"]) | {"cpu"}, each["name"]
        for volume in spec["volumes"]:
            assert "hostPath" not in volume


@pytest.mark.parametrize("root", ["kubernetes/base", "kserve"])
def test_only_the_gateway_is_entered_and_only_redis_and_names_are_reached(root: str) -> None:
    policies = {each["metadata"]["name"]: each["spec"] for each in objects(root) if each["kind"] == "NetworkPolicy"}
    name = "torchwarden" if root == "kubernetes/base" else "torchwarden-kserve"
    assert set(policies) == {name, "torchwarden-redis"}
    spec = policies[name]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert [port for rule in spec["ingress"] for port in rule["ports"]] == [{"protocol": "TCP", "port": "gateway"}]
    assert sorted(port["port"] for rule in spec["egress"] for port in rule["ports"]) == [DNS, DNS, REDIS]
    assert all(rule["to"] for rule in spec["egress"]), "a rule without `to` allows everything"
    (selected,) = spec["podSelector"]["matchLabels"].items()
    assert selected == ("app.kubernetes.io/name", name)
    assert policies["torchwarden-redis"]["egress"] == []
    (entering,) = policies["torchwarden-redis"]["ingress"]
    assert name in entering["from"][0]["podSelector"]["matchExpressions"][0]["values"]


def test_metrics_are_entered_from_monitoring_alone() -> None:
    (policy,) = (each for each in objects("kubernetes/monitoring") if each["metadata"]["name"] == "torchwarden-metrics")
    (rule,) = policy["spec"]["ingress"]
    assert rule["from"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
    assert {port["port"] for port in rule["ports"]} == {"metrics", "health"}
    (monitor,) = (each for each in objects("kubernetes/monitoring") if each["kind"] == "PodMonitor")
    assert {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]} == {"metrics", "health"}


@pytest.mark.parametrize("root", ["kubernetes/base", "kubernetes/gpu", "kubernetes/grpc", "kserve", "kserve-grpc"])
def test_the_server_is_there_before_the_gateway_and_after_it(root: str) -> None:
    spec = serving(root)
    key, torchserve = spec["initContainers"]
    assert (key["name"], torchserve["name"]) == ("key", "torchserve"), "they start in this order"
    assert "restartPolicy" not in key
    (gateway,) = spec["containers"]
    assert torchserve["restartPolicy"] == "Always"
    assert torchserve["startupProbe"]["exec"]["command"][-2:] == ["--once", "ready"]
    assert gateway["readinessProbe"]["httpGet"] == {
        "path": "/v2/health/ready",
        "port": "gateway",
        "scheme": "HTTPS",
    }
    # quiet, twice the longest batch, TorchServe's end
    quiet = front._parser().get_default("quiet")
    assert spec["terminationGracePeriodSeconds"] >= quiet + 2 * 30 + 15
    assert spec["shareProcessNamespace"] is True


def test_redis_forgets_nothing() -> None:
    (configuration,) = (
        each["data"]["redis.conf"] for each in objects("kubernetes/redis") if each["kind"] == "ConfigMap"
    )
    assert re.search(r"^maxmemory-policy noeviction$", configuration, re.MULTILINE)
    assert re.search(r"^appendonly yes$", configuration, re.MULTILINE)
    assert re.search(rf"^port {REDIS}$", configuration, re.MULTILINE)
    # two would not be one memory
    (redis,) = (each for each in objects("kubernetes/redis") if each["kind"] == "StatefulSet")
    assert redis["spec"]["replicas"] == 1


def test_redis_as_it_is_configured_is_a_store(tmp_path: Path) -> None:
    (configuration,) = (
        each["data"]["redis.conf"] for each in objects("kubernetes/redis") if each["kind"] == "ConfigMap"
    )
    path = tmp_path / "redis.conf"
    # folders of the pod
    path.write_text(re.sub(r"^(include|dir) .*", "", configuration, flags=re.MULTILINE))
    with contextlib.closing(RedisServer(tmp_path, options=(str(path),))) as server:
        server.start()
        assert server.client.config_get("maxmemory")["maxmemory"] == str(256 * 2**20), "it was read"
        assert open_store(server.url, {}).life()


def test_all_selectors_find_their_pods() -> None:
    for root in ("kubernetes/base", "kserve"):
        every = objects(root)
        labels = [
            each["spec"]["template"]["metadata"]["labels"] for each in every if "template" in each.get("spec", {})
        ]
        labels += [each["spec"]["predictor"]["labels"] for each in every if each["kind"] == "InferenceService"]
        names = {label["app.kubernetes.io/name"] for label in labels}
        for each in every:
            if each["kind"] == "Service":
                assert each["spec"]["selector"]["app.kubernetes.io/name"] in names
            if each["kind"] in ("PodDisruptionBudget", "Deployment", "StatefulSet"):
                assert each["spec"]["selector"]["matchLabels"]["app.kubernetes.io/name"] in names


def test_the_autoscaler_scales_the_deployment() -> None:
    (scaler,) = (each for each in objects("kubernetes/base") if each["kind"] == "HorizontalPodAutoscaler")
    (deployment,) = (each for each in objects("kubernetes/base") if each["kind"] == "Deployment")
    assert scaler["apiVersion"] == "autoscaling/v2"
    assert scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert "replicas" not in deployment["spec"], "the autoscaler's to set"
    assert scaler["spec"]["minReplicas"] >= 2
    (without,) = (each for each in objects("kubernetes/gpu") if each["kind"] == "Deployment")
    assert without["spec"]["replicas"] >= 2
    assert not [each for each in objects("kubernetes/gpu") if each["kind"] == "HorizontalPodAutoscaler"]


def test_kubectl_combines_them_as_this_test_does() -> None:
    """`make kubernetes-check` fetches kubectl and names it in $KUBECTL."""
    program = os.environ.get("KUBECTL") or shutil.which("kubectl")
    if program is None:
        pytest.skip("kubectl is not here: `make kubernetes-check` fetches it and runs this")
    for root in ROOTS:
        said = subprocess.run([program, "kustomize", DEPLOY / root], capture_output=True, text=True, check=True)
        real = {kustomize.identity(each): each for each in yaml.safe_load_all(said.stdout)}
        assert real == {kustomize.identity(each): each for each in objects(root)}, root
