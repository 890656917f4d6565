"""Where files come from: single files, and whose tokenizer goes with them."""

from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import save_file

from sdbuild.plan.options import parse_options
from sdbuild.plan.planner import make_plan
from tests.models import ldm

COMMIT = "a" * 40
TOKENIZER = "{version: org/pipeline, revision: " + "b" * 40 + "}"


def write(path: Path, network: ldm.Network = ldm.TINY_SD1) -> None:
    import numpy as np

    save_file({name: np.zeros(shape, np.float16) for name, shape in ldm.tensors(network).items()}, path)


def test_components_are_taken_out_of_a_local_file(workspace: Any) -> None:
    write(workspace.root / "mine.safetensors")
    workspace.recipe(model="{version: ../mine.safetensors}", tokenizer=TOKENIZER)
    graph = make_plan(parse_options({"recipe": "phone"})).graph
    whole = graph["source:checkpoint"]
    assert whole.files == {"mine.safetensors": workspace.root / "mine.safetensors"}
    for name in ("unet", "vae", "text_encoder", "scheduler", "index"):
        assert graph[f"source:{name}"].inputs == {"checkpoint": whole}
        assert graph[f"source:{name}"].parameters == {"component": name, "prediction_type": None, "markers": True}
    assert graph["source:tokenizer"].parameters["version"] == "org/pipeline"
    model = graph["bundle:iphone-15-pro"].parameters["model"]
    assert model == {"version": "mine.safetensors", "revision": None, "source": "file"}


def test_a_file_of_a_repository(workspace: Any) -> None:
    workspace.recipe(
        model="{version: org/merge, revision: " + COMMIT + ", file: v1/mine.ckpt, prediction_type: v_prediction}",
        tokenizer=TOKENIZER,
    )
    graph = make_plan(parse_options({"recipe": "phone"})).graph
    assert graph["source:checkpoint"].parameters == {
        "version": "org/merge",
        "revision": COMMIT,
        "component": "checkpoint",
        "file": "v1/mine.ckpt",
    }
    assert graph["source:unet"].parameters["prediction_type"] == "v_prediction"
    assert graph["bundle:iphone-15-pro"].parameters["model"]["file"] == "v1/mine.ckpt"


def test_a_file_on_the_command_line_leaves_the_recipes_tokenizer(workspace: Any) -> None:
    write(workspace.root / "mine.safetensors")
    graph = make_plan(parse_options({"recipe": "phone", "source": "mine.safetensors"})).graph
    assert graph["source:checkpoint"].files
    assert set(graph["source:tokenizer"].files) == {"vocab.json", "merges.txt"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model": "{version: ../mine.safetensors}"},
            "a single file, and no `tokenizer`.*single-file-without-tokenizer",
        ),
        ({"model": "{version: ../sd2.safetensors}", "tokenizer": TOKENIZER}, "without-prediction-type"),
        ({"model": "{version: ../nowhere.ckpt}", "tokenizer": TOKENIZER}, "model's file .*nowhere.ckpt does not exist"),
        ({"model": "{version: ../empty.safetensors}", "tokenizer": TOKENIZER}, "empty.safetensors: .*no UNet"),
        (
            {"model": "{version: ../mine.safetensors, file: a.ckpt}", "tokenizer": TOKENIZER},
            "`file` of a file.*write the path of the file itself",
        ),
        (
            {"model": "{version: org/name, revision: " + COMMIT + ", file: ../a.txt}", "tokenizer": TOKENIZER},
            "not a single-file checkpoint",
        ),
        ({"tokenizer": "{version: org/name, revision: main}"}, "`main` is not a commit"),
        ({"tokenizer": "{version: ../mine.safetensors}"}, "single-file-unsupported"),
        (
            {
                "model": "{version: ../mine.safetensors}",
                "tokenizer": TOKENIZER,
                "components": "[text_encoder, unet, vae_decoder, safety_checker]",
            },
            "the checkpoint has no `safety_checker`",
        ),
    ],
)
def test_mistakes(workspace: Any, changes: dict[str, str], message: str) -> None:
    import re

    write(workspace.root / "mine.safetensors")
    write(workspace.root / "sd2.safetensors", ldm.TINY_SD2)
    save_file({}, workspace.root / "empty.safetensors")
    workspace.recipe(**changes)
    ran = workspace("plan", "recipe=phone")
    assert ran.status == 2
    assert re.search(message, ran.err, re.DOTALL), ran.err


