"""A page on which a photo is dropped, pasted or taken, and answered: faces, crops, the three nets, where they look.

    make web                                    # http://127.0.0.1:8000, until Ctrl-C; PORT= another one
    python tools/web.py --port 8080 --profile demo

Photos stay in this computer's memory and are forgotten when answered. Only this computer can open the page; --host
opens it to a network, without a password. Exit status: 0 ended by Ctrl-C, 2 wrong use, missing weights or a port in use.
"""

from __future__ import annotations

if __name__ == "__main__":
    import os, sys
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from common import environment; environment.ensure()

import argparse
import os
import sys
from typing import Optional, Sequence

from common import command
from common.options import add_engine, add_threshold, add_trained_profile
from gender_smile.inference.pipeline import UNCERTAIN_BELOW, Pipeline, PipelineError


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="web.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: %(default)s); "
                        "0.0.0.0: every address of this computer, so that phones in your network can open the page")
    parser.add_argument("--port", type=int, default=8000, metavar="NUMBER", help="default: %(default)s; 0: any free one")
    parser.add_argument("--proxy-headers", action="store_true", help="behind a reverse proxy on this computer: take clients' "
                        "addresses from X-Forwarded-For (default: they are ignored, as any client can send them)")
    add_threshold(parser, UNCERTAIN_BELOW)
    add_trained_profile(parser)
    add_engine(parser, predicting=True)
    return parser


def main(argv: Optional[Sequence[str]] = None) -> int:
    arguments = get_parser().parse_args(argv)
    return command.run("web.py", lambda: load_and_serve(arguments), PipelineError)


def load_and_serve(arguments: argparse.Namespace) -> int:
    """Serve what the command line names; the exit status, which is 0 where Ctrl-C ends it."""
    try:
        pipeline = Pipeline.load(arguments.profile, arguments.engine, arguments.gpu, arguments.variant, arguments.threshold)
        if pipeline.model.warning:
            print(f"web.py: {pipeline.model.warning}", file=sys.stderr, flush=True)
        serve(pipeline, arguments.host, arguments.port, arguments.proxy_headers)
    except ImportError as error:
        raise PipelineError(f"{error.name} is not installed: .venv/bin/pip install {error.name}") from None
    except KeyboardInterrupt:
        pass
    return 0


def serve(pipeline: Pipeline, host: str, port: int, proxy_headers: bool = False) -> None:
    """Run the page until Ctrl-C. Raises OSError where the port is not available, ImportError without the extra "web"."""
    from gender_smile.pages.server import address, is_local, make_server

    server, listener = make_server(pipeline, host, port, proxy_headers=proxy_headers)
    url = address(host, listener.getsockname()[1])
    print(f"{url} ({pipeline.profile} profile; Ctrl-C ends it)", flush=True)
    if not is_local(host):
        print_invitation(url)
    server.run(sockets=[listener])


def print_invitation(url: str) -> None:
    """Say that other devices may come, and show a terminal's user the address as a QR code."""
    from gender_smile.pages.server import qr_code

    print("Phones and computers in your network can open this address; it asks for no password.", flush=True)
    if sys.stdout.isatty() and (sys.stdout.encoding or "").lower().replace("-", "") == "utf8":
        print(qr_code(url, colored="NO_COLOR" not in os.environ), flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
