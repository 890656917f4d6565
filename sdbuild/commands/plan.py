"""`plan`: what a build would do."""

from collections.abc import Mapping

from sdbuild.console.command import VariableCommand
from sdbuild.console.variables import BUILD
from sdbuild.plan.cache import cache_directory
from sdbuild.plan.options import parse_options
from sdbuild.plan.planner import make_plan


class Command(VariableCommand):
    """Show what a build would do."""

    name = "plan"
    doc_purpose = "show which actions are cached, which will run and why, and memory on the devices; nothing is written"
    variables = BUILD

    def act(self, variables: Mapping[str, str]) -> int:
        """Write the plan's table."""
        from sdbuild.console.account_table import show_accounts
        from sdbuild.console.memory_table import show_memory
        from sdbuild.console.plan_table import show_plan
        from sdbuild.plan.costs import Costs
        from sdbuild.plan.preflight import Preflight
        from sdbuild.plan.sharing import shared_with
        from sdbuild.plan.status import Statuses
        from sdbuild.store import Store

        plan = make_plan(parse_options(variables))
        store = Store(cache_directory(), read_only=True)
        statuses = Statuses(plan.graph, store, plan.outputs)
        preflight = Preflight(plan, statuses, store)
        preflight.before_the_build()
        show_plan(plan, statuses, Costs(store, statuses, plan.loaded.recipe, preflight.facts), shared_with(plan))
        show_memory(plan, store, statuses, preflight.facts)
        show_accounts(preflight.accounts)
        return 0
