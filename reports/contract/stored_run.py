"""The names of everything that a sweep stores in MLflow, and what each means.

`harness.tracking` writes these names and `reports` reads them; notebooks and scripts may rely on them. A grid is an
MLflow experiment, a sweep of it is a parent run, and each run of the sweep is a child run. Each group of names has a
mapping from the name to its meaning, from which the tables of docs/architecture.md are made. In the keys of a mapping,
<…> stands for a part that varies.

Names are plain `str`: psycopg2 cannot adapt a subclass, such as a member of a StrEnum.
"""

from __future__ import annotations

FINISHED = "finished"
FAILED = "failed"
DIVERGED = "diverged"
SKIPPED = "skipped"
INTERRUPTED = "interrupted"
RUNNING = "running"
STATUSES = {
    FINISHED: "The run is complete and has its final metrics.",
    FAILED: "The run raised an error, or its process died or ran out of memory or time.",
    DIVERGED: "A loss, a gradient or a metric was not finite.",
    SKIPPED: "The run cannot work on this machine.",
    INTERRUPTED: "The run was stopped and can be resumed.",
    RUNNING: "The run has not ended.",
}
"""The values of the tag `harness.status`."""
ENDED = (FINISHED, FAILED, DIVERGED, SKIPPED, INTERRUPTED)

TAG_ESTIMATOR = "estimator"
TAG_SCHEDULE = "schedule"
TAG_DEVICE = "device"
TAG_SEED = "seed"
TAG_RUN_KEY = "run_key"
TAG_GRID = "grid"
TAG_KIND = "harness.kind"
TAG_SWEEP = "harness.sweep"
TAG_LABEL = "harness.label"
TAG_SETTING = "harness.setting"
TAG_ESTIMATOR_LABEL = "harness.estimator_label"
TAG_CHECKSUMS = "harness.sha256"
TAG_ATTEMPT = "harness.attempt"
TAG_END = "harness.end"
TAG_STARTS = "harness.starts"
TAG_STATUS = "harness.status"
TAG_ERROR = "harness.error"
TAG_BEST = "harness.best"
TAG_PARENT = "mlflow.parentRunId"
TAG_CHARTS = "mlflow.loggedImages"
TAG_TASK = "task"
TAG_MEASURES = "harness.measures"
TAG_ROLE = "harness.role"
TAG_COMPETITOR = "harness.competitor"
ROLE_TRIAL, ROLE_TUNED, ROLE_DEFAULT = "trial", "tuned", "default"

IDENTITY = {
    TAG_ESTIMATOR: "The name of the estimator.",
    TAG_SCHEDULE: "The label of the temperature schedule, such as `constant(1)`.",
    TAG_DEVICE: "The device.",
    TAG_SEED: "The seed.",
    TAG_RUN_KEY: "The hash of the resolved configuration.",
    TAG_GRID: "The name of the grid.",
}
"""Both tags and params of a child run."""

