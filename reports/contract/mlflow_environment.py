"""Settings of MLflow, made in the only way that it has: environment variables of this process.

A server that others write to must not choose which addresses this machine asks. By default MLflow follows the redirects
of a server, and fetches files from whatever address the server calls "presigned", with headers that the server names.
"""

from __future__ import annotations

import os

ALWAYS = {
    "MLFLOW_ALLOW_HTTP_REDIRECTS": "false",
    "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false",
    "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "false",
}
"""Set whatever the user has set: SECURITY.md promises it."""

UNLESS_SET = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # three lines a run, over the progress
    "GIT_PYTHON_REFRESH": "quiet",
}
"""By default MLflow asks a server that does not answer 8 times, each for 120 s."""


def prepare() -> None:
    """Set the variables.

    MLflow reads them at each request, so this may come late, but not after the first request.
    """
    os.environ.update(ALWAYS)
    for name, value in UNLESS_SET.items():
        os.environ.setdefault(name, value)
