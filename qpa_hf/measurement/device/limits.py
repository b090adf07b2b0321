"""What IBM's service takes in one job, and how many jobs a measurement is."""

from __future__ import annotations

from qpa_hf.messages import whole_number

# https://quantum.cloud.ibm.com/docs/guides/job-limits; an execution is one shot of one circuit.
MAX_EXECUTIONS = 10_000_000
MAX_SHOTS = 100_000


def check_device_shots(shots: int) -> int:
    """Return the shots of a circuit as an int.

    Raises:
        ValueError: if they are no whole number of at least 1, or more than a device takes.
    """
    shots = whole_number("shots", shots)
    if shots > MAX_SHOTS:
        raise ValueError(
            f"{shots:,} shots of a circuit are more than the {MAX_SHOTS:,} that a device takes. Set `shots` to "
            f'{MAX_SHOTS} or less; with "20x" and the like, fewer for each basis state.'
        )
    return shots


def circuits_per_job(shots: int) -> int:
    """Return how many circuits of so many shots fit into one job.

    Example:
        >>> circuits_per_job(20_480)
        488
    """
    return MAX_EXECUTIONS // shots


def jobs_needed(n_circuits: int, shots: int) -> int:
    """Return how many jobs measure so many circuits.

    Raises:
        ValueError: as `check_device_shots`.

    Example:
        >>> jobs_needed(1288, 20_480)
        3
    """
    return -(-n_circuits // circuits_per_job(check_device_shots(shots)))
