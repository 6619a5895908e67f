"""The end of a run: final metrics, pictures, use of the latents, and the weights if they are kept."""

from collections.abc import Iterator

import torch

from harness.config import RunConfig
from harness.devices import peak_memory_mb
from harness.events import Event, Finished
from harness.training import timing, weights
from harness.training.best import return_to_best
from harness.training.epoch_result import non_finite
from harness.training.evaluate import test_metrics, validation_metrics
from harness.training.pictures import final_pictures
from harness.training.state import State


def finish(run: RunConfig, state: State, *, keeps_model: bool) -> Iterator[Event]:
    """Evaluate a trained run on the test examples, a trial on the validation examples, and yield its last events.

    It is evaluated as it is or after its best epoch. Raises ValueError if the measure that ranks it is missing.
    """
    of_best = return_to_best(state)
    final, use = test_metrics(run, state) if run.trial is None else (validation_metrics(run, state), None)
    if run.result_metric not in final:
        first, split = run.measures[0], run.result_metric.partition("/")[0]
        got = ", ".join(name.removeprefix(f"{split}/") for name in final if name.startswith(f"{split}/"))
        raise ValueError(f"{run.task_name}: expected the measure {first.name} in every evaluation, got {got}.")
    if diverged := non_finite(final, state.step, "at the end of training"):
        yield diverged
        return
    yield from final_pictures(run, state, use)
    if use is not None:
        yield use.event()
    if keeps_model and run.trial is None:
        yield weights.save(run, state)
    final |= of_best | timing.summary(state.step_s, min(run.training.batch_size, state.splits.n_train))
    if state.compile_s:
        final |= {"time/compile_s": state.compile_s, "compiled": float(state.compiled is not None)}
    final["cost/n_cost_evals"] = float(run.n_cost_evals(state.estimator))
    peak_mb = max(state.peak_mb, peak_memory_mb(torch.device(run.device)))
    yield Finished(state.step, final | {"time/total_s": state.elapsed_s, "memory/peak_mb": peak_mb})
