"""Pictures and their classes."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.utils.data import Dataset
from transformers import AutoImageProcessor, AutoModelForImageClassification

from qpa_hf.evaluation.content import read_bytes
from qpa_hf.evaluation.tables import column_of, labels_of
from qpa_hf.messages import first_sentence, one_line
from qpa_hf.terminal import say
from qpa_hf.training.data import (
    DataSettings,
    Examples,
    Naming,
    load_split,
    name_of,
    parts_of,
    split_name,
    validation_part,
)
from qpa_hf.training.tasks.heads import base_config, base_labels, check_kind
from qpa_hf.training.tasks.labelled import LabelledTask
from qpa_hf.training.tasks.labels import check_known, label_names, parted

if importlib.util.find_spec("PIL") is not None:
    from PIL import Image

ENDINGS = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
IMAGE_SETTING = "`data.image_column`"


@dataclass(frozen=True)
class Picture:
    """A picture that is opened when it is needed.

    Args:
        source: the path of the file, or what is in it.
        label: the name of its class.
        digest: the SHA-256 of what is in the file.
    """

    source: Path | bytes
    label: str
    digest: str

    @property
    def content(self) -> bytes:
        """What is in the file."""
        return self.source if isinstance(self.source, bytes) else self.source.read_bytes()


@dataclass(frozen=True)
class Reader:
    """What makes a model's input of a picture.

    Args:
        processor: the model's image processor.
        mode: Pillow's name of the colours that the model takes, "RGB" or "L".
    """

    processor: Any
    mode: str

    def __call__(self, content: bytes) -> Tensor:
        """Return the pixels of what is in a picture's file, shape (n_channels, height, width)."""
        return self.processor(Image.open(BytesIO(content)).convert(self.mode), return_tensors="pt")["pixel_values"][0]


class Rows(Dataset[dict[str, Any]]):
    """Pictures as the model takes them, each made when it is asked for."""

    def __init__(self, pictures: Sequence[Picture], data: Examples) -> None:
        self.pictures = pictures
        self.reader = data.reader
        self.index = {name: i for i, name in enumerate(data.labels)}

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, i: int) -> dict[str, Any]:
        picture = self.pictures[i]
        return {"pixel_values": self.reader(picture.content), "labels": self.index[picture.label]}


class ImageTask(LabelledTask):
    """Pictures in a folder for each class, or in a column of a dataset with their class in another."""

    name = "image"
    unit = "pictures"
    adapter = {"task_type": None, "modules_to_save": ["classifier"]}
    hub_task = "image-classification"
    trains = "image classifiers"
    fields = frozenset({"image_column", "label_column"})
    needs = ("image", ("PIL", "sklearn"))
    auto = AutoModelForImageClassification

    def read(self, settings: DataSettings, model: str) -> Examples:
        reader = self._reader(model)
        train, validation = (_read(settings, part, reader.mode) for part in parts_of(settings))
        pictures = [picture for _, part in train for picture in part]
        names = label_names((one.label for one in pictures), base_labels(model), Naming.files)
        part = validation_part(settings)
        if validation:
            for where, found in validation:
                check_known((one.label for one in found), names, where)
            held_out = [one for _, found in validation for one in found]
        else:
            part = "a tenth of each class"
            pictures, held_out = parted(pictures, [one.label for one in pictures], self.unit)
        _check_apart(pictures, held_out)
        return Examples(pictures, held_out, name_of(settings), part, names, reader)

    def read_held_out(self, settings: DataSettings, model: str, labels: Sequence[str], naming: Naming) -> Examples:
        reader = self._reader(model)
        found = [(path, _in_folders(Path(path), naming.files, reader.mode)) for path in settings.validation]
        for where, pictures in found:
            check_known((one.label for one in pictures), labels, where)
        return Examples([], [one for _, part in found for one in part], None, naming.files, tuple(labels), reader)

    def _reader(self, model: str) -> Reader:
        config = base_config(model)
        check_kind(self.auto, config, model, self.name)
        try:
            processor = AutoImageProcessor.from_pretrained(model)
        except (OSError, ValueError, ImportError) as error:
            raise ValueError(
                f"No image processor can be loaded from {model} ({first_sentence(error)}). Name a directory or Hub id "
                "that holds a model and its `preprocessor_config.json`."
            ) from error
        return Reader(processor, "L" if getattr(config, "num_channels", 3) == 1 else "RGB")

    def fingerprint(self, data: Examples) -> str:
        parts = [[(one.digest, one.label) for one in part] for part in (data.train, data.validation)]
        return hashlib.sha256(json.dumps([data.labels, *parts]).encode()).hexdigest()

    def check(self, base: Any, model: str, data: Examples, option: str) -> None:
        """Leave it to the model, which names both sizes when it first sees a picture of another one."""

    def rows(self, examples: Any, data: Examples) -> Rows:
        return Rows(examples, data)

    def names_in(self, examples: Any, data: Examples) -> list[int]:
        return [data.labels.index(one.label) for one in examples]


