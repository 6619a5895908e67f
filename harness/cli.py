"""The command line: the commands of `harness.commands` under one name, and how their errors end."""

import sys
from collections.abc import Sequence

import click

from harness.commands.lists import data, doctor, list_
from harness.commands.pages import gradients, ui
from harness.commands.report import report
from harness.commands.shared import REFUSED, Refused
from harness.commands.status import status
from harness.commands.sweep import repair, run, sync
from harness.environment import check_current_folder
from harness.errors import UserError
from harness.terminal import Output, lasting_output
from reports.contract.errors import ReportError
from reports.contract.text import FILE, visible, visible_lines

__all__ = ["Refused", "cli", "main"]

INTERRUPTED = 130


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(package_name="argmax-harness", prog_name="harness")
def cli(debug: bool) -> None:
    """Which gradient estimator should carry a gradient through argmax?

    Train several estimators on one categorical VAE, track every run in MLflow, and compare them in an HTML report:

    \b
      harness run --grid experiments/quickstart.yaml
      harness report --experiment quickstart
      harness ui
    """


for command in (run, report, gradients, ui, sync, repair, status, list_, data, doctor):
    cli.add_command(command)


def main(arguments: Sequence[str] | None = None, command: click.Command = cli) -> None:
    """Run the command line: one line for each error of the user, a traceback only with --debug.

    Its output never ends it. A command whose output is all that it makes exits with 1 where some of that was lost.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if isinstance(sys.stdout, Output):
        raise RuntimeError(
            "harness.cli.main() was called while it is running. A script that is also a plug-in calls it under "
            "`if __name__ == '__main__':` only."
        )
    with lasting_output() as output:
        code = _exit_code(arguments, command)
        output.flush()
        if output.problem is not None:
            click.echo(f"standard output: some of it is lost, since writing failed: {output.problem}.", err=True)
            code = 1 if code is None else code
    sys.exit(code)


def _exit_code(arguments: list[str], command: click.Command) -> int | None:
    """Run a command; return its exit code, or None where it has none of its own: it did what it was asked."""
    try:
        check_current_folder()
        result = command.main(args=arguments, prog_name="harness", standalone_mode=False, obj=arguments)
        return result if isinstance(result, int) and result else None
    except SystemExit as end:
        if isinstance(end.code, str):  # a text, which the interpreter prints
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
            click.echo(visible_lines(str(error), FILE), err=True)
            return error.exit_code if isinstance(error, UserError) else REFUSED
        if isinstance(error, OSError) and error.filename:
            click.echo(f"{visible(str(error.filename))}: {error.strerror}. --debug shows where.", err=True)
            return REFUSED
        raise


if __name__ == "__main__":
    main()
