"""`qpa train --task image`: from folders of pictures to a classifier's adapter, and what is no such folder."""

import json
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import accuracy_score
from transformers import AutoImageProcessor, ViTConfig, ViTForImageClassification, ViTImageProcessor

from qpa_hf.demo.arms import BASE
from qpa_hf.training import read_data, read_settings

pytestmark = pytest.mark.filterwarnings("ignore:The generator has:UserWarning")
LOADER = Path(__file__).parent.parent / "load_classifier.py"


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    """A small vision transformer with its image processor."""
    folder = tmp_path_factory.mktemp("vit")
    torch.manual_seed(0)
    sizes = {"num_hidden_layers": 2, "hidden_size": 16, "intermediate_size": 16, "image_size": 8, "patch_size": 4}
    ViTForImageClassification(ViTConfig(**sizes, num_attention_heads=2)).save_pretrained(folder)
    ViTImageProcessor(size={"height": 8, "width": 8}).save_pretrained(folder)
    return folder


def drawn(seed, brightness):
    noise = np.random.default_rng(seed).integers(0, 60, (9, 7, 3))
    return Image.fromarray((noise + brightness).astype("uint8"))


@pytest.fixture
def pictures(tmp_path):
    """A folder of two classes with ten pictures each, in three formats and colours."""
    folder = tmp_path / "pictures"
    for seed in range(20):
        name, brightness = (("dark", 0), ("light", 190))[seed % 2]
        (folder / name).mkdir(parents=True, exist_ok=True)
        picture = drawn(seed, brightness).convert(("RGB", "L", "RGBA")[seed % 3])
        picture.save(folder / name / f"{seed}.{('png', 'bmp', 'png')[seed % 3]}")
    return folder


def options(vit, folder, *more):
    settings = ["adapter.target_modules=[query, value, q_proj, v_proj]", "adapter.r=2", "training.max_steps=6", *more]
    words = [word for setting in (*settings, "training.learning_rate=1e-2") for word in ("--set", setting)]
    return ["--task", "image", "--model", vit, "--train", folder, *words]


def test_an_image_classifier_is_trained_and_loads_without_us(qpa, vit, pictures, tmp_path):
    result = qpa("train", "--output", tmp_path / "run", *options(vit, pictures), "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    data = read_data(read_settings(tmp_path / "run" / "run.yaml"))
    opened = [Image.open(one.source).convert("RGB") for one in data.validation]
    pixels = AutoImageProcessor.from_pretrained(vit)(opened, return_tensors="pt")["pixel_values"]
    torch.save({"pixel_values": pixels, "id2label": dict(enumerate(data.labels))}, tmp_path / "inputs")
    program = [sys.executable, LOADER, "AutoModelForImageClassification", vit, tmp_path / "run" / "adapter"]
    subprocess.run([*program, tmp_path / "inputs"], check=True, capture_output=True)
    logits = torch.load(tmp_path / "inputs.logits")
    labels = torch.tensor([data.labels.index(one.label) for one in data.validation])
    assert accuracy_score(labels, logits.argmax(1)) == found["accuracy"]
    assert torch.nn.functional.cross_entropy(logits, labels).item() == pytest.approx(found["loss"], rel=1e-6)
    card = (tmp_path / "run" / "adapter" / "README.md").read_text(encoding="utf-8")
    assert "AutoModelForImageClassification.from_pretrained(" in card
    assert "pipeline_tag: image-classification" in card
    given = ("--task", "image", "--adapter", tmp_path / "run" / "adapter", "--data", pictures, "--json")
    again = json.loads(qpa("evaluate", vit, *given).out)
    assert (again["n_examples"], again["baseline"]["accuracy"]) == (20, 0.5)


def test_a_killed_run_goes_on_to_the_same_bits(goes_on, qpa, vit, pictures, tmp_path):
    given = options(vit, pictures, "training.save_steps=2")
    goes_on(given, step=3)
    picture = pictures / "dark" / "0.png"
    picture.write_bytes((pictures / "dark" / "2.png").read_bytes())
    result = qpa("train", "--output", tmp_path / "parts", *given)
    assert (result.code, "on other examples" in result.err) == (2, True)


def test_a_column_of_pictures_is_read_like_their_folder(vit, pictures, tmp_path):
    paths = sorted(pictures.glob("*/*"))
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["dark", "light"])})
    rows = {"image": [str(path) for path in paths], "label": [path.parent.name for path in paths]}
    (tmp_path / "set").mkdir()
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "set" / "train.parquet")
    held_out = {"image": [drawn(99, 0)], "label": ["dark"]}
    datasets.Dataset.from_dict(held_out, features=features).to_parquet(tmp_path / "set" / "validation.parquet")
    found = read_data(read_settings(model=str(vit), task="image", data={"dataset": str(tmp_path / "set")}))
    assert [(one.label, one.content) for one in found.train] == [(p.parent.name, p.read_bytes()) for p in paths]
    assert (found.labels, len(found.validation)) == (("dark", "light"), 1)
    settings = read_settings(
        model=str(vit), task="image", data={"dataset": str(tmp_path / "set"), "image_column": "label"}
    )
    with pytest.raises(ValueError, match="The column `label` of .* holds no pictures. Set `data.image_column`"):
        read_data(settings)


def damaged(folder):
    path = folder / "dark" / "0.png"
    path.write_bytes(path.read_bytes()[:60])


def emptied(folder):
    for path in (folder / "light").iterdir():
        path.unlink()


def flat(folder):
    for path in list(folder.glob("*/*")):
        path.rename(folder / path.name)


FOLDERS = {
    "a picture that is cut off": (damaged, "0.png does not open as a picture ("),
    "text that is called a picture": (lambda folder: (folder / "dark" / "a.png").write_text("x"), "(it is none)"),
    "one class": (emptied, "have the label 'dark', and one class is nothing to learn"),
    "no folder": (lambda folder: folder.rename(folder.with_name("else")), "is not there, and should be a folder"),
    "no classes": (flat, "There are no pictures in the folders of"),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_pictures_that_will_not_do_are_one_sentence(case, qpa, vit, pictures, tmp_path):
    change, message = FOLDERS[case]
    change(pictures)
    result = qpa("train", "--output", tmp_path / "run", *options(vit, pictures))
    assert (result.code, message in result.err, result.err.count("Error: ")) == (2, True, 1), result.err
    assert not (tmp_path / "run").exists()


def test_a_model_of_another_kind_is_refused(qpa, pictures, vit, book, tmp_path):
    result = qpa("train", "--output", tmp_path / "run", *options(BASE, pictures))
    assert (result.code, "has no model for `--task image` of" in result.err) == (2, True), result.err
    words = ["--task", "classify", "--model", vit, "--train", book]
    result = qpa("train", "--output", tmp_path / "run", *words)
    assert (result.code, "has no model for `--task classify` of" in result.err) == (2, True), result.err


def test_files_that_are_no_pictures_are_counted(vit, pictures, capsys):
    (pictures / "notes.txt").write_text("x")
    (pictures / "dark" / "Thumbs.db").write_text("x")
    (pictures / "dark" / ".hidden.png").write_text("x")
    read_data(read_settings(model=str(vit), task="image", data={"train": [str(pictures)]}))
    assert "2 files in" in capsys.readouterr().err
