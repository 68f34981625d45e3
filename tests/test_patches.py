"""What of MLServer is replaced fits, or nothing is.  Run: pytest tests/test_patches.py

What each replacement is for has its test elsewhere.
"""

import sys

from scratch import ROOT, run

INSTALL = "import sys; sys.path.insert(0, 'serving'); import mlserver.server, mlserver.registry"
UNFIT = {  # changes of MLServer, by what the start says of each
    "no attribute 'RESTServer'": "del mlserver.server.RESTServer",
    "no attribute '_is_newer'": "del mlserver.registry._is_newer",
    "is_newer does not take one": "mlserver.registry._is_newer = lambda one, other, more: 0",
    "GrpcServer is no GRPCServer": "mlserver.server.GRPCServer = type('GRPCServer', (), {})",
    "start has no _get_config": "mlserver.rest.server.RESTServer.start = lambda self: 0",
    "no attribute 'start'": "del mlserver.rest.server.RESTServer.start",
}
EACH_IN_A_COPY = """
import os
for change in sys.argv[1:]:
    copy = os.fork()
    if copy == 0:
        exec(change)
        import fashion.repository
        servers = mlserver.server, mlserver.registry
        replaced = {name for s in servers for name, value in vars(s).items()
                    if getattr(value, "__module__", "").startswith("fashion")}
        sys.exit(f"replaced: {replaced}" if replaced else 0)
    assert os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1]) == 0, change
"""


def test_an_mlserver_that_does_not_fit_is_left_as_it_is_with_a_warning():
    output = run(ROOT, sys.executable, "-c", INSTALL + EACH_IN_A_COPY, *UNFIT.values())
    for line, words in zip(output.splitlines(), UNFIT, strict=True):
        assert line.startswith("this MLServer is not one of those tested, ")
        assert words in line
