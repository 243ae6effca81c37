"""The peer of benches/train.rs: the same training step in plain PyTorch and transformers.

python train.py JOB        JOB is JSON: {folder, clap, again, bf16, threads, warmup, steps, learning_rate}

FOLDER holds what the Rust side wrote: config.json (sizes), model.safetensors (every weight), batch.safetensors. The modules
carry the checkpoint's names, so that the weights fit with nothing missing and nothing left. HTSAT, audio transformer and
cross-attention are our own modules over torch's layers and scaled_dot_product_attention; the decoder is transformers' Qwen2
(sdpa) with each layer wrapped as the reference wraps it. Prints JSON: seconds of each timed step, losses, memory.

Where PyTorch users do it differently from af2, it is done their way: logits of every position, gradients freed after each
step, clip_grad_norm_, AdamW(fused=True).
"""

import json
import math
import pathlib
import sys
import time

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import Qwen2Config
from transformers.models.qwen2.modeling_qwen2 import Qwen2Model

IMAGE, PATCH, FOLDS, WINDOW, MELS = 256, 4, 4, 8, 64
AGAIN = False


def block(module, *args):
    """A block whose activations are kept, or computed again in the backward pass."""
    if AGAIN and torch.is_grad_enabled():
        return checkpoint(module, *args, use_reentrant=False)
    return module(*args)


class SwinBlock(nn.Module):
    def __init__(self, dim, side, heads, odd):
        super().__init__()
        self.side, self.heads = side, heads
        self.shift = WINDOW // 2 if odd and side > WINDOW else 0
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn, self.mlp = nn.Module(), nn.Module()
        self.attn.qkv, self.attn.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.attn.relative_position_bias_table = nn.Parameter(torch.zeros((2 * WINDOW - 1) ** 2, heads))
        tokens = WINDOW * WINDOW
        self.attn.register_buffer("relative_position_index", torch.zeros(tokens, tokens, dtype=torch.long))
        if self.shift:
            self.register_buffer("attn_mask", torch.zeros((side // WINDOW) ** 2, tokens, tokens))
        self.mlp.fc1, self.mlp.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def attention(self, x):
        b, length, d = x.shape
        s, n = self.side // WINDOW, WINDOW * WINDOW
        x = x.view(b, self.side, self.side, d)
        if self.shift:
            x = torch.roll(x, (-self.shift, -self.shift), (1, 2))
        x = x.view(b, s, WINDOW, s, WINDOW, d).transpose(2, 3).reshape(b * s * s, n, d)
        q, k, v = self.attn.qkv(x).view(-1, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        bias = self.attn.relative_position_bias_table[self.attn.relative_position_index.view(-1)]
        mask = bias.view(n, n, self.heads).permute(2, 0, 1).unsqueeze(0)
        if self.shift:
            mask = (mask + self.attn_mask.unsqueeze(1)).repeat(b, 1, 1, 1)
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = self.attn.proj(x.transpose(1, 2).reshape(-1, n, d))
        x = x.view(b, s, s, WINDOW, WINDOW, d).transpose(2, 3).reshape(b, self.side, self.side, d)
        if self.shift:
            x = torch.roll(x, (self.shift, self.shift), (1, 2))
        return x.reshape(b, length, d)

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.mlp.fc2(F.gelu(self.mlp.fc1(self.norm2(x))))


class SwinStage(nn.Module):
    def __init__(self, dim, side, depth, heads, merge):
        super().__init__()
        self.side = side
        self.blocks = nn.ModuleList([SwinBlock(dim, side, heads, j % 2 == 1) for j in range(depth)])
        self.downsample = nn.Module() if merge else None
        if merge:
            self.downsample.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)
            self.downsample.norm = nn.LayerNorm(4 * dim)

    def forward(self, x):
        for b in self.blocks:
            x = block(b, x)
        if self.downsample is None:
            return x
        b, _, d = x.shape
        x = x.view(b, self.side, self.side, d)
        x = torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], -1)
        return self.downsample.reduction(self.downsample.norm(x.view(b, -1, 4 * d)))


def fusion(dim):
    """Rests on windows of 10 s, but counts and is saved."""
    inner = dim // 4
    out = nn.Module()
    out.local_att = nn.Sequential(nn.Conv2d(dim, inner, 1), nn.BatchNorm2d(inner), nn.ReLU(), nn.Conv2d(inner, dim, 1),
                                  nn.BatchNorm2d(dim))
    out.global_att = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(dim, inner, 1), nn.BatchNorm2d(inner), nn.ReLU(),
                                   nn.Conv2d(inner, dim, 1), nn.BatchNorm2d(dim))
    return out


