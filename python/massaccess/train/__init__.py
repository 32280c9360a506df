"""Training of channel priors: recipes, data, the loop, checkpoints, and how good the result is."""
