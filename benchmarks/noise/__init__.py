"""What shots, noise and interpolation do to quality, and estimators to gradients: the paper's Figs. 8 to 10."""
