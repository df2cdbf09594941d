"""Programs compiled ahead of time for accelerators that are not there.

    python -m benchmarks.ahead --target=h100 --program=bptt
    python -m benchmarks.ahead --target=v5e --program=gm --devices=8 --json=ahead.json
    python -m benchmarks.ahead --target=h100,h200 --devices=1,8

Needs the extra `ahead`: XLA's compilers for CUDA and TPU, without a device. Nothing runs.

A record holds the bytes of arguments, temporaries and outputs that the compiler states;
FLOPs, traffic and kernels by layer, read off the optimised program with the passes through
its loops (`walk`); collectives; and two times: that of a roofline, for each kernel the
greatest of FLOPs over FLOP/s, bytes over bandwidth and a launch, and on a TPU that of XLA's
estimated cycles.

What is not in them: caches, so that traffic between kernels whose values fit in one counts
in full; workspaces and the choice of algorithms of cuDNN, which are made on the device; the
host.
"""

from benchmarks.ahead.command import Config, run, table

__all__ = ["Config", "run", "table"]
