"""The test that was written down before its runs: benchmarks/PREREGISTRATION.md says what is here, and why.

`python -m benchmarks.quality --preregistered` runs it, `--report-only` with it reads the verdict from the files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.harness.protocol import Protocol
from benchmarks.harness.report import Writing, table
from benchmarks.harness.results import Content, read
from benchmarks.harness.summary import Result, summarize
from benchmarks.quality.resampling import by_seed, over_rows
from benchmarks.quality.study import CROSS_ENTROPY, Adapters
from qpa_hf.checkpoint import write_text
from qpa_hf.comparison.statistics import Difference, holm

TASKS = ("mnist", "sst2", "wikitext")
ARMS = (
    "QPA gradient r=20",
    "QPA gradient r=20, free matched",
    "gradient, direct 1,200",
    "QPA gradient r=20, random matched",
    "aligned orthogonal",
    "aligned orthogonal, free core",
    "Quantum-PEFT core",
    "Quantum-PEFT core, random pairs",
    "QPA gradient r=20, bits matched",
)
RATES = (3e-3, 1e-2, 3e-2)
TUNING_SEEDS = (91, 92, 93)
FIRST_SEED, N_SEEDS = 101, 10
DIRECT = "gradient, direct 1,200"
CONTROL = {  # the matched control of each arm that is judged
    "QPA gradient r=20": "QPA gradient r=20, free matched",
    "Quantum-PEFT core": "Quantum-PEFT core, random pairs",
    "aligned orthogonal": "aligned orthogonal, free core",
}
CIRCUITS = ("QPA gradient r=20", "Quantum-PEFT core")
ENOUGH = 2  # tasks on which an arm has to be better
FOLDER = "preregistered"
NO = "Trained circuits are not shown to beat plain trained parameters in their place."
WRITING = Writing(CROSS_ENTROPY)

Claim = tuple[str, str, str]  # task, arm, the arm that it is to beat


def protocol(build: Path, n_jobs: int, device: str, arm: str) -> Protocol:
    """Return how one arm is run."""
    return Protocol(
        arms=(arm,),
        rates=RATES,
        n_seeds=N_SEEDS,
        folder=build / FOLDER,
        tuning_seeds=TUNING_SEEDS,
        is_open=True,
        n_jobs=n_jobs,
        device=device,
        first_seed=FIRST_SEED,
    )


def run(studies: Sequence[Adapters], folder: Path, build: Path, n_jobs: int, device: str) -> None:
    """Run all arms on some of the tasks, one arm after the other, so that an interruption leaves whole arms.

    Args:
        studies: the tasks.
        folder: folder of the tasks' files.
        build: folder for each run's own file.
        n_jobs: number of processes beside each other.
        device: where torch computes.
    """
    for study in studies:
        for arm in ARMS:
            protocol(build, n_jobs, device, arm).run(study, folder / f"quality_{study.name}.json")


def known(folder: Path) -> dict[str, Content]:
    """Return the content of the files that there are, by task."""
    paths = {task: folder / f"quality_{task}.json" for task in TASKS}
    return {task: read(path) for task, path in paths.items() if path.is_file()}


def write(folder: Path) -> Path:
    """Write the report beside the files."""
    path = folder / "preregistered.md"
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, "\n".join(report(known(folder))) + "\n")
    return path


def done(found: Mapping[str, Content]) -> dict[tuple[str, str], Result]:
    """Return the results of the arms that have all their reported runs, by task and arm."""
    seeds = set(range(FIRST_SEED, FIRST_SEED + N_SEEDS))
    results = {(task, one.arm): one for task, content in found.items() for one in summarize(content).results}
    return {key: one for key, one in results.items() if key[1] in ARMS and set(one.losses) == seeds}


def differences(results: Mapping[tuple[str, str], Result]) -> dict[Claim, Difference]:
    """Return the differences of all that is claimed and has been run, by Holm's correction over all of them."""
    claims = [(task, arm, other) for task in TASKS for arm in CONTROL for other in (CONTROL[arm], DIRECT)]
    return holm(
        {
            (task, arm, other): results[task, arm].minus(results[task, other])
            for task, arm, other in claims
            if {(task, arm), (task, other)} <= results.keys()
        }
    )


