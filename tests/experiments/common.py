"""Made-up contents that all records share."""

COMMON = {
    "dataset": {
        "name": "cifar10",
        "source": "tfds",
        "fingerprint": "18d4b97e",
        "num_classes": 10,
    },
    "peak_memory_bytes": 2**30,
    "environment": {
        "distilljax": "0.1.0",
        "python": "3.11.7",
        "jax": "0.10.2",
        "jaxlib": "0.10.2",
        "flax": "0.12.8",
        "optax": "0.2.8",
        "numpy": "2.4.6",
        "device": "1 x cpu cpu",
        "machine": "x86_64, Linux",
        "finished": "2026-11-28",
    },
}
