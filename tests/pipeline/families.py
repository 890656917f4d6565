"""Recipes of every family that has a tiny checkpoint, at the smallest size and for one target."""

_SD = (
    "components: [text_encoder, unet, vae_decoder]\n"
    "precision: {text_encoder: float32, unet: float32, vae_decoder: float32}"
)
_SDXL = (
    "components: [text_encoder, text_encoder_2, unet, vae_decoder]\n"
    "precision: {text_encoder: float32, text_encoder_2: float32, unet: float32}"
)
_ALLOW = "allow: [not-for-the-swift-package]"


def _recipe(checkpoint: str, *lines: str) -> str:
    return "\n".join([f'model: {{version: "builtin:{checkpoint}"}}', *lines])


RECIPES = {
    "inpaint": _recipe("tiny-sd-inpaint", _SD, _ALLOW),
    "pix2pix": _recipe("tiny-pix2pix", _SD, _ALLOW, "unet: {chunks: 2}"),
    "lcm": _recipe("tiny-lcm", _SD, _ALLOW, "unet: {batch: 1}"),
    "small-sd": _recipe("tiny-small-sd", _SD),
    "ssd": _recipe("tiny-ssd", _SDXL),
    "sdxl-turbo": _recipe("tiny-sdxl-turbo", _SDXL),
    "sdxl-inpaint": _recipe("tiny-sdxl-inpaint", _SDXL, _ALLOW),
    "refiner": _recipe(
        "tiny-sdxl-refiner",
        "components: [text_encoder_2, unet, vae_decoder]",
        "precision: {text_encoder_2: float32, unet: float32}",
    ),
    "sdxl-refined": _recipe(
        "tiny-sdxl",
        "components: [text_encoder, text_encoder_2, unet, vae_decoder]",
        "precision: {text_encoder: float32, text_encoder_2: float32, unet: float32, unet_refiner: float32}",
        'refiner: {version: "builtin:tiny-sdxl-refiner"}',
    ),
    "sdxl-controlled": "\n".join(
        [
            "extends: sdxl-turbo",
            'controlnets: [{version: "builtin:tiny-controlnet-sdxl"}]',
            "precision: {controlnet: float32}",
            "allow: [controlnet-unsupported-family]",
        ]
    ),
    # Two adapters, the second a light one for pictures in grey; all that is made of a UNet.
    "adapted": _recipe(
        "tiny-sd",
        "components: [text_encoder, unet, vae_decoder]",
        't2i_adapters: [{version: "builtin:tiny-t2i-adapter"}, {version: "builtin:tiny-t2i-adapter-light"}]',
        "quantization: {unet: 6, t2i_adapter: 6}",
        "unet: {chunks: 2}",
        _ALLOW,
    ),
    "multilingual": "\n".join(
        [
            "extends: small-sd",
            "components: [unet, vae_decoder]",
            "precision: {text_encoder: null}",
            "multilingual_projection: {version: ../checkpoints/projection.pt}",
            "text_sequence_length: 256",
        ]
    ),
    # All that iOS 18 and macOS 15 have, with a shorter text.
    "modern": "\n".join(
        [
            "extends: small-sd",
            "attention_implementation: SDPA",
            "minimum_deployment_target: macOS15",
            "allow: [deployment-target-newer-than-os]",
            "text_sequence_length: 40",
            "quantization: {unet: 4, text_encoder: linear8}",
            "group_size: {unet: 32}",
            "precision: {text_encoder: null, unet: null}",
        ]
    ),
    "not-told": _recipe("tiny-sd-inpaint", _SD),
    "wrong-encoders": _recipe("tiny-sdxl-refiner", _SDXL),
    "refiner-of-nothing": _recipe("tiny-sd", _SD, 'refiner: {version: "builtin:tiny-sdxl-refiner"}'),
    "no-refiner": _recipe("tiny-sdxl", _SDXL, 'refiner: {version: "builtin:tiny-sdxl"}'),
}
