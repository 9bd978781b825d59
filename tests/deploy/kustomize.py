"""As much of kustomize as deploy/kubernetes uses: resources, a namespace, images, JSON patches and deletions.

The real one, where it is at hand, is asked for the same (test_kubernetes.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

KNOWN = {"apiVersion", "kind", "namespace", "resources", "images", "patches", "configurations"}
CLUSTER_WIDE = {"Namespace"}


def build(folder: Path) -> list[dict[str, Any]]:
    """The objects of a kustomization. Raises on a file that is not there and on a field it does not know."""
    rules = yaml.safe_load((folder / "kustomization.yaml").read_text("utf-8"))
    unknown = set(rules) - KNOWN
    assert not unknown, f"{folder}: kustomization.yaml: {unknown}"
    objects = [each for name in rules["resources"] for each in _resource(folder, folder / name)]
    for image in rules.get("images", ()):
        _rename(objects, image)
    for patch in rules.get("patches", ()):
        content = yaml.safe_load((folder / patch["path"]).read_text("utf-8"))
        objects = _changed(objects, patch["target"], content) if "target" in patch else _without(objects, content)
    for each in objects:
        if "namespace" in rules and each["kind"] not in CLUSTER_WIDE:
            each["metadata"]["namespace"] = rules["namespace"]
    names = [identity(each) for each in objects]
    assert len(set(names)) == len(names), f"{folder}: two objects of one name in {names}"
    return objects


def identity(each: dict[str, Any]) -> tuple[str, str]:
    """Kind and name."""
    return each["kind"], each["metadata"]["name"]


def _resource(folder: Path, path: Path) -> list[dict[str, Any]]:
    if path.is_dir():
        return build(path.resolve())
    assert path.resolve().parent == folder.resolve(), f"{path}: kustomize reads no file outside its folder"
    return [each for each in yaml.safe_load_all(path.read_text("utf-8")) if each is not None]


def _rename(node: Any, image: dict[str, str]) -> None:
    if isinstance(node, list):
        for each in node:
            _rename(each, image)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key == "image" and isinstance(value, str) and value.partition(":")[0] == image["name"]:
                node[key] = f"{image.get('newName', image['name'])}:{image['newTag']}"
            else:
                _rename(value, image)


def _changed(
    objects: list[dict[str, Any]], target: dict[str, str], steps: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """A JSON patch (RFC 6902) of one object."""
    (found,) = (each for each in objects if identity(each) == (target["kind"], target["name"]))
    for step in steps:
        *way, last = (int(part) if part.isdecimal() else part for part in step["path"].split("/")[1:])
        place: Any = found
        for part in way:
            place = place[part]
        if last == "-":
            assert step["op"] == "add", step
            place.append(step["value"])
        elif step["op"] == "test":
            assert place[last] == step["value"], step
        else:
            assert (step["op"] == "replace") == (last in place), step
            place[last] = step["value"]
    return objects


def _without(objects: list[dict[str, Any]], patch: dict[str, Any]) -> list[dict[str, Any]]:
    assert patch["$patch"] == "delete", patch
    assert identity(patch) in map(identity, objects), f"a patch of {identity(patch)}, which is not there"
    return [each for each in objects if identity(each) != identity(patch)]
