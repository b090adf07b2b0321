"""An adapter's settings, and the record of its run."""

from qpa_hf.model_cards import Control, Result, RunRecord

LM = {"task_type": "CAUSAL_LM", "target_modules": ["q_proj"]}
RECORD = RunRecord(
    datasets=["wikitext"],
    license="apache-2.0",
    language=["en"],
    results=[
        Result("perplexity", 23.5, "wikitext", "test", "Perplexity"),
        Result("loss", 3.25),
        Result("loss", float("nan"), "ptb"),
    ],
    control=Control("random", "perplexity", 24.25),
    hyperparameters={"learning_rate": 0.01, "seed": 7},
    versions={"peft": "0.21.2"},
    steps=160,
)
