"""The preprocessings that people use, by name.

    imagenet                    shorter side to size / 0.875, centre, torchvision's mean and std
    unit, half, bytes, caffe    values in [0,1]; (x - 0.5) / 0.5; 0..255; BGR bytes less their means
    timm:NAME                   what timm's pretrained_cfg says of a network
    keras:NAME                  what keras.applications.NAME.preprocess_input does
    PATH                        a preprocessor_config.json of Hugging Face's transformers

Of gray images: unit, half, bytes, and mnist.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from export.graphs import ExportError
from pictures.model_input import ModelInput
from zoo.published import UnknownNetworkError, pretrained_config

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
CAFFE = {"colour": "BGR", "scale": 255.0, "mean": (103.939, 116.779, 123.68)}
# of the whole picture that a centre is cut out of, as most networks are evaluated
CROP = 0.875
HALF: dict[str, Any] = {"mean": (0.5,), "std": (0.5,)}
BYTES: dict[str, Any] = {"scale": 255.0}
VALUES: Mapping[int, Mapping[str, dict[str, Any]]] = {
    3: {"unit": {}, "imagenet": dict(IMAGENET), "half": HALF, "bytes": BYTES, "caffe": dict(CAFFE)},
    1: {"unit": {}, "mnist": {"mean": (0.1307,), "std": (0.3081,)}, "half": HALF, "bytes": BYTES},
}
# keras.applications: what preprocess_input of each family does (imagenet_utils' modes), "raw": it does nothing
KERAS = {
    "caffe": ("vgg16", "vgg19", "resnet50", "resnet101", "resnet152"),
    "half": (
        *("mobilenet", "mobilenet_v2", "inception_v3", "inception_resnet_v2", "xception", "nasnet"),
        *("resnet50v2", "resnet101v2", "resnet152v2", "resnet_v2"),
    ),
    "imagenet": ("densenet", "densenet121", "densenet169", "densenet201"),
    "bytes": ("efficientnet", "efficientnet_v2", "convnext", "mobilenet_v3", "regnet"),
}
# pictures that keras.utils.load_img and image_dataset_from_directory resize whatever their proportions
KERAS_FITS = {"fit": "stretch", "interpolation": "linear", "library": "opencv"}
# PIL's numbers, in which transformers keeps a filter
RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}


def preset(name: str, model: ModelInput) -> ModelInput:
    """A graph's input (layout, type, size, channels) with the preprocessing of that name. Raises ExportError."""
    if name.startswith("timm:"):
        return _timm(name, model)
    if name.startswith("keras:"):
        return _keras(name.removeprefix("keras:"), model)
    if name.endswith(".json"):
        return _transformers(Path(name), model)
    known = VALUES[model.channels]
    if name not in known:
        raise ExportError(
            f"--preset: expected one of {', '.join(known)}, timm:NAME, keras:NAME or a "
            f"preprocessor_config.json, got {name!r}"
        )
    fits = cropped(model) if name == "imagenet" else {}
    return changed(model, {**known[name], **fits})


def cropped(model: ModelInput) -> dict[str, Any]:
    """The centre of a picture that was resized to a little more."""
    return {"fit": "crop", "resize": round(min(model.height, model.width) / CROP)}


def changed(model: ModelInput, fields: Mapping[str, Any]) -> ModelInput:
    """The input with other preprocessing; an input of bytes keeps bytes."""
    values = {"colour": "RGB", "scale": 1.0, "mean": (0.0,), "std": (1.0,), **fields}
    if model.type == "uint8":
        values |= {"scale": 255.0, "mean": (0.0,), "std": (1.0,)}
    try:
        return replace(model, **values)
    except ValueError as error:
        raise ExportError(f"--preset: {error}") from error


def _timm(name: str, model: ModelInput) -> ModelInput:
    try:
        config = pretrained_config(name)
    except UnknownNetworkError as error:
        raise ExportError(f"--preset: {error}") from error
    side = min(model.height, model.width)
    share = float(config.get("crop_pct") or CROP)
    # timm resizes to floor(size / crop_pct)
    fits: dict[str, Any] = {"fit": "crop", "resize": max(side, int(side / share))}
    if config.get("crop_mode") == "squash":
        fits = {"fit": "stretch", "resize": 0}
    fits["interpolation"] = config.get("interpolation") or "bilinear"
    return changed(model, {"mean": tuple(config["mean"]), "std": tuple(config["std"]), **fits})


def _keras(name: str, model: ModelInput) -> ModelInput:
    family = name.lower()
    mode = next((mode for mode, names in KERAS.items() if family in names), None)
    if mode is None:
        known = sorted(each for names in KERAS.values() for each in names)
        raise ExportError(f"--preset: expected keras: and one of {', '.join(known)}, got {name!r}")
    if mode == "imagenet":
        return changed(model, {**IMAGENET, **KERAS_FITS})
    return changed(model, {**VALUES[model.channels][mode], **KERAS_FITS})


def _transformers(path: Path, model: ModelInput) -> ModelInput:
    """AutoImageProcessor's settings."""
    try:
        config: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ExportError(f"--preset: {path}: not a preprocessor_config.json that can be read ({error})") from error
    fields: dict[str, Any] = {"interpolation": RESAMPLE.get(int(config.get("resample", 2)), "bilinear")}
    size = config.get("size", {})
    if config.get("do_center_crop") or (isinstance(size, Mapping) and "shortest_edge" in size):
        shorter = size.get("shortest_edge") if isinstance(size, Mapping) else size
        fields |= {"fit": "crop", "resize": int(shorter or min(model.height, model.width))}
        if config.get("crop_pct") and not config.get("do_center_crop"):
            fields["resize"] = int(fields["resize"] / config["crop_pct"])
    else:
        fields["fit"] = "stretch"
    scale = float(config.get("rescale_factor", 1 / 255)) * 255 if config.get("do_rescale", True) else 255.0
    fields["scale"] = scale
    if config.get("do_normalize", True) and "image_mean" in config:
        fields |= {"mean": tuple(map(float, config["image_mean"])), "std": tuple(map(float, config["image_std"]))}
    if config.get("do_flip_channel_order"):
        fields["colour"] = "BGR"
    return changed(model, fields)
