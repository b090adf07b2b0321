"""What gradients are preconditioned by before their singular vectors are taken, by SciPy in float64."""

import numpy as np
import scipy
import torch


def damped_root(rows):
    """Return a damped second moment to the power -1/4."""
    moment = (rows.T @ rows).numpy()
    damped = moment + 0.1 * moment.trace() / len(moment) * np.eye(len(moment))
    return torch.from_numpy(scipy.linalg.fractional_matrix_power(damped, -0.25).real)
