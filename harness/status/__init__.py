"""What is known of a sweep, for people and for scripts: ranking, time left, next commands."""
