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
from typing import TYPE_CHECKING, Any, Optional, Sequence, Tuple

from common import command
from common.options import add_engine, add_trained_profile
from gender_smile.inference.pipeline import Pipeline, PipelineError

if TYPE_CHECKING:
    from gender_smile.pages.web_app import Limits

CONNECTIONS = 100  # at a time
GRACE = 2  # seconds that Ctrl-C gives to answers under way


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="web.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, metavar="NUMBER", help="default: %(default)s; 0: any free one")
    add_trained_profile(parser)
    add_engine(parser)
    return parser


def main(argv: Optional[Sequence[str]] = None) -> int:
    arguments = get_parser().parse_args(argv)
    return command.run("web.py", lambda: load_and_serve(arguments), PipelineError)


def load_and_serve(arguments: argparse.Namespace) -> int:
    """Serve what the command line names; the exit status, which is 0 where Ctrl-C ends it."""
    try:
        pipeline = Pipeline.load(arguments.profile, arguments.engine, arguments.gpu)
        serve(pipeline, arguments.host, arguments.port)
    except ImportError as error:
        raise PipelineError(f"{error.name} is not installed: .venv/bin/pip install -e '.[web]'") from None
    except KeyboardInterrupt:
        pass
    return 0


def serve(pipeline: Pipeline, host: str, port: int) -> None:
    """Run the page until Ctrl-C. Raises OSError where the port is not to be had, ImportError without the extra "web"."""
    server, listener = make_server(pipeline, host, port)
    shown = f"[{host}]" if ":" in host else host
    print(f"http://{shown}:{listener.getsockname()[1]}/ ({pipeline.profile} profile; Ctrl-C ends it)", flush=True)
    server.run(sockets=[listener])


def make_server(pipeline: Pipeline, host: str, port: int, limits: Optional["Limits"] = None) -> Tuple[Any, Any]:
    """(uvicorn.Server, the socket that it is to run on). Raises as serve()."""
    import uvicorn

    from gender_smile.pages.web_app import LOCAL_HOSTS, application

    app = application(pipeline, limits, (*LOCAL_HOSTS, host) if is_local(host) else ("*",))
    listener = listen(host, port)
    config = uvicorn.Config(app, log_level="warning", access_log=False, limit_concurrency=CONNECTIONS,
                            server_header=False, timeout_graceful_shutdown=GRACE)
    return uvicorn.Server(config), listener


def is_local(host: str) -> bool:
    """Whether only this computer reaches an address: then other names that lead to it are refused."""
    import ipaddress

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listen(host: str, port: int) -> Any:
    """A socket that listens at a port. Raises OSError (text: what to do)."""
    import socket

    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        reason = reason.partition(" (while attempting")[0]  # Python adds the address to some
        raise OSError(f"cannot listen at {host}, port {port} ({reason}); --port (PORT=) takes another") from None
    return listener


if __name__ == "__main__":
    raise SystemExit(main())
