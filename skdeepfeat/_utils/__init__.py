"""Small helpers, one subject per file. Nothing here depends on an estimator."""
