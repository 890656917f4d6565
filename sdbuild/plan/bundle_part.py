"""What a bundle is made of, as planning sees it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """One model of the bundle.

    Attributes:
        name: in task names: a component, `controlled_unet`, `adapted_unet`, `controlnet-NAME` or `t2i_adapter-NAME`.
        component: what the stages call it: a component, `controlnet` or `t2i_adapter`.
        setting: the part of the recipe that holds its bits, precision and gates.
        source: the component of the checkpoint that it is made from.
    """

    name: str
    component: str
    setting: str
    source: str

    @property
    def is_unet(self) -> bool:
        """Whether it is the denoiser itself, the one model that can be chunked."""
        return self.component == "unet"