KIND_RUN, KIND_SWEEP = "run", "sweep"
CHILD_TAGS = IDENTITY | {
    TAG_KIND: "`run`.",
    TAG_PARENT: "The run id of the parent, for MLflow's interface.",
    TAG_SWEEP: "The run id of the parent.",
    TAG_LABEL: "The setting without the seed, such as `rloo(n_samples=2) · lr=0.001`: a text for readers.",
    TAG_SETTING: (
        "The setting as a JSON object: `estimator`, its label; `schedule`, its label, or null without a temperature; "
        "`axes`, a list of [name, value]. A run without this tag is read by its `harness.label`."
    ),
    TAG_ESTIMATOR_LABEL: "The estimator with its parameters, such as `rloo(n_samples=2)`.",
    TAG_CHECKSUMS: (
        "The SHA-256 of each artifact by name, a JSON object. A file that does not fit is not used "
        "([SECURITY.md](../SECURITY.md))."
    ),
    TAG_ATTEMPT: "When this attempt began, in ms. A replay compares it.",
    TAG_END: "When the last event of the attempt was, in ms. A replay compares it.",
    TAG_STARTS: "How often the attempt was started, if more than once: it was cut short and resumed.",
    TAG_STATUS: "The status of the run, from the table below.",
    TAG_ERROR: "The error, its first line first; empty once the run was resumed.",
    TAG_BEST: (
        "The name of the estimator, on its finished run with the best value of the first measure of its task (the "
        "lowest `test/neg_elbo` of the VAE), as of when the sweep closed."
    ),
    TAG_TASK: "The name of the task, such as `polynomial`. A run without this tag is one of `categorical_vae`.",
    TAG_MEASURES: (
        "What settings of the task are compared by, the first ranks them: a JSON list of `{name, title, unit, better, "
        "band, metric, validation}`. `better` is `lower` or `higher`; `band` is the smallest difference that matters, "
        "or null; `metric` and `validation` are the names of the stored metrics. A run without this tag has "
        "`test/neg_elbo` and `test/neg_bound`, in nats, lower is better."
    ),
    TAG_ROLE: (
        "Only of a sweep with `tune`: `trial`, evaluated on validation data alone; `tuned`, a final run of the settings"
        " that were chosen; `default`, one of the grid's own."
    ),
    TAG_COMPETITOR: "Of such a run: the setting that is tuned, such as `rloo`, without the values that are searched.",
    TAG_CHARTS: "MLflow's mark of a run with pictures.",
}

TAG_SWEEP_ID = "harness.sweep_id"
TAG_COMMAND = "harness.command"
TAG_QUESTION = "harness.question"
TAG_DESCRIPTION = "mlflow.note.content"
TAG_DESCRIPTION_CHECKSUM = "harness.note_sha256"
TAG_COUNT_PREFIX = "harness.n_"
TAG_REPORT = "harness.report"
TAG_STORED = "harness.stored"
PARENT_TAGS = {
    TAG_KIND: "`sweep`.",
    TAG_GRID: "The name of the grid.",
    TAG_SWEEP_ID: "The identity of the folder with the journal.",
    TAG_COMMAND: "The command that ran the sweep last.",
    TAG_QUESTION: "The question of the grid.",
    TAG_CHECKSUMS: "The SHA-256 of each artifact of the parent, as of a child.",
    TAG_DESCRIPTION: "The description, in Markdown.",
    TAG_DESCRIPTION_CHECKSUM: "The SHA-256 of the description as it was written. An edited one differs and is kept.",
    f"{TAG_COUNT_PREFIX}<status>": "How many runs have this status.",
    TAG_REPORT: "When a report was attached.",
    TAG_STORED: "A digest of the attempts that the store had to their ends when the sweep closed.",
}

EXPERIMENT_KIND = "custom_model_development"
TAG_EXPERIMENT_KIND = "mlflow.experimentKind"
EXPERIMENT_TAGS = {
    TAG_EXPERIMENT_KIND: "`custom_model_development`: MLflow then shows training runs, not traces of language models.",
}

TAG_DATA_CONTEXT = "mlflow.data.context"
DATA_NAME, DATA_DIGEST, DATA_HOW = "harness.data", "harness.digest", "harness.how"
INPUT_TAGS = {
    TAG_DATA_CONTEXT: "`training` or `test`.",
    DATA_NAME: "In the source of the input: the name of the data set, as in the grid.",
    DATA_DIGEST: "In the source of the input: the whole digest, of which MLflow shows 8 digits.",
    DATA_HOW: "In the source of the input: where the files come from.",
}
"""Tags of a data set input."""

