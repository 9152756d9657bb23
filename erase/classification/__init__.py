"""Unlearning of image classifiers: data, splits, networks, losses, and the task that the training loop runs."""
