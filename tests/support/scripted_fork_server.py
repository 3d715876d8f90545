"""A fork server whose engines are scripted processes; run by its bare name from this folder."""

import os
import socket
import sys

import scripted_process

from gateway.engines import forkserver, launcher


def main() -> None:
    behaviour = os.environ.get("FORK_SERVER", "")
    own_environment = dict(os.environ)
    if behaviour == "broken":
        sys.exit("cannot import the engine")
    launcher.die_with_parent()
    launcher.pass_on_to_forks()
    server = forkserver.ForkServer(socket.socket(fileno=int(sys.argv[1])))
    if behaviour == "refuses":
        server.send(event="refused", reason="not on this machine")
        return
    request = server.serve()
    if request is None:
        return
    forkserver.become_engine(request, own_environment)
    scripted_process.main(sys.argv[1:])


if __name__ == "__main__":
    main()