PARAM_SOURCE = "estimator.source"
PARAM_TAU = "schedule.tau"
PARAM_DATA = "data.name"
PARAM_BINARIZATION = "data.binarization"
PARAM_TRAIN_SIZE = "data.train_size"
PARAM_LATENTS = "model.n_latents"
PARAM_CATEGORIES = "model.n_categories"
PARAM_HIDDEN = "model.hidden"
PARAM_EPOCHS = "training.epochs"
PARAM_BATCH_SIZE = "training.batch_size"
PARAM_LR = "training.lr"
PARAM_BOUND_SAMPLES = "evaluation.bound_samples"
PARAM_BASKET = "diagnostics.basket"
CHILD_PARAMS = {
    PARAM_SOURCE: "The hash of the plug-in's file that defines the estimator.",
    PARAM_TAU: "The temperature of a constant schedule.",
    PARAM_DATA: "The data set.",
    PARAM_BINARIZATION: "How the images are binarised.",
    PARAM_TRAIN_SIZE: "How many images are trained on, if not all.",
    PARAM_LATENTS: "The number of latents.",
    PARAM_CATEGORIES: "The number of classes of a latent.",
    PARAM_HIDDEN: "The widths of the hidden layers.",
    PARAM_EPOCHS: "The number of epochs.",
    PARAM_BATCH_SIZE: "The images of an update.",
    PARAM_LR: "The learning rate.",
    PARAM_BOUND_SAMPLES: "k of `test/neg_bound`.",
    PARAM_BASKET: "The labels of the estimators that the diagnostics measure.",
}
"""The params that reports interpret. A child has the whole resolved configuration, flattened with dots."""

PARAM_PATH = "data.path"
PARAM_DIGEST = "data.digest"
OWN_IMAGES_PARAMS = {
    PARAM_PATH: "Where the images were, as in the grid. Those of a plug-in have none.",
    PARAM_DIGEST: "The SHA-256 of the images.",
}
"""Further params of a child with images of one's own."""

PARAM_TASK = "task.name"
PARAM_TASK_SOURCE = "task.source"
PARAM_TASK_PREFIX = "task."
TASK_PARAMS = {
    PARAM_TASK: "The name of the task.",
    PARAM_TASK_SOURCE: "The hash of the plug-in's file that defines the task.",
    f"{PARAM_TASK_PREFIX}<parameter>": "A parameter of the task.",
}
"""The params of a child whose task is not the VAE. It has no `model.…`, and `data.…` only if the task uses images."""

CATEGORICAL_VAE = "categorical_vae"
"""The name of the task of a grid that names none, and of all runs of older stores."""

TRAIN_LOSS, TRAIN_BCE, TRAIN_KL = "train/loss", "train/bce", "train/kl"
VAL_LOSS, VAL_BCE, VAL_KL = "val/loss", "val/bce", "val/kl"
VAL_GAP = "val/soft_hard_gap"
TAU, TAU_FORWARD, TAU_BACKWARD, BIAS_WEIGHT = "tau", "tau_forward", "tau_backward", "t"
TEST_NEG_ELBO, TEST_BCE, TEST_KL = "test/neg_elbo", "test/bce", "test/kl"
TEST_RELAXED_LOSS, TEST_NEG_BOUND = "test/relaxed_loss", "test/neg_bound"
TEST_LOSS = "test/loss"
STEP_MEDIAN_S, STEP_P90_S, IMAGES_PER_S = "time/step_s_median", "time/step_s_p90", "time/images_per_s"
COMPILE_S, COMPILED, TOTAL_S, PEAK_MB = "time/compile_s", "compiled", "time/total_s", "memory/peak_mb"
N_COST_EVALS, EVALUATED_EPOCH = "cost/n_cost_evals", "evaluation/epoch"
PERPLEXITY, DEAD_CLASSES, ENTROPY = "latent/perplexity", "latent/dead_classes", "latent/entropy"
GRADIENT_PREFIX = "gradient/"
ENCODER_PREFIX = "encoder/"
TRUTH_ERROR = f"{GRADIENT_PREFIX}truth_error"
TRAIN_PREFIX, VAL_PREFIX = "train/", "val/"
TEST_PREFIX, TIME_PREFIX, MEMORY_PREFIX = "test/", "time/", "memory/"
COST_PREFIX, LATENT_PREFIX, SYSTEM_PREFIX = "cost/", "latent/", "system/"

