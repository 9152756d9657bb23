"""Images in quantity from a pipeline."""
