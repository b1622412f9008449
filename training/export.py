"""Completes a bundle for serving: the head as an ONNX graph, proved against torch, and golden answers."""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from training.cascade import FIRST_GRAPH, first_of
from training.data import tensors
from training.encoder import Encoder
from training.golden import examples, write_golden
from training.networks.tabular import Head, LogisticHead, Network
from training.networks.text import TunedEncoder, worst
from training.reader import PIECES
from training.scorer import Scorer
from training.vectors import GRAPH
from training.weights import load_network, read_spec

OPSET = 18
# Between the probabilities of torch and of the bundle; a long text's sums round apart, and its logits by more.
MAX_DIFFERENCE = 1e-5


def complete(bundle: Path) -> None:
    """Add dense.onnx and golden.json to a bundle with weights; raises ValueError where it differs from torch."""
    network, encoder = load_network(bundle)
    head = network.head
    if isinstance(tuned := dict(network.named_modules()).get("readers.encoder"), TunedEncoder):
        from training.pretrained import write_graph

        write_graph(bundle / GRAPH, tuned.pooled)
    write_onnx(bundle / "dense.onnx", head, width=head.width)
    if read_spec(bundle).cascade:
        first = head.heads[0]
        assert isinstance(first, Head | LogisticHead)
        write_onnx(bundle / FIRST_GRAPH, first, width=first.width)
    check_parity(bundle, network, encoder=encoder)
    write_golden(bundle)


def write_onnx(path: Path, head: nn.Module, *, width: int) -> None:
    """A head as a graph from `input` float32 [B, D] to `logits` [B, L].

    By tracing: the head has no control flow, tracing needs neither onnx nor onnxscript, and it took 0.07 s where the
    newer exporter took 6 s for the same answers to the last bit.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            head,
            (torch.zeros(2, width),),
            path,
            input_names=["input"],
            output_names=["logits"],
            dynamic_axes={"input": {0: "rows"}, "logits": {0: "rows"}},
            opset_version=OPSET,
            dynamo=False,
        )


def check_parity(bundle: Path, network: Network, *, encoder: Encoder) -> None:
    """Refuse a bundle whose probabilities are not those of the network it was made from."""
    rows, scorer = examples(encoder), Scorer.load(bundle)
    inputs = encoder.encode(rows)
    if scorer.embedder:
        inputs = replace(inputs, vectors=scorer.embedder.vectors(inputs.bags[PIECES]))
    with torch.inference_mode():
        batch = tensors(inputs)
        pairs = [(scorer, network(batch))]
        if scorer.spec.cascade:
            pairs.append(
                (first_of(scorer, bundle, scaling=np.zeros((len(scorer.spec.labels), 2))), network.each(batch)[0])
            )
        expected = [worst(logits_PL, batch["owners_P"], num_rows=len(rows)).sigmoid() for _, logits_PL in pairs]
    answered = [torch.from_numpy(one.logits(rows)).sigmoid() for one, _ in pairs]
    difference = max(float((a - e).abs().max()) for a, e in zip(answered, expected, strict=True))
    if not difference <= MAX_DIFFERENCE:
        raise ValueError(f"{bundle}: scores differ from torch's by {difference:.1e}; the limit is {MAX_DIFFERENCE:.0e}")
