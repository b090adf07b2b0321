"""Adapters that lie inside of something else: a pipeline, a sentence encoder."""

import pytest
import torch
from bare import SIZES, around, base_of, move, saved_base
from helpers import logits
from models import VOCABULARY, build
from peft import PeftModel, get_peft_model
from transformers import BertModel, PreTrainedTokenizerFast, pipeline

from qpa_hf import QPAConfig, materialize
from qpa_hf.models import bank_of
from qpa_hf.trainer_callbacks import CircuitMetricsCallback, MaterializeCallback

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
    pytest.mark.filterwarnings("ignore:The generator has:UserWarning"),
]


def tokenizer(folder):
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {f"t{i}": i for i in range(3, VOCABULARY)} | {"<s>": 0, "</s>": 1, "<pad>": 2}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    made = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<pad>")
    made.save_pretrained(folder)
    return made


def test_pipeline_reads_a_native_folder_and_is_materialized(tmp_path):
    folder = saved_base(tmp_path / "base")
    tokenizer(folder)
    around(folder).save_pretrained(tmp_path / "native")
    pipe = pipeline("text-generation", model=str(tmp_path / "native"), device="cpu")
    expected = logits(around(folder), "llama")
    assert torch.equal(logits(pipe.model.eval(), "llama"), expected)
    materialize(pipe, tmp_path / "plain")
    loaded = PeftModel.from_pretrained(base_of(folder), tmp_path / "plain")
    assert torch.equal(logits(loaded, "llama"), expected)


def encoder(folder):
    """Save a small sentence encoder's parts, and return a function that makes the encoder."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    bert = build("bert").bert
    bert.save_pretrained(folder)
    tokenizer(folder)
    assert isinstance(bert, BertModel)

    def make():
        body = Transformer(str(folder))
        return SentenceTransformer(modules=[body, Pooling(16)], device="cpu")

    return make


def test_sentence_transformer_of_a_checkpoint(tmp_path):
    pytest.importorskip("sentence_transformers")
    from sentence_transformers import SentenceTransformer

    make = encoder(tmp_path / "bert")
    texts = ["t5 t7 t9", "t4"]
    plain = make().encode(texts)
    for how in ("get_peft_model", "add_adapter"):
        model = make()
        config = QPAConfig(**SIZES, target_modules=["query", "value"])
        if how == "add_adapter":
            model.add_adapter(config)
        else:
            body = next(m for m in model.modules() if isinstance(m, BertModel))
            adapted = get_peft_model(body, config)
            model[0].model = adapted
        move(bank_of(model).generator)
        expected = model.encode(texts)
        assert abs(expected - plain).max() > 1e-3
        model.save(str(tmp_path / how))
        again = SentenceTransformer(str(tmp_path / how), device="cpu")
        assert (again.encode(texts) == expected).all(), how
        for source, name in ((model, "plain"), (again, "plain again")):
            materialize(source, tmp_path / how / name)
            loaded = PeftModel.from_pretrained(BertModel.from_pretrained(tmp_path / "bert"), tmp_path / how / name)
            other = make()
            other[0].model = loaded.eval()
            assert abs(other.encode(texts) - expected).max() < 1e-6


def test_sentence_transformer_is_trained_and_resumed(tmp_path):
    pytest.importorskip("sentence_transformers")
    from datasets import Dataset
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    make = encoder(tmp_path / "bert")
    data = Dataset.from_dict({"anchor": ["t5 t7", "t8 t9", "t11 t4"], "positive": ["t7 t5", "t9", "t4"]})
    args = SentenceTransformerTrainingArguments(
        str(tmp_path / "run"), max_steps=2, save_steps=1, logging_steps=1, report_to=[], use_cpu=True
    )

    def run(**settings):
        model = make()
        model.add_adapter(QPAConfig(**SIZES, target_modules=["query", "value"]))
        callbacks = [CircuitMetricsCallback(), MaterializeCallback()]
        loss = MultipleNegativesRankingLoss(model)
        trainer = SentenceTransformerTrainer(model, args, train_dataset=data, loss=loss, callbacks=callbacks)
        trainer.train(**settings)
        return model.encode(["t5 t7 t9"]), trainer.state.log_history

    expected, logs = run()
    assert any(key.startswith("qpa/") for log in logs for key in log)
    assert (tmp_path / "run" / "checkpoint-2" / "plain" / "adapter" / "adapter_model.safetensors").is_file()
    assert (run(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-1"))[0] == expected).all()
