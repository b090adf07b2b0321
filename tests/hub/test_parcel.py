"""What a push takes from a folder: files by a list of names, no link that leads elsewhere, and nothing seen twice."""

import logging
import os
import re
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest
import transformers

from qpa_hf import plots
from qpa_hf.hub import push, upload
from qpa_hf.hub.parcel import NAMES, PICTURES, pack

SECRET = "-----BEGIN OPENSSH PRIVATE KEY-----"


@pytest.fixture
def held():
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "README.md").write_text("card")
    (tmp_path / "key").write_text(SECRET)
    return tmp_path / "adapter"


def test_every_file_of_a_tokenizer_is_on_the_list():
    sources = Path(transformers.__file__).parent.glob("models/*/tokenization_*.py")
    tables = re.findall(r"VOCAB_FILES_NAMES[^={]*=\s*\{(.*?)\}", "".join(p.read_text() for p in sources), re.DOTALL)
    assert len(tables) > 50
    assert not set(re.findall(r':\s*"([^"]+)"', "".join(tables))) - NAMES


def test_every_picture_of_ours_is_on_the_list():
    assert set(re.findall(r'folder / "(\w+\.png)"', Path(plots.__file__).read_text())) == PICTURES


@pytest.mark.parametrize(
    "name", ["credentials.json", "token.txt", "notes.md", "secrets.yaml", "me.png", "\x1b[2J.json"]
)
def test_a_file_of_another_name_is_left_out_and_named(name, folder, held, caplog):
    (folder / name).write_text(SECRET)
    assert list(pack(folder, held)) == ["README.md"]
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().endswith(f"tokenizer: {name}.".replace("\x1b", "\\x1b"))


def test_training_state_and_hidden_files_are_left_out_in_silence(folder, held, caplog):
    for name in ("optimizer.pt", "scheduler.pt", "rng_state_0.pth", "training_args.bin", "trainer_state.json", ".env"):
        (folder / name).write_text("state")
    (folder / "checkpoint-2").mkdir()
    assert list(pack(folder, held)) == ["README.md"]
    assert not caplog.records


def snapshot(root, content):
    """Return a snapshot in a cache, and the blob that its one link leads to."""
    blob, folder = root / "models--a--b" / "blobs" / "0f", root / "models--a--b" / "snapshots" / "c0"
    for directory in (blob.parent, folder):
        directory.mkdir(parents=True)
    blob.write_text(content)
    (folder / "README.md").symlink_to("../../blobs/0f")
    return folder, blob


def test_a_snapshot_of_the_hubs_cache_is_taken(tmp_path, held):
    folder, _ = snapshot(tmp_path, "card")
    assert {name: path.read_text() for name, path in pack(folder, held).items()} == {"README.md": "card"}


def test_the_copies_have_no_name_that_a_kill_would_leave(folder, held, tmp_path, monkeypatch):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (copy,) = pack(folder, held).values()
    (folder / "README.md").write_text("another")
    assert copy.read_text() == "card"
    assert list((tmp_path / "tmp").iterdir()) == []


def to_key(folder):
    (folder / "vocab.txt").symlink_to(folder.parent / "key")


def to_nothing(folder):
    (folder / "vocab.txt").symlink_to(folder.parent / "nothing")


def to_itself(folder):
    (folder / "vocab.txt").symlink_to("vocab.txt")


def to_another_name(folder):
    (folder / "credentials.json").write_text(SECRET)
    (folder / "vocab.txt").symlink_to("credentials.json")


def over_a_folder(folder):
    (folder.parent / "blobs").mkdir()
    (folder.parent / "blobs" / "0f").symlink_to(folder.parent / "key")
    (folder / "vocab.txt").symlink_to("../blobs/0f")


def pipe(folder):
    os.mkfifo(folder / "vocab.txt")


def directory(folder):
    (folder / "vocab.txt").mkdir()


@pytest.mark.parametrize("put", [to_key, to_nothing, to_itself, to_another_name, over_a_folder, pipe, directory])
def test_what_is_no_file_of_the_folder_is_refused(put, folder, held):
    put(folder)
    with pytest.raises(ValueError, match=r"vocab.txt is (a link that leads elsewhere|not an ordinary file), so"):
        pack(folder, held)


def test_a_blob_that_is_itself_a_link_is_refused(tmp_path, folder, held):
    cached, blob = snapshot(tmp_path, "card")
    blob.unlink()
    blob.symlink_to(tmp_path / "key")
    with pytest.raises(ValueError, match="leads elsewhere"):
        pack(cached, held)


def test_a_folder_that_is_reached_over_a_link_is_taken(folder, held, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    assert list(pack(tmp_path / "link", held)) == ["README.md"]


def test_what_was_checked_is_what_is_pushed(scenes, monkeypatch):
    folder, pushed = scenes("lfs").adapter(), {}
    card = (folder / "README.md").read_text()

    class Repository:
        token = "hf_writes"

        def __init__(self, *_):
            pass

        def create(self, _):
            (folder / "README.md").unlink()
            (folder / "README.md").write_text("hf_writes")

        def commit(self, files, *_):
            pushed.update({name: path.read_bytes() for name, path in files.items()})
            return SimpleNamespace(oid="c0")

    monkeypatch.setattr(upload, "Repository", Repository)
    push(folder, "alice/adapter")
    assert pushed["README.md"].decode() == card
