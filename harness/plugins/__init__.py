"""A user's own estimators: loading, checking, and explaining their errors."""