def test_no_file_of_that_name(workspace: Any) -> None:
    (workspace.root / "notes.txt").write_text("no checkpoint")
    ran = workspace("plan", "recipe=phone", "source=notes.txt")
    assert ran.status == 2
    assert "nor a .safetensors or .ckpt or .pt or .pth or .bin or .gguf file" in ran.err


def test_loras_go_into_what_they_were_trained_on(workspace: Any) -> None:
    (workspace.root / "mine.safetensors").write_bytes(b"lora")
    loras = "[{version: ../mine.safetensors, weight: 0.75}, {version: org/lora, revision: " + COMMIT + "}]"
    workspace.recipe(loras=loras)
    graph = make_plan(parse_options({"recipe": "phone"})).graph
    for name in ("unet", "text_encoder"):
        fuse = graph[f"fuse:{name}"]
        assert fuse.parameters == {"component": name, "weights": {"lora-1": "0.75", "lora-2": "1"}}
        assert [producer.name for producer in fuse.inputs.values()] == [
            f"source:{name}",
            "source:lora-1",
            "source:lora-2",
        ]
        for stage in ("convert", "reference"):
            assert graph[f"{stage}:{name}"].inputs["checkpoint"] is fuse
    assert graph["reference:unet"].inputs["text_encoder"] is graph["fuse:text_encoder"]
    assert graph["convert:vae_decoder"].inputs["checkpoint"].name == "source:vae"
    assert graph["source:lora-1"].files == {"mine.safetensors": workspace.root / "mine.safetensors"}
    assert graph["source:lora-2"].parameters["file"] == "pytorch_lora_weights.safetensors"
    assert graph["bundle:iphone-15-pro"].parameters["loras"] == [
        {"version": "mine.safetensors", "revision": None, "source": "file", "weight": "0.75"},
        {
            "version": "org/lora",
            "revision": COMMIT,
            "source": "hub",
            "file": "pytorch_lora_weights.safetensors",
            "weight": "1",
        },
    ]


INVERSIONS = "[{version: ../mine.pt, token: <Toy>}, {version: org/toy, revision: " + COMMIT + "}]"


def test_textual_inversions_go_into_tokenizer_and_text_encoders(workspace: Any) -> None:
    (workspace.root / "mine.pt").write_bytes(b"embedding")
    workspace.recipe(textual_inversions=INVERSIONS)
    graph = make_plan(parse_options({"recipe": "phone"})).graph
    tokenizer, encoder = graph["embed:tokenizer"], graph["embed:text_encoder"]
    tokens = {"embedding-1": "<Toy>", "embedding-2": None}
    assert tokenizer.parameters == {"component": "tokenizer", "encoders": ["text_encoder"], "tokens": tokens}
    assert encoder.parameters == {"component": "text_encoder", "encoders": ["text_encoder"]}
    made_from = {
        "checkpoint": "source:tokenizer",
        "embedding-1": "source:embedding-1",
        "embedding-2": "source:embedding-2",
    }
    assert {role: producer.name for role, producer in tokenizer.inputs.items()} == made_from
    assert encoder.inputs["tokenizer"] is tokenizer
    assert encoder.inputs["checkpoint"] is graph["source:text_encoder"]
    assert graph["source:embedding-1"].files == {"mine.pt": workspace.root / "mine.pt"}
    assert graph["source:embedding-2"].parameters["file"] == "learned_embeds.safetensors"
    for stage in ("convert", "reference"):
        assert graph[f"{stage}:text_encoder"].inputs["checkpoint"] is encoder
    assert graph["reference:unet"].inputs["text_encoder"] is encoder
    bundle = graph["bundle:iphone-15-pro"]
    assert bundle.inputs["tokenizer"] is tokenizer
    assert bundle.parameters["textual_inversions"] == [
        {"version": "mine.pt", "revision": None, "source": "file"},
        {"version": "org/toy", "revision": COMMIT, "source": "hub", "file": "learned_embeds.safetensors"},
    ]