def _read(settings: DataSettings, parts: Sequence[str], mode: str) -> list[tuple[str, list[Picture]]]:
    if settings.dataset is None:
        return [(path, _in_folders(Path(path), Naming.files, mode)) for path in parts]
    return [(split_name(settings, split), _in_dataset(settings, split, mode)) for split in parts]


def _in_folders(folder: Path, option: str, mode: str) -> list[Picture]:
    """Return the pictures in a folder of class folders, in the order of their names."""
    if not folder.is_dir():
        kind = "is a file" if folder.exists() else "is not there"
        raise FileNotFoundError(
            f"{one_line(folder)} {kind}, and should be a folder that has a folder for each class. Check {option}."
        )
    paths = sorted(path for path in folder.glob("*/*") if path.is_file() and not path.name.startswith("."))
    found = [path for path in paths if path.suffix.lower() in ENDINGS]
    if not found:
        raise ValueError(
            f"There are no pictures in the folders of {one_line(folder)}, which would be its classes. What ends in "
            f"{', '.join(sorted(ENDINGS))} are read; check {option}."
        )
    n_others = len(paths) - len(found) + sum(path.is_file() for path in folder.iterdir())
    if n_others:
        say(f"{n_others:,} files in {folder} are no pictures in a class's folder, and are left out.", is_error=True)
    return [_picture(path, read_bytes(path, option), path.parent.name, str(path), mode) for path in _tracked(found)]


def _in_dataset(settings: DataSettings, split: str, mode: str) -> list[Picture]:
    name = split_name(settings, split)
    table = load_split(settings, split)
    column = settings.image_column
    if not isinstance(table.features.get(column, datasets.Image()), datasets.Image):
        raise ValueError(f"The column `{column}` of {name} holds no pictures. Set {IMAGE_SETTING} to one that does.")
    labels = labels_of(table, (settings.label_column, Naming.label), name)
    if column in table.features:
        table = table.cast_column(column, datasets.Image(decode=False))
    cells = column_of(table, column, name, IMAGE_SETTING)
    found = []
    for i, (cell, label) in enumerate(_tracked(list(zip(cells, labels, strict=True)))):
        if cell is None or label is None:
            continue
        where = f"Row {i} of {name}"
        content = cell["bytes"] if cell["bytes"] is not None else read_bytes(Path(cell["path"]), "`data.dataset`")
        found.append(_picture(content, content, label, where, mode))
    if n_left := len(cells) - len(found):
        say(
            f"{n_left:,} of the {len(cells):,} rows of {name} lack a picture or a label, and are left out.",
            is_error=True,
        )
    return found


def _tracked(found: list[Any]) -> Any:
    return track(found, "opening pictures", console=Console(stderr=True), transient=True)


def _picture(source: Path | bytes, content: bytes, label: str, where: str, mode: str) -> Picture:
    """Return a picture that is known to open, so that none stops a run in its middle."""
    try:
        Image.open(BytesIO(content)).convert(mode)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = "it is none" if isinstance(error, Image.UnidentifiedImageError) else first_sentence(error)
        raise ValueError(f"{one_line(where)} does not open as a picture ({reason}). Replace or remove it.") from error
    return Picture(source, label, hashlib.sha256(content).hexdigest())


def _check_apart(train: Sequence[Picture], validation: Sequence[Picture]) -> None:
    known = {picture.digest for picture in train}
    n_shared = sum(picture.digest in known for picture in validation)
    if n_shared == len(validation):
        raise ValueError(
            "All pictures to evaluate on are trained on, too, and what a model has learned by heart says nothing of "
            "other pictures. Leave them out of one of the two."
        )
    if n_shared:
        say(f"{n_shared:,} of the {len(validation):,} pictures to evaluate on are trained on, too.", is_error=True)
