"""The trained model as its bundle draws it: real weights through every stage, compressed, with the checker at work."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdbuild.pipeline import Pipeline
from sdbuild.pipeline.request import Request
from sdbuild.shapes.evaluate import Question, by_bundle, by_diffusers, judge, questions
from sdbuild.shapes.scenes import FORBIDDEN
from tests.e2e.program import Workspace

STEPS = 12


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default recipe's bundle for a phone: six bits for the UNet, in two chunks."""
    root = tmp_path_factory.mktemp("shapes")
    work = Workspace(root, root / "cache")
    words = ("bundle:iphone-15-pro", "recipe=shapes", "verify=off", f"out={root / 'build'}")
    ran = work(*words, program="doit")
    assert ran.status == 0, ran.err
    return work.bundle("shapes")


def asked_for(*, forbidden: bool, count: int) -> list[Question]:
    return [question for question in questions(80) if (question.scene.shape == FORBIDDEN) == forbidden][:count]


@pytest.fixture(scope="module")
def pipeline(bundle: Path) -> Pipeline:
    return Pipeline.from_bundle(bundle, precision="fp16")


def draw(pipeline: Pipeline, question: Question, *, safety: bool) -> Image.Image:
    request = Request(steps=STEPS, guidance_scale=3, seed=question.number, safety=safety)
    (picture,) = pipeline.draw(question.prompt, request)
    return picture


def test_six_bits_draw_what_was_never_seen(bundle: Path) -> None:
    asked = questions(10)
    shares = judge(asked, by_bundle(asked, STEPS, bundle, controlled=False), controlled=False)
    assert shares["right"] >= 0.7, shares
    original = judge(asked, by_diffusers(asked, STEPS, controlled=False), controlled=False)
    assert abs(shares["right"] - original["right"]) <= 0.2, (shares, original)


def test_a_cross_comes_out_black_unless_it_was_asked_for(pipeline: Pipeline) -> None:
    (question,) = asked_for(forbidden=True, count=1)
    assert np.asarray(draw(pipeline, question, safety=True)).max() == 0
    shown = draw(pipeline, question, safety=False)
    assert judge([question], iter([shown]), controlled=False)["shape"] == 1


def test_other_shapes_pass_the_safety_checker(pipeline: Pipeline) -> None:
    asked = asked_for(forbidden=False, count=3)
    assert judge(asked, (draw(pipeline, question, safety=True) for question in asked), controlled=False)["shape"] == 1