def is_won(arm: str, gaps: Mapping[Claim, Difference]) -> bool:
    """Whether an arm beats its control and direct on two tasks or more, and is not worse on the others."""
    rivals = (CONTROL[arm], DIRECT)
    better = [task for task in TASKS if all(gaps[task, arm, other].is_below for other in rivals)]
    rest = [gaps[task, arm, other] for task in TASKS if task not in better for other in rivals]
    return len(better) >= ENOUGH and not any(map(_is_worse, rest))


def _is_worse(gap: Difference) -> bool:
    """Whether the 95 % interval, uncorrected, lies above zero; a run that diverged is worse."""
    return gap.interval is None or gap.interval[0] > 0


def verdict(results: Mapping[tuple[str, str], Result]) -> list[str]:
    """Return the verdict, or that there is none yet."""
    n_missing = len(TASKS) * len(ARMS) - len(results)
    if n_missing:
        return [f"No verdict: {n_missing} of {len(TASKS) * len(ARMS)} arms on the tasks lack reported runs."]
    gaps = differences(results)
    circuits = [arm for arm in CIRCUITS if is_won(arm, gaps)]
    rotation = "aligned orthogonal"
    return [
        f"Circuits: yes, by {' and '.join(circuits)}." if circuits else f"Circuits: no. {NO}",
        f"Aligned orthogonal becomes a form of the core: {'yes' if is_won(rotation, gaps) else 'no'}.",
    ]


def report(found: Mapping[str, Content]) -> list[str]:
    """Return the report's lines."""
    results = done(found)
    n_runs = sum(len(by_seed(content["runs"], arm)) for content in found.values() for arm in ARMS)
    n_all = len(TASKS) * len(ARMS) * N_SEEDS
    lines = [
        "# The pre-registered test",
        "",
        "The test and its rule: [PREREGISTRATION.md](../../PREREGISTRATION.md). Cross-entropy in nats on the test "
        f"part; {n_runs} of {n_all} reported runs are done.",
        "",
        *(f"**{line}**" for line in verdict(results)),
        "",
    ]
    return lines + [line for task in TASKS for line in _task(task, found.get(task), results)]


def _task(task: str, content: Content | None, results: Mapping[tuple[str, str], Result]) -> list[str]:
    lines = [f"## {task}", ""]
    if content is None:
        return [*lines, "Not run.", ""]
    rows = []
    for arm in ARMS:
        one = results.get((task, arm))
        n_done = len(by_seed(content["runs"], arm))
        known = [str(one.n_trainable), f"{one.rate:g}", WRITING.mean(one)] if one else ["", "", ""]
        rows.append([arm, f"{n_done} of {N_SEEDS}", *known])
    lines += table(["arm", "runs", "trained", "rate", "mean (95 % t-interval over seeds)"], rows)
    compared = [
        [f"{arm} - {other}", WRITING.text(gap.mean, gap.interval, "+"), _p(gap), _rows(content, gap, arm, other)]
        for (of, arm, other), gap in differences(results).items()
        if of == task
    ]
    return lines + (table(["difference", "over seeds", "p, by Holm", "over rows"], compared) if compared else [])


def _p(gap: Difference) -> str:
    return "" if gap.p is None else f"{gap.p:.2g}"


def _rows(content: Content, gap: Difference, arm: str, other: str) -> str:
    """Write the interval over the choice of the test rows, at the seeds that were run."""
    one, against = (by_seed(content["runs"], name) for name in (arm, other))
    interval = over_rows(gap.mean, [(one[seed], against[seed]) for seed in one if seed in against])
    return "" if interval is None else WRITING.text(gap.mean, interval, "+").partition(" ")[2]
