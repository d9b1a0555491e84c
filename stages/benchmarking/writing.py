"""3. How well it writes, without a judge: does it end, repeat itself, vary its words, do what it is told, sound right?

completed          the answer is not empty, and the model ended it
keywords           share of the words that the task demands which stand in the answer
repetition         share of 4-grams of words that came before in the answer (Welleck et al. 2020)
lexical_diversity  distinct words within every 50 in a row (moving-average type-token ratio, Covington & McFall 2010)
style_distance     from the author's held-out text; beside it what the author's own halves and others reach
"""

from __future__ import annotations

from collections.abc import Sequence

from stages.benchmarking.judging import judge
from stages.benchmarking.replies import ChatRequest, Reply
from stages.benchmarking.results import Section
from stages.benchmarking.session import Session
from stages.benchmarking.settings import Config, Writing
from stages.benchmarking.speeds import mean
from stages.core.errors import DataError
from stages.core.progress import track
from stages.core.seeding import derived_random
from stages.core.workspace import Workspace
from stages.evaluation.answers import contains, words
from stages.evaluation.author_distance import AuthorDistance
from stages.evaluation.intervals import mean_estimate
from stages.generation.perplexity import unrelated_texts
from stages.knowledge.book import split_book
from stages.knowledge.knowledge_base import read_chunks
from stages.serving.compare_measures import repetition, style_figures
from stages.serving.compare_prompts import AuthorText, read_author, spread

WINDOW = 50  # words
SETTING = "writing"


def measure_writing(session: Session, config: Config, workspace: Workspace) -> Section:
    """The same tasks to each endpoint. The judge, where there is one, decides between two."""
    section, tasks = Section("writing"), writing_tasks(config.writing, config.seed)
    answers: dict[str, list[Reply]] = {name: [] for name in session.names}
    for at in track(range(0, len(tasks), config.max_concurrent), "writing"):
        requests = [
            ChatRequest([{"role": "user", "content": task}], config.writing.max_tokens)
            for task, _ in tasks[at : at + config.max_concurrent]
        ]
        blocks = session.ask("writing", lambda client, asked=requests: asked, config.max_concurrent)  # type: ignore[misc]
        for name, block in blocks.items():
            answers[name] += block.replies
    asked = [n for n in range(len(tasks)) if all(replies[n].is_whole for replies in answers.values())]
    if not asked:
        raise DataError("writing: no task was answered by every endpoint")
    scores = {
        name: _scores([replies[n] for n in asked], [tasks[n][1] for n in asked]) for name, replies in answers.items()
    }
    for name, found in scores.items():
        figures = {metric: mean_estimate(values, asked, config.seed) for metric, values in found.items()}
        lengths = [float(len(words(answers[name][n].text))) for n in asked]
        section.add(SETTING, name, {**figures, "words": mean(lengths, config.seed)})
    section.add_differences(SETTING, scores, asked, config.seed)
    _add_style(
        section, {name: [replies[n].text for n in asked] for name, replies in answers.items()}, config, workspace
    )
    if config.writing.judge:
        texts = [[replies[n].text for n in asked] for replies in answers.values()]
        try:
            judge(section, session.names, [tasks[n][0] for n in asked], texts, config, workspace)
        except DataError as error:
            section.notes.append(f"the judge was not heard: {error}")
    return section


def writing_tasks(settings: Writing, seed: int) -> list[tuple[str, list[str]]]:
    """(prompt, its keywords), num_prompts of them: the prompts in turn, each time with other keywords."""
    tasks = []
    for number in range(settings.num_prompts):
        random = derived_random(seed, "benchmark writing", str(number))
        keywords = random.sample(sorted(set(settings.keywords)), settings.num_keywords)
        prompt = settings.prompts[number % len(settings.prompts)]
        tasks.append((prompt.replace("{keywords}", ", ".join(keywords)), keywords))
    return tasks


def _scores(replies: Sequence[Reply], keywords: Sequence[Sequence[str]]) -> dict[str, list[float]]:
    texts = [reply.text for reply in replies]
    return {
        "completed": [float(bool(r.text.strip()) and r.finish_reason == "stop") for r in replies],
        "keywords": [_share_of(keys, text) for keys, text in zip(keywords, texts, strict=True)],
        "repetition": [repetition(text) for text in texts],
        "lexical_diversity": [lexical_diversity(text) for text in texts],
    }


def _share_of(keywords: Sequence[str], text: str) -> float:
    return sum(contains(text, keyword) for keyword in keywords) / len(keywords)


def lexical_diversity(text: str) -> float:
    """Mean share of distinct words in each WINDOW of words; in the whole text where it is shorter; 0 without words."""
    found = words(text)
    if len(found) <= WINDOW:
        return len(set(found)) / len(found) if found else 0.0
    windows = [found[at : at + WINDOW] for at in range(len(found) - WINDOW + 1)]
    return sum(len(set(window)) for window in windows) / (WINDOW * len(windows))


def _add_style(section: Section, texts: dict[str, list[str]], config: Config, workspace: Workspace) -> None:
    try:
        author = _author(config, workspace)
        distance = AuthorDistance.of(author.training, author.held_out)
    except DataError as error:
        section.notes.append(f"the distance from an author's style is not measured: {error}")
        return
    for name, answers in texts.items():
        try:
            found = style_figures(distance, answers, [n % 2 for n in range(len(answers))], author.all_others)
        except DataError as error:
            section.notes.append(f"style of {name}: not measured: {error}")
            continue
        section.figures[SETTING][name]["style_distance"] = found.pop("style_distance")
        references = {"own_halves": author.name, "other_authors": " and ".join(author.others)}
        for reference, estimate in found.items():
            row = f"{references[reference]}, in pieces as long as the answers of {name}"
            section.add(SETTING, row, {"style_distance": estimate})


def _author(config: Config, workspace: Workspace) -> AuthorText:
    """The domain's writer; where it has none, its book."""
    domain = config.chat.domain
    if found := read_author(workspace, domain, config.writing.author, []):
        return found
    chunks = read_chunks(workspace.read(f"data/{domain}/knowledge.sqlite"))
    training, held_out = ([chunk.text for chunk in part] for part in split_book(chunks, config.held_out_share))
    return AuthorText("the book", training, spread(held_out), {"unrelated text": unrelated_texts()})
