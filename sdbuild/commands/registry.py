"""Every command of the program."""

from sdbuild.commands.build import BuildCommand
from sdbuild.commands.check import CheckCommand
from sdbuild.commands.clean import CleanCommand
from sdbuild.commands.diagnose import DiagnoseCommand
from sdbuild.commands.forget import ForgetCommand
from sdbuild.commands.generate import GenerateCommand
from sdbuild.commands.ignore import IgnoreCommand
from sdbuild.commands.info import InfoCommand
from sdbuild.commands.lint import LintCommand
from sdbuild.commands.list import ListCommand
from sdbuild.commands.lock import LockCommand
from sdbuild.commands.plan import PlanCommand
from sdbuild.commands.recipes import RecipesCommand
from sdbuild.commands.targets import TargetsCommand

COMMANDS = (
    *(BuildCommand, ListCommand, CleanCommand, IgnoreCommand, InfoCommand, ForgetCommand),
    *(PlanCommand, CheckCommand, RecipesCommand, TargetsCommand, LintCommand),
    *(LockCommand, GenerateCommand, DiagnoseCommand),
)
