"""The manifests: what Kubernetes takes, and what the code, the image and each other say."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import typer.main
import yaml
from prometheus_client.metrics import MetricWrapperBase

from falsework.server.app import create_app
from falsework.server.cli.main import app
from falsework.server.engines.scripted import ScriptedEngine
from falsework.server.observability import telemetry
from falsework.server.settings import Settings, env_var
from falsework.server.tools.config import load_tools_file

kubernetes_validate = pytest.importorskip(
    "kubernetes_validate", reason="kubernetes-validate isn't installed here"
)

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/kubernetes"
VERSION = "1.37"
OTHERS = {"Kustomization", "PrometheusRule", "RayService", "ServiceMonitor"}
"""Kinds that aren't Kubernetes' own."""

Json = dict[str, Any]


def documents(name: str) -> list[Json]:
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


def kustomization() -> Json:
    (only,) = documents("kustomization.yaml")
    return only


RESOURCES = [
    pytest.param(each, id=f"{name}-{each['kind']}")
    for name in [*kustomization()["resources"], "rayservice.yaml"]
    for each in documents(name)
]


def one(kind: str) -> Json:
    (found,) = [each.values[0] for each in RESOURCES if each.values[0]["kind"] == kind]  # type: ignore[index]
    return found  # type: ignore[return-value]


def container() -> Json:
    (found,) = one("Deployment")["spec"]["template"]["spec"]["containers"]
    return found  # type: ignore[no-any-return]


def pods() -> list[Json]:
    """Return the specifications of every pod."""
    cluster = one("RayService")["spec"]["rayClusterConfig"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"], one("Deployment")["spec"]]
    return [group["template"]["spec"] for group in groups]


def flags() -> Json:
    """Return the settings that the container's arguments give."""
    group = typer.main.get_command(app)
    name, *arguments = container()["args"]
    with group.make_context("falsework", [name, "--help"], resilient_parsing=True):
        command = group.get_command(None, name)  # type: ignore[attr-defined]
        with command.make_context(name, arguments) as context:
            return {key: value for key, value in context.params.items() if value is not None}


def metric_names() -> set[str]:
    metrics = [each for each in vars(telemetry).values() if isinstance(each, MetricWrapperBase)]
    return {metric.describe()[0].name for metric in metrics}


@pytest.mark.parametrize("resource", RESOURCES)
def test_a_current_kubernetes_takes_it(resource: Json) -> None:
    if resource["kind"] in OTHERS:
        assert {"apiVersion", "kind", "metadata", "spec"} <= set(resource)
        return

    kubernetes_validate.validate(resource, VERSION, strict=True)


@pytest.mark.parametrize("pod", pods(), ids=["head", "worker", "deployment"])
def test_every_pod_is_one(pod: Json) -> None:
    metadata = {"name": "each"}
    alone = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod}

    kubernetes_validate.validate(alone, VERSION, strict=True)


def test_every_file_is_among_the_resources_or_known_to_be_apart() -> None:
    made = kustomization()
    files = {path.name for path in FOLDER.iterdir()}
    generated = {name for each in made["configMapGenerator"] for name in each["files"]}
    apart = {"adapter.yaml", "kustomization.yaml", "rayservice.yaml"}

    assert files == {*made["resources"], *generated, *apart}


def test_the_flags_are_the_servers_and_the_tools_file_is_the_mounted_one() -> None:
    mounts = {each["name"]: each["mountPath"] for each in container()["volumeMounts"]}
    (generated,) = kustomization()["configMapGenerator"]

    assert set(flags()) <= set(Settings.model_fields)
    assert flags()["tools"] == f"{mounts['tools']}/{generated['files'][0]}"


def test_probes_ask_routes_that_the_server_has(smollm2: Path) -> None:
    from support.scripted_app import scaffold_of  # noqa: PLC0415 - it takes seconds to import

    served = create_app(Settings(), ScriptedEngine(), scaffold_of(smollm2))
    routes = {route.path for route in served.routes if hasattr(route, "path")}
    (monitored,) = one("ServiceMonitor")["spec"]["endpoints"]
    asked = {
        name: container()[f"{name}Probe"]["httpGet"]["path"]
        for name in ("startup", "liveness", "readiness")
    }

    assert {*asked.values(), monitored["path"]} <= routes
    assert asked == {"startup": "/ready", "liveness": "/health", "readiness": "/ready"}


