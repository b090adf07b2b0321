"""Heads where users put them: a transformers classifier with Trainer and PEFT, the Hub, SetFit."""

import os
import subprocess
import sys
from pathlib import Path

import setfit
import torch
from loophub import LoopHub
from models import build, inputs
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import Trainer, TrainingArguments

from qpa_hf.heads import QuantumHead

TESTS = Path(__file__).parents[1]
N_FEATURES, N_CLASSES = 16, 3  # of the small BERT


def classifier():
    """Return a small frozen BERT with a head of ours."""
    model = build("bert").requires_grad_(False)
    model.classifier = QuantumHead(N_FEATURES, N_CLASSES, n_qubits=4, n_layers=2)
    return model


def rows():
    ids = torch.randint(3, 60, (24, 8))
    return [{"input_ids": row, "labels": row[0] % N_CLASSES} for row in ids]


def test_trainer_trains_the_head_and_saves_it(tmp_path):
    model, data = classifier(), rows()
    before = model.classifier.encoder_angles.detach().clone()
    args = TrainingArguments(
        tmp_path, max_steps=3, learning_rate=0.1, per_device_train_batch_size=8, report_to=[], use_cpu=True
    )
    trainer = Trainer(model=model, args=args, train_dataset=data)
    trainer.train()
    trainer.save_model(tmp_path / "saved")
    assert not torch.equal(model.classifier.encoder_angles, before)
    again = classifier()
    again.load_state_dict(load_file(tmp_path / "saved" / "model.safetensors"))
    assert torch.equal(again.eval()(**inputs("bert")).logits, model.eval()(**inputs("bert")).logits)


def test_peft_keeps_the_head_beside_an_adapter(tmp_path):
    model = get_peft_model(classifier(), LoraConfig(target_modules=["query"], modules_to_save=["classifier"]))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(parameter.requires_grad * 0.1)
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(classifier(), tmp_path)
    assert torch.equal(again.eval()(**inputs("bert")).logits, model.eval()(**inputs("bert")).logits)


def test_the_encoder_below_can_be_trained_too():
    model = build("bert")
    model.classifier = QuantumHead(N_FEATURES, N_CLASSES, n_qubits=4, n_layers=2)
    model(**inputs("bert"), labels=torch.tensor([0, 1])).loss.backward()
    assert model.bert.embeddings.word_embeddings.weight.grad.abs().max() > 0


PUSH_AND_LOAD = """
import torch
from qpa_hf.heads import QuantumHead
head = QuantumHead(8, n_qubits=3)
head.push_to_hub("alice/head", token="hf_writes")
loaded = QuantumHead.from_pretrained("alice/head", token="hf_reads")
x = torch.randn(2, 8)
assert torch.equal(loaded(x), head(x)) and loaded.settings == head.settings
from huggingface_hub import ModelCard
print(ModelCard.load("alice/head", token="hf_reads").data.library_name)
"""


def test_a_pushed_head_loads_from_the_hub(tmp_path):
    env = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    with LoopHub(tmp_path / "hub") as hub:
        env |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
        done = subprocess.run([sys.executable, "-c", PUSH_AND_LOAD], env=env, capture_output=True, text=True)
    assert done.stdout.strip() == "qpa_hf", done.stderr


def test_setfit_takes_the_classifier_as_its_head(tmp_path):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertTokenizerFast

    from qpa_hf.heads import QuantumHeadClassifier

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / "body")
    build("bert").bert.save_pretrained(tmp_path / "body")
    transformer = Transformer(str(tmp_path / "body"))
    body = SentenceTransformer(modules=[transformer, Pooling(N_FEATURES)], device="cpu")
    head = QuantumHeadClassifier(n_qubits=3, n_layers=4, n_epochs=60, random_state=0)
    model = setfit.SetFitModel(model_body=body, model_head=head, labels=["bad", "good"])
    texts = ["good film", "bad film", "good good film", "bad bad film"]
    model.fit(texts, [1, 0, 1, 0], num_epochs=1)
    model.save_pretrained(tmp_path / "model")
    again = setfit.SetFitModel.from_pretrained(tmp_path / "model", device="cpu")
    assert list(again.predict(texts)) == ["good", "bad", "good", "bad"]


def test_a_compiled_model_gives_the_same_logits():
    model = classifier()
    with torch.no_grad():
        compiled = torch.compile(model, backend="eager")(**inputs("bert")).logits
        torch.testing.assert_close(compiled, model(**inputs("bert")).logits)
