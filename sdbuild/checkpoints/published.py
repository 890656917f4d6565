"""The configurations of the published T2I-Adapters, so that a recipe is judged before any of their files is here.

Those of published checkpoints are with their families, in `sdbuild.families`.
"""

from __future__ import annotations

from typing import Any

Config = dict[str, Any]

_T2I_ADAPTER: Config = {"channels": [320, 640, 1280, 1280], "num_res_blocks": 2}
T2I_ADAPTERS: dict[str, Config] = {
    "TencentARC/t2iadapter_canny_sd14v1": _T2I_ADAPTER
    | {"adapter_type": "full_adapter", "downscale_factor": 8, "in_channels": 1},
    "TencentARC/t2i-adapter-canny-sdxl-1.0": _T2I_ADAPTER
    | {"adapter_type": "full_adapter_xl", "downscale_factor": 16, "in_channels": 3},
}
"""Version of a T2I-Adapter → its configuration."""
