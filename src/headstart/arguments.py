"""How arguments are read where it differs from typer's way: options for every command, options with several values."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup

SEVERAL = ("--participant-label", "--participant_label", "--session", "--session-label")


class Everywhere(TyperGroup):
    """``--offline`` stands before or after a command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        given = "--offline" in args
        return super().parse_args(ctx, ["--offline"] * given + [arg for arg in args if arg != "--offline"])


class BidsApp(TyperCommand):
    """A command whose labels follow one option, as BIDS Apps have them: ``--participant-label 01 02``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, repeated(args))


def repeated(args: list[str]) -> list[str]:
    """``--option a b`` as ``--option a --option b``, for the options that take several values."""
    out: list[str] = []
    option = None
    for arg in args:
        if arg.startswith("-") and len(arg) > 1:
            option = arg if arg in SEVERAL else None
            out += [] if option else [arg]
        else:
            out += [option, arg] if option else [arg]
    return out
