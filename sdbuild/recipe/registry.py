"""The list of all preflight rules, for checking recipes, for `allow:` and for the reference documentation alike."""

from __future__ import annotations

from sdbuild.recipe.device_rules import DEVICE_RULES
from sdbuild.recipe.memory_rules import MEMORY_RULES
from sdbuild.recipe.rule import Rule
from sdbuild.recipe.rules import PIPELINE_RULES
from sdbuild.recipe.sd3_rules import SD3_RULES
from sdbuild.recipe.t2i_adapter_rules import T2I_ADAPTER_RULES
from sdbuild.recipe.textual_inversion_rules import TEXTUAL_INVERSION_RULES

_ALL = (*PIPELINE_RULES, *T2I_ADAPTER_RULES, *DEVICE_RULES, *SD3_RULES, *TEXTUAL_INVERSION_RULES, *MEMORY_RULES)

RULES: dict[str, Rule] = {rule.name: rule for rule in _ALL}