_TIMES = {
    STEP_MEDIAN_S: "The median time of an update, warm-up excluded, in seconds.",
    STEP_P90_S: "The 90th percentile of the same.",
    IMAGES_PER_S: "Training images per second at the median time.",
}
_LATENTS = {
    PERPLEXITY: "How many classes a variable uses, from 1 to K, mean over the variables (see below).",
    DEAD_CLASSES: "The number of classes of all variables that next to no image uses (see below).",
    ENTROPY: "The entropy of q(z|x), mean over images, summed over variables (see below).",
}
EPOCH_METRICS = {
    TRAIN_LOSS: "The training loss, mean over the epoch.",
    TRAIN_BCE: "Its reconstruction cost.",
    TRAIN_KL: "Its KL divergence to the uniform prior.",
    VAL_LOSS: "The same loss on the images of `evaluation.validation_split`, after the epoch.",
    VAL_BCE: "Its reconstruction cost.",
    VAL_KL: "Its KL divergence to the uniform prior.",
    VAL_GAP: "The validation loss with one-hot codes less the one with relaxed codes (see below).",
    TAU: "The temperature at the end of the epoch.",
    TAU_FORWARD: "The same of an estimator that has two: that of the forward pass.",
    TAU_BACKWARD: "The same of an estimator that has two: that of the backward pass.",
    BIAS_WEIGHT: "The t of `mve` at the end of the epoch.",
    **_TIMES,
    **_LATENTS,
    f"{GRADIENT_PREFIX}<estimator>/<metric>": (
        "With diagnostics: the gradient quality of an estimator of the basket, or of `own`, the run's own, on the "
        "logits ([diagnostics.md](diagnostics.md))."
    ),
    f"{GRADIENT_PREFIX}<estimator>/{ENCODER_PREFIX}<metric>": (
        "The same on the parameters behind the logits: those of the encoder."
    ),
    TRUTH_ERROR: "0 where the true gradient is exact, else its standard error relative to its norm.",
}
"""In `history.json`, and metrics of the child at step = update, but for `time/` and `latent/`."""
RUN_METRICS = {
    TEST_NEG_ELBO: "The negative ELBO on the test images, with one-hot samples.",
    TEST_BCE: "Its reconstruction cost.",
    TEST_KL: "Its KL divergence to the uniform prior.",
    TEST_RELAXED_LOSS: "The same with the relaxed codes of training, of an estimator that relaxes.",
    TEST_NEG_BOUND: "The importance-weighted bound on the test images; k is `evaluation.bound_samples`.",
    **_LATENTS,
    **_TIMES,
    TOTAL_S: "Training time, without evaluation, in seconds.",
    COMPILE_S: "The time that compiling took, where it was tried, in seconds.",
    COMPILED: "1 where the compiled loss was used, else 0; only where compiling was tried.",
    PEAK_MB: "Peak memory in MB: of the process on a CPU, allocated memory on a GPU.",
    N_COST_EVALS: "Decoder evaluations per image and update.",
    EVALUATED_EPOCH: "With `evaluation.checkpoint: best`, the epoch whose parameters were tested.",
}
"""Metrics of the child at step 0. Losses are in nats per example."""
TASK_METRICS = {
    TRAIN_LOSS: "The training loss, mean over the epoch.",
    f"{TRAIN_PREFIX}<term>": "One of its terms.",
    VAL_LOSS: "The loss with one-hot codes on the examples of `evaluation.validation_split`, after the epoch.",
    f"{VAL_PREFIX}<measure>": "A measure of the task on the same examples.",
    TEST_LOSS: "The loss with one-hot codes on the test examples, at the end.",
    f"{TEST_PREFIX}<measure>": "A measure of the task on the test examples.",
    f"{GRADIENT_PREFIX}<layer>.<estimator>/<metric>": (
        "Of a task with several layers: the gradient quality of a layer; of its truth, `gradient/<layer>.truth_error`."
    ),
}
"""What a child whose task is not the VAE has in the place of the losses of the VAE. Their units are the task's."""
TEST_GAP = "test/soft_hard_gap"
"""Not stored: reports derive it, `test/neg_elbo` − `test/relaxed_loss`."""
SHARED_MACHINE = "time/shared_machine"
"""Of older stores: whether other runs used the machine. Newer ones say it by the number of workers."""

