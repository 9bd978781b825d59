"""Data sets of files: every layout, every place, every kind of damage, and the download."""

from __future__ import annotations

import contextlib
import functools
import gzip
import hashlib
import http.server
import os
import pickle
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.zoo.writers import idx_bytes, some_bytes, write_cifar_batch, write_idx
from zoo.datasets import DatasetError, load
from zoo.layout import Bytes

IDX_FOLDERS = {"mnist": "MNIST/raw", "fashionmnist": "FashionMNIST/raw", "kmnist": "KMNIST/raw"}
LABELS = np.array([3, 0, 9, 1, 3], np.uint8)


def gray_images() -> Bytes:
    return some_bytes(5, 28, 28)


def assert_loaded(name: str, split: str, images: Bytes, labels: Bytes, *, root: Path | None = None) -> None:
    """The set that `load` gives has exactly these bytes and labels."""
    loaded = load(name, split, root=root)
    channels_first = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    expected = channels_first.astype(np.float32) / np.float32(255)
    assert torch.equal(loaded.pixels, torch.from_numpy(np.ascontiguousarray(expected)))
    assert loaded.pixels.is_contiguous()
    assert loaded.labels is not None
    assert loaded.labels.tolist() == labels.tolist()


# IDX


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("name", IDX_FOLDERS)
def test_idx_files_are_read_gzipped_or_not(checkout: Path, name: str, split: str, zipped: bool) -> None:
    write_idx(checkout / "data" / IDX_FOLDERS[name], split, gray_images(), LABELS, zipped=zipped)
    assert_loaded(name, split, gray_images(), LABELS)


def test_a_partial_set_has_the_split_it_has(checkout: Path) -> None:
    write_idx(checkout / "data" / "KMNIST" / "raw", "test", gray_images(), LABELS)
    assert_loaded("kmnist", "test", gray_images(), LABELS)
    with pytest.raises(DatasetError, match=r"^kmnist: no train split on this machine: looked for train-images"):
        load("kmnist", "train")


def test_a_pinned_split_overrides_the_argument(checkout: Path) -> None:
    write_idx(checkout / "data" / "KMNIST" / "raw", "test", gray_images(), LABELS)
    assert_loaded("kmnist:test", "train", gray_images(), LABELS)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[: len(data) // 2], "cannot be unpacked: Compressed file ended"),
        (lambda data: b"no gzip at all", "cannot be unpacked: Not a gzipped file"),
        (lambda data: data[:-8] + bytes(8), "cannot be unpacked: CRC check failed"),
        (lambda data: gzip.compress(gzip.decompress(data)[:-1]), r"expected 3920 bytes .* \(5, 28, 28\), got 3919"),
        (lambda data: gzip.compress(gzip.decompress(data) + b"x"), "expected 3920 bytes .* got 3921"),
        (lambda data: gzip.compress(b"\0\0\x0d\x03" + gzip.decompress(data)[4:]), "expected IDX bytes in 3 dim"),
        (lambda data: gzip.compress(gzip.decompress(data)[:9]), "expected IDX bytes in 3 dimensions"),
        (lambda data: gzip.compress(b""), "expected IDX bytes in 3 dimensions, the file starts with b''"),
    ],
)
def test_a_damaged_idx_file_is_named_with_the_reason(
    checkout: Path, damage: Callable[[bytes], bytes], message: str
) -> None:
    path, _ = write_idx(checkout / "data" / "MNIST" / "raw", "train", gray_images(), LABELS)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DatasetError, match=f"train-images-idx3-ubyte.gz: {message}.*; replace"):
        load("mnist", "train")


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (some_bytes(5, 28, 28), LABELS[:4], r"raw: mnist: 5 train images but labels of shape \(4,\)"),
        (some_bytes(5, 28, 28), LABELS + 1, "mnist: expected train labels 0 to 9, got 1 to 10"),
        (some_bytes(5, 28, 27), LABELS, r"mnist: expected train images \(28, 28, 1\) .*, got \(28, 27, 1\)"),
    ],
)
def test_images_and_labels_that_do_not_fit_are_refused(
    checkout: Path, images: Bytes, labels: Bytes, message: str
) -> None:
    write_idx(checkout / "data" / "MNIST" / "raw", "train", images, labels)
    with pytest.raises(DatasetError, match=message):
        load("mnist", "train")


# CIFAR's pickles


