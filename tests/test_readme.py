"""The Python of README and docs runs as printed, figures are those of recorded runs, and links lead somewhere."""

import json
import math
import re
from pathlib import Path

import pytest
from models import build
from transformers import Trainer, TrainingArguments, default_data_collator

from benchmarks.harness.summary import summarize
from qpa_hf.generator import SOURCES

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = ROOT / "docs" / "results"
QUALITY_TABLE, COST, DEMO, SPEED = (
    (RESULTS / f"{name}.md").read_text(encoding="utf-8") for name in ("quality", "cost", "demo", "speed")
)
PAGES = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").rglob("*.md"),
    *(ROOT / "examples").glob("*.md"),
    *(ROOT / "benchmarks").rglob("*.md"),
]


@pytest.fixture
def names(tmp_path, monkeypatch):
    """What snippets find: a base model, data, and a Trainer that is short."""
    monkeypatch.chdir(tmp_path)
    row = {"input_ids": list(range(3, 11)), "labels": list(range(3, 11))}
    arguments = TrainingArguments(
        output_dir="out", max_steps=2, report_to="none", use_cpu=True, save_strategy="no", dataloader_pin_memory=False
    )

    def quiet_trainer(**kwargs):
        return Trainer(**kwargs, data_collator=default_data_collator)

    return {"base": build("untied"), "args": arguments, "data": [row] * 8, "Trainer": quiet_trainer}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "page", [p for p in PAGES if "```python" in p.read_text(encoding="utf-8")], ids=lambda p: p.name
)
def test_snippets_run(page, names, registry, monkeypatch):
    monkeypatch.setattr("qpa_hf.generator.sources.SOURCES", SOURCES | {})  # a page adds one
    for snippet in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        exec(snippet, names)
        names["base"] = build("untied")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    assert [link for link in links if link and not (page.parent / link).exists()] == []


def test_readme_is_short():
    assert len(README.splitlines()) <= 150


def test_table_is_what_plan_says():
    from transformers import GPT2Config

    from qpa_hf import QPAConfig, plan

    lora = {"r": 4, "target_modules": ["lm_head"], "task_type": "CAUSAL_LM"}
    printed = re.findall(r"^\|[^|\n]*\| ([\d,]+) \| (\d+) \| (\d+) \| ([\d,]+) \| ([\d,]+) \|", COST, re.MULTILINE)
    rows = plan(QPAConfig(**lora), GPT2Config(), [96, 384, 1536]).rows
    rows += plan(QPAConfig.paper(256, **lora), GPT2Config(), [256, 512, 1024, 2048, 4096, 8192]).rows
    expected = [
        (f"{r.chunk_size:,}", str(r.n_qubits), str(r.n_angles), f"{r.n_hidden + r.n_output:,}", f"{r.n_trainable:,}")
        for r in rows
    ]
    assert printed == expected


def test_demo_figures_are_those_of_the_recorded_run():
    record = json.loads((ROOT / "benchmarks" / "results" / "demo.json").read_text(encoding="utf-8"))
    for arm in record["arms"]:
        cells = [f"{arm['n_trainable']:,}", f"{arm['perplexity_after']:.2f}", f"{arm['native_bytes']:,} bytes"]
        is_control = arm["name"] in SOURCES
        label = f'QPA, `source="{arm["name"]}"`' if is_control else arm["name"]
        assert f"| {label} | {' | '.join(cells)} | {arm['step_time_over_lora']:.2f} |" in DEMO


def test_times_are_those_of_the_recorded_run():
    rows = json.loads((ROOT / "benchmarks" / "results" / "circuit.json").read_text(encoding="utf-8"))["rows"]
    by_size = {(row["ansatz"], row["n_qubits"]): row for row in rows}
    for ansatz, label in (("ry_cnot", "R_Y"), ("rx_cnot", "R_X"), ("rx_rz_cnot", "R_X R_Z")):
        chosen = [by_size[ansatz, n] for n in (5, 7, 10, 12, 14, 16)]
        for rival in ("TorchQuantum", "PennyLane lightning, raw device", "ours, without Numba"):
            ratios = " | ".join(f"{row['over_ours'][rival]['ratio']:.1f}" for row in chosen)
            assert f"| {label} + CNOT: {rival} / ours | {ratios} |" in SPEED