EPOCH, STEP, ELAPSED_S = "epoch", "step", "elapsed_s"
HISTORY_KEYS = {
    EPOCH: "The number of the epoch, from 1.",
    STEP: "Updates so far.",
    ELAPSED_S: "Training time so far, without evaluation, in seconds.",
}
"""Keys of each object in `history.json`, besides the metrics of the epoch."""

CONFIG_FILE = "config.json"
PROVENANCE_FILE = "provenance.json"
HISTORY_FILE = "history.json"
LATENTS_FILE = "latents.json"
TRACEBACK_FILE = "error.txt"
WEIGHTS_FILE = "model/weights.pt"
PICTURES_FOLDER = "pictures"
CHARTS_FOLDER = "images"
ORIGINALS, RECONSTRUCTIONS = "originals", "reconstructions"
PRIOR_SAMPLES, TRAVERSALS = "prior_samples", "traversals"
PICTURES = (ORIGINALS, RECONSTRUCTIONS, PRIOR_SAMPLES, TRAVERSALS)
CHILD_ARTIFACTS = {
    CONFIG_FILE: "The resolved configuration.",
    PROVENANCE_FILE: "Code, packages, machine and settings of the process of the run.",
    HISTORY_FILE: "A list of one object per epoch, with the metrics of the epoch by name.",
    LATENTS_FILE: "How each latent is used (see below).",
    f"{PICTURES_FOLDER}/{ORIGINALS}.png": "Test images.",
    f"{PICTURES_FOLDER}/{RECONSTRUCTIONS}.png": "What the model makes of them, through one-hot samples.",
    f"{PICTURES_FOLDER}/{PRIOR_SAMPLES}.png": "Codes drawn from the uniform prior, decoded.",
    f"{PICTURES_FOLDER}/{TRAVERSALS}.png": "One code with one latent changed at a time (see below).",
    f"{CHARTS_FOLDER}/<…>": "The pictures over steps, for MLflow's charts, which expect nothing else there.",
    TRACEBACK_FILE: "The traceback of a run that failed.",
    WEIGHTS_FILE: "The trained weights, with `--save-models`.",
}

GRID_FILE = "grid.yaml"
PLAN_FILE = "plan.json"
BASKET_FILE = "basket.json"
GROWTH_FILE = "growth.json"
REPORT_FOLDER = "report"
REPORT_FILE = f"{REPORT_FOLDER}/report.html"
REPORT_TABLES = f"{REPORT_FOLDER}/tables"
REPORT_TASKS = f"{REPORT_FOLDER}/tasks"
"""The pages of the tasks, of a sweep over several: `report/tasks/<task>/report.html`."""
PARENT_ARTIFACTS = {
    GRID_FILE: "The text of the grid.",
    PROVENANCE_FILE: "Code, packages, machine, executor and workers of the sweep.",
    PLAN_FILE: (
        "A list of `{run_key, name, label, estimator, schedule, setting, device, seed}` of every planned run, so that "
        "a missing run is seen as missing. `setting` is the object of `harness.setting`. A run of another task than "
        "the VAE has its `task` too, one of a tuned sweep its `role` and `competitor`."
    ),
    BASKET_FILE: "With diagnostics: the labels of the basket by their names among the metrics.",
    GROWTH_FILE: (
        "Of a plan that grows with its results: what it grows by. `tune` has `space`, by dotted names, each with "
        "`low`, `high` and `scale`, or with `choices`; `trials`, their number for each competitor; and `sampler`."
    ),
    REPORT_FILE: "The report, with `harness report --attach`.",
    f"{REPORT_TABLES}/<…>": "Its tables.",
}
