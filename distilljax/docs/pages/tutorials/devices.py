"""On eight GPUs and on a cluster.

Many devices can share one distillation (the last section), or each can run one of its own:
outer seeds, networks of an evaluation, runs of a sweep. This page runs on eight devices
that are forced out of one CPU; on eight GPUs leave out the two `jax.config.update` lines.
"""

# %%
import jax

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from distilljax import data, methods
from distilljax.core import distilled, losses
from distilljax.curvature import hessian
from distilljax.models import mlp
from distilljax.training.evaluation import EvaluationProtocol, as_batch, fresh_accuracy
from distilljax.types import Batch

mesh = Mesh(np.array(jax.devices()), ("device",))
over, everywhere = NamedSharding(mesh, P("device")), NamedSharding(mesh, P())
assert jax.device_count() == 8

# %% [markdown]
# ## A distillation on each device
#
# A method's `init` and `step` are pure: `shard_map` gives each device its own key, and the
# real set lies on all of them. Nothing is communicated, so that eight devices do eight
# times the work in the same time.

# %%
loaded = data.load("embedded")
transform = data.fit("normalise", loaded.train.images)
real = jax.device_put(data.on_device(loaded.train, transform, 10), everywhere)
model = mlp.make(mlp.Config(width=16, depth=1), loaded.image_shape, 10)
method = methods.dm.make(methods.dm.Config(real_batch=16, augment=""), model)


def distil(keys, real):
    (key,) = keys
    start_key, init_key, step_key = jax.random.split(key, 3)
    images = 0.1 * jax.random.normal(start_key, (10, *loaded.image_shape))
    start = distilled.create(images, jnp.arange(10), 10, learning_rate=0.01)

    def step(state, t):
        state, info = method.step(jax.random.fold_in(step_key, t), state, real)
        return state, info.loss

    state, curve = jax.lax.scan(step, method.init(init_key, start), jnp.arange(50))
    return jax.tree.map(lambda x: x[None], (method.decode(state.distilled), curve))


on_each = jax.jit(
    jax.shard_map(
        distil,
        mesh=mesh,
        in_specs=(P("device"), P()),
        out_specs=P("device"),
        check_vma=False,
    )
)
seeds = jax.random.split(jax.random.key(0), 8)
sets, curves = on_each(jax.device_put(seeds, over), real)
assert len(sets.images.sharding.device_set) == 8

# %% [markdown]
# Seed 3 alone, on one device, gives the same curve.

# %%
alone = jax.jit(distil)(seeds[3:4], data.on_device(loaded.train, transform, 10))[1]
np.testing.assert_allclose(curves[3], alone[0], rtol=1e-3)

# %% [markdown]
# ## Networks of an evaluation
#
# One set each, one network each: the spread over outer seeds.

# %%
test = jax.device_put(data.on_device(loaded.test, transform, 10), everywhere)
protocol = EvaluationProtocol(steps=50)


def evaluate(keys, sets, test):
    own = as_batch(jax.tree.map(lambda x: x[0], sets), protocol)
    return fresh_accuracy(keys, model, own, test, protocol)


accuracy = jax.jit(
    jax.shard_map(
        evaluate,
        mesh=mesh,
        in_specs=(P("device"), P("device"), P()),
        out_specs=P("device"),
        check_vma=False,
    )
)(jax.random.split(jax.random.key(1), 8), sets, test)
print(f"{accuracy.mean():.1%} ± {accuracy.std(ddof=1):.1%} over 8 distillations")
assert accuracy.mean() > 0.4

# %% [markdown]
# ## Data spread over devices
#
# [`hessian`][distilljax.curvature.hessian] leaves the data where they are: each device
# computes its share of each chunk, and the results are added.

# %%
params = model.init(jax.random.key(2))
pixels = transform(loaded.test.images[:800])
batch = Batch(pixels, jax.nn.one_hot(loaded.test.labels[:800], 10))
loss_fn = losses.cross_entropy(model.apply)


@jax.jit
def trace(params, batch):
    key = jax.random.key(3)
    return hessian.trace(loss_fn, params, batch, key, num_probes=4, chunk=400)


spread = trace(jax.device_put(params, everywhere), jax.device_put(batch, over))
np.testing.assert_allclose(spread.value, trace(params, batch).value, rtol=1e-3)

# %% [markdown]
# ## On a cluster
#
# There are two ways. The first is a job array, a run with its own seed on each node: only
# the folder is shared, each run resumes independently, and `experiments.compare` puts them
# into one table at the end:
#
# ```
# python -m experiments.distill --dataset=cifar10 --data_dir=DIR \
#   --seed=$SLURM_ARRAY_TASK_ID --workdir=runs/seed$SLURM_ARRAY_TASK_ID
# ```
#
# The second is one run over all nodes: `distill`, `train_experts`, `evaluate`, `agreement`
# and `influence` take `--distributed`. JAX finds the other processes on Slurm, Open MPI,
# Kubernetes and TPU pods; on Slurm a process has one GPU, and `sbatch` of this file does:
#
# ```
# #!/bin/bash
# #SBATCH --nodes=2
# #SBATCH --ntasks-per-node=8
# #SBATCH --gpus-per-node=8
# #SBATCH --cpus-per-task=8
# #SBATCH --time=04:00:00
# #SBATCH --requeue
# #SBATCH --signal=TERM@120
# srun --kill-on-bad-exit=1 python -m experiments.distill --distributed \
#   --preset=cifar10_ipc10 --method=tm --dataset=cifar10 --data_dir=$HOME/data \
#   --experts_dir=$HOME/experts --workdir=$SCRATCH/tm10
# ```
#
# Only the first process writes into `--workdir` and to the terminal, so they need no common
# file system; each reads data, artefacts and experts itself. All numbers are those of one
# process up to rounding. SIGTERM, which Slurm sends here 2 minutes before the end, stops
# all of them after a checkpoint. If one process is killed, the others end with one line, at
# most a minute of work is lost (`--checkpoint_seconds`), and the same command resumes with
# any number of processes.
#
# Without such a launcher each process is given the address of the first one. Two on one
# machine, to try it:
#
# ```
# for i in 0 1; do python -m experiments.distill --workdir=runs/two --distributed \
#   --coordinator_address=localhost:12321 --num_processes=2 --process_id=$i & done; wait
# ```
#
# A program of your own needs only [`processes`][distilljax.processes] and
# [`devices`][distilljax.devices]:
#
# ```
# processes.start(None, None, None)  # before the first computation
# mesh = devices.mesh()  # of the devices of all processes
# def program(keys, test):
#     return fresh_accuracy(keys, model, own, test, protocol, mesh=mesh)
# given = devices.everywhere((keys, test), mesh)
# accuracy = devices.jit(program, mesh)(*given)  # the same in every process
# if processes.index() == 0:
#     np.save("accuracy.npy", accuracy)
# ```

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 2.6), layout="constrained")
left.semilogy(np.asarray(curves).T, color="C0", alpha=0.5)
left.set(xlabel="outer step", ylabel="outer loss")
right.bar(np.arange(8), np.asarray(accuracy))
right.axhline(float(accuracy.mean()), color="black", linewidth=1)
right.set(xlabel="device", ylabel="test accuracy")
figure.savefig("devices.png", dpi=120)

# %% [markdown]
# ![The outer loss of eight distillations, and the test accuracy of a network trained on
# each set; the line is their mean](devices.png)
