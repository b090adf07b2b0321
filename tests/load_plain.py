"""Run in a fresh process: load adapters with nothing but peft, and save what the models answer."""

import importlib.abc
import json
import sys


class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] == "qpa_hf":
            raise ImportError("qpa_hf is blocked in this process")


sys.meta_path.insert(0, Blocked())

import torch  # noqa: E402
from models import build, output  # noqa: E402
from peft import PeftModel  # noqa: E402

with open(sys.argv[1]) as f:
    cases = json.load(f)
answers = {}
for case, (name, folder) in cases.items():
    model = PeftModel.from_pretrained(build(name), folder)
    with torch.no_grad():
        answers[case] = output(model, name)
torch.save(answers, sys.argv[2])
