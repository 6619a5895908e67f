"""A user's own estimators: loading them, checking them, and what their errors mean."""
