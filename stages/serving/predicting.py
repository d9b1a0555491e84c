"""The engine behind `groundtune predict`: a pair of texts goes in, a number with an interval comes out.

    predictor = PairPredictor(config, Workspace())
    predictor.predict([Asked("The island Rinwin wins. ...", "The guild Detu rises. ...")])

Which trained model answers, from which seed, and how wide its intervals have to be, stands in what evaluate_regression
wrote. Reads data/<task>/{pairs,pair_index}, models/base/<model>, models/<task>/{regression,calibration.json}; writes
nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from omegaconf import MISSING

from stages.core.errors import DataError
from stages.core.schema import Embedder, Model, one_of
from stages.core.workspace import Workspace
from stages.generation.loading import base_folder
from stages.regression.pair_prompts import Neighbour
from stages.regression.pairs import plain, text_key, text_pair
from stages.regression.task import RegressionTask

if TYPE_CHECKING:
    from stages.regression.distribution import Predictions
    from stages.regression.pair_embedding import PairEmbedder
    from stages.regression.pair_index import PairIndex
    from stages.regression.pair_prompts import PairRenderer
    from stages.regression.predictor import Predictor

DECODINGS = ("expected", "greedy", "head")
DECIMALS = 6  # of numbers in JSON


@dataclass
class Config:
    """The section `predict` of params.yaml."""

    task: RegressionTask = MISSING
    model: Model = MISSING
    embedder: Embedder = MISSING
    recipe: str = ""
    decoding: str = ""
    neighbours: bool | None = None
    batch_size: int = MISSING
    kind: str = MISSING
    max_length: int = MISSING
    max_prompt_tokens: int = MISSING
    max_new_tokens: int = MISSING

    def __post_init__(self) -> None:
        if self.decoding:
            one_of(self.decoding, DECODINGS, "decoding")
        if self.batch_size < 1:
            raise ValueError("batch_size must be at least 1")


@dataclass(frozen=True)
class Asked:
    """A pair that somebody wants the number of."""

    a: str
    b: str
    id: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """`Pair.key`: where the very pair is known, it is no neighbour of itself."""
        return text_pair({"a": self.a, "b": self.b}, 0.0, "").key

    @property
    def flaw(self) -> str:
        """Why there is nothing to predict; "" where there is."""
        if not plain(self.a) or not plain(self.b):
            return "empty_text"
        return "pair_with_itself" if text_key(self.a) == text_key(self.b) else ""


@dataclass(frozen=True)
class System:
    """A trained model and how its numbers are read, out of calibration.json. interval: of evaluation's Calibration."""

    name: str
    recipe: str
    decoding: str
    num_neighbours: int
    seed: int
    interval: dict[str, Any]


@dataclass(frozen=True)
class Prediction:
    """low, high: hold the true value with probability `level`, as far as the pair is like those calibrated on.

    num_shortened: texts of the prompt that did not fit as a whole.
    """

    asked: Asked
    system: str
    value: float
    low: float
    high: float
    level: float
    neighbours: list[Neighbour]
    num_shortened: int

    def to_row(self) -> dict[str, Any]:
        """What `groundtune predict --json` prints, and a line of its --out file."""
        return {
            "id": self.asked.id,
            "a": self.asked.a,
            "b": self.asked.b,
            "value": round(self.value, DECIMALS),
            "low": round(self.low, DECIMALS),
            "high": round(self.high, DECIMALS),
            "level": self.level,
            "system": self.system,
            "num_shortened": self.num_shortened,
            "neighbours": [
                {"id": near.id, "a": near.a, "b": near.b, "value": near.value, "distance": near.distance}
                for near in self.neighbours
            ],
        }


