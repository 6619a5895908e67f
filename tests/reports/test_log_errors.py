"""Logs that are not as docs/runs-of-others.md says: one line each, with the line of the CSV."""

import pandas as pd
import pytest

from reports import from_csv, from_frame
from reports.contract.errors import ReportError

HEAD = "estimator,seed,epoch,metric,value"
GOOD = f"{HEAD}\na,0,1,loss,2\n"
MEASURE = {"measure": "loss", "better": "lower"}

FILES = {
    "an empty file": ("", ": expected a line with the names of the columns, got an empty file."),
    "a header alone": (f"{HEAD}\n", ": expected rows below the names of the columns, got none."),
    "semicolons": (GOOD.replace(",", ";"), ":1: expected commas between the columns, got semicolons. Save it with"),
    "tabs": (GOOD.replace(",", "\t"), ":1: expected commas between the columns, got tabs."),
    "no metric": ("estimator,seed,epoch,value\na,0,1,2\n", "got none named metric. There is: estimator, seed, epoch,"),
    "neither step nor epoch": ("estimator,seed,metric,value\na,0,x,2\n", "got none named epoch or step."),
    "a repeated column": (f"{HEAD},seed\na,0,1,loss,2,3\n", ":1: expected different names of columns, got 'seed' twi"),
    "an index": (f",{HEAD}\n0,a,0,1,loss,2\n", ":1: expected a name for every column, got none for column 1."),
    "a name of ours": (f"{HEAD},sweep\na,0,1,loss,2,x\n", "expected another name than 'sweep' of a setting: reports"),
    "a setting with a slash": (f"{HEAD},a/b\na,0,1,loss,2,x\n", "than 'a/b' of a setting: a slash is for metrics."),
    "too few values": (f"{GOOD}a,0,2,loss\n", ":3: expected 5 values, as in line 1, got 4."),
    "an open quote": (f'{GOOD}"a,0,2,loss,1\n', ":3: expected comma-separated values, got: unexpected end of data."),
    "the same again": (f"{GOOD}b,0,1,loss,2\na,0,1,loss,3\n", ":4: expected one value of loss of a run at a time, got"),
    "a NaN": (f"{GOOD}a,0,2,loss,nan\n", ":3: value: expected a finite number, got 'nan'. Leave the row out; a run"),
    "an infinity": (f"{GOOD}a,0,2,loss,-inf\n", ":3: value: expected a finite number, got '-inf'."),
    "a text as a value": (f"{GOOD}a,0,2,loss,low\n", ":3: value: expected a finite number, got 'low'."),
    "no value": (f"{GOOD}a,0,2,loss,\n", ":3: value: expected a finite number, got an empty text."),
    "a text as a seed": (f"{GOOD}a,s0,1,loss,2\n", ":3: seed: expected a finite number, got 's0'."),
    "half a seed": (f"{GOOD}a,0.5,1,loss,2\n", ":3: seed: expected a whole number from 0 to 4294967295, got 0.5."),
    "no seed": (f"{GOOD}a,,1,loss,2\n", ":3: seed: expected a whole number from 0 to 4294967295, got nothing."),
    "a negative epoch": (f"{GOOD}a,0,-1,loss,2\n", ":3: epoch: expected a number of at least 0, got -1.0."),
    "an epoch without a step": (f"{HEAD},step\na,0,1,loss,2,\n", ":2: epoch and step: expected both, or neither"),
    "no estimator": (f"{GOOD},0,1,loss,2\n", ":3: estimator: expected a name, got an empty text."),
    "no name of a metric": (f"{GOOD}a,0,2,,2\n", ":3: metric: expected a name, got an empty text."),
    "an unknown status": (f"{HEAD},status\na,0,1,loss,2,ok\n", ":2: status: expected one of finished, failed,"),
    "two outcomes": (f"{HEAD},status\na,0,1,loss,2,failed\na,0,2,loss,2,\n", ":3: status: expected one for all rows"),
    "mixed directions": (f"{HEAD},better\na,0,1,loss,2,lower\na,0,2,loss,2,higher\n", ":3: better: expected one for"),
    "no direction": (f"{HEAD},better\na,0,1,loss,2,down\n", ":2: better: expected lower or higher, got 'down'."),
    "an empty band": (f"{HEAD},better,band\na,0,1,loss,2,lower,0\n", ":2: band: expected a number above 0, got '0'."),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
def test_a_mistake_is_one_line_with_the_line_of_the_file(case, tmp_path):
    text, message = FILES[case]
    path = tmp_path / "mine.csv"
    path.write_text(text)
    with pytest.raises(ReportError) as error:
        from_csv(path, **MEASURE)
    assert str(error.value).startswith(str(path))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_cannot_be_read_is_one_line(tmp_path):
    with pytest.raises(ReportError, match=r"none\.csv: expected a file, got: No such file or directory\.$"):
        from_csv(tmp_path / "none.csv")
    (tmp_path / "latin.csv").write_bytes(f"{GOOD}\xe9".encode("latin-1"))
    with pytest.raises(ReportError, match=r"latin\.csv:3: expected UTF-8, got the byte 0xe9\.$"):
        from_csv(tmp_path / "latin.csv")


MEASURES = {
    "no measure": ({}, "expected values of a measure, got none. There is: loss, other. Name the measure with --metric"),
    "an unknown one": ({"measure": "los", "better": "lower"}, "measure: expected one of loss, other; got 'los'. Did"),
    "no direction": ({"measure": "loss"}, "better: expected lower or higher, got nothing: which direction of loss is"),
    "a wrong direction": ({"measure": "loss", "better": "up"}, "better: expected lower or higher, got up"),
    "a direction of nothing": ({"better": "lower"}, "better and unit: expected a measure with them, got none."),
}


@pytest.mark.parametrize("case", MEASURES)
def test_a_measure_and_its_direction_are_asked_for(case):
    options, message = MEASURES[case]
    frame = pd.DataFrame({"estimator": "a", "seed": 0, "epoch": 1, "metric": ["loss", "other"], "value": 1.0})
    with pytest.raises(ReportError) as error:
        from_frame(frame, **options)
    assert message in str(error.value)


def test_a_task_without_the_measure_is_named():
    frame = pd.DataFrame({"estimator": "a", "seed": 0, "epoch": 1, "metric": ["loss", "b"], "value": 1.0,
                          "task": ["one", "two"]})  # fmt: skip
    with pytest.raises(ReportError, match=r"expected values of loss in the runs of the task 'two', got none\."):
        from_frame(frame, **MEASURE)


def test_a_row_of_a_frame_is_named_by_its_index():
    frame = pd.DataFrame({"estimator": "a", "seed": 0, "epoch": [1, 2], "metric": "loss", "value": [1.0, float("inf")]},
                         index=["x", "y"])  # fmt: skip
    with pytest.raises(ReportError, match=r"^frame, row y: value: expected a finite number, got 'inf'\."):
        from_frame(frame, **MEASURE)
    with pytest.raises(ReportError, match=r"^frame: expected rows, got none\.$"):
        from_frame(frame.iloc[:0])
