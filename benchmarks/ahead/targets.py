"""Devices that programs are compiled for without having one, by the vendors' numbers.

| number | source |
|---|---|
| H100 SXM, H200 SXM: FLOP/s (half of those that NVIDIA states with sparsity: bfloat16 1,979 T, TF32 989 T; float32 67 T), memory and bandwidth (80 GB at 3.35 TB/s, 141 GB at 4.8 TB/s), NVLink 900 GB/s in both directions together | NVIDIA, data sheets of H100 and H200 Tensor Core GPU |
| 132 multiprocessors, 50 MB of L2 cache | NVIDIA, H100 Tensor Core GPU Architecture, table of the SXM5 |
| threads, registers and shared memory of compute capability 9.0 | NVIDIA, CUDA C++ Programming Guide, technical specifications by compute capability |
| v5e: 197 TFLOP/s, 16 GB at 819 GB/s, links 400 GB/s in both directions together; v6e: 918 TFLOP/s, 32 GB at 1,638 GB/s, links 800 GB/s | Google, Cloud TPU documentation, pages of v5e and v6e |
| TPU clocks: the stated FLOP/s over the products of a cycle, 4 x 128 x 128 on v5e (1.5 GHz); for v6e 4 x 256 x 256 (1.75 GHz), since XLA's cycles of a large product are too few for fewer | computed |
| float32 products of `precision=HIGHEST` on a TPU: six passes in bfloat16 | `jax.lax.Precision` |
| least time of a CUDA kernel, 3 microseconds | assumed, and the same for a collective |

A float32 product is TF32 on these GPUs and one pass in bfloat16 on a TPU unless it asks for
more.
"""  # noqa: E501

import importlib.util
import os
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from benchmarks.ahead.walk import Speed
from distilljax.devices import AXIS
from distilljax.types import InputError

_HOPPER = """
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: 233472
  shared_memory_per_block_optin: 232448
  threads_per_core_limit: 2048
  core_count: 132
  fpus_per_core: 128
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  l2_cache_size: 52428800
  clock_rate_ghz: 1.98
  memory_bandwidth: {bandwidth}
  device_memory_size: {memory}
  cuda_compute_capability {{ major: 9 minor: 0 }}
}}
platform_name: "CUDA"
runtime_version {{ major: 13 }}
dnn_version_info {{ major: 9 minor: 10 }}
device_description_str: "{name}"
"""


class Target(NamedTuple):
    """A kind of device.

    Attributes:
      name: as the vendor writes it.
      platform: cuda or tpu.
      memory: bytes.
      speed: what bounds the time of a kernel.
    """

    name: str
    platform: str
    memory: int
    speed: Speed


def _hopper(name: str, memory: int, bandwidth: float) -> Target:
    flops = {"low": 989.5e12, "default": 494.5e12, "highest": 67e12}
    return Target(name, "cuda", memory, Speed(flops, bandwidth, 450e9, 3e-6))


def _tpu(name: str, memory: int, flops: float, bandwidth: float, link: float) -> Target:
    products = 4 * (128 if name == "v5e" else 256) ** 2
    by_precision = {"low": flops, "default": flops, "highest": flops / 6}
    speed = Speed(by_precision, bandwidth, link, 0.0, flops / (2 * products))
    return Target(f"TPU {name}", "tpu", memory, speed)


TARGETS = {
    "h100": _hopper("NVIDIA H100 SXM", 80 * 10**9, 3.35e12),
    "h200": _hopper("NVIDIA H200 SXM", 141 * 10**9, 4.8e12),
    "v5e": _tpu("v5e", 16 * 10**9, 197e12, 819e9, 200e9),
    "v6e": _tpu("v6e", 32 * 10**9, 918e12, 1638e9, 400e9),
}
MOST = 8  # devices
_PACKAGES = {"cuda": "jax_cuda13_plugin", "tpu": "libtpu"}
_INSTALL = {
    "jax_cuda13_plugin": "pip install -e '.[ahead]' && "
    "pip install --no-deps jax-cuda13-plugin==0.10.2 jax-cuda13-pjrt==0.10.2",
    "libtpu": "pip install -e '.[ahead]'",
}


def missing(target: str) -> str | None:
    """Returns why nothing can be compiled for a target here; None if it can."""
    package = _PACKAGES[TARGETS[target].platform]
    if importlib.util.find_spec(package) is None:
        return f"{package} is not installed; {_INSTALL[package]}"
    return None


def prepare() -> None:
    """Sets what the compilers read from the environment, before JAX looks at it.

    No device is looked for. Without the last, a second process that loads libtpu aborts.
    """
    os.environ["JAX_PLATFORMS"] = "cpu"
    jax.config.update("jax_platforms", "cpu")
    os.environ["TPU_SKIP_MDS_QUERY"] = "1"
    os.environ["TPU_ACCELERATOR_TYPE"] = "v5litepod-4"
    os.environ["TPU_WORKER_HOSTNAMES"] = "localhost"
    os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"


def devices(target: str) -> Any:
    """Returns eight devices of a target, that exist only for the compiler.

    Raises:
      InputError: its compiler is not installed.
    """
    from jax.experimental import topologies

    if reason := missing(target):
        raise InputError(reason)
    prepare()
    jax.devices()
    chosen = TARGETS[target]
    if chosen.platform == "tpu":
        name = f"{target}:2x4"
        return topologies.get_topology_desc(platform="tpu", topology_name=name).devices
    config = _HOPPER.format(
        bandwidth=int(chosen.speed.bandwidth), memory=chosen.memory, name=chosen.name
    )
    return topologies.get_topology_desc(
        platform="cuda", target_config=config, topology=f"1x1x{MOST}"
    ).devices


def mesh(found: Any, num: int) -> Mesh | None:
    """Returns a mesh of the first devices; None for a single one."""
    return Mesh(np.array(found[:num]), (AXIS,)) if num > 1 else None


def sharding(found: Any, over: Mesh | None) -> Any:
    """Returns where arguments and results lie: on the first device, or a copy on each."""
    if over is None:
        return SingleDeviceSharding(found[0])
    return NamedSharding(over, PartitionSpec())


def options(target: str) -> dict[str, Any]:
    """Returns options of the compiler.

    XLA asks the device how to sort with CUB, and there is none.
    """
    if TARGETS[target].platform == "cuda":
        return {"xla_gpu_enable_cub_radix_sort": False}
    return {}
