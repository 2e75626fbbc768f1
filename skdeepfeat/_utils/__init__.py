"""Small helpers, one subject a file; nothing here knows an estimator."""
