"""Every config that is shipped composes and validates, alone and together."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from stages.compose import CONF, NOT_STAGES, SCALARS, SHARED_SECTIONS, as_text, compose, stale_lines
from stages.core.errors import ConfigError

FOLDERS = [path for path in CONF.rglob("*") if path.is_dir()]
GROUPS = {str(path.relative_to(CONF)): sorted(f.stem for f in path.glob("*.yaml")) for path in FOLDERS}
# some styles need a model that follows instructions, which the default is not
NEEDED = {"generate_sft/styles": ["generate_sft/provider=ollama"]}
ADDED = "sweep"  # no choice by default: added with a +
CHOICES = [f"{group}={name}" for group, names in sorted(GROUPS.items()) for name in names]


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_of_every_group_composes(choice: str) -> None:
    group, _, name = choice.partition("=")
    override = {"generate_sft/styles": f"{group}=[{name}]", ADDED: f"+{choice}"}.get(group, choice)
    compose([override, *NEEDED.get(group, [])])


@pytest.mark.parametrize("domain", GROUPS["domain"])
@pytest.mark.parametrize("model", GROUPS["model"])
def test_every_domain_composes_with_every_model(domain: str, model: str) -> None:
    config = compose([f"domain={domain}", f"model={model}"])
    assert config.model.name == model
    assert config.train_rag_lora.model == config.model
    assert config.domain.name == domain


def test_every_file_below_conf_is_reached() -> None:
    files = {path.relative_to(CONF).as_posix() for path in CONF.rglob("*.yaml")}
    assert files == {"config.yaml"} | {choice.replace("=", "/") + ".yaml" for choice in CHOICES}


def test_every_section_has_its_dataclass() -> None:
    sections = set(compose([])) - set(SCALARS) - set(SHARED_SECTIONS) - set(NOT_STAGES)
    for name in sections:
        assert (CONF.parent / "stages" / f"{name}.py").exists(), name


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train_rag_lora.lora.rr=8", "train_rag_lora.lora.rr|'rr' is not in struct"),
        ("+train_rag_lora.lora.rr=8", "train_rag_lora.lora.rr: unknown key"),
        ("train_rag_lora.lora.r=eight", "train_rag_lora.lora.r:"),
        ("model=gpt17", "model/gpt17"),
        ("retrieval.store=redis", "retrieval.store: 'redis' is not one of chroma, chroma_server, faiss"),
        (
            "+train_style.variants.me={data: style/me, base: models/base/tiny}",
            "train_style.variants.me.base: all variants share train_style.base",
        ),
        ("+surprise.x=1", "surprise: unknown section"),
    ],
)
def test_an_override_that_does_not_fit_is_refused_by_its_key(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compose([override])


def test_overrides_are_recorded_and_checked_with() -> None:
    text = as_text(compose(["train_rag_lora.lora.r=16"]))
    params = OmegaConf.to_container(OmegaConf.create(text))
    assert isinstance(params, dict)
    assert params["overrides"] == ["train_rag_lora.lora.r=16"]
    assert params["train_rag_lora"]["lora"]["r"] == 16
    assert stale_lines(params, text) == []
    edited = text.replace("r: 16", "r: 17")
    assert any(line.strip() == "-    r: 17" or "r: 17" in line for line in stale_lines(params, edited))


def test_the_committed_params_are_fresh() -> None:
    path = CONF.parent / "params.yaml"
    text = Path(path).read_text(encoding="utf-8")
    params = OmegaConf.to_container(OmegaConf.create(text))
    assert isinstance(params, dict)
    assert stale_lines(params, text) == []
