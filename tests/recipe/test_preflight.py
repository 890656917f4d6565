"""Preflight rules that need facts, and how they are overruled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sdbuild.checkpoints.facts import CheckpointFacts, ComponentFacts
from sdbuild.families import Family
from sdbuild.recipe.catalogue import catalogue_directories
from sdbuild.recipe.diagnostics import Severity
from sdbuild.recipe.load import load_recipe, load_target
from sdbuild.recipe.preflight import overruled, preflight
from sdbuild.recipe.rules.registry import RULES
from sdbuild.recipe.target import Target

TARGETS = catalogue_directories("targets", Path(__file__).parent)
GOLDEN = Path(__file__).parent / "golden" / "preflight"
RECIPE = {
    "name": "r",
    "model": '{version: "builtin:some"}',
    "components": "[text_encoder, unet, vae_decoder]",
    "attention_implementation": "SPLIT_EINSUM",
    "latent": "{height: 64, width: 64}",
    "targets": "[iphone-15-pro]",
}
REFINERS_ENCODER = {"text_encoder_2": ComponentFacts({})}
SD3 = {
    "components": "[text_encoder, text_encoder_2, transformer, vae_decoder]",
    "targets": "[mac-studio-m2-ultra]",
    "attention_implementation": "ORIGINAL",
}
XL = {"components": "[text_encoder, text_encoder_2, unet, vae_decoder]"}


def facts(family: str | None, *, parameters: int | None = 1000, **configs: dict[str, object]) -> CheckpointFacts:
    denoiser = "transformer" if family == "sd3" else "unet"
    names = ["text_encoder", denoiser, "vae"] + (["text_encoder_2"] if family in ("sdxl", "sd3") else [])
    folders = {name: ComponentFacts(configs.get(name, {}), None, parameters) for name in names}
    return CheckpointFacts(None if family is None else Family(family), folders)


def broken(
    tmp_path: Path, known: CheckpointFacts | None, fields: dict[str, str] | None = None, target: Target | None = None
) -> dict[str, Severity]:
    path = tmp_path / "r.yaml"
    path.write_text("".join(f"{key}: {value}\n" for key, value in (RECIPE | (fields or {})).items()))
    loaded = load_recipe(str(path), [])
    target = target or load_target(loaded.recipe.targets[0], TARGETS)
    return {diagnostic.code: diagnostic.severity for diagnostic in preflight(loaded, target, known)}


def test_nothing_is_wrong_with_a_plain_recipe(tmp_path: Path) -> None:
    assert broken(tmp_path, facts("sd1")) == {}
    assert broken(tmp_path, facts("sdxl"), XL) == {}
    assert broken(tmp_path, facts("sd3"), SD3) == {}
    assert broken(tmp_path, None) == {}
    assert broken(tmp_path, None, SD3) == {}


def test_a_single_file_of_sd2_says_what_it_predicts(tmp_path: Path) -> None:
    single = {"model": "{version: ./mine.safetensors}", "tokenizer": "{version: 'builtin:some'}"}
    assert "single-file-without-prediction-type" in broken(tmp_path, facts("sd2"), single)
    assert broken(tmp_path, facts("sd1"), single) == {}


@pytest.mark.parametrize("family", [None])
def test_unsupported_families(tmp_path: Path, family: str | None) -> None:
    assert "unsupported-family" in broken(tmp_path, facts(family))


def test_a_component_that_the_checkpoint_lacks(tmp_path: Path) -> None:
    fields = {"components": "[text_encoder, unet, vae_decoder, safety_checker]"}
    assert set(broken(tmp_path, facts("sd1"), fields)) == {"component-missing-from-checkpoint"}


def test_a_second_text_encoder_of_a_checkpoint_that_has_one(tmp_path: Path) -> None:
    assert set(broken(tmp_path, facts("sd1"), XL)) == {"component-missing-from-checkpoint"}


def test_what_the_swift_package_does_not_feed_must_be_meant(tmp_path: Path) -> None:
    rule = "not-for-the-swift-package"
    for unet in ({"in_channels": 9}, {"in_channels": 8}, {"time_cond_proj_dim": 256}):
        assert broken(tmp_path, facts("sd1", unet=unet)) == {rule: Severity.ERROR}
        assert broken(tmp_path, facts("sd1", unet=unet), {"allow": f"[{rule}]"}) == {rule: Severity.OVERRULED}
    assert broken(tmp_path, facts("sd2", unet={"in_channels": 5})) == {"unknown-unet-channels": Severity.ERROR}


def test_the_refiner_alone_has_the_second_text_encoder_only(tmp_path: Path) -> None:
    alone = {"components": "[text_encoder_2, unet, vae_decoder]"}
    known = facts("sdxl-refiner")
    known = replace(known, folders={name: known.folders[name] for name in ("unet", "vae")} | REFINERS_ENCODER)
    assert broken(tmp_path, known, alone) == {}
    assert broken(tmp_path, None, alone) == {}
    assert set(broken(tmp_path, known, XL)) == {"component-missing-from-checkpoint"}
    assert set(broken(tmp_path, known)) == {"component-missing-from-checkpoint", "component-required-by-family"}


@pytest.mark.parametrize("known", [None, facts("sdxl", unet={"block_out_channels": [320, 640, 1280]})])
def test_the_refiners_fourth_level_divides_the_latent_too(tmp_path: Path, known: CheckpointFacts | None) -> None:
    latent = {"latent": "{height: 92, width: 92}"}
    refiner = {"refiner": '{version: "builtin:some-refiner"}'}
    assert broken(tmp_path, known, XL | latent) == {}
    assert set(broken(tmp_path, known, XL | latent | refiner)) == {"latent-not-divisible"}


@pytest.mark.parametrize("part", ["text_encoder_3", "transformer"])
def test_every_part_can_have_groups(tmp_path: Path, part: str) -> None:
    groups = {"minimum_deployment_target": "macOS15", "quantization": f"{{{part}: 4}}", "group_size": f"{{{part}: 16}}"}
    components = {"components": "[text_encoder, text_encoder_2, text_encoder_3, transformer, vae_decoder]"}
    assert "app" not in "".join(broken(tmp_path, None, SD3 | components | groups))


def test_a_refiner_beside_the_base(tmp_path: Path) -> None:
    refiner = {"refiner": '{version: "builtin:some-refiner"}'}
    assert broken(tmp_path, facts("sdxl"), XL | refiner) == {}
    assert broken(tmp_path, facts("sdxl"), XL | refiner | {"quantization": "{unet_refiner: 6}"}) == {}
    assert set(broken(tmp_path, facts("sd1"), refiner)) == {"refiner-without-base"}
    commit = "a" * 40
    other = {"refiner": f"{{version: stabilityai/stable-diffusion-xl-base-1.0, revision: {commit}}}"}
    assert set(broken(tmp_path, facts("sdxl"), XL | other)) == {"refiner-without-base", "exceeds-app-memory"}
    unpinned = {"refiner": "{version: stabilityai/stable-diffusion-xl-refiner-1.0}"}
    few = {"quantization": "{unet_refiner: 4}"}
    assert set(broken(tmp_path, facts("sdxl"), XL | unpinned | few)) == {"unpinned-revision"}
    assert set(broken(tmp_path, facts("sdxl"), XL | {"precision": "{unet_refiner: float32}"})) == {
        "setting-without-component"
    }


def test_what_came_with_ios_18(tmp_path: Path) -> None:
    newer = {"minimum_deployment_target": "iOS18"}
    fused = {"attention_implementation": "SDPA"}
    assert set(broken(tmp_path, facts("sd1"), fused)) == {"sdpa-needs-newer-target"}
    assert broken(tmp_path, facts("sd1"), fused | newer) == {}
    groups = {"quantization": "{unet: 4}", "group_size": "{unet: 16}"}
    assert set(broken(tmp_path, facts("sd1"), groups)) == {"groups-need-newer-target"}
    assert broken(tmp_path, facts("sd1"), groups | newer) == {}
    linear = {"quantization": "{unet: linear8}"}
    assert broken(tmp_path, facts("sd1"), linear) == {}
    assert set(broken(tmp_path, facts("sd1"), groups | newer | linear)) == {"groups-need-newer-target"}


def test_a_multilingual_projection_takes_the_text_encoders_place(tmp_path: Path) -> None:
    rule = "multilingual-projection"
    fields = {"components": "[unet, vae_decoder]", "multilingual_projection": "{version: ./projection.pt}"}
    tokens = {"text_sequence_length": "256"}
    assert broken(tmp_path, facts("sd1"), fields | tokens) == {}
    assert set(broken(tmp_path, facts("sd1"), fields)) == {rule}
    assert rule in broken(tmp_path, facts("sdxl"), XL | {"multilingual_projection": "{version: ./p.pt}"} | tokens)
    old = load_target("iphone-15-pro", TARGETS).model_copy(update={"os_version": "16.2"})
    assert set(broken(tmp_path, facts("sd1"), fields | tokens, old)) == {rule}


def test_the_size_is_that_of_the_weights(tmp_path: Path) -> None:
    assert broken(tmp_path, facts("sd1", parameters=490_000_000)) == {}
    assert "unchunked-unet-too-large" in broken(tmp_path, facts("sd1", parameters=510_000_000))
    quantized = {"quantization": "{unet: 4}"}
    assert broken(tmp_path, facts("sd1", parameters=1_900_000_000), quantized) == {}
    single = {"precision": "{unet: float32}"}
    assert "unchunked-unet-too-large" in broken(tmp_path, facts("sd1", parameters=300_000_000), single)


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"components": "[text_encoder, transformer, vae_decoder]"}, "component-required-by-family"),
        ({"components": SD3["components"].replace("]", ", vae_encoder]")}, "vae-encoder-unsupported-family"),
        ({"unet": "{chunks: 2}"}, "setting-without-component"),
        ({"text_sequence_length": "40"}, "text-length-sd3"),
        ({"text_sequence_length": "78"}, "text-sequence-too-long"),
        ({"latent": "{height: 63, width: 64}"}, "latent-not-divisible"),
        ({"latent": "{height: 64, width: 386}"}, "latent-larger-than-positions"),
        ({"precision": "{transformer: float16}"}, "precision-for-sd3-transformer"),
        ({"controlnets": '[{version: "builtin:tiny-controlnet"}]'}, "controlnet-unsupported-family"),
        ({"textual_inversions": "[{version: ./mine.pt}]"}, "textual-inversion-unsupported"),
    ],
)
def test_what_sd3_must_satisfy(tmp_path: Path, fields: dict[str, str], rule: str) -> None:
    known = facts("sd3", transformer={"pos_embed_max_size": 192, "patch_size": 2})
    assert set(broken(tmp_path, known, SD3 | fields)) == {rule}


def test_sd3_needs_a_new_system_a_gpu_and_memory(tmp_path: Path) -> None:
    phone = SD3 | {"targets": "[iphone-15-pro]", "attention_implementation": "SPLIT_EINSUM"}
    assert set(broken(tmp_path, facts("sd3"), phone)) == {"sd3-on-neural-engine"}
    mac = load_target("mac-studio-m2-ultra", TARGETS)
    old = mac.model_copy(update={"os_version": "13.0"})
    assert set(broken(tmp_path, facts("sd3"), SD3, old)) == {"sd3-needs-ios-17"}
    small = mac.model_copy(update={"app_memory_gb": 6})
    published = {"model": "{version: stabilityai/stable-diffusion-3-medium-diffusers, revision: " + "a" * 40 + "}"}
    # The GPU computes with the weights written out, so that fewer bits are of no use.
    for fields in (published, published | {"quantization": "{transformer: 8}"}):
        assert set(broken(tmp_path, None, SD3 | fields, small)) == {"exceeds-app-memory"}
    assert broken(tmp_path, None, SD3 | published, small.model_copy(update={"app_memory_gb": 16})) == {}


def test_a_target_without_a_limit_takes_any_unet(tmp_path: Path) -> None:
    fields = {"targets": "[mac-studio-m2-ultra]"}
    assert broken(tmp_path, facts("sd1", parameters=3_000_000_000), fields) == {}


@pytest.mark.parametrize(
    ("size", "blocks", "fits"),
    [(44, [1, 2, 3], True), (44, [1, 2, 3, 4], False), (40, [1, 2, 3, 4], True), (45, [1], True)],
)
def test_latents_are_multiples_of_what_this_unet_divides_by(
    tmp_path: Path, size: int, blocks: list[int], fits: bool
) -> None:
    known = facts("sd1", unet={"block_out_channels": blocks})
    fields = {"latent": f"{{height: {size}, width: {size}}}"}
    assert ("latent-not-divisible" not in broken(tmp_path, known, fields)) is fits


def test_a_vae_that_needs_no_upcast_may_be_float16(tmp_path: Path) -> None:
    fields = XL | {"precision": "{vae_decoder: float16}"}
    assert "precision-for-sdxl-vae" in broken(tmp_path, facts("sdxl", vae={"force_upcast": True}), fields)
    assert "precision-for-sdxl-vae" in broken(tmp_path, facts("sdxl"), fields)
    assert broken(tmp_path, facts("sdxl", vae={"force_upcast": False}), fields) == {}


def test_old_systems(tmp_path: Path) -> None:
    old = load_target("iphone-15-pro", TARGETS).model_copy(update={"os_version": "16.2", "newest_os_version": "16"})
    oblong = {"latent": "{height: 64, width: 96}"}
    assert set(broken(tmp_path, facts("sdxl"), XL, old)) == {"sdxl-needs-ios-17"}
    assert set(broken(tmp_path, facts("sd1"), oblong, old)) == {"non-square-on-neural-engine"}
    assert broken(tmp_path, facts("sd1"), oblong) == {}
    newer = {"minimum_deployment_target": "macOS14"}
    assert set(broken(tmp_path, facts("sd1"), newer, old)) == {"deployment-target-newer-than-os"}


@pytest.mark.parametrize(
    ("system", "version", "generation"),
    [("iOS", "17.4.1", 17), ("macOS", "13.1", 16), ("macOS", "15", 18), ("macOS", "26.0", 26)],
)
def test_generations_of_systems(system: str, version: str, generation: int) -> None:
    target = load_target("mac-studio-m2-ultra", TARGETS).model_copy(update={"os": system, "os_version": version})
    assert target.os_generation == generation


def test_a_recipe_chooses_within_the_systems_of_a_device(tmp_path: Path) -> None:
    phone = load_target("iphone-15-pro", TARGETS)
    assert phone.os_generation == 17
    newer = {"minimum_deployment_target": "iOS18", "quantization": "{unet: 3}"}
    assert broken(tmp_path, facts("sd1"), newer, phone) == {}
    assert phone.serving(18).os_version == "18.0"
    assert phone.serving(16) == phone
    # A device that must serve iOS 16 loads SDXL all the same where the recipe leaves the older system out.
    old = phone.model_copy(update={"os_version": "16.2"})
    assert broken(tmp_path, facts("sdxl"), XL | {"minimum_deployment_target": "iOS17"}, old) == {}
    mac = load_target("mac-studio-m2-ultra", TARGETS)
    assert (mac.os_version, mac.serving(18).os_version, mac.serving(26).os_version) == ("14.0", "15.0", "26.0")


def test_an_overruled_rule_is_told_and_stops_nothing(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    fields = RECIPE | {
        "model": "{version: org/name}",
        "attention_implementation": "ORIGINAL",
        "allow": "[unpinned-revision]",
    }
    path.write_text("".join(f"{key}: {value}\n" for key, value in fields.items()))
    found = preflight(load_recipe(str(path), []), load_target("iphone-15-pro", TARGETS), None)
    assert {diagnostic.code: diagnostic.severity for diagnostic in found} == {
        "unpinned-revision": Severity.OVERRULED,
        "original-on-neural-engine": Severity.ERROR,
    }
    assert overruled(found) == ("unpinned-revision",)


def test_a_rule_can_be_overruled_for_one_target(tmp_path: Path) -> None:
    fields = {
        "attention_implementation": "ORIGINAL",
        "overrides": "{iphone-15-pro: {allow: [original-on-neural-engine]}}",
    }
    assert broken(tmp_path, facts("sd1"), fields) == {"original-on-neural-engine": Severity.OVERRULED}


@pytest.mark.parametrize("name", sorted(RULES))
def test_every_rule_says_why_and_where_from_and_is_shown_broken(name: str) -> None:
    rule = RULES[name]
    assert rule.name == name
    assert rule.summary.endswith(".")
    assert rule.reason.endswith(".")
    assert rule.source
    shown = "".join(path.read_text() for path in GOLDEN.glob("*.txt")) + Path(__file__).read_text()
    assert f"[{name}]" in shown or f'"{name}"' in shown


STABLE: dict[str, object] = {"_class_name": "DDIMScheduler", "beta_start": 0.00085, "beta_end": 0.012}
STABLE |= {"beta_schedule": "scaled_linear"}


@pytest.mark.parametrize(
    ("family", "scheduler", "vae", "messages"),
    [
        ("sd1", {}, {}, []),
        ("sd1", STABLE, {}, []),
        ("sd2", STABLE | {"prediction_type": "v_prediction"}, {}, []),
        ("sd1", STABLE | {"beta_schedule": "linear"}, {}, ["trained with linear betas from 0.00085 to 0.012"]),
        ("sd1", {"_class_name": "EDMEulerScheduler"}, {}, ["sigmas of Karras et al"]),
        (
            "sd2",
            STABLE | {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True},
            {},
            ["nothing of the picture is left", "its velocity is left as it is"],
        ),
        ("sd1", STABLE, {"shift_factor": 0.1}, ["latents are shifted by 0.1"]),
        ("sd3", {"_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": True}, {}, ["dynamic"]),
    ],
)
def test_a_schedule_that_the_package_does_not_know_is_warned_of(
    tmp_path: Path, family: str, scheduler: dict[str, object], vae: dict[str, object], messages: list[str]
) -> None:
    known = facts(family, vae=vae)
    predicted = scheduler.get("prediction_type", "epsilon")
    known = replace(known, scheduler=scheduler, prediction_type=predicted)  # type: ignore[arg-type]
    fields = SD3 if family == "sd3" else {}
    name = "schedule-not-of-the-swift-package"
    path = tmp_path / "r.yaml"
    path.write_text("".join(f"{key}: {value}\n" for key, value in (RECIPE | fields).items()))
    loaded = load_recipe(str(path), [])
    target = load_target(loaded.recipe.targets[0], TARGETS)
    found = [each for each in preflight(loaded, target, known) if each.code == name]
    assert len(found) == len(messages)
    assert all(any(message in each.message for each in found) for message in messages)
    assert all(each.severity is Severity.WARNING and "without this warning" in each.help for each in found)
    if found:
        assert broken(tmp_path, known, fields | {"allow": f"[{name}]"})[name] is Severity.OVERRULED


def test_sizes_that_sdxl_cannot_be_told_are_warned_of(tmp_path: Path) -> None:
    wide = XL | {"latent": "{height: 64, width: 96}"}
    assert broken(tmp_path, facts("sdxl"), wide) == {"sdxl-not-square": Severity.WARNING}
    assert broken(tmp_path, facts("sdxl"), XL | {"latent": "{height: 96, width: 96}"}) == {}
    assert broken(tmp_path, facts("sd1"), {"latent": "{height: 64, width: 96}"}) == {}
    sizes = XL | {"sizes": "[{height: 64, width: 96}]"}
    assert broken(tmp_path, facts("sdxl"), sizes) == {"sdxl-not-square": Severity.WARNING}
