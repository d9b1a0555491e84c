"""`/v1/predict`: numbers for pairs of texts, by the same code as `groundtune predict`."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from stages.core.errors import GroundtuneError
from stages.serving.predicting import Asked, PairPredictor, Prediction
from stages.serving.proxy.batching import Batcher
from stages.serving.proxy.conversation import checked_text
from stages.serving.proxy.errors import ApiError, invalid
from stages.serving.proxy.schema import AskedPair, PredictRequest
from stages.serving.proxy.settings import Limits

LOG = logging.getLogger("groundtune.serve")
MAX_BATCH = 64
FLAWS = {"empty_text": "a text of the pair is empty", "pair_with_itself": "both texts of the pair are the same"}


class Numbers:
    """One task's predictor; pairs of requests at the same time are predicted together."""

    def __init__(self, predictor: PairPredictor) -> None:
        self.predictor = predictor
        self._batches: Batcher[Asked, Prediction] = Batcher(predictor.predict, MAX_BATCH, "prediction")

    async def predict(self, request: PredictRequest, limits: Limits) -> dict[str, Any]:
        """Predictions. Raises ApiError."""
        if len(request.pairs) > limits.max_inputs:
            raise invalid(f"at most {limits.max_inputs} pairs", "pairs", "too_many_inputs")
        asked = [_asked(pair, f"pairs[{number}]") for number, pair in enumerate(request.pairs)]
        try:
            predictions = await asyncio.gather(*(self._batches.run(pair) for pair in asked))
        except GroundtuneError as error:
            LOG.error("predict: %s", error)
            raise ApiError(503, "model_unavailable", "the numbers cannot be predicted now; see the log") from error
        return {"task": self.predictor.config.task.name, "predictions": [one.to_row() for one in predictions]}

    async def close(self) -> None:
        await self._batches.close()


def _asked(pair: AskedPair, param: str) -> Asked:
    asked = Asked(checked_text(pair.a, f"{param}.a"), checked_text(pair.b, f"{param}.b"), pair.id)
    if flaw := asked.flaw:
        raise invalid(FLAWS.get(flaw, flaw), param, flaw)
    return asked
