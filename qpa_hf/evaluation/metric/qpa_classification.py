"""Accuracy and macro F1 as an `evaluate` metric that loads by path, offline.

`evaluate.load("accuracy")` fetches a script from the Hub; `evaluate.load(METRIC_PATH)` of
`qpa_hf.evaluation.classification` does not.
"""

from typing import Any

import datasets
import evaluate

INPUTS = """Args:
    predictions: the predicted class of each row.
    references: the true ones.
"""


class QPAClassification(evaluate.Metric):
    """The share of right predictions, and the mean of the classes' F1."""

    def _info(self) -> evaluate.MetricInfo:
        number = datasets.Value("int64")
        features = datasets.Features({"predictions": number, "references": number})
        return evaluate.MetricInfo(description=self.__doc__, citation="", inputs_description=INPUTS, features=features)

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, Any]:
        from qpa_hf.evaluation.classification import classification_scores

        return classification_scores(predictions, references)