QUALITY = {  # what the tables call an arm of the bench
    "frozen base": "none",
    "TinyLoRA 600": "TinyLoRA",
    "TinyLoRA 4,000": "TinyLoRA, larger",
    "Uni-LoRA 1,152": "Uni-LoRA",
    "FourierFT 1,000": "FourierFT",
    "FourierFT 6,000": "FourierFT, larger",
    "WaveFT 1,000": "WaveFT",
    "WaveFT 6,000": "WaveFT, larger",
    "VeRA r=64": "VeRA r = 64",
    "VeRA r=256": "VeRA r = 256",
    "AdaMSS": "AdaMSS",
    "C3A": "C3A",
    "DEFT r=1": "DEFT r = 1",
    "DeLoRA r=1": "DeLoRA r = 1",
    "DoRA r=1": "DoRA r = 1",
    "GraLoRA r=2": "GraLoRA r = 2",
    "GLoRA r=1": "GLoRA r = 1",
    "IA3": "IA3",
    "Lily r=1": "Lily r = 1",
    "LoHa r=1": "LoHa r = 1",
    "LoKr r=4": "LoKr r = 4",
    "MiCA r=1": "MiCA r = 1",
    "PEANuT r=1": "PEANuT r = 1",
    "PVeRA r=64": "PVeRA r = 64",
    "RandLoRA r=64": "RandLoRA r = 64",
    "FRoD": "FRoD",
    "HiRA r=1": "HiRA r = 1",
    "HRA r=2": "HRA r = 2",
    "VB-LoRA r=1": "VB-LoRA r = 1",
    "BEFT": "BEFT",
    "OFT, shared": "OFT, blocks shared",
    "BOFT": "BOFT",
    "PSOFT 4,000": "PSOFT",
    "RoAd 1": "RoAd",
    "MiSS mini": "MiSS mini",
    "SHiRA r=1": "SHiRA r = 1",
    "Super-Tuning": "Super-Tuning",
    "LN tuning": "LayerNorm tuning",
    "QPA paper 256": "`QPAConfig.paper(256)`",
    "QPA paper 2,048": "`QPAConfig.paper(2048)`",
    "QPA paper 8,192": "`QPAConfig.paper(8192)`",
    "QPA chunk 96": 'QPA, `basis="kaiming"`, chunk 96',
    "QPA gradient r=20, random": 'QPA r = 20, `source="random"`',
    "QPA gradient r=20, free": 'QPA r = 20, `source="free"`',
    "QPA gradient r=20, bits": 'QPA r = 20, `source="bits"`',
    "QPA gradient r=20, frozen": "QPA r = 20, `train_circuit=False`",
    "gradient, direct 1,200": "cores trained directly",
    "QPA gradient r=20": "QPA r = 20",
    "QPA gradient r=10": "QPA r = 10",
    "QPA gradient r=14": "QPA r = 14",
    "QPA gradient 3 x r=20": "QPA r = 60, `n_stages=3`",
    "QPA gradient 3 x r=32": "QPA r = 96, `n_stages=3`",
    "QPA gradient 3 x r=48": "QPA r = 144, `n_stages=3`",
    "QPA gradient r=26": "QPA r = 26",
    "QPA gradient r=32": "QPA r = 32",
    "QPA gradient r=48": "QPA r = 48",
    "QPA gradient r=64": "QPA r = 64",
    "LoRA r=1": "LoRA r = 1",
    "LoRA r=2": "LoRA r = 2",
    "LoRA r=4": "LoRA r = 4",
    "LoRA r=8": "LoRA r = 8",
}


def test_quality_is_that_of_the_recorded_runs():
    found = [results(task) for task in ("sst2", "wikitext")]
    assert found[0].keys() | found[1].keys() == QUALITY.keys()
    for arm, label in QUALITY.items():
        cells = []
        for result in (known.get(arm) for known in found):
            if result is None:
                cells += ["", "not run"]
                continue
            if not math.isfinite(result.mean):
                cells += [f"{result.n_trainable:,}", "diverges"]
                continue
            edge = "*" if result.is_at_edge else ""
            low, high = result.interval or (result.mean, result.mean)
            spread = f" ({low:.4f} to {high:.4f})" if low < high else ""  # no seed changes the base alone
            cells += [f"{result.n_trainable:,}", f"{result.mean:.4f}{edge}{spread}"]
        assert f"| {label} | {' | '.join(cells)} |" in QUALITY_TABLE


def test_quality_in_short_is_taken_from_the_whole_table():
    section = README[README.index("## Does it pay?") : README.index("## Read on")]
    rows = [line for line in section.splitlines() if line.startswith("| ")]
    assert len(rows) > 5
    assert set(rows) <= set(QUALITY_TABLE.splitlines())


def results(task):
    path = ROOT / "benchmarks" / "results" / f"quality_{task}.json"
    return summarize(json.loads(path.read_text(encoding="utf-8"))).by_name()
