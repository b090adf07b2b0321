"""Quantum-Train: all weights of small networks from one generator, on three real tasks that need no download."""
