"""Distilled sets that their authors published, and what is needed to use them.

A number is the test accuracy of a ConvNet of depth 3 that the authors state, in percent.
Sources: Zhao et al. 2021 (DC, arXiv 2006.05929, table 1; the file after 1,000 iterations),
Feng et al. 2023 (RaT-BPTT, arXiv 2310.04295, table 1), Loo et al. 2022 (RFAD, arXiv
2210.12067), Loo et al. 2023 (RCIG, arXiv 2302.06755), and their public files. RCIG's script
evaluates a set with and without augmentation; its paper states one number.
"""

from typing import NamedTuple

from distilljax.io.foreign import Labels


class Published(NamedTuple):
    """A file that is known: how to read it, and what its authors state."""

    name: str
    file: str  # its name
    sha256: str | None  # of the file; None: any
    method: str
    dataset: str
    ipc: int
    preprocess: str  # one of `data.KINDS`
    protocol: str  # one of `PROTOCOLS`
    labels: Labels | None  # where the file does not tell
    accuracy: float  # published, percent
    source: str


ROWS = (
    Published(
        "dc_ipc1",
        "res_DC_CIFAR10_ConvNet_1ipc.pt",
        "3d3329153ebf0f030b8181d43e33ffd9546ea529eba0a1dd20b3819c6689e8e7",
        "DC",
        "cifar10",
        1,
        "published",
        "dc",
        None,
        28.3,
        "arXiv 2006.05929",
    ),
    Published(
        "dc_ipc10",
        "res_DC_CIFAR10_ConvNet_10ipc_1000.pt",
        "d1c8bd5c2b85293b23d94d747e016046d8749cdaa3a8c32f2f8764a031f39b81",
        "DC",
        "cifar10",
        10,
        "published",
        "dc",
        None,
        44.9,
        "arXiv 2006.05929",
    ),
    Published(
        "rat_ipc1",
        "RaT-BPTT_cifar10_IPC_1.h5",
        "49e326ee99560ad19aa7f32c936b00f86a26b8c7118ff42002d9c67c9221b177",
        "RaT-BPTT",
        "cifar10",
        1,
        "zca_normed",
        "rat",
        "in_order",
        53.2,
        "arXiv 2310.04295",
    ),
    Published(
        "rcig_ipc1",
        "RCIG_cifar10_IPC_1.msgpack",
        "31f7ba2b7d8748a7139e5be5fb5d4276268fd6e1fc892eb388128aa01908441f",
        "RCIG",
        "cifar10",
        1,
        "zca_scaled",
        "rcig_ipc1",
        None,
        53.9,
        "arXiv 2302.06755",
    ),
    Published(
        "rcig_plain_ipc1",
        "RCIG_cifar10_IPC_1.msgpack",
        "31f7ba2b7d8748a7139e5be5fb5d4276268fd6e1fc892eb388128aa01908441f",
        "RCIG",
        "cifar10",
        1,
        "zca_scaled",
        "rcig_plain_ipc1",
        None,
        53.9,
        "arXiv 2302.06755",
    ),
    Published(
        "rfad_ipc1",
        "RFAD_cifar10_IPC_1.npz",
        "d636a60aba2965768906d85ebb99f1598108ff62a0bcc018f36298f95bf2eed5",
        "RFAD",
        "cifar10",
        1,
        "zca_uncentred",
        "rfad_ipc1",
        None,
        53.6,
        "arXiv 2210.12067",
    ),
)
