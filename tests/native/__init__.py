"""Native test harnesses of the core: built for tests only, never part of the wheel.

`make native` compiles them; TESTED_NATIVE names another folder of built modules (sanitizers).
"""

import os
from pathlib import Path

_BUILT = Path(__file__).resolve().parents[2] / "build" / "native" / "modules"
__path__.append(os.environ.get("TESTED_NATIVE", str(_BUILT)))
