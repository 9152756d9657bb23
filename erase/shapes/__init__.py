"""Shapes World: the drawings, and the models trained on them that come with the package."""
