"""Images of one's own in MLflow: named by their file, with a digest of what is in it and where it was."""

import json
from pathlib import Path
from typing import Any

from own_images import COLOUR, images, write_file

from harness.config import DataConfig
from harness.tracking.data_inputs import dataset_inputs, dataset_parts


def identified(path: Path, **settings: Any) -> DataConfig:
    return DataConfig(name="file", path=str(path), **settings).identified()


def test_the_digests_of_built_in_data_stay_as_they_are() -> None:
    assert [part.digest for part in dataset_parts(DataConfig())] == [
        "057ea75b97a4e4409a31be8baf8628780dd78b8af93c98ddbb3180b30a0fd2fd",
        "110efb01c07c5d6908a80598fad23b85adc76386b73b3aa6cbee3749457f7a99",
    ]


def test_own_images_have_the_name_of_their_file_and_say_where_they_were(tmp_path: Path) -> None:
    data = identified(write_file(tmp_path / "shapes.npz", shape=COLOUR, validation=images(4, COLOUR)))
    train, test = (entry.dataset for entry in dataset_inputs(data))
    assert (train.name, test.name) == ("shapes.npz", "shapes.npz")
    assert json.loads(train.source)["tags"]["harness.data"] == "file"
    assert json.loads(train.source)["tags"]["harness.how"] == f"file {tmp_path}/shapes.npz"
    assert [json.loads(one.profile)["num_rows"] for one in (train, test)] == [20, 8]
    assert json.loads(train.profile)["num_elements"] == 20 * 72


def test_digests_of_own_images_follow_what_is_in_them_and_not_where_they_are(tmp_path: Path) -> None:
    def digests(path: Path, **settings: Any) -> list[str]:
        return [part.digest for part in dataset_parts(identified(path, **settings))]

    first = digests(write_file(tmp_path / "a.npz"))
    assert digests(write_file(tmp_path / "b.npz")) == first
    assert len({*first, *digests(write_file(tmp_path / "c.npz", train=images(20, seed=4)))}) == 4
    assert digests(tmp_path / "a.npz", train_size=9)[0] != first[0]
