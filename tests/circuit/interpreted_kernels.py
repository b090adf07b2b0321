"""Run the Triton kernels in Triton's interpreter, in a process of its own, and print their distance from torch's form.

The interpreter has to be chosen before Triton is imported.
"""

import json
import sys

import torch


def main(cases):
    from qpa_hf.circuit import ANSATZE, angles_shape, kernels, probabilities

    found = []
    for ansatz, n_qubits, depth, n_circuits, dtype in cases:
        axes, rng = ANSATZE[ansatz].rotations, torch.Generator().manual_seed(n_qubits)
        shape = (n_circuits, *angles_shape(ansatz, depth, n_qubits))
        angles = torch.randn(shape, dtype=torch.float64, generator=rng).to(getattr(torch, dtype)).requires_grad_()
        cotangent = torch.randn(n_circuits, 2**n_qubits, dtype=torch.float64, generator=rng).to(angles.dtype)
        p = probabilities(angles, ansatz)
        (gradient,) = torch.autograd.grad(p, angles, cotangent)
        flat = angles.detach().view(n_circuits, depth, len(axes), n_qubits)
        of_kernel, states = kernels.forward(flat, axes)
        gradient_of_kernel = kernels.backward(flat, states, cotangent, axes).view_as(gradient)
        found.append([(of_kernel - p).abs().max().item(), (gradient_of_kernel - gradient).abs().max().item()])
    print(json.dumps(found))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
