"""Where options may stand: some before the command as well, and what is said of all others there.

Which service or store is meant belongs to no command in particular, so `spile --url … find` is what people type.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import takewhile
from typing import Any

import typer
from typer.core import TyperGroup

__all__ = ["Commands", "hand_down"]


class Commands(TyperGroup):
    """The commands of `spile`, which says where an option belongs that stands before the command."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """As ever, but an option of a command that stands too early is wrong use that names the commands."""
        own = set(_names(self))
        for argument in takewhile(lambda argument: argument not in self.commands, args):
            option = argument.partition("=")[0]
            if option.startswith("-") and option not in own and not ctx.resilient_parsing:
                takers = [name for name, command in self.commands.items() if option in _names(command)]
                if takers:
                    ctx.fail(
                        f"{option} stands before the command, but belongs behind it, as in "
                        f"`spile {takers[0]} … {option} …`. It is an option of: {', '.join(takers)}."
                    )
        return super().parse_args(ctx, args)


def hand_down(context: typer.Context, given: Mapping[str, str | None]) -> None:
    """Make what was given before the command the default of the command's own options.

    A command that has no such option is wrong use.
    """
    name = context.invoked_subcommand
    command: Any = context.command
    values = {option: value for option, value in given.items() if value is not None}
    if name is None or not values:
        return
    known = set(_names(command.commands[name]))
    for option in values:
        if f"--{option}" not in known:
            context.fail(f"`spile {name}` has no option --{option}; `spile {name} --help` names those that it has.")
    context.default_map = {name: values}


def _names(command: Any) -> Iterator[str]:
    """The options of a command, as they are typed."""
    for parameter in command.params:
        if parameter.param_type_name == "option":
            yield from (*parameter.opts, *parameter.secondary_opts)
