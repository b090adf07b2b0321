"""GradientBasisCallback in the trainers of trl and sentence-transformers, each a step long."""

import importlib.util

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2ForSequenceClassification

from qpa_hf import QPAConfig
from qpa_hf.demo.arms import BASE
from qpa_hf.models import bank_of, unwrapped
from qpa_hf.trainer_callbacks import GradientBasisCallback

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
TARGET = {"target_modules": ["c_attn"], "fan_in_fan_out": True}
ON_GRADIENTS = {"basis": "gradient", "r": 4}
SHORT = {
    "max_steps": 1,
    "per_device_train_batch_size": 4,
    "report_to": "none",
    "use_cpu": True,
    "bf16": False,
    "save_strategy": "no",
    "logging_steps": 1,
    "disable_tqdm": True,
}
TEXTS = ["The sun is warm", "A list has items", "He said no", "Rain falls in spring"] * 2
needs_trl = pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="needs trl")


def tokenizer():
    made = AutoTokenizer.from_pretrained(BASE)
    made.pad_token = made.pad_token or made.eos_token
    return made


def language_model():
    return AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)


def on_gradients(task_type="CAUSAL_LM"):
    return QPAConfig(**TARGET, **ON_GRADIENTS, task_type=task_type)


def check(trainer, **kwargs):
    """Train a step, and look at what the callback and the step have done."""
    adapter = unwrapped(trainer.model)
    generator = bank_of(adapter).generator
    noted = getattr(trainer, "_metrics", {"eval": {}})["eval"]  # the callback asks for losses in eval mode
    trainer.add_callback(GradientBasisCallback(trainer, n_examples=4, **kwargs))
    start = [parameter.clone() for parameter in generator.parameters()]
    trainer.train()
    assert generator.n_bases == 1
    assert any(not torch.equal(one, other) for one, other in zip(generator.parameters(), start, strict=True))
    assert not noted


@needs_trl
def test_sft(tmp_path):
    from trl import SFTConfig, SFTTrainer

    check(
        SFTTrainer(
            language_model(),
            SFTConfig(str(tmp_path), max_length=16, **SHORT),
            train_dataset=Dataset.from_dict({"text": TEXTS}),
            processing_class=tokenizer(),
            peft_config=on_gradients(),
        )
    )


PAIRS = {"prompt": TEXTS, "chosen": [" and so on"] * 8, "rejected": [" but then"] * 8}


@needs_trl
@pytest.mark.parametrize("modules_to_save", [None, ["ln_f"]], ids=str)
def test_dpo(modules_to_save, tmp_path):
    from trl import DPOConfig, DPOTrainer

    config = QPAConfig(**TARGET, **ON_GRADIENTS, task_type="CAUSAL_LM", modules_to_save=modules_to_save)
    check(
        DPOTrainer(
            language_model(),
            args=DPOConfig(str(tmp_path), max_length=16, **SHORT),
            train_dataset=Dataset.from_dict(PAIRS),
            processing_class=tokenizer(),
            peft_config=config,
        )
    )


@needs_trl
def test_kto(tmp_path):
    from trl import KTOConfig, KTOTrainer

    rows = {"prompt": TEXTS, "completion": [" and so on", " but then"] * 4, "label": [True, False] * 4}
    check(
        KTOTrainer(
            language_model(),
            args=KTOConfig(str(tmp_path), max_length=16, **SHORT),
            train_dataset=Dataset.from_dict(rows),
            processing_class=tokenizer(),
            peft_config=on_gradients(),
        )
    )


@needs_trl
def test_reward_model_with_a_fitted_head(tmp_path):
    from trl import RewardConfig, RewardTrainer

    made = tokenizer()
    base = GPT2ForSequenceClassification.from_pretrained(BASE, num_labels=1, dtype=torch.float32)
    base.config.pad_token_id = made.pad_token_id
    check(
        RewardTrainer(
            base,
            args=RewardConfig(str(tmp_path), max_length=16, **SHORT),
            train_dataset=Dataset.from_dict(PAIRS),
            processing_class=made,
            peft_config=on_gradients("SEQ_CLS"),
        ),
        fit_head=True,
    )


def lengths(completions, **kwargs):
    return [float(len(completion)) + i for i, completion in enumerate(completions)]


@needs_trl
@pytest.mark.parametrize("name", ["GRPO", "RLOO"])
def test_from_the_first_generations(name, tmp_path):
    import trl

    generating = {"num_generations": 2, "max_completion_length": 6, "gradient_accumulation_steps": 1}
    check(
        getattr(trl, f"{name}Trainer")(
            language_model(),
            args=getattr(trl, f"{name}Config")(str(tmp_path), **generating, **SHORT),
            train_dataset=Dataset.from_dict({"prompt": TEXTS}),
            processing_class=tokenizer(),
            reward_funcs=lengths,
            peft_config=on_gradients(),
        )
    )


@pytest.mark.skipif(importlib.util.find_spec("sentence_transformers") is None, reason="needs sentence-transformers")
def test_sentence_transformers(tmp_path):
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
        losses,
    )
    from sentence_transformers.models import Pooling, Transformer

    body = Transformer(str(BASE))
    body.tokenizer.pad_token = body.tokenizer.eos_token
    model = SentenceTransformer(modules=[body, Pooling(192)], device="cpu")
    model.add_adapter(on_gradients("FEATURE_EXTRACTION"))
    check(
        SentenceTransformerTrainer(
            model,
            SentenceTransformerTrainingArguments(str(tmp_path), **SHORT),
            train_dataset=Dataset.from_dict({"anchor": TEXTS, "positive": TEXTS[::-1]}),
            loss=losses.MultipleNegativesRankingLoss(model),
        )
    )
