"""The command line: the commands of `harness.commands` and the handling of their errors."""

import sys
from collections.abc import Sequence

import click

from harness.commands.check import check
from harness.commands.gradients import gradients
from harness.commands.list_data_doctor import data, doctor, list_
from harness.commands.report import report
from harness.commands.run import run
from harness.commands.shared import REFUSED
from harness.commands.status import status
from harness.commands.sync_and_repair import repair, sync
from harness.commands.ui import ui
from harness.environment import check_current_folder
from harness.errors import UserError
from harness.terminal import Output, resilient_output
from reports.contract.errors import ReportError
from reports.contract.text import FILE_LENGTH, visible, visible_lines

INTERRUPTED = 130
HELP = """Which gradient estimator should carry a gradient through argmax?

Train several estimators on one model, a categorical VAE or a task of your own,
track every run in MLflow, and compare them in an HTML report:

\b
  harness run --grid experiments/quickstart.yaml
  harness report --experiment quickstart
  harness ui
"""


@click.group(help=HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(package_name="argmax-harness", prog_name="harness")
def cli(debug: bool) -> None:
    """Run the command line."""


for command in (run, report, check, gradients, ui, sync, repair, status, list_, data, doctor):
    cli.add_command(command)


def main(arguments: Sequence[str] | None = None, command: click.Command = cli) -> None:
    """Run the command line. Errors of the user are one line each; a traceback is shown with --debug only.

    Errors of the output do not stop it. If output was lost, a successful command exits with 1.

    Raises RuntimeError if it is called while it is running.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if isinstance(sys.stdout, Output):
        raise RuntimeError(
            "harness.cli.main() was called while it was running. A script that is also a plug-in must call it under "
            "`if __name__ == '__main__':`."
        )
    with resilient_output() as output:
        code = _exit_code(arguments, command)
        output.flush()
        if output.problem is not None:
            click.echo(f"standard output: some of it was lost because writing failed: {output.problem}.", err=True)
            code = 1 if code is None else code
    sys.exit(code)


def _exit_code(arguments: list[str], command: click.Command) -> int | None:
    """Run a command; return its exit code, or None if it was successful."""
    try:
        check_current_folder()
        result = command.main(args=arguments, prog_name="harness", standalone_mode=False, obj=arguments)
        return result if isinstance(result, int) and result else None
    except SystemExit as end:
        if isinstance(end.code, str):  # the interpreter prints a text
            raise
        return end.code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except click.BadParameter as error:  # click would print its usage first
        click.echo(error.format_message(), err=True)
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except Exception as error:
        if "--debug" in arguments:
            raise
        if isinstance(error, UserError | ReportError):
            click.echo(visible_lines(str(error), FILE_LENGTH), err=True)
            return error.exit_code if isinstance(error, UserError) else REFUSED
        if isinstance(error, OSError) and error.filename:
            click.echo(f"{visible(str(error.filename))}: {error.strerror}. Use --debug to see where.", err=True)
            return REFUSED
        raise


if __name__ == "__main__":
    main()
