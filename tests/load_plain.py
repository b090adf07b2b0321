"""Run in a fresh process: load adapters with nothing but peft, and save what the models answer."""

import importlib.abc
import json
import sys


class Blocked(importlib.abc.MetaPathFinder):
    """An import hook that has no qpa_hf."""

    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] == "qpa_hf":
            raise ImportError("qpa_hf is blocked in this process")


def main(cases_path, answers_path):
    """Answer for every case of a JSON file {case: [model, folder, {input: numbers}]}; most have no further inputs."""
    sys.meta_path.insert(0, Blocked())
    import torch
    from models import build, output
    from peft import PeftModel

    with open(cases_path) as f:
        cases = json.load(f)
    answers = {}
    for case, (name, folder, *more) in cases.items():
        model = PeftModel.from_pretrained(build(name), folder)
        inputs = {key: torch.tensor(numbers) for extra in more for key, numbers in extra.items()}
        with torch.no_grad():
            answers[case] = output(model, name, **inputs)
    torch.save(answers, answers_path)


if __name__ == "__main__":
    main(*sys.argv[1:])
