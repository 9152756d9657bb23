"""Whether a classifier has unlearned: accuracies, attacks, distances to retraining, and the page that shows them."""
