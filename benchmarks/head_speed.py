"""Time the quantum head against the same circuits gate by gate in TorchQuantum, a batch of sentences in one call."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F

from benchmarks import record
from benchmarks.measure import SEED, check_agreement, medians, paired_ratio, take_turns
from benchmarks.record import Target, worst
from benchmarks.simulators import TORCHQUANTUM, Simulator
from qpa_hf.circuit.simulators.torchquantum import load_torchquantum
from qpa_hf.heads import QuantumHead
from qpa_hf.heads.blocks import layer_blocks
from qpa_hf.heads.head import ANGLE_SCALE
from qpa_hf.heads.states import amplitude_states
from qpa_hf.plots import in_style, whole_numbers

N_FEATURES, BATCH, TARGET_QUBITS, FASTER = 768, 256, 10, 20
WIDTHS = (4, 6, 8, 10)
SHAPES: dict[str, dict[str, Any]] = {
    "2 encoder layers, C = 1": {"n_layers": 2},
    "2 encoder layers, C = 2": {"n_layers": 2, "connectivity": 2},
    "8 encoder layers, C = 1": {"n_layers": 8},
    "8 encoder layers, C = 2": {"n_layers": 8, "connectivity": 2},
    "8 encoder layers, C = 4": {"n_layers": 8, "connectivity": 4},
    "2 encoders of 2 layers, C = 1": {"n_layers": 2, "n_encoders": 2},
}
OURS = "ours"
CASE_SECONDS = 20
STEPS = 3  # timed in a row, after one that is not: training takes one step after the other
Row = dict[str, Any]


class GateByGate:
    """A head whose circuits run on `torchquantum.QuantumDevice`, one call for each gate, the batch in each call."""

    def __init__(self, head: QuantumHead) -> None:
        self.head, self.how, self.tq = head, head.settings, load_torchquantum()

    def _layers(self, device: Any, n_qubits: int, layers: Tensor) -> None:
        for layer in layers:
            for (control, target), angle in zip(
                layer_blocks(n_qubits, self.how.connectivity), layer.unbind(), strict=True
            ):
                self.tq.functional.cnot(device, wires=[control, target])
                self.tq.functional.ry(device, wires=target, params=angle)

    def _upload(self, device: Any, uploads: Tensor) -> None:
        for qubit, angles in enumerate(uploads.unbind()):
            self.tq.functional.ry(device, wires=qubit, params=angles)

    def _expectations(self, device: Any, n_measured: int) -> Tensor:
        p = device.get_states_1d().abs().square().unflatten(1, [2] * device.n_wires)
        marginals = [p.movedim(1 + qubit, 1).flatten(2).sum(2) for qubit in range(n_measured)]
        return torch.stack([m[:, 0] - m[:, 1] for m in marginals])  # (n_measured, batch)

    def __call__(self, embeddings: Tensor) -> Tensor:
        """Return the logits, as the head does."""
        how, found = self.how, []
        for angles in self.head.encoder_angles:
            device = self.tq.QuantumDevice(n_wires=how.n_encoder_qubits, bsz=len(embeddings))
            amplitudes = amplitude_states(embeddings, how.n_encoder_qubits, how.constant).t()
            device.states = amplitudes.to(torch.complex64).unflatten(1, [2] * how.n_encoder_qubits)
            self._layers(device, how.n_encoder_qubits, angles)
            found.append(self._expectations(device, how.n_latent_each))
        latent = torch.cat(found)
        uploads = F.pad(latent * ANGLE_SCALE, (0, 0, 0, how.n_qubits - len(latent)))
        device = self.tq.QuantumDevice(n_wires=how.n_qubits, bsz=len(embeddings))
        self._upload(device, uploads)
        for layer in self.head.angles[: how.n_reuploads].unsqueeze(1):
            self._layers(device, how.n_qubits, layer)
            self._upload(device, uploads)
        self._layers(device, how.n_qubits, self.head.angles[how.n_reuploads :])
        return self.head.readout(self._expectations(device, how.n_measured).t())


def compare(name: str, n_qubits: int, options: argparse.Namespace) -> Row:
    """Time one shape, forward alone and with the gradient of all angles, after checking that both agree."""
    rng = torch.Generator().manual_seed(SEED)
    batch = 16 if options.quick else BATCH
    embeddings, labels = torch.randn(batch, N_FEATURES, generator=rng), torch.randint(2, (batch,), generator=rng)
    head = QuantumHead(N_FEATURES, n_qubits=n_qubits, **SHAPES[name])
    models = {OURS: head, TORCHQUANTUM: GateByGate(head)}
    parameters = list(head.parameters())

    def gradient(model: Any) -> Any:
        return lambda: torch.autograd.grad(F.cross_entropy(model(embeddings), labels), parameters)

    runs = {
        "gradient": {arm: gradient(model) for arm, model in models.items()},
        "forward": {arm: torch.no_grad()(lambda model=model: model(embeddings)) for arm, model in models.items()},
    }
    for found, expected in zip(runs["gradient"][TORCHQUANTUM](), runs["gradient"][OURS](), strict=True):
        check_agreement(TORCHQUANTUM, found, expected)
    times = {what: take_turns(arms, options.rounds, "cpu", CASE_SECONDS, least=STEPS) for what, arms in runs.items()}
    return {
        "shape": name,
        "n_qubits": n_qubits,
        "n_encoder_qubits": head.settings.n_encoder_qubits,
        "batch": batch,
        "rounds": {what: len(found[OURS]) for what, found in times.items()},
        "median_ms": {what: medians(found) for what, found in times.items()},
        "over_ours": {what: paired_ratio(found[TORCHQUANTUM], found[OURS]) for what, found in times.items()},
    }


def targets(rows: list[Row]) -> list[Target]:
    """Judge what was measured at the target's size."""
    chosen = [row for row in rows if row["n_qubits"] == TARGET_QUBITS]
    return [
        worst(
            f"TorchQuantum / ours, {what}, Q = {TARGET_QUBITS}, batch {BATCH}",
            ">=",
            FASTER,
            {row["shape"]: row["over_ours"][what]["ratio"] for row in chosen},
        )
        for what in ("gradient", "forward")
    ]