def test_textual_inversions_come_after_loras_and_into_both_encoders(workspace: Any) -> None:
    for name in ("mine.pt", "lora.safetensors"):
        (workspace.root / name).write_bytes(b"adapter")
    workspace.recipe(
        model="{version: org/xl, revision: " + COMMIT + "}",
        components="[text_encoder, text_encoder_2, unet, vae_decoder]",
        loras="[{version: ../lora.safetensors}]",
        textual_inversions="[{version: ../mine.pt}]",
        allow="[exceeds-app-memory]",
    )
    graph = make_plan(parse_options({"recipe": "phone"})).graph
    for name in ("text_encoder", "text_encoder_2"):
        embed = graph[f"embed:{name}"]
        assert embed.inputs["checkpoint"] is graph[f"fuse:{name}"]
        assert embed.inputs["tokenizer"] is graph["embed:tokenizer"]
        assert embed.parameters["encoders"] == ["text_encoder", "text_encoder_2"]
    assert not [action.name for action in graph if action.name in ("embed:unet", "embed:tokenizer_2")]


def test_a_changed_embedding_makes_what_depends_on_it_anew(workspace: Any) -> None:
    (workspace.root / "mine.pt").write_bytes(b"embedding")
    workspace.recipe(textual_inversions="[{version: ../mine.pt}]")
    assert workspace("recipe=phone").status == 0
    assert workspace("recipe=phone").actions == []
    (workspace.root / "mine.pt").write_bytes(b"another")
    ran = workspace("recipe=phone").actions
    assert {"embed:tokenizer", "embed:text_encoder", "convert:text_encoder", "bundle:iphone-15-pro"} <= {*ran}
    assert not {"convert:unet", "convert:vae_decoder"} & {*ran}


def test_a_contact_sheet_is_refused_with_textual_inversions(workspace: Any) -> None:
    (workspace.root / "mine.pt").write_bytes(b"embedding")
    workspace.recipe(textual_inversions="[{version: ../mine.pt}]", contact_sheet="{prompts: [a cat]}")
    ran = workspace("plan", "recipe=phone")
    assert ran.status == 2
    assert "has textual inversions" in ran.err


def test_another_vae(workspace: Any) -> None:
    other = workspace.root / "vae"
    other.mkdir()
    for name in ("config.json", "diffusion_pytorch_model.safetensors"):
        (other / name).write_bytes((workspace.root / "checkpoint" / "vae" / name).read_bytes())
    workspace.recipe(vae="{version: ../vae}")
    graph = make_plan(parse_options({"recipe": "phone"})).graph
    assert graph["source:vae"].files["config.json"] == other / "config.json"
    assert graph["convert:vae_decoder"].inputs["checkpoint"] is graph["source:vae"]
    assert graph["bundle:iphone-15-pro"].inputs["vae"] is graph["source:vae"]
    described = graph["bundle:iphone-15-pro"].parameters["vae_checkpoint"]
    assert described == {"version": "vae", "revision": None, "source": "directory"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loras": "[{version: builtin:tiny-sd}]"}, "not a Hub id or a LoRA's file or folder"),
        ({"loras": "[{version: ../checkpoint}]"}, "checkpoint: holds no LoRA"),
        ({"loras": "[{version: org/lora}]"}, "`org/lora`: no revision"),
        ({"loras": "[{version: ../nowhere.safetensors}]"}, "nowhere.safetensors does not exist"),
        ({"loras": "[{version: org/lora, revision: " + COMMIT + ", weight: 11}]"}, "weight"),
        ({"textual_inversions": "[{version: ../checkpoint}]"}, "not a Hub id or a textual inversion's file"),
        ({"textual_inversions": "[{version: org/toy}]"}, "`org/toy`: no revision"),
        ({"textual_inversions": "[{version: ../nowhere.pt}]"}, "nowhere.pt does not exist"),
        ({"textual_inversions": "[{version: org/toy, file: toy.ckpt}]"}, "not a textual inversion's file"),
        ({"vae": "{version: org/vae}"}, "`org/vae`: no revision"),
        ({"vae": "{version: ../mine.safetensors}"}, "does not exist|single-file-unsupported"),
    ],
)
def test_mistakes_about_adapters(workspace: Any, changes: dict[str, str], message: str) -> None:
    import re

    workspace.recipe(**changes)
    ran = workspace("plan", "recipe=phone")
    assert ran.status == 2
    assert re.search(message, ran.err), ran.err


def write_lora(path: Path, module: str, out: int = 64, inner: int = 64) -> None:
    import numpy as np

    path.parent.mkdir(parents=True, exist_ok=True)
    down, up = np.zeros((2, inner), np.float16), np.zeros((out, 2), np.float16)
    save_file({f"{module}.lora_A.weight": down, f"{module}.lora_B.weight": up}, path)


QUERY = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"


