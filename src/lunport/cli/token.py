"""``lunport token``: make a token for the API, and the entry that lets its bearer in.

The entry goes to stdout, so that it can be appended to the file that ``[service] tokens``
names; the token itself goes to stderr, shown once and kept nowhere.
"""

from __future__ import annotations

import json
import tomllib

import click

from lunport.api.auth import generate_token, hash_token, parse_tokens
from lunport.core.errors import InvalidInput


@click.command()
@click.option("--user", default="admin", show_default=True, help="Whom the token stands for.")
@click.option("--project", default="admin", show_default=True, help="Where the user works.")
@click.option("--role", "roles", multiple=True, help="A role, such as admin; repeatable.")
def token(user: str, project: str, roles: tuple[str, ...]) -> None:
    """Make a token. It is shown once; the entry, which goes to stdout, holds only its hash."""
    made = generate_token()
    entry = "\n".join(
        (
            "[[token]]",
            f'hash = "{hash_token(made)}"',
            f"user = {json.dumps(user)}",
            f"project = {json.dumps(project)}",
            f"roles = {json.dumps(list(roles))}",
        )
    )
    try:
        parse_tokens(tomllib.loads(entry), what="token")
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput("name", [user, project, *roles], "letters that TOML can hold") from error
    click.echo(entry)
    click.echo(f"The token, shown this once: {made.reveal()}", err=True)
