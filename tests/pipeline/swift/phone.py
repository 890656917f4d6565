"""The package's three pipelines once more, from docs/reference/client.md alone: a bundle's models, fed in plain order.

Nothing of `sdbuild.pipeline` is used: models are run one by one, prompts are read by `reader`, and samples go through
`formulas` in double precision.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sdbuild.coreml.runtime import Model
from tests.pipeline.swift import formulas
from tests.pipeline.swift.reader import T5, Clip

Arrays = dict[str, NDArray[Any]]
SQUARE = 1024.0


@dataclass
class Phone:
    """A bundle on a phone.

    Attributes:
        bundle: its folder.
        scheduler: `pndm`, a spacing of DPM-Solver++, or `flow`.
        size: SDXL's `originalSize` and `targetSize`.
        scale: the decoder's factor.
        shift: what is added after that.
    """

    bundle: Path
    scheduler: str = "pndm"
    size: float = SQUARE
    scale: float = 0.18215
    shift: float = 0.0
    models: dict[str, Model] = field(default_factory=dict)

    def model(self, name: str) -> Model:
        if name not in self.models:
            self.models[name] = Model(self.bundle / f"Resources/{name}.mlpackage", "fp32")
        return self.models[name]

    def run(self, name: str, **inputs: Any) -> Arrays:
        given = {key: np.asarray(value, np.float32) for key, value in inputs.items()}
        outputs: Arrays = self.model(name).predict(given)
        return outputs

    def has(self, name: str) -> bool:
        return (self.bundle / f"Resources/{name}.mlpackage").exists()

    def shape(self, name: str, feature: str) -> tuple[int, ...]:
        return next(port.shape for port in self.model(name).inputs if port.name == feature)

    def texts(self, prompt: str) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """States (width, 1, tokens) and the pooled state."""
        resources = self.bundle / "Resources"
        clip = Clip(json.loads((resources / "vocab.json").read_bytes()), (resources / "merges.txt").read_text())
        found = [
            self.run(name, input_ids=[clip.read(prompt, 77, padding)])
            for name, padding in (("TextEncoder", "<|endoftext|>"), ("TextEncoder2", "!"))
            if self.has(name)
        ]
        hidden = [each.get("hidden_embeds", each.get("last_hidden_state")) for each in found]
        states = np.concatenate(hidden, axis=2)[0].T[:, None, :]  # type: ignore[arg-type]
        if self.scheduler != "flow":
            return states, found[-1].get("pooled_outputs")
        states = np.pad(states, ((0, 4096 - len(states)), (0, 0), (0, 0)))
        return np.concatenate([states, self.t5(prompt)], axis=2), np.concatenate(
            [each["pooled_outputs"] for each in found], axis=1
        )

    def t5(self, prompt: str) -> NDArray[Any]:
        if not self.has("TextEncoderT5"):
            return np.zeros((4096, 1, 77))
        whole = json.loads((self.bundle / "Resources/tokenizer.json").read_bytes())
        ids = np.array(T5(whole).read(prompt, self.shape("TextEncoderT5", "input_ids")[1]))
        mask = [0, *(ids[1:] == 0)]
        return self.run("TextEncoderT5", input_ids=[ids], attention_mask=[mask])["encoder_hidden_states"][0, :, :, :77]

    def noise_model(self, prompt: str, negative: str, guidance: float) -> formulas.Model:
        """The guided prediction of whichever denoiser there is."""
        (text, pooled), (other, other_pooled) = self.texts(prompt), self.texts(negative)

        def predict(sample: formulas.Doubles, time: float) -> formulas.Doubles:
            if self.scheduler == "flow":
                given = {
                    "latent_image_embeddings": np.repeat(sample, 2, 0),
                    "timestep": [time, time],
                    "token_level_text_embeddings": [text, other],
                    "pooled_text_embeddings": np.concatenate([pooled, other_pooled])[:, :, None, None],  # type: ignore[list-item]
                }
                (found,) = self.run("MultiModalDiffusionTransformer", **given).values()
                positive, base = found.astype(np.float64)
                return (base + guidance * (positive - base))[None]
            given = {
                "sample": np.repeat(sample, 2, 0),
                "timestep": [time, time],
                "encoder_hidden_states": [other, text],
            }
            if pooled is not None and other_pooled is not None and self.has("TextEncoder2"):
                given["text_embeds"] = np.concatenate([other_pooled, pooled])
                given["time_ids"] = [[self.size, self.size, 0, 0, self.size, self.size]] * 2
            found = self.run("Unet", **given)["noise_pred"].astype(np.float64)
            return found[:1] + guidance * (found[1:] - found[:1])

        return predict

    def draw(
        self, prompt: str, steps: int, seed: int, guidance: float, negative: str = "", number: int = 0
    ) -> tuple[formulas.Run, Image.Image]:
        """One of the pictures of a seed."""
        denoiser, feature = (
            ("MultiModalDiffusionTransformer", "latent_image_embeddings")
            if self.scheduler == "flow"
            else ("Unet", "sample")
        )
        shape = (1, *self.shape(denoiser, feature)[1:])
        state = np.random.RandomState(seed)
        noise = [state.normal(size=shape).astype(np.float32).astype(np.float64) for _ in range(number + 1)][number]
        model = self.noise_model(prompt, negative, guidance)
        if self.scheduler == "pndm":
            run = formulas.pndm(model, noise, steps)
        elif self.scheduler == "flow":
            run = formulas.flow(model, noise, steps, 3.0)
        else:
            run = formulas.dpm(model, noise, steps, self.scheduler)
        (decoded,) = self.run("VAEDecoder", z=run.pictures[-1] / self.scale + self.shift).values()
        pixels = np.rint(np.clip(decoded[0].transpose(1, 2, 0) / 2 + 0.5, 0, 1) * 255)
        return run, Image.fromarray(pixels.astype(np.uint8))
