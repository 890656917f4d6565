"""Small bundles for tests: real packages and compiled models that hold an interface and no program."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from sdbuild.builtin.tiny import tokenizer, unigram
from sdbuild.bundle.t5_tokenizer import for_swift

Shape = tuple[int, ...]
Port = tuple[Shape, str]
Ports = dict[str, Port]

TYPES = {"float16": "Float16", "float32": "Float32", "float64": "Double", "int32": "Int32"}


@dataclass(frozen=True)
class Model:
    inputs: Ports
    outputs: Ports

    def with_input(self, name: str, shape: Shape, dtype: str = "float16") -> Model:
        return replace(self, inputs={**self.inputs, name: (shape, dtype)})

    def with_output(self, name: str, shape: Shape, dtype: str = "float32") -> Model:
        return replace(self, outputs={**self.outputs, name: (shape, dtype)})

    def without(self, name: str) -> Model:
        def rest(ports: Ports) -> Ports:
            return {key: port for key, port in ports.items() if key != name}

        return Model(rest(self.inputs), rest(self.outputs))


def takes(**shapes: Shape) -> Ports:
    return {name: (shape, "int32" if name == "input_ids" else "float16") for name, shape in shapes.items()}


def gives(**shapes: Shape) -> Ports:
    return {name: (shape, "float32") for name, shape in shapes.items()}


RESIDUALS = {f"additional_residual_{i}": shape for i, shape in enumerate([(2, 32, 16, 12), (2, 64, 8, 6)])}
FEATURES = {"additional_feature_0": (32, 16, 12), "additional_feature_1": (64, 8, 6)}
LATENT = (2, 4, 16, 12)
PICTURE = (1, 3, 128, 96)
UNET = Model(
    takes(sample=LATENT, timestep=(2,), encoder_hidden_states=(2, 64, 1, 77)),
    gives(noise_pred=LATENT),
)
CONTROLLED = Model(UNET.inputs | takes(**RESIDUALS), UNET.outputs)
CHUNK1 = Model(UNET.inputs, gives(hidden=(2, 32, 16, 12), skip=(2, 32, 16, 12)))
CHUNK2 = Model(takes(hidden=(2, 32, 16, 12), skip=(2, 32, 16, 12), encoder_hidden_states=(2, 64, 1, 77)), UNET.outputs)
VAE_DECODER = Model(takes(z=(1, 4, 16, 12)), gives(image=PICTURE))
VAE_ENCODER = Model(takes(x=PICTURE), gives(latent=(1, 8, 16, 12)))

SD: dict[str, Model] = {
    "TextEncoder": Model(takes(input_ids=(1, 77)), gives(last_hidden_state=(1, 77, 64), pooled_outputs=(1, 64))),
    "Unet": UNET,
    "ControlledUnet": CONTROLLED,
    "controlnet/TinyControlnet": Model(UNET.inputs | takes(controlnet_cond=(2, 3, 128, 96)), gives(**RESIDUALS)),
    "VAEDecoder": VAE_DECODER,
    "VAEEncoder": VAE_ENCODER,
    "SafetyChecker": Model(
        takes(clip_input=(1, 3, 224, 224), images=(1, 512, 512, 3), adjustment=(1,)),
        gives(filtered_images=(1, 512, 512, 3), has_nsfw_concepts=(1,), concept_scores=(1, 17)),
    ),
}
SD_CHUNKED = {name: model for name, model in SD.items() if name not in ("Unet", "ControlledUnet")} | {
    "UnetChunk1": CHUNK1,
    "UnetChunk2": CHUNK2,
    "ControlledUnetChunk1": Model(CHUNK1.inputs | takes(additional_residual_1=(2, 64, 8, 6)), CHUNK1.outputs),
    "ControlledUnetChunk2": Model(CHUNK2.inputs | takes(additional_residual_0=(2, 32, 16, 12)), CHUNK2.outputs),
}
_FEATURES_OF_ONE = gives(**{name: (1, *shape) for name, shape in FEATURES.items()})
ADAPTED: dict[str, Model] = {
    "AdaptedUnet": Model(UNET.inputs | takes(**{name: (2, *shape) for name, shape in FEATURES.items()}), UNET.outputs),
    "t2i_adapter/TinyAdapter": Model(takes(adapter_cond=(1, 3, 128, 96)), _FEATURES_OF_ONE),
    "t2i_adapter/Grey": Model(takes(adapter_cond=(1, 1, 128, 96)), _FEATURES_OF_ONE),
}
"""What T2I-Adapters add to a bundle."""
MULTILINGUAL = {
    "MultilingualTextEncoderProjection": Model(
        {"nlcontextualembeddings_output": ((1, 256, 512), "float64")}, gives(encoder_hidden_states=(1, 64, 1, 256))
    ),
    "Unet": UNET.with_input("encoder_hidden_states", (2, 64, 1, 256)),
    "VAEDecoder": VAE_DECODER,
}
XL_UNET = (
    UNET.with_input("encoder_hidden_states", (2, 160, 1, 77))
    .with_input("text_embeds", (2, 96))
    .with_input("time_ids", (2, 6))
)
REFINER = XL_UNET.with_input("encoder_hidden_states", (2, 96, 1, 77)).with_input("time_ids", (2, 5))
SDXL: dict[str, Model] = {
    "TextEncoder": Model(takes(input_ids=(1, 77)), gives(hidden_embeds=(1, 77, 64), pooled_outputs=(1, 64))),
    "TextEncoder2": Model(takes(input_ids=(1, 77)), gives(hidden_embeds=(1, 77, 96), pooled_outputs=(1, 96))),
    "Unet": XL_UNET,
    "UnetRefiner": REFINER,
    "VAEDecoder": VAE_DECODER,
    "VAEEncoder": VAE_ENCODER,
}
REFINER_ALONE = {name: SDXL[name] for name in ("TextEncoder2", "VAEDecoder")} | {"Unet": REFINER}
SD3: dict[str, Model] = {
    "TextEncoder": Model(takes(input_ids=(1, 77)), gives(hidden_embeds=(1, 77, 768), pooled_outputs=(1, 768))),
    "TextEncoder2": Model(takes(input_ids=(1, 77)), gives(hidden_embeds=(1, 77, 1280), pooled_outputs=(1, 1280))),
    "TextEncoderT5": Model(
        takes(input_ids=(1, 128), attention_mask=(1, 128)), gives(encoder_hidden_states=(1, 4096, 1, 128))
    ),
    "MultiModalDiffusionTransformer": Model(
        takes(
            latent_image_embeddings=(2, 16, 16, 12),
            timestep=(2,),
            token_level_text_embeddings=(2, 4096, 1, 154),
            pooled_text_embeddings=(2, 2048, 1, 1),
        ),
        gives(denoiser_output=(2, 16, 16, 12)),
    ),
    "VAEDecoder": Model(takes(z=(1, 16, 16, 12)), gives(image=PICTURE)),
}
KINDS: dict[str, Mapping[str, Model]] = {
    "sd": SD,
    "sd-chunked": SD_CHUNKED,
    "multilingual": MULTILINGUAL,
    "sdxl": SDXL,
    "refiner": REFINER_ALONE,
    "sd3": SD3,
}


def write_package(path: Path, model: Model, *, functions: bool = False) -> None:
    """An `.mlpackage` with that interface; with `functions`, as the default one of two functions."""
    from coremltools.proto import FeatureTypes_pb2, Model_pb2

    array = FeatureTypes_pb2.ArrayFeatureType
    codes = {"float16": array.FLOAT16, "float32": array.FLOAT32, "float64": array.DOUBLE, "int32": array.INT32}
    spec = Model_pb2.Model(specificationVersion=9 if functions else 7)
    holder: Any = spec.description
    if functions:
        spec.description.functions.add(name="other")
        spec.description.defaultFunctionName = "default"
        holder = spec.description.functions.add(name="default")
    for features, ports in ((holder.input, model.inputs), (holder.output, model.outputs)):
        for name, (shape, dtype) in ports.items():
            feature = features.add(name=name, shortDescription=f"about {name}")
            if dtype == "image":
                feature.type.imageType.width = 8
            else:
                feature.type.multiArrayType.shape.extend(shape)
                feature.type.multiArrayType.dataType = codes[dtype]
    spec.description.metadata.license = "mit"
    spec.description.metadata.author = "somebody"
    spec.mlProgram.version = 1
    data = path / "Data" / "com.apple.CoreML"
    data.mkdir(parents=True)
    (data / "model.mlmodel").write_bytes(spec.SerializeToString())
    manifest = {
        "fileFormatVersion": "1.0.0",
        "itemInfoEntries": {"A": {"path": "com.apple.CoreML/model.mlmodel", "name": "model.mlmodel"}},
        "rootModelIdentifier": "A",
    }
    (path / "Manifest.json").write_text(json.dumps(manifest))


def write_compiled(path: Path, model: Model) -> None:
    """An `.mlmodelc` with that interface, as Apple's compiler lays one out."""

    def schema(ports: Ports) -> list[dict[str, str]]:
        return [
            {
                "name": name,
                "type": "Image" if dtype == "image" else "MultiArray",
                "dataType": TYPES.get(dtype, ""),
                "shape": str(list(shape)),
                "shortDescription": f"about {name}",
                "isOptional": "0",
                "hasShapeFlexibility": "0",
            }
            for name, (shape, dtype) in ports.items()
        ]

    document = {
        "inputSchema": schema(model.inputs),
        "outputSchema": schema(model.outputs),
        "specificationVersion": 7,
        "author": "somebody",
        "license": "mit",
        "mlProgramOperationTypeHistogram": {"Ios16.einsum": 1},
    }
    path.mkdir(parents=True)
    (path / "metadata.json").write_text(json.dumps([document]))
    (path / "coremldata.bin").write_bytes(b"\0")


