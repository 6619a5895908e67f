"""The state of a sweep, for people and for scripts: ranking, time left, next commands."""
