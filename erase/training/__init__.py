"""The loop that every domain shares, its settings and its checkpoints."""
