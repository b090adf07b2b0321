"""Run the Triton kernels in Triton's interpreter, in a process of its own; print how far they are from the plain form.

The interpreter has to be chosen before Triton is imported.
"""

import json
import sys

import torch


def main(cases):
    from qpa_hf.circuit import Ansatz
    from qpa_hf.circuit.simulators import reference
    from qpa_hf.circuit.simulators import triton_gates as kernels

    found = []
    for axes, n_qubits, depth, n_circuits, dtype in cases:
        ansatz, rng = Ansatz(axes), torch.Generator().manual_seed(n_qubits)
        assert kernels.can(ansatz, n_qubits, n_circuits)
        shape = (n_circuits, depth, len(axes), n_qubits)
        angles = torch.randn(shape, dtype=torch.float64, generator=rng).to(getattr(torch, dtype))
        cotangent = torch.randn(n_circuits, 2**n_qubits, dtype=torch.float64, generator=rng).to(angles.dtype)
        results = []
        for simulator in (kernels, reference):
            p, kept = simulator.forward(angles, ansatz)
            results.append((p, simulator.backward(angles, kept, cotangent, ansatz)))
        found.append([(of_kernel - plain).abs().max().item() for of_kernel, plain in zip(*results, strict=True)])
    print(json.dumps(found))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
