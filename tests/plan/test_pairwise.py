"""Every pair of settings occurs in some recipe, which is refused by exactly the rules that say so, or planned whole."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Any

import pytest

from sdbuild.builtin import tiny
from sdbuild.checkpoints.facts import CheckpointFacts, read_checkpoint_facts
from sdbuild.plan.options import parse_options
from sdbuild.plan.planner import load, make_plan
from sdbuild.recipe.preflight import preflight

FACTORS: dict[str, tuple[Any, ...]] = {
    "family": (
        "tiny-sd",
        "tiny-sd2",
        "tiny-sd-inpaint",
        "tiny-lcm",
        "tiny-small-sd",
        "tiny-sdxl",
        "tiny-ssd",
        "refined",
    ),
    "attention": ("ORIGINAL", "SPLIT_EINSUM", "SPLIT_EINSUM_V2", "SDPA"),
    "bits": ("none", 6, 8, "linear8", "4 in groups"),
    "chunks": (1, 2),
    "controlnets": (0, 1, 2),
    "t2i_adapters": (0, 1, 2),
    "batch": (1, 2),
    "sizes": (1, 2),
    "system": ("iOS16", "iOS18"),
}
Case = dict[str, Any]
CHECKPOINTS = {"refined": "tiny-sdxl"}
XL = ("tiny-sdxl", "tiny-ssd", "refined")
EXTENDED = ("tiny-sd-inpaint", "tiny-lcm")
CONTROLNETS = ("builtin:tiny-controlnet", "builtin:tiny-controlnet-sd2")
T2I_ADAPTERS = ("builtin:tiny-t2i-adapter", "builtin:tiny-t2i-adapter-light")


def covering() -> list[Case]:
    """Few cases in which every pair of settings occurs; greedy, and the same on every machine."""
    names = list(FACTORS)
    missing = {((a, x), (b, y)) for a, b in itertools.combinations(names, 2) for x in FACTORS[a] for y in FACTORS[b]}
    chance, cases = random.Random(0), []
    while missing:
        (first, second) = min(missing, key=repr)
        best: tuple[int, Case] = (-1, {})
        for _ in range(40):
            case = {name: chance.choice(values) for name, values in FACTORS.items()} | dict((first, second))
            best = max(best, (len(missing & set(pairs(case))), case), key=lambda entry: entry[0])
        cases.append(best[1])
        missing -= set(pairs(best[1]))
    return cases


def pairs(case: Case) -> Iterator[tuple[tuple[str, Any], tuple[str, Any]]]:
    yield from itertools.combinations(case.items(), 2)


def refusals(case: Case) -> set[str]:
    """The rules that the case breaks, by what the documentation says of each."""
    xl, single, controlled = case["family"] in XL, case["batch"] == 1, case["controlnets"] > 0
    broken = {
        "split-einsum-v2-sdxl": xl and case["attention"] == "SPLIT_EINSUM_V2",
        "batch-1-sdxl": xl and single,
        "controlnet-with-batch-1": controlled and single,
        "controlnet-unsupported-family": controlled and xl,
        "not-for-the-swift-package": case["family"] in EXTENDED or case["t2i_adapters"] > 0,
        "t2i-adapter-unsupported-family": case["family"] == "tiny-sd2" and case["t2i_adapters"] > 0,
        "sdxl-not-square": xl and case["sizes"] == 2,
        "sdpa-needs-newer-target": case["attention"] == "SDPA" and case["system"] == "iOS16",
        "groups-need-newer-target": case["bits"] == "4 in groups" and case["system"] == "iOS16",
    }
    return {name for name, yes in broken.items() if yes}


def recipe_of(case: Case) -> dict[str, str]:
    encoders = "text_encoder, text_encoder_2" if case["family"] in XL else "text_encoder"
    bits = 4 if case["bits"] == "4 in groups" else case["bits"]
    lines = {
        "model": f'{{version: "builtin:{CHECKPOINTS.get(case["family"], case["family"])}"}}',
        "components": f"[{encoders}, unet, vae_decoder]",
        "attention_implementation": case["attention"],
        "latent": "{height: 16, width: 16}",
        "sizes": "[{height: 24, width: 16}]" if case["sizes"] == 2 else "[]",
        "unet": f"{{batch: {case['batch']}, chunks: {case['chunks']}}}",
        "quantization": f"{{unet: {bits}}}",
        "group_size": "{unet: 16}" if case["bits"] == "4 in groups" else "{}",
        "minimum_deployment_target": case["system"],
        "controlnets": "[" + ", ".join(f'{{version: "{n}"}}' for n in CONTROLNETS[: case["controlnets"]]) + "]",
        "t2i_adapters": "[" + ", ".join(f'{{version: "{n}"}}' for n in T2I_ADAPTERS[: case["t2i_adapters"]]) + "]",
        "targets": "[mac-studio-m2-ultra]",
    }
    return lines | ({"refiner": '{version: "builtin:tiny-sdxl-refiner"}'} if case["family"] == "refined" else {})


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, CheckpointFacts]:
    found = {}
    for family in FACTORS["family"]:
        checkpoint = tmp_path_factory.mktemp(family)
        tiny.generate(CHECKPOINTS.get(family, family), checkpoint)
        found[family] = read_checkpoint_facts(checkpoint)
    return found


def test_pairs_of_settings(workspace: Any, facts: dict[str, CheckpointFacts]) -> None:
    cases = covering()
    assert len(cases) < 90
    for case in cases:
        workspace.recipe(**recipe_of(case))
        options = parse_options({"recipe": "phone"})
        loaded, targets = load(options)
        (target,) = targets.values()
        broken = {diagnostic.code for diagnostic in preflight(loaded, target, facts[case["family"]])}
        assert broken == refusals(case), case
        _check_plan(case, [action.name for action in make_plan(options).graph])


def _check_plan(case: Case, names: list[str]) -> None:
    """What is built of a UNet: for each size each of its forms, converted, compressed, chunked and verified."""
    controls, adapters, sizes = case["controlnets"], case["t2i_adapters"], case["sizes"]
    unets = sizes * (1 + bool(controls) + bool(adapters) + (case["family"] == "refined"))
    count = {stage: sum(name.startswith(f"{stage}:") for name in names) for stage in ("convert", "chunk", "bundle")}
    encoders = 2 if case["family"] in XL else 1
    assert count["bundle"] == sizes
    assert count["convert"] == encoders + unets + sizes * (controls + adapters + 1), case
    assert count["chunk"] == (unets if case["chunks"] == 2 else 0)
    # The refiner's own bits are not set.
    quantized = 0 if case["bits"] == "none" else sizes * (1 + bool(controls) + bool(adapters))
    assert sum(name.startswith("quantize:") for name in names) == quantized
    verified = count["convert"] + count["chunk"] + quantized
    assert sum(name.startswith("verify:") for name in names) == verified


def test_the_cases_cover_every_pair() -> None:
    covered = {pair for case in covering() for pair in pairs(case)}
    for a, b in itertools.combinations(FACTORS, 2):
        for x, y in itertools.product(FACTORS[a], FACTORS[b]):
            assert ((a, x), (b, y)) in covered
