"""The peer of benches/generate.rs: one question about one clip in plain PyTorch and transformers, token by token.

python generate.py TASK    TASK is JSON: {folder, bf16, threads, answer, prompt}

FOLDER holds what the Rust side wrote: config.json (sizes), model.safetensors (every weight), mels.safetensors (mel_N: a clip of N
windows). The model is train.py's. Three loops over transformers' cache: as the reference has it, whose cross-attention projects
keys and values of the whole audio again at each token; the same with them projected once; and the LM alone.
Prints JSON: seconds to the first token and of each other one, the tokens, the bytes of the LM's weights.
"""

import json
import pathlib
import statistics
import sys
import time

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn
from train import Flamingo, GatedCrossAttention, load
from transformers import DynamicCache


class ProjectedOnce(nn.Module):
    """`to_kv` that gives what it gave for the same audio before."""

    def __init__(self, to_kv):
        super().__init__()
        self.to_kv, self.media, self.out = to_kv, None, None

    def forward(self, media):
        if self.media is not media:
            self.media, self.out = media, self.to_kv(media)
        return self.out


def hear(model, mel, kind):
    features = model.clap.nvclap(mel)
    real = torch.ones(1, len(mel) * features.shape[1], dtype=torch.bool)
    return model.audio_transformer_clap(features.reshape(1, -1, features.shape[-1]), real).to(kind)


def answer(model, prompt, tokens, media, begin):
    """Greedy, each token as the one before is known."""
    lm = model.lang_encoder.model
    for layer in lm.layers:
        layer.media = media
    cache, ids, at = DynamicCache(), [], []
    new = torch.tensor([prompt])
    while len(ids) < tokens:
        x = lm(input_ids=new, past_key_values=cache, use_cache=True).last_hidden_state[:, -1]
        new = F.linear(x, lm.embed_tokens.weight).argmax(-1, keepdim=True)
        ids.append(new.item())
        at.append(time.perf_counter() - begin)
    # As on the other side, the second token is not counted.
    each = [b - a for a, b in list(zip(at, at[1:]))[1:]]
    return {"first": at[0], "token": statistics.median(each), "ids": ids}


@torch.inference_mode()
def main(task):
    torch.set_num_threads(task["threads"])
    folder = pathlib.Path(task["folder"])
    model = Flamingo(json.loads((folder / "config.json").read_text()))
    load(model, folder / "model.safetensors")
    model.eval()
    kind = torch.bfloat16 if task["bf16"] else torch.float32
    # The audio's side stays in fp32: the bicubic resize and the norms of HTSAT want it.
    model.lang_encoder.to(kind)
    mels = {int(name.split("_")[1]): mel for name, mel in load_file(folder / "mels.safetensors").items()}
    out = {"reference": [], "once": []}

    def both_times(windows):
        for _ in range(2):
            begin = time.perf_counter()
            media = hear(model, mels[windows], kind)
            found = answer(model, task["prompt"], task["answer"], media, begin)
        return found

    for windows in sorted(mels):
        out["reference"].append(both_times(windows))
    for module in model.modules():
        if isinstance(module, GatedCrossAttention):
            module.attn.to_kv = ProjectedOnce(module.attn.to_kv)
    for windows in sorted(mels):
        out["once"].append(both_times(windows))
    for layer in model.lang_encoder.model.layers:
        layer.gated_cross_attn_layer_sound = None
    lm = model.lang_encoder.model
    for _ in range(2):
        out["lm"] = answer(model, task["prompt"], task["answer"], None, time.perf_counter())["token"]
    out["lm_bytes"] = float(sum(p.numel() * p.element_size() for p in lm.parameters() if p.dim() == 2))
    print(json.dumps(out))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
