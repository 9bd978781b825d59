"""A recipe's test images with their labels: its own, or where it has none, those that the undefended model gives them.

An adopted model may come without labelled images. Then nothing says how often it is right, and what can be measured is
what a defense changes of it: accuracy is agreement with the undefended archive. Its labels are kept in build/labels,
under names that the archive and the images decide.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import torch

from evaluation.oracles import CHECKOUT, InProcessOracle, OracleError
from recipes import Recipe
from report.atomic import replacing
from report.headline import UNDEFENDED
from zoo import datasets
from zoo.images import Images, parts

KEPT = CHECKOUT / "build" / "labels"


def test_images(recipe: Recipe, data: Path | None, store: Path) -> Images:
    """The test split. data: folder of the data sets, searched first. store: of the archives.

    Raises RecipeError, DatasetError, OracleError.
    """
    section = recipe.section("dataset", datasets.Data)
    images = section.load("test", data)
    if images.labels is not None:
        return images
    archive = store / f"{recipe.name}-{UNDEFENDED}.mar"
    if not archive.is_file():
        raise OracleError(
            f"{recipe.path}: its images have no labels, and the undefended model's stand in for them; there is no "
            f"{archive}: build it first (make archive POLICIES={UNDEFENDED}), or give [dataset] labelled images"
        )
    return replace(images, labels=_labels(archive, images), classes=section.classes)


def _labels(archive: Path, images: Images) -> torch.Tensor:
    digest = hashlib.sha256(archive.read_bytes())
    digest.update(images.stored.contiguous().numpy().data)
    kept = KEPT / f"{digest.hexdigest()[:24]}.pt"
    if not kept.is_file():
        with InProcessOracle(archive) as oracle:
            labels = torch.cat([oracle(part).labels for part in parts(images.stored)])
        with replacing(kept) as unfinished:
            torch.save(labels, unfinished)
    found: torch.Tensor = torch.load(kept, weights_only=True)
    return found
