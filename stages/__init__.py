"""The six stages of the pipeline.

Sums of floats depend on the kernels that OpenBLAS, NumPy and MKL choose by processor. Here, before
these are loaded, every x86-64 processor with AVX2 gets the same ones: stages write the same bytes.
"""

import os
import platform
from pathlib import Path

_PROCESSOR = Path("/proc/cpuinfo")
SAME_KERNELS = (
    platform.machine() == "x86_64"
    and _PROCESSOR.exists()
    and "avx2" in _PROCESSOR.read_text(encoding="utf-8")
)
KERNELS = {
    "OPENBLAS_CORETYPE": "Haswell",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",  # all of AVX-512
    "MKL_CBWR": "COMPATIBLE",  # of the MKL in scikit-learn-intelex: its one branch for all
}
if SAME_KERNELS:
    os.environ.update(KERNELS)
