"""The `fedmq` command. One command is one file here and one line in `COMMANDS`."""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import sys
from collections.abc import Sequence

from fedmq.printable import printable
from fedmq.schemas.errors import ConfigError, FedMQError

__all__ = ["main"]

# name -> (module, what it does): loaded when it is called, since `fedmq status` must not wait for torch.
COMMANDS = {
    "demo": ("demo", "learn from smartwatch recordings of ten people, each one a client, on this machine"),
    "try": ("try_task", "run your own task with a broker, an aggregator and N clients on this machine"),
    "check": ("check", "check a task file, and with --config the broker, before anything runs"),
    "provision": ("provision", "make certificates, passwords and access rules for a federation's own broker"),
    "broker": ("broker", "run a private MQTT broker on this machine, or a provisioned one"),
    "aggregator": ("aggregator", "run the aggregator of a federation"),
    "client": ("client", "run one device of a federation"),
    "status": ("status", "show what a federation is doing"),
    "stop": ("stop", "stop the aggregator on this machine"),
    "release": ("release", "let a client out of quarantine, on this machine"),
    "export": ("export", "write a run's newest weights, its history or a picture of it to a file"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; its exit code: 0 done, 1 it went wrong, 2 a setting or an argument is wrong."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    parser = _parser()
    if not arguments:
        parser.print_help(sys.stderr)
        return 2
    if arguments[0] not in COMMANDS:
        if not arguments[0].startswith("-"):
            parser.error(_unknown(arguments[0]))
        parser.parse_args(arguments)
    try:
        module = importlib.import_module(f"fedmq.cli.{COMMANDS[arguments[0]][0]}")
        command = argparse.ArgumentParser(
            prog=f"fedmq {arguments[0]}",
            description=module.__doc__,
            epilog=f"example:\n  {module.EXAMPLE}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        return int(module.run(command.parse_args(arguments[1:])))
    except ConfigError as error:
        for line in str(error).split("\n"):  # one mistake each
            print(f"fedmq {arguments[0]}: {printable(line)}", file=sys.stderr)
        return 2
    except FedMQError as error:
        said = "\n".join(map(printable, str(error).split("\n")))
        print(f"fedmq {arguments[0]}: {said}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output has gone: `fedmq status | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _unknown(name: str) -> str:
    """What to say of a command that does not exist."""
    close = difflib.get_close_matches(name.lower(), COMMANDS, 1)
    advice = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(COMMANDS)}"
    return f"unknown command {name!r}; {advice}"


def _parser() -> argparse.ArgumentParser:
    from importlib.metadata import version

    width = max(len(name) for name in COMMANDS)
    lines = [f"  {name:{width}}  {what}" for name, (_, what) in COMMANDS.items()]
    parser = argparse.ArgumentParser(
        prog="fedmq",
        description="Asynchronous federated learning over MQTT.",
        epilog="commands:\n" + "\n".join(lines) + "\n\nfedmq COMMAND --help says more, with an example.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="fedmq COMMAND [options]",
    )
    parser.add_argument("--version", action="version", version=f"fedmq {version('fedmq')}")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of those below")
    return parser
