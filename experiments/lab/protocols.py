"""Evaluation protocols as experiments use them: with labels, network, held-out images."""

from distilljax import io
from distilljax.config import FieldError
from distilljax.models import convnet
from distilljax.training import evaluation
from distilljax.training.evaluation import NETWORKS, PROTOCOLS, EvaluationProtocol
from distilljax.types import Batch
from experiments.lab.networks import Network, own_network
from experiments.lab.options import OWN, Labels


def chosen_protocol(name: str, artefact: io.Artefact) -> EvaluationProtocol:
    """Returns the protocol of that name; under `own` the artefact's."""
    return PROTOCOLS.get(name, artefact.protocol)


def chosen_network(
    protocol: str, label: str, artefact: io.Artefact, field: str = "models"
) -> Network:
    """Returns the network that the protocol brings; else the artefact's own.

    Args:
      protocol: a key of `PROTOCOLS`, or `own`.
      label: of the artefact, for errors.
      artefact: the set.
      field: the option, for errors.

    Raises:
      FieldError: of the option `field`: the artefact names an unknown network.
    """
    if protocol in NETWORKS:
        return Network(OWN, "convnet", convnet.Config.from_dict(NETWORKS[protocol]))
    return own_network(label, artefact, field)


def batch_of(
    label: str,
    artefact: io.Artefact,
    protocol: EvaluationProtocol,
    labels: Labels = "own",
    *,
    selects: str | None = "protocol",
) -> Batch:
    """Returns a set as one batch with the labels that the loss of the protocol reads.

    Args:
      label: of the set, for errors.
      artefact: the set.
      protocol: only its loss counts.
      labels: the set's own, or hard ones.
      selects: the option that chooses the protocol, for errors; None where there is none.

    Raises:
      FieldError: of `labels`: the set has learned targets, and the loss is cross-entropy.
    """
    squared = protocol.loss != "cross_entropy"
    if labels == "own" and artefact.targets is not None and not squared:
        remedy = "give --labels=hard"
        if selects:
            remedy += f", or a --{selects} with a squared error (frepo, rcig, rfad, own)"
        reason = (
            f"the labels of {label} are learned real-valued targets, no distributions, "
            f"and cross-entropy cannot read them; {remedy}"
        )
        raise FieldError("labels", labels, reason)
    return evaluation.as_batch(
        artefact.distilled, protocol, targets=artefact.targets, labels=labels
    )
