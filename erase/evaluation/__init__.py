"""What is gone, what is kept: metrics and the report."""
