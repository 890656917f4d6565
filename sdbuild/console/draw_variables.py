"""What `generate` takes: the words that say what to draw, and with what."""

from sdbuild.console.variables import ONE_TARGET, OUT, RECIPE, SOURCE, VERIFY, Variable

DRAW_VARIABLES = (
    RECIPE,
    ONE_TARGET,
    Variable(
        "client",
        "NAME",
        "whose pictures: `swift`, what Apple's Swift package draws, or `diffusers`; [where they "
        "differ](../reference/client.md)",
        "`swift`, but for what no app can ask of the package",
    ),
    Variable(
        "prompt",
        '"…"',
        "what to draw; a [textual inversion](../how-to/adapters.md#textual-inversions) of several vectors is written "
        "out",
    ),
    Variable("prompts", "FILE", "several prompts instead, one a line"),
    Variable("negative_prompt", '"…"', "what not to draw"),
    Variable("steps", "N", "denoising steps", "`25`"),
    Variable("guidance_scale", "NUMBER", "how strongly the prompt steers", "what `bundle.json` tells an app"),
    Variable("seed", "N", "0 to 4294967295; the same seed is the same picture", "`0`"),
    Variable("image_count", "N", "pictures of each prompt", "`1`"),
    Variable(
        "scheduler",
        "NAME",
        "`pndm`, `dpm` (DPM-Solver++) or `flow`; with `client=diffusers` `ddim`, `dpm`, `euler`, `euler-ancestral`, "
        "`lcm`, `lms` or `pndm`",
        "what `bundle.json` tells an app; with `client=diffusers` the checkpoint's own",
    ),
    Variable(
        "rng",
        "NAME",
        "where random numbers come from: `numpy`, or `torch` or `nvidia` as PyTorch has them on processors and on "
        "Nvidia's GPUs",
        "`numpy`",
    ),
    Variable(
        "configuration",
        "NAME:VALUE",
        "what of the Swift package's configuration is set otherwise than `bundle.json` tells an app, separated by "
        "commas: `schedulerTimestepSpacing:karras`, `originalSize:1024`, …",
    ),
    Variable("image", "FILE", "start from a picture; needs `vae_encoder`"),
    Variable("strength", "NUMBER", "how much of that picture is drawn anew; below 1", "`0.75`"),
    Variable(
        "controlnet_image",
        "FILES",
        "a picture for each of the recipe's ControlNets in their order, separated by commas; or `NAME:FILE,NAME:FILE`",
    ),
    Variable("controlnet_scale", "NUMBER", "how strongly ControlNets steer", "`1`"),
    Variable("adapter_image", "FILES", "the same for the recipe's [T2I-Adapters](../how-to/t2i-adapters.md)"),
    Variable(
        "adapter_conditioning_scale",
        "NUMBERS",
        "the weight of all T2I-Adapters, or one for each picture, separated by commas",
        "`1`",
    ),
    Variable(
        "refiner_start",
        "NUMBER",
        "the share of the steps that SDXL's base draws before a bundle's refiner goes on",
        "`0.8`",
    ),
    Variable("safety", "off", "draws what the safety checker would blacken", "`on`"),
    Variable("precision", "fp16", "rounds every half-precision result, to see what a device sees; slower", "`fp32`"),
    Variable("backend", "coreml", "runs Core ML itself on a Mac, compiled models too", "`torch`"),
    Variable(
        "compute_unit",
        "NAME",
        "the processors that Core ML may use: `ALL`, `CPU_ONLY`, `CPU_AND_GPU` or `CPU_AND_NE`",
        "the target's",
    ),
    Variable("reduce_memory", "on", "keeps only the model in memory that is at work", "`off`"),
    Variable("pictures", "DIR", "the folder for the PNG files", "`pictures`"),
    SOURCE,
    OUT,
    VERIFY,
)