def table(rows: list[Row]) -> Table:
    """Return times and ratios."""
    found = Table("circuits", "Q", "ours, ms", "ratio", "ours forward, ms", "ratio", title="TorchQuantum over ours")
    for row in rows:
        cells = []
        for what in ("gradient", "forward"):
            over = row["over_ours"][what]
            cells += [
                f"{row['median_ms'][what][OURS]:.3g}",
                f"{over['ratio']:.3g} ({over['low']:.3g} - {over['high']:.3g})",
            ]
        found.add_row(row["shape"], str(row["n_qubits"]), *cells)
    return found


@in_style()
def plot(rows: list[Row], path: Path) -> None:
    """Write the ratio against the number of qubits, for each shape."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    panel = figure.subplots()
    for name in dict.fromkeys(row["shape"] for row in rows):
        own = [row for row in rows if row["shape"] == name]
        panel.plot([r["n_qubits"] for r in own], [r["over_ours"]["gradient"]["ratio"] for r in own], label=name)
    panel.axhline(FASTER, color="black", linewidth=0.8, linestyle="--")
    panel.set(xlabel="qubits of the measured circuit", ylabel="TorchQuantum's time / ours, with gradient")
    whole_numbers(panel.xaxis)
    panel.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Run the comparison and write it."""
    parser = record.arguments(__doc__ or "", "head_speed", "6", rounds=9)
    options = parser.parse_args()
    why = Simulator("torchquantum", lambda *_: lambda: None).missing()
    if why:
        raise SystemExit(
            f"TorchQuantum cannot take part: {why}. `make torchquantum` makes an environment that has it."
        )
    record.prepare(options)
    names = list(SHAPES)[:1] if options.quick else list(SHAPES)
    cases = [(name, width) for name in names for width in (WIDTHS if name == names[0] else (TARGET_QUBITS,))]
    rows = [compare(name, width, options) for name, width in (cases[:1] if options.quick else cases)]
    judged = targets(rows)
    record.write(options, {"n_features": N_FEATURES, "batch": BATCH, "shapes": SHAPES}, {}, {"rows": rows}, judged)
    plot(rows, options.output.with_suffix(".png"))
    record.show([table(rows)], judged, {}, options.output)


if __name__ == "__main__":
    main()