def test_cifar100_gives_the_fine_labels(checkout: Path) -> None:
    for split in ("train", "test"):
        images, labels = some_bytes(3, 32, 32, 3, seed=len(split)), np.array([99, 0, 50], np.uint8)
        batch = checkout / "data" / "cifar-100-python" / split
        write_cifar_batch(batch, images, labels.tolist(), key="fine_labels")
        assert_loaded("cifar100", split, images, labels)


def test_batches_with_too_few_labels_are_refused(checkout: Path) -> None:
    batch = checkout / "data" / "cifar-10-batches-py" / "test_batch"
    write_cifar_batch(batch, some_bytes(5, 32, 32, 3), LABELS[:4].tolist())
    with pytest.raises(DatasetError, match=r"cifar-10-batches-py: cifar10: 5 test images but labels of shape \(4,\)"):
        load("cifar10", "test")


def test_cifar_batches_are_read_in_order(checkout: Path) -> None:
    images = some_bytes(5, 32, 32, 3)
    for number in range(5):
        batch = checkout / "data" / "cifar-10-batches-py" / f"data_batch_{number + 1}"
        write_cifar_batch(batch, images[[number]], [int(LABELS[number])])
    assert_loaded("cifar10", "train", images, LABELS)


def python_2_batch(images: Bytes, labels: list[int]) -> bytes:
    """The opcodes that Python 2's cPickle wrote into the files that CIFAR is distributed as."""
    raw = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).tobytes()
    shape = b"K" + bytes([len(images)]) + b"M" + (3072).to_bytes(2, "little") + b"\x86"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    kind = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    state = b"(K\x01" + shape + kind + b"\x89T" + len(raw).to_bytes(4, "little") + raw + b"tb"
    listed = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}(U\x04data" + array + state + b"U\x06labels" + listed + b"u."


def test_the_pickles_of_python_2_are_read(checkout: Path) -> None:
    images = some_bytes(5, 32, 32, 3)
    batch = python_2_batch(images, LABELS.tolist())
    by_numpy = pickle.loads(batch, encoding="latin1")  # noqa: S301 - our own bytes: is it the format it claims to be?
    assert by_numpy["data"].shape == (5, 3072)
    folder = checkout / "data" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    (folder / "test_batch").write_bytes(batch)
    assert_loaded("cifar10", "test", images, LABELS)


class Hostile:
    """Unpickled freely, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.folder),)


def test_a_hostile_pickle_runs_nothing(checkout: Path) -> None:
    trace = checkout / "was here"
    batch = checkout / "data" / "cifar-10-batches-py" / "test_batch"
    batch.parent.mkdir(parents=True)
    batch.write_bytes(pickle.dumps({"data": Hostile(trace), "labels": []}))
    with pytest.raises(DatasetError, match=r"test_batch: not a CIFAR batch: .*it asks for posix.mkdir.*; replace"):
        load("cifar10", "test")
    assert not trace.exists()
    pickle.loads(batch.read_bytes())  # noqa: S301 - our own bytes: would it have run?
    assert trace.exists()


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (pickle.dumps({"data": some_bytes(2, 3072), "labels": [1, 2]}, 2)[:-500], "UnpicklingError|EOFError"),
        (pickle.dumps({"data": some_bytes(2, 3071), "labels": [1, 2]}, 2), "ValueError.*cannot reshape"),
        (pickle.dumps({"data": np.zeros((2, 3072), np.float32), "labels": [1, 2]}, 2), "expected unsigned bytes"),
        (pickle.dumps({"data": np.asfortranarray(some_bytes(2, 3072)), "labels": [1, 2]}, 2), "Fortran order: True"),
        (pickle.dumps({"labels": [1, 2]}, 2), "KeyError"),
        (pickle.dumps({"data": some_bytes(2, 3072)}, 2), "KeyError"),
        (b"", "EOFError"),
    ],
)
def test_a_damaged_pickle_is_named_with_the_reason(checkout: Path, batch: bytes, message: str) -> None:
    folder = checkout / "data" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    (folder / "test_batch").write_bytes(batch)
    with pytest.raises(DatasetError, match=f"test_batch: not a CIFAR batch: .*{message}"):
        load("cifar10", "test")


# where they are looked for


def test_roots_are_searched_in_order(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = [tmp_path / "first", tmp_path / "second"]
    monkeypatch.setenv("TORCHWARDEN_DATA", os.pathsep.join(map(str, named)))
    option = tmp_path / "option"
    folders = [checkout / "data", named[1], named[0], option]
    for label, root in enumerate(folders):  # from the last place to the first: each new one wins
        images, labels = some_bytes(2, 28, 28, seed=label), np.array([label, label], np.uint8)
        write_idx(root / "MNIST" / "raw", "train", images, labels)
        assert_loaded("mnist", "train", images, labels, root=option)


def test_fashion_mnist_is_found_where_debian_installs_it(checkout: Path, tmp_path: Path) -> None:
    write_idx(tmp_path / "debian", "train", gray_images(), LABELS)
    assert_loaded("fashionmnist", "train", gray_images(), LABELS)


@pytest.mark.parametrize(
    ("name", "folder"),
    [*IDX_FOLDERS.items(), ("cifar10", "cifar-10-batches-py"), ("cifar100", "cifar-100-python")],
)
def test_the_error_for_an_absent_set_names_its_place(checkout: Path, tmp_path: Path, name: str, folder: str) -> None:
    root = tmp_path / "mine"
    with pytest.raises(DatasetError) as caught:
        load(name, "train", root=root)
    message = str(caught.value)
    assert message.startswith(f"{name}: no train split on this machine: looked for ")
    assert f"in {root / folder}, " in message
    assert str(checkout / "data" / folder) in message
    assert "; the download failed: " in message
    assert "Connection refused" in message
    assert f"Put the files into {root / folder}, or name the folder that holds {folder} in TORCHWARDEN_DATA" in message
    assert message.endswith(", or install the Debian package dataset-fashion-mnist") == (name == "fashionmnist")


def test_nowhere_to_write_is_said(checkout: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    monkeypatch.setattr("zoo.files.CHECKOUT", blocked / "work" / "checkout")
    with pytest.raises(DatasetError, match=r"the download failed: none of .* can be written to"):
        load("mnist", "train")


# the download, by torchvision from a server on this machine


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def test_an_absent_set_is_downloaded_into_the_first_root(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = tmp_path / "shelf"
    paths = [path for split in ("train", "test") for path in write_idx(shelf, split, gray_images(), LABELS)]
    monkeypatch.setattr("torchvision.datasets.MNIST.resources", [(path.name, md5(path)) for path in paths])
    with served(shelf) as address:
        monkeypatch.setattr("torchvision.datasets.MNIST.mirrors", [address])
        assert_loaded("mnist", "train", gray_images(), LABELS)
    assert_loaded("mnist", "test", gray_images(), LABELS)
    assert [entry.name for entry in (checkout / "data").iterdir()] == ["MNIST"]


def test_a_broken_download_leaves_nothing_behind(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = tmp_path / "shelf"
    paths = write_idx(shelf, "train", gray_images(), LABELS)
    resources = [(paths[0].name, md5(paths[0])), (paths[1].name, "0" * 32)]
    monkeypatch.setattr("torchvision.datasets.MNIST.resources", resources)
    with served(shelf) as address:
        monkeypatch.setattr("torchvision.datasets.MNIST.mirrors", [address])
        with pytest.raises(DatasetError, match=r"the download failed: .*File not found or corr"):
            load("mnist", "train")
    assert list((checkout / "data").iterdir()) == []


def test_cifar_is_downloaded_without_its_archive(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf, images = tmp_path / "shelf", some_bytes(5, 32, 32, 3)
    folder = shelf / "cifar-10-batches-py"
    for number in range(5):
        write_cifar_batch(folder / f"data_batch_{number + 1}", images[[number]], [int(LABELS[number])])
    write_cifar_batch(folder / "test_batch", images, LABELS.tolist())
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": []}))
    archive = shelf / "cifar.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)
    batches = [[path.name, md5(path)] for path in sorted(folder.glob("data_batch_*"))]
    monkeypatch.setattr("torchvision.datasets.CIFAR10.train_list", batches)
    monkeypatch.setattr("torchvision.datasets.CIFAR10.test_list", [["test_batch", md5(folder / "test_batch")]])
    meta = {"filename": "batches.meta", "key": "label_names", "md5": md5(folder / "batches.meta")}
    monkeypatch.setattr("torchvision.datasets.CIFAR10.meta", meta)
    monkeypatch.setattr("torchvision.datasets.CIFAR10.tgz_md5", md5(archive))
    with served(shelf) as address:
        monkeypatch.setattr("torchvision.datasets.CIFAR10.url", address + archive.name)
        assert_loaded("cifar10", "train", images, LABELS)
    assert [entry.name for entry in (checkout / "data").iterdir()] == ["cifar-10-batches-py"]


def test_idx_lengths_are_big_endian() -> None:
    assert idx_bytes(np.zeros((1, 2), np.uint8))[:12] == b"\0\0\x08\x02\0\0\0\x01\0\0\0\x02"