class Htsat(nn.Module):
    def __init__(self, c):
        super().__init__()
        dim, stages, classes = c["embed_dim"], len(c["depths"]), c["class_num"]
        width = dim << (stages - 1)
        # What no forward pass reads; it belongs to the published parameter count.
        self.spectrogram_extractor, self.logmel_extractor = nn.Module(), nn.Module()
        self.spectrogram_extractor.stft = nn.Module()
        self.spectrogram_extractor.stft.conv_real = nn.Conv1d(1, 513, 1024, bias=False)
        self.spectrogram_extractor.stft.conv_imag = nn.Conv1d(1, 513, 1024, bias=False)
        self.logmel_extractor.melW = nn.Parameter(torch.zeros(513, MELS))
        self.bn0 = nn.BatchNorm2d(MELS)
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(1, dim, PATCH, PATCH)
        self.patch_embed.norm = nn.LayerNorm(dim)
        self.patch_embed.mel_conv2d = nn.Conv2d(1, dim, (PATCH, 3 * PATCH), (PATCH, 3 * PATCH))
        self.patch_embed.fusion_model = fusion(dim)
        side = IMAGE // PATCH
        self.layers = nn.ModuleList([
            SwinStage(dim << i, side >> i, c["depths"][i], c["num_heads"][i], i + 1 < stages) for i in range(stages)])
        self.norm = nn.LayerNorm(width)
        self.last = side >> (stages - 1)
        self.tscam_conv = nn.Conv2d(width, classes, (self.last // FOLDS, 3))
        self.head = nn.Linear(classes, classes)

    def forward(self, mel):
        x = self.bn0(mel.unsqueeze(1).transpose(1, 3)).transpose(1, 3)
        frames = IMAGE * FOLDS
        x = F.interpolate(x, (frames, MELS), mode="bicubic", align_corners=True)
        n = len(x)
        x = x.transpose(2, 3).reshape(n, 1, MELS, FOLDS, frames // FOLDS).transpose(2, 3).reshape(n, 1, IMAGE, IMAGE)
        x = self.patch_embed.norm(self.patch_embed.proj(x).flatten(2).transpose(1, 2))
        for stage in self.layers:
            x = stage(x)
        x = self.norm(x)
        x = x.transpose(1, 2).reshape(n, -1, FOLDS, self.last // FOLDS, self.last)
        return x.permute(0, 1, 3, 2, 4).flatten(2, 4).transpose(1, 2)


def rotate_half(x):
    a, b = x.chunk(2, -1)
    return torch.cat((-b, a), -1)


class AudioLayer(nn.Module):
    def __init__(self, width, c):
        super().__init__()
        self.heads = c["n_head"]
        self.slf_attn, self.pos_ffn = nn.Module(), nn.Module()
        for name in ("w_qs", "w_ks", "w_vs", "fc"):
            setattr(self.slf_attn, name, nn.Linear(width, width, bias=False))
        self.slf_attn.layer_norm = nn.LayerNorm(width, eps=1e-6)
        self.pos_ffn.w_1, self.pos_ffn.w_2 = nn.Linear(width, c["d_inner"]), nn.Linear(c["d_inner"], width)
        self.pos_ffn.layer_norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x, cos, sin, mask):
        a, f = self.slf_attn, self.pos_ffn
        n = cos.shape[1]

        def heads(t):
            return t.view(*x.shape[:2], self.heads, -1).transpose(1, 2)

        def turn(t):
            return torch.cat((t[..., :n] * cos + rotate_half(t[..., :n]) * sin, t[..., n:]), -1)

        out = F.scaled_dot_product_attention(turn(heads(a.w_qs(x))), turn(heads(a.w_ks(x))), heads(a.w_vs(x)), attn_mask=mask)
        x = a.layer_norm(a.fc(out.transpose(1, 2).flatten(2)) + x)
        return f.layer_norm(f.w_2(F.relu(f.w_1(x))) + x)


class AudioTransformer(nn.Module):
    def __init__(self, width, c):
        super().__init__()
        self.position_enc = nn.Module()
        rotated = max(width // c["n_head"] // 2, 32)
        self.position_enc.register_buffer("inv_freq", torch.zeros(rotated // 2))
        self.layer_stack = nn.ModuleList([AudioLayer(width, c) for _ in range(c["n_layers"])])
        self.layer_norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x, real):
        angle = torch.arange(x.shape[1]).float()[:, None] * self.position_enc.inv_freq
        angle = torch.cat((angle, angle), -1)
        mask = (~real).float()[:, None, None] * -1e9
        x = self.layer_norm(x * math.sqrt(x.shape[-1]))
        for layer in self.layer_stack:
            x = block(layer, x, angle.cos(), angle.sin(), mask)
        return x


class GatedCrossAttention(nn.Module):
    def __init__(self, c, dim, dim_audio):
        super().__init__()
        self.heads, inner = c["heads"], c["heads"] * c["head_dim"]
        self.attn_gate, self.ff_gate = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
        self.attn = nn.Module()
        self.attn.norm = nn.LayerNorm(dim)
        self.attn.to_q = nn.Linear(dim, inner, bias=False)
        self.attn.to_kv = nn.Linear(dim_audio, 2 * inner, bias=False)
        self.attn.to_out = nn.Linear(inner, dim, bias=False)
        self.ff = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, c["ff_mult"] * dim, bias=False), nn.GELU(),
                                nn.Linear(c["ff_mult"] * dim, dim, bias=False))

    def forward(self, x, media):
        def heads(t):
            return t.view(*t.shape[:2], self.heads, -1).transpose(1, 2)

        k, v = self.attn.to_kv(media).chunk(2, -1)
        out = F.scaled_dot_product_attention(heads(self.attn.to_q(self.attn.norm(x))), heads(k), heads(v))
        x = self.attn.to_out(out.transpose(1, 2).flatten(2)) * self.attn_gate.tanh() + x
        return self.ff(x) * self.ff_gate.tanh() + x


class Listening(nn.Module):
    """A decoder layer with its cross-attention before it, as the reference wraps it."""

    def __init__(self, layer, cross):
        super().__init__()
        self.decoder_layer, self.gated_cross_attn_layer_sound = layer, cross
        self.media = None

    def both(self, x, media, settings):
        if self.gated_cross_attn_layer_sound is not None:
            x = self.gated_cross_attn_layer_sound(x, media)
        return self.decoder_layer(x, **settings)

    def forward(self, x, **settings):
        if AGAIN and torch.is_grad_enabled():
            return checkpoint(self.both, x, self.media, settings, use_reentrant=False)
        return self.both(x, self.media, settings)


class Flamingo(nn.Module):
    def __init__(self, c):
        super().__init__()
        width = c["htsat"]["embed_dim"] << (len(c["htsat"]["depths"]) - 1)
        self.clap = nn.Module()
        self.clap.nvclap = Htsat(c["htsat"])
        self.audio_transformer_clap = AudioTransformer(width, c["audio_transformer"])
        lm = Qwen2Config(**{**c["lm"], "vocab_size": c["vocab"]}, attn_implementation="sdpa", pad_token_id=None, use_cache=False)
        if not lm.tie_word_embeddings:
            raise SystemExit("the peer has no head of its own: tie_word_embeddings must be true")
        self.lang_encoder = nn.Module()
        self.lang_encoder.model = model = Qwen2Model(lm)
        every = c["cross_attention"]["every"]
        model.layers = nn.ModuleList([
            Listening(layer, GatedCrossAttention(c["cross_attention"], lm.hidden_size, width) if (i + 1) % every == 0 else None)
            for i, layer in enumerate(model.layers)])

    def forward(self, b, train_clap):
        items, windows = b["windows"].shape
        with torch.set_grad_enabled(train_clap):
            features = self.clap.nvclap(b["mel"])
        media = self.audio_transformer_clap(features.reshape(items, windows * features.shape[1], -1),
                                            (b["windows"] != 0).repeat_interleave(features.shape[1], 1))
        model = self.lang_encoder.model
        for layer in model.layers:
            layer.media = media
        x = model(input_ids=b["ids"], attention_mask=b["mask"]).last_hidden_state
        logits = F.linear(x, model.embed_tokens.weight).float()
        return F.cross_entropy(logits[:, :-1].flatten(0, 1), b["labels"][:, 1:].flatten())


def memory(key):
    """MiB, as the kernel counts them."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) / 1024
    return math.nan


def load(model, path):
    """Every weight, with nothing missing and nothing left."""
    with safe_open(path, "pt") as file, torch.no_grad():
        own = model.state_dict()
        odd = set(own) ^ set(file.keys())
        if odd:
            raise SystemExit(f"names that only one side has: {sorted(odd)[:8]}")
        for name, tensor in own.items():
            found = file.get_tensor(name)
            if found.shape != tensor.shape:
                raise SystemExit(f"{name}: {list(tensor.shape)} here, {list(found.shape)} in the file")
            tensor.copy_(found)


def main(job):
    global AGAIN
    AGAIN = job["again"]
    torch.set_num_threads(job["threads"])
    empty = memory("VmRSS:")
    folder = pathlib.Path(job["folder"])
    model = Flamingo(json.loads((folder / "config.json").read_text()))
    load(model, folder / "model.safetensors")
    batch = load_file(folder / "batch.safetensors")

    parts = ["audio_transformer_clap.", "gated_cross_attn_layer", "embed_tokens"] + ["clap.nvclap."] * job["clap"]
    for name, p in model.named_parameters():
        p.requires_grad_(any(part in name for part in parts))
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    # The encoder runs in evaluation, trained or not: running statistics, nothing random.
    model.eval()
    decays = [p for n, p in trained if "gated_cross_attn" in n]
    others = [p for n, p in trained if "gated_cross_attn" not in n]
    groups = [{"params": decays, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=job["learning_rate"], betas=(0.9, 0.999), eps=1e-8, fused=True)
    embedding = model.lang_encoder.model.embed_tokens.weight
    keep = torch.zeros(len(embedding), 1)
    keep[batch["rows"]] = 1.0

    seconds, losses, norms, split = [], [], [], [0.0, 0.0, 0.0]
    for i in range(job["warmup"] + job["steps"]):
        start = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=job["bf16"]):
            loss = model(batch, job["clap"])
        forward = time.perf_counter()
        loss.backward()
        backward = time.perf_counter()
        embedding.grad.mul_(keep)
        norm = torch.nn.utils.clip_grad_norm_([p for _, p in trained], 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        norms.append(norm.item())
        end = time.perf_counter()
        if i >= job["warmup"]:
            seconds.append(end - start)
            for j, part in enumerate([forward - start, backward - forward, end - backward]):
                split[j] += part / job["steps"]
    print(json.dumps({
        "seconds": seconds, "losses": losses, "norms": norms, "split": split, "empty_mib": empty,
        "peak_mib": memory("VmHWM:"), "parameters": sum(p.numel() for p in model.parameters()),
        "trained": sum(p.numel() for _, p in trained)}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
