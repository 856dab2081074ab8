"""`loramerge push`."""

from __future__ import annotations

import click

from loramerge.cli._session import session


@click.command("push", short_help="Send a result to the Hub.", epilog="Example: loramerge push me/math-and-code")
@click.argument("refs", nargs=-1, required=True, metavar="[REF] REPO")
@click.option("--private", is_flag=True, help="Make the repo private when it is new.")
@click.option("--pr", is_flag=True, help="Open a pull request instead of committing to main.")
@click.option("--message", "-m", metavar="TEXT", help="The commit's message.")
@click.option("--dry-run", is_flag=True, help="Say what would be sent; send nothing.")
def command(refs: tuple[str, ...], private: bool, pr: bool, message: str | None, dry_run: bool) -> None:
    """Send a result (the newest without REF) to the Hub in one atomic commit, and check the hashes there."""
    if len(refs) > 2:
        raise click.UsageError("push takes one REF at most, and one REPO.")
    with session() as (work, out):
        from loramerge import api

        ref = refs[0] if len(refs) == 2 else None
        sent = api.push(work, ref, refs[-1], private=private, pr=pr, message=message, dry_run=dry_run)
        out.result(
            "Would push" if dry_run else "Nothing to push" if sent.unchanged else "Pushed",
            {
                "id": f"{sent.repo}@{sent.commit}" if sent.commit else sent.repo,
                "url": sent.pr_url or sent.url,
                "files": len(sent.files),
                "changed": len(sent.changed),
            },
            id="id",
            notes=sent.notes,
        )
