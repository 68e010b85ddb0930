"""`diffusioncleft study invite`, `revoke` and `raters`: who may rate, by personal links."""

from __future__ import annotations

import argparse
from pathlib import Path

from ...diffusioncleft_core.errors import UserError
from .serve import add_database_argument


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the parsers."""
    invite = commands.add_parser("invite", help="print a personal link for a rater")
    _common(invite, name=True)
    invite.add_argument("--renew", action="store_true", help="a new link for a known rater; the old one ends")
    invite.add_argument("--url", help="what the link begins with (default: where the study was served last)")
    invite.set_defaults(run=run_invite)
    revoke = commands.add_parser("revoke", help="end a rater's link and sessions; the ratings stay")
    _common(revoke, name=True)
    revoke.set_defaults(run=run_revoke)
    raters = commands.add_parser("raters", help="list who was invited and how far each is")
    _common(raters)
    raters.set_defaults(run=run_raters)


def _common(parser: argparse.ArgumentParser, *, name: bool = False) -> None:
    parser.add_argument("study", type=Path, metavar="STUDY")
    if name:
        parser.add_argument("name", metavar="NAME", help="for your eyes: results say R1, R2, ...")
    add_database_argument(parser)


def run_invite(args: argparse.Namespace) -> int:
    """Print a link; it is shown this once, for only its hash is kept."""
    from ...diffusioncleft_core.study.folder import open_study
    from ...diffusioncleft_core.study.web.server import checked_url, last_address, link
    from ...diffusioncleft_core.study.web.store import opened_store

    study = open_study(args.study)
    if study.closed:
        raise UserError(f"{args.study} is closed and takes no answers; nobody can be invited any more")
    base = checked_url(args.url) if args.url else last_address(study)
    with opened_store(study, args.database) as store:
        rater, token = store.invite(args.name, renew=args.renew)
    print(f"{rater.name} is {rater.code}; their link, which is not kept and opens the study to who has it:")
    print(link(base, token))
    return 0


def run_revoke(args: argparse.Namespace) -> int:
    """End a link."""
    from ...diffusioncleft_core.study.folder import open_study
    from ...diffusioncleft_core.study.web.store import opened_store

    with opened_store(open_study(args.study), args.database) as store:
        rater = store.revoke(args.name)
    print(f"{rater.name} ({rater.code}) can't open the study any more; the ratings stay")
    return 0


def run_raters(args: argparse.Namespace) -> int:
    """List raters with what they answered."""
    from ...diffusioncleft_core.study.folder import open_study
    from ...diffusioncleft_core.study.web.store import opened_store

    study = open_study(args.study)
    counted = {item.id for item in study.rated}
    with opened_store(study, args.database, read_only=True) as store:
        sent, raters = store.counts(), store.raters()
    for rater in raters:
        own = {item: times for item, times in sent.get(rater.id, {}).items() if item in counted}
        corrections = sum(own.values()) - len(own)
        state = f"revoked {rater.revoked_at[:10]}" if rater.revoked_at else f"invited {rater.invited_at[:10]}"
        done = f"{len(own)} of {len(counted)} rated, {corrections} corrected"
        print(f"{rater.code:<4} {done}  {state}  {rater.name}")
    return 0