@dataclass
class Resources:
    """A Resources directory that tests break."""

    path: Path
    suffix: str
    models: dict[str, Model] = field(default_factory=dict)

    def put(self, name: str, model: Model) -> None:
        self.models[name] = model
        path = self.path / (name + self.suffix)
        shutil.rmtree(path, ignore_errors=True)
        (write_package if self.suffix == ".mlpackage" else write_compiled)(path, model)

    def change(self, name: str, change: Callable[[Model], Model]) -> None:
        self.put(name, change(self.models[name]))

    def remove(self, *names: str) -> None:
        for name in names:
            shutil.rmtree(self.path / (name + self.suffix))


def write_resources(path: Path, kind: str, suffix: str = ".mlpackage") -> Resources:
    path.mkdir(parents=True)
    resources = Resources(path, suffix)
    for name, model in KINDS[kind].items():
        resources.put(name, model)
    if kind != "multilingual":
        write_tokenizer(path)
    if kind == "sd3":
        files = unigram.files()
        files |= {"tokenizer.json": for_swift(files["tokenizer.json"])}
        for name, content in files.items():
            (path / name).write_text(json.dumps(content), encoding="utf-8")
    return resources


@cache
def _tokenizer() -> tuple[dict[str, int], str]:
    return tokenizer.files()


def write_tokenizer(path: Path) -> None:
    vocabulary, merges = _tokenizer()
    (path / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (path / "merges.txt").write_text(merges, encoding="utf-8")
