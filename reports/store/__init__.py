"""From MLflow runs to tidy frames."""
