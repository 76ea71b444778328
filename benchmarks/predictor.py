"""The predictor of CLAM, which the paper calls its slowest part, beside the literal form of it.

The literal form projects all fourteen tokens in every layer and asks the first layer's questions
anew at every step, as the published equations read (torch's own attention, the same weights). Ours
projects the query instead, and asks the first questions once a stream. Both give one answer.

    python benchmarks/predictor.py --rounds 40
"""

import argparse
import json
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from actioncast.layers.query_attention import QueryAttention
from actioncast.layers.query_predictor import PredictorLayer, QueryPredictor, SingleQueryMix


def literal_attention(own: QueryAttention) -> nn.MultiheadAttention:
    made = nn.MultiheadAttention(own.out.in_features, own.num_heads, batch_first=True)
    made.in_proj_weight, made.in_proj_bias = own.project.weight, own.project.bias
    made.out_proj = own.out  # type: ignore[assignment]
    return made.eval()


def literal(predictor: QueryPredictor) -> Callable[[Tensor, Tensor], Tensor]:
    """The decoder layer by layer, every token projected in each of them."""
    layers: list[PredictorLayer] = list(predictor.layers)  # type: ignore[arg-type]
    attentions = [literal_attention(layer.attention) for layer in layers]

    def answer(tokens: Tensor, positions: Tensor) -> Tensor:
        queries = predictor.queries.expand(len(tokens), -1, -1)
        stream = torch.zeros_like(queries)
        for layer, attention in zip(layers, attentions, strict=True):
            assert isinstance(layer.mix, SingleQueryMix)
            mixed = layer.mix.contract(F.relu(layer.mix.expand(stream + queries)))
            stream = layer.mix_norm(stream + mixed)
            found, _ = attention(stream + queries, tokens + positions, tokens, need_weights=False)
            stream = layer.attention_norm(stream + found)
            inner = layer.contract(F.relu(layer.expand(stream)))
            stream = layer.out_norm(stream + inner)
        return stream

    return answer


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    torch.manual_seed(0)
    predictor = QueryPredictor(1024, 1, 4, 4096, 8, 0.1).eval()
    nn.init.normal_(predictor.queries)
    tokens, positions = torch.randn(1, 14, 1024), 0.02 * torch.randn(14, 1024)
    asked, reference = predictor.first_asked(1), literal(predictor)
    runs = {
        "literal": lambda: reference(tokens, positions),
        "ours": lambda: predictor(tokens, positions, None, asked),
    }
    off = (runs["ours"]() - runs["literal"]()).abs().max().item()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(chosen.rounds):
        for name, run in runs.items():
            begun = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - begun)
    ratios = [a / b for a, b in zip(seconds["literal"], seconds["ours"], strict=True)]
    found = {name: round(1000 * median(times), 2) for name, times in seconds.items()}
    print(json.dumps({"ms": found, "ratio": round(median(ratios), 2), "max abs difference": off}))


if __name__ == "__main__":
    main()
