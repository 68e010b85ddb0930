"""`diffusioncleft study serve`: the page on which raters answer."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from ...diffusioncleft_core.ranges import whole
from ..options import warn

DATABASE = "DIFFUSIONCLEFT_STUDY_DATABASE"
FIRST = "first rater"
OPEN = """\
**************************************************************************************************
  NO TLS: links, pictures and answers cross the network where others can read them.
  Give --tls-certificate and --tls-key, or leave --host out and put a proxy that speaks TLS before it
  (--behind-proxy --url https://...).
**************************************************************************************************"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the parser."""
    parser = commands.add_parser("serve", help="serve the page on which raters answer, until Ctrl-C")
    parser.add_argument("study", type=Path, metavar="STUDY")
    add_database_argument(parser)
    parser.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1, this machine alone")
    parser.add_argument("--port", type=whole(0, 65535), default=8377, help="default: 8377; 0: a free one")
    parser.add_argument(
        "--url", help="address by which raters reach it, such as https://study.clinic.example"
    )
    parser.add_argument("--tls-certificate", type=Path, metavar="PEM", help="certificate of this server")
    parser.add_argument("--tls-key", type=Path, metavar="PEM", help="key of that certificate")
    parser.add_argument(
        "--behind-proxy", action="store_true", help="a proxy on this machine asks, and says for whom"
    )
    parser.set_defaults(run=run)


def add_database_argument(parser: argparse.ArgumentParser) -> None:
    """Where raters and ratings lie."""
    parser.add_argument(
        "--database",
        metavar="URL",
        default=os.environ.get(DATABASE),
        help="sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME, where raters and ratings are kept "
        f"(default: ${DATABASE}, else a file in the study's private folder)",
    )


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM."""
    from ...diffusioncleft_core.study.consent import erase_withdrawn
    from ...diffusioncleft_core.study.folder import open_study
    from ...diffusioncleft_core.study.web.messages import load_languages
    from ...diffusioncleft_core.study.web.server import Listening, link, serve
    from ...diffusioncleft_core.study.web.store import opened_store

    listening = Listening(
        args.host, args.port, args.url, args.tls_certificate, args.tls_key, args.behind_proxy
    )
    study = open_study(args.study)
    languages, notices = load_languages(args.study)
    silent = [code for code in study.design.languages if code not in languages]
    if silent:
        notices.append(
            f"the page has no messages in {', '.join(silent)}: those readers see another language "
            f"(docs/study.md: a language of your own)"
        )
    for notice in [*notices, *erase_withdrawn(study)]:
        warn(notice)
    if listening.is_open:
        print(OPEN, file=sys.stderr)
    with opened_store(study, args.database) as store:

        def tell(base: str) -> None:
            if not store.raters():
                token = store.invite(FIRST)[1]
                print(f"nobody was invited yet; a first link, for {FIRST!r}: {link(base, token)}")
            print(f"serving {study.root} at {base}; Ctrl-C ends it", flush=True)

        try:
            serve(study, store, languages, listening, tell)
        except KeyboardInterrupt:
            print("ended; every answer that was acknowledged is kept")
    return 0
