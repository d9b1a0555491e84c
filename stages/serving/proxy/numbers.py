"""`/v1/predict`: numbers for pairs of texts, by the same code as `groundtune predict`.

Where the model or its calibration is replaced, the next pairs get the new one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from stages.core.errors import GroundtuneError
from stages.serving.models import Signature, signature_of
from stages.serving.predicting import Asked, PairPredictor, Prediction
from stages.serving.proxy.batching import Batcher
from stages.serving.proxy.errors import ApiError, invalid
from stages.serving.proxy.schema import AskedPair, PredictRequest
from stages.serving.proxy.settings import Limits

LOG = logging.getLogger("groundtune.serve")
MAX_BATCH = 64
FLAWS = {"empty_text": "a text of the pair is empty", "pair_with_itself": "both texts of the pair are the same"}


class Numbers:
    """One task's predictor; pairs of requests at the same time are predicted together.

    num_reload_errors: newer files that could not be loaded; the older ones went on.
    """

    def __init__(self, predictor: PairPredictor) -> None:
        self.predictor = predictor
        self.num_reload_errors = 0
        self._stamp = self._refused = _stamp(predictor)
        self._batches: Batcher[Asked, Prediction] = Batcher(self._predict, MAX_BATCH, "prediction")

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

    # What follows runs in the thread of the batches.

    def _predict(self, asked: Sequence[Asked]) -> list[Prediction]:
        stamp = _stamp(self.predictor)
        if stamp not in (self._stamp, self._refused):
            self._swap(stamp)
        return self.predictor.predict(asked)

    def _swap(self, stamp: Signature) -> None:
        """Takes the files as they are now, if they can be loaded; else the old ones go on."""
        try:
            self.predictor.make_room()
            fresh = PairPredictor(self.predictor.config, self.predictor.workspace)
            fresh_stamp = _stamp(fresh)
            fresh.load()
        except Exception as error:  # files that are being replaced can be broken in any way
            LOG.error("predict: the newer version cannot be loaded, the older one goes on: %s", error)
            self._refused = stamp
            self.num_reload_errors += 1
        else:
            LOG.warning("predict: loaded again, as its files have changed")
            self.predictor, self._stamp = fresh, fresh_stamp


def _stamp(predictor: PairPredictor) -> Signature:
    return signature_of(predictor.workspace, predictor.paths)


def _asked(pair: AskedPair, param: str) -> Asked:
    asked = Asked(pair.a, pair.b, pair.id)
    if flaw := asked.flaw:
        raise invalid(FLAWS.get(flaw, flaw), param, flaw)
    return asked
