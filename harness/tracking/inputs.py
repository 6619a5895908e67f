"""The data of a run as MLflow knows data sets: one for training and one for testing, with a digest and a source."""

import json

from mlflow.entities import Dataset, DatasetInput, InputTag

from harness.config import DataConfig
from harness.tracking.identity import Part, parts

CONTEXT = "mlflow.data.context"
DIGEST = 8
"""So many of its digits, as in MLflow's own digests, are shown beside the name. The source has all of them."""


def inputs_of(data: DataConfig) -> list[DatasetInput]:
    """Return what a run trains on and what it is tested on."""
    return [_input(data, part) for part in parts(data)]


def _input(data: DataConfig, part: Part) -> DatasetInput:
    settings = {name: value for name, value in part.settings.items() if value is not None}
    facts = {"harness.data": data.name, "harness.digest": part.digest, "harness.how": part.how}
    tensor = [{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, part.n_pixels]}}]
    schema = {"mlflow_tensorspec": {"features": json.dumps(tensor), "targets": None}}
    dataset = Dataset(
        name=data.name,
        digest=part.digest[:DIGEST],
        source_type="code",
        source=json.dumps({"tags": facts}),
        schema=json.dumps(schema),
        profile=json.dumps({"num_rows": part.n_images, "num_elements": part.n_images * part.n_pixels, **settings}),
    )
    return DatasetInput(dataset, [InputTag(CONTEXT, part.context)])
