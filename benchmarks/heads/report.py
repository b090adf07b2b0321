from pathlib import Path

OUTPUT = Path("benchmarks/results/heads.json")
