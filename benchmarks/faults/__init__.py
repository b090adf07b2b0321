"""Bad inputs, interruptions and hostile conditions: `python -m benchmarks.faults`."""