def test_a_folder_that_peft_saved_is_taken_as_a_whole(workspace: Any) -> None:
    for folder in ("unet", "text_encoder"):
        write_lora(workspace.root / "lora" / folder / "adapter_model.safetensors", f"base_model.model.{QUERY}")
        (workspace.root / "lora" / folder / "adapter_config.json").write_text("{}")
    workspace.recipe(loras="[{version: ../lora}]")
    source = make_plan(parse_options({"recipe": "phone"})).graph["source:lora-1"]
    names = [
        f"{folder}/adapter_{name}"
        for folder in ("text_encoder", "unet")
        for name in ("config.json", "model.safetensors")
    ]
    assert sorted(source.files) == names


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("unet." + QUERY.replace("to_q", "to_x"), r"recipes/phone.yaml:\d+:\d+: .*unet has no unet.down_blocks"),
        ("unet." + QUERY, "trained for another family"),
        ("transformer.transformer_blocks.0.attn.to_q", "changes nothing in this recipe: it was trained on transformer"),
        ("text_encoder_2.text_model.encoder.layers.0.mlp.fc1", "changes nothing .* trained on text_encoder_2"),
        ("lora_unet_double_blocks_0_img_attn_proj", "modules of Flux"),
        ("nobody.knows", "has a layout of names that is not known here"),
    ],
)
def test_what_a_lora_cannot_change_is_told_before_any_work(workspace: Any, module: str, message: str) -> None:
    import re

    write_lora(workspace.root / "mine.safetensors", module, 7, 7)
    workspace.recipe(loras="[{version: ../mine.safetensors}]")
    ran = workspace("plan", "recipe=phone")
    assert ran.status == 2
    assert re.search(message, ran.err, re.DOTALL), ran.err


def test_clip_skip_is_the_text_encoders_alone(workspace: Any) -> None:
    workspace.recipe(clip_skip="1")
    graph = make_plan(parse_options({"recipe": "phone"})).graph
    for stage in ("convert", "reference"):
        assert graph[f"{stage}:text_encoder"].parameters["clip_skip"] == 1
        assert "clip_skip" not in graph[f"{stage}:unet"].parameters
    assert graph["bundle:iphone-15-pro"].parameters["clip_skip"] == 1
    workspace.recipe()
    graph = make_plan(parse_options({"recipe": "phone"})).graph
    assert "clip_skip" not in graph["convert:text_encoder"].parameters
    assert "clip_skip" not in graph["bundle:iphone-15-pro"].parameters


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_files_of_one_network_are_read_for_the_pipeline(workspace: Any, suffix: str) -> None:
    for name in ("vae", "unet", "canny"):
        (workspace.root / f"{name}.{suffix}").write_bytes(b"weights")
    workspace.recipe(
        vae=f"{{version: ../vae.{suffix}}}",
        denoiser=f"{{version: ../unet.{suffix}}}",
        controlnets=f"[{{version: ../canny.{suffix}}}]",
    )
    graph = make_plan(parse_options({"recipe": "phone"})).graph
    conditioner = next(action.component for action in graph if action.name.startswith("source:controlnet-"))
    for part, component in (("vae", "vae"), ("unet", "unet"), (conditioner, "controlnet")):
        action = graph[f"source:{part}"]
        assert action.parameters == {"component": component}
        assert action.inputs["base"] is graph["source:index"]
        assert [*action.inputs["checkpoint"].files] == [
            f"{ {'controlnet': 'canny'}.get(component, component) }.{suffix}"
        ]
    assert graph["convert:unet"].inputs["checkpoint"] is graph["source:unet"]
    described = {"version": f"unet.{suffix}", "revision": None, "source": "file"}
    assert graph["bundle:iphone-15-pro"].parameters["denoiser_checkpoint"] == described


def test_a_textual_inversion_of_two_files(workspace: Any) -> None:
    for name in ("l", "g"):
        (workspace.root / f"toy_{name}.safetensors").write_bytes(b"embedding")
    inversions = "[{version: ../toy_l.safetensors, second_file: toy_g.safetensors, token: toy}]"
    workspace.recipe(textual_inversions=inversions)
    source = make_plan(parse_options({"recipe": "phone"})).graph["source:embedding-1"]
    assert sorted(source.files) == ["toy_g.safetensors", "toy_l.safetensors"]
    workspace.recipe(textual_inversions=inversions.replace("toy_g", "nowhere"))
    ran = workspace("plan", "recipe=phone")
    assert ran.status == 2
    assert "nowhere.safetensors: does not exist" in ran.err
