"""Trains the embedded models from nothing: ``python -m erase.shapes.build``."""