def test_loading_a_model_may_take_half_an_hour() -> None:
    startup = container()["startupProbe"]

    assert startup["periodSeconds"] * startup["failureThreshold"] >= 1800
    assert one("Deployment")["spec"]["progressDeadlineSeconds"] >= 1800


def test_a_pod_has_time_to_drain() -> None:
    spec = one("Deployment")["spec"]["template"]["spec"]
    hook = container()["lifecycle"]["preStop"]["sleep"]["seconds"]

    assert spec["terminationGracePeriodSeconds"] >= flags()["drain_seconds"] + hook + 10


def test_one_port_is_meant_everywhere() -> None:
    dockerfile = (ROOT / "Dockerfile.gpu").read_text()
    (port,) = container()["ports"]
    (served,) = one("Service")["spec"]["ports"]
    (monitored,) = one("ServiceMonitor")["spec"]["endpoints"]

    assert f"FALSEWORK_PORT={port['containerPort']}" in dockerfile
    assert (served["targetPort"], monitored["port"]) == (port["name"], served["name"])


def test_labels_select_the_pods() -> None:
    spec = one("Deployment")["spec"]
    labels = spec["template"]["metadata"]["labels"]
    selectors = [
        spec["selector"]["matchLabels"],
        one("Service")["spec"]["selector"],
        one("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        one("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        one("Service")["metadata"]["labels"],
        one("ServiceMonitor")["spec"]["selector"]["matchLabels"],
    ]

    assert [selector for selector in selectors if selector != labels] == []


def test_the_autoscaler_asks_for_a_metric_of_ours_that_the_adapter_serves() -> None:
    (metric,) = one("HorizontalPodAutoscaler")["spec"]["metrics"]
    name = metric["pods"]["metric"]["name"]
    (adapter,) = documents("adapter.yaml")
    (rule,) = adapter["rules"]["custom"]

    assert name in metric_names()
    assert rule["seriesQuery"].startswith(name + "{")


def test_the_rules_are_those_of_the_alerts() -> None:
    alerts = yaml.safe_load((ROOT / "deploy/alerts.yml").read_text())

    assert one("PrometheusRule")["spec"] == alerts


def test_every_key_of_the_secrets_is_a_variable_that_is_read() -> None:
    text = (FOLDER / "kustomization.yaml").read_text()
    named = set(re.findall(r"--from-literal (\w+)=", text))
    ours = {env_var(name) for name in Settings.model_fields}
    credentials = set(re.findall(r"env: (\w+)", (FOLDER / "tools.yaml").read_text()))
    (monitored,) = one("ServiceMonitor")["spec"]["endpoints"]

    assert named - ours == {"HF_TOKEN", *credentials}
    assert monitored["authorization"]["credentials"]["key"] in named


def test_the_policy_lets_the_server_reach_what_the_tools_file_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WEATHER_TOKEN", "a-token")
    load_tools_file(FOLDER / "tools.yaml")
    (file,) = documents("tools.yaml")
    reached = {
        (peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"], port["port"])
        for rule in one("NetworkPolicy")["spec"]["egress"]
        for peer in rule["to"]
        for port in rule["ports"]
        if "namespaceSelector" in peer
    }

    for tool in file["tools"]:
        url = urlsplit(tool["http"]["url"])
        _, namespace, *_ = (url.hostname or "").split(".")
        assert (namespace, url.port) in reached


def test_the_ray_service_is_what_serve_deploy_takes() -> None:
    spec = one("RayService")["spec"]
    written = yaml.safe_load((ROOT / "deploy/ray/serve.yaml").read_text())
    pinned = re.search(r"^ray==(\S+)", (ROOT / "requirements/ray.txt").read_text(), re.MULTILINE)

    assert yaml.safe_load(spec["serveConfigV2"]) == written
    assert pinned is not None
    assert spec["rayClusterConfig"]["rayVersion"] == pinned[1]