class PairPredictor:
    """Predicts for lists of pairs, in any thread, one list at a time.

    An embedder and the model are loaded when they are first needed, and stay where both fit into memory.
    """

    def __init__(self, config: Config, workspace: Workspace) -> None:
        self.config, self.workspace = config, workspace
        path = workspace.read(f"models/{config.task.name}/calibration.json")
        calibration = json.loads(path.read_text(encoding="utf-8"))
        if calibration["model"] != config.model.name:
            raise DataError(
                f"{path}: of the model {calibration['model']}, but the one configured is {config.model.name}; "
                "run `dvc repro evaluate_regression`"
            )
        self.split: str = calibration["split"]
        self.system = choose_system(calibration, config)
        self._lock = Lock()
        self._finder: tuple[PairEmbedder, PairIndex] | None = None
        self._reader: tuple[PairRenderer, Predictor] | None = None

    @property
    def paths(self) -> list[str]:
        """What it is made of, for `signature_of`."""
        name, system = self.config.task.name, self.system
        known = [f"data/{name}/pairs", f"data/{name}/pair_index"] if system.num_neighbours else []
        return [f"models/{name}/calibration.json", self._folder, base_folder(self.config.model), *known]

    def load(self) -> None:
        """Loads now what would be loaded at the first pair. Raises DataError as `predict`."""
        with self._lock:
            self._load_reader()
            if self.system.num_neighbours:
                self._load_finder()

    def predict(self, asked: Sequence[Asked]) -> list[Prediction]:
        """One prediction for each pair, in order. Raises DataError where a model or the index is missing or other
        than it was when intervals were calibrated, and for a pair with a flaw."""
        for pair in asked:
            if pair.flaw:
                raise DataError(f"the pair {pair.id or f'{pair.a:.30} | {pair.b:.30}'}: {pair.flaw}")
        with self._lock:
            neighbours = self._neighbours(asked) if self.system.num_neighbours else [[] for _ in asked]
            values, ends, shortened = self._read_model(asked, neighbours)
        return [
            Prediction(pair, self.system.name, value, low, high, self.system.interval["level"], near, num_shortened)
            for pair, value, low, high, near, num_shortened in zip(
                asked, values, *ends, neighbours, shortened, strict=True
            )
        ]

    def _neighbours(self, asked: Sequence[Asked]) -> list[list[Neighbour]]:
        """Known pairs of the training part, as evaluation's prompts show them."""
        from stages.regression.pair_index import neighbour

        embedder, index = self._load_finder()
        vectors = embedder.encode([(pair.a, pair.b) for pair in asked])
        found = index.search(vectors, self.system.num_neighbours, [pair.key for pair in asked])
        return [[neighbour(index.pairs[row], distance) for row, distance in near] for near in found]

    def _load_finder(self) -> tuple[PairEmbedder, PairIndex]:
        from stages.regression.pair_embedding import load_pair_embedder
        from stages.regression.pair_index import PairIndex, read_pairs

        if self._finder is None:
            data = f"data/{self.config.task.name}"
            known = read_pairs(self.workspace.read(f"{data}/pairs"), self.split, "train")
            self.make_room()
            embedder = load_pair_embedder(self.config, self.workspace)
            folder = self.workspace.read(f"{data}/pair_index")
            self._finder = embedder, PairIndex.load(folder, self.split, known, embedder.fingerprint)
        return self._finder

    def _read_model(
        self, asked: Sequence[Asked], neighbours: list[list[Neighbour]]
    ) -> tuple[list[float], tuple[list[float], list[float]], list[int]]:
        """The numbers, the ends of their intervals, and how many texts of each prompt were shortened."""
        renderer, predictor = self._load_reader()
        rendered = [renderer.prompt_ids(p.a, p.b, near) for p, near in zip(asked, neighbours, strict=True)]
        predicted = predictor.predict([str(n) for n in range(len(asked))], [one.input_ids for one in rendered])
        numbers = getattr(predicted, self.system.decoding)
        if numbers is None:
            raise DataError(f"{self._adapter()}: has no head to decode with; train it again, or use another decoding")
        return numbers.tolist(), _intervals(self.system, predicted, numbers), [one.num_shortened for one in rendered]

    def _load_reader(self) -> tuple[PairRenderer, Predictor]:
        from stages.generation.loading import check_adapter, load_tokenizer, resolve_base
        from stages.regression.adapter_switch import AdapterSwitch
        from stages.regression.pair_prompts import PairRenderer
        from stages.regression.predictor import Predictor

        if self._reader is None:
            config, adapter = self.config, self._adapter()
            weights = resolve_base(self.workspace, config.model)
            tokenizer = load_tokenizer(weights)
            max_length = config.max_prompt_tokens or config.model.max_context_tokens - config.max_new_tokens
            renderer = PairRenderer(config.task, tokenizer, max_length)
            check_adapter(adapter, renderer.hash)
            self.make_room()
            model = AdapterSwitch(weights, config.model).use(adapter)
            self._reader = renderer, Predictor(model, tokenizer, config.task, config.batch_size)
        return self._reader

    def make_room(self) -> None:
        """Forgets what is loaded where one more base model would not fit beside it."""
        from stages.generation.loading import resolve_base
        from stages.serving.machine import free_model_memory_bytes
        from stages.serving.models import weights_bytes

        if weights_bytes(resolve_base(self.workspace, self.config.model)) > free_model_memory_bytes():
            self._finder = self._reader = None

    def _adapter(self) -> Path:
        return self.workspace.read(self._folder)

    @property
    def _folder(self) -> str:
        system = self.system
        return f"models/{self.config.task.name}/regression/{system.recipe}/{self.split}/seed-{system.seed}"


def choose_system(calibration: Mapping[str, Any], config: Config) -> System:
    """Of the systems that are as the config asks, the one most like the best. DataError where there is none."""
    systems: dict[str, dict[str, Any]] = calibration["systems"]
    if calibration["best"] not in systems:
        raise DataError("nothing was trained when evaluate_regression ran: run `dvc repro evaluate_regression`")
    asked_for = {"recipe": config.recipe, "decoding": config.decoding, "neighbours": config.neighbours}
    wanted = {key: value for key, value in asked_for.items() if value not in ("", None)}
    best = _settings(systems[calibration["best"]])

    def likeness(name: str) -> tuple[int, int]:
        found = _settings(systems[name])
        return sum(found[key] == best[key] for key in best), -DECODINGS.index(found["decoding"])

    names = [name for name in sorted(systems) if wanted.items() <= _settings(systems[name]).items()]
    if not names:
        raise DataError(f"no system was evaluated with {wanted}; there are: {', '.join(sorted(systems))}")
    chosen = max(names, key=likeness)
    return System(name=chosen, **systems[chosen])


def _settings(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {"recipe": entry["recipe"], "decoding": entry["decoding"], "neighbours": entry["num_neighbours"] > 0}


def _intervals(system: System, predicted: Predictions, numbers: Any) -> tuple[list[float], list[float]]:
    """Lower and upper ends, as evaluate_regression calibrated them."""
    from stages.evaluation.regression_conformal import QUANTILES, Calibration, point_intervals, quantile_intervals

    calibration = Calibration.from_json(system.interval)
    if calibration.kind == QUANTILES:
        low, high = quantile_intervals(calibration, predicted.values, predicted.probabilities)
    else:
        low, high = point_intervals(calibration, numbers)
    return low.tolist(), high.tolist()
