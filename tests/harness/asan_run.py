"""Run a Python module on the packages of $TESTED_SITE: `asan_run.py MODULE ARGUMENTS...`.

An editable install puts a finder of its own before the path, so PYTHONPATH alone would not do.
"""

import os
import runpy
import sys

site = os.environ["TESTED_SITE"]
sys.meta_path[:] = [
    f for f in sys.meta_path if type(f).__module__ != "_editable_skbc_redis_sidecar"
]
# The tests come from the working directory, the package under test does not.
sys.path[0] = os.getcwd()
sys.path.insert(0, site)
# What is started from here runs without the sanitizers' library.
os.environ.pop("LD_PRELOAD", None)
import sidecar.core.memory as core  # noqa: E402

if not str(core.__file__).startswith(site):
    sys.exit(f"the modules under test come from {core.__file__}")
del sys.argv[0]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
