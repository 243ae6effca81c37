"""The same shapes in plain torch, for `af2 gpu-check`: random weights, timed with the device synchronised.

One argument, JSON: what (htsat, prefill, decode, step), config (af2's), device, bf16, items, windows, text, new, warmup, rounds,
clap. Prints one line of JSON: seconds of each round, parameters, torch's version, whether what came out is finite.
"""

import json
import math
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

IMAGE, PATCH, FOLDS, WINDOW, MELS, FRAMES, TOKENS = 256, 4, 4, 8, 64, 1001, 64


def heads(t, n):
    return t.view(*t.shape[:2], n, -1).transpose(1, 2)


def joined(t):
    return t.transpose(1, 2).flatten(2)


def rotate_half(x):
    a, b = x.chunk(2, -1)
    return torch.cat((-b, a), -1)


def tables(positions, inverse):
    angle = positions.float()[:, None] * inverse
    angle = torch.cat((angle, angle), -1)
    return angle.cos(), angle.sin()


class SwinBlock(nn.Module):
    def __init__(self, dim, side, n, odd):
        super().__init__()
        self.side, self.n = side, n
        self.shift = WINDOW // 2 if odd and side > WINDOW else 0
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.table = nn.Parameter(torch.randn((2 * WINDOW - 1) ** 2, n) * 0.02)
        tokens = WINDOW * WINDOW
        self.register_buffer("index", torch.randint((2 * WINDOW - 1) ** 2, (tokens * tokens,)))
        if self.shift:
            self.register_buffer("mask", torch.zeros((side // WINDOW) ** 2, tokens, tokens))
        self.fc1, self.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def attention(self, x):
        b, length, d = x.shape
        s, t = self.side // WINDOW, WINDOW * WINDOW
        x = x.view(b, self.side, self.side, d)
        if self.shift:
            x = torch.roll(x, (-self.shift, -self.shift), (1, 2))
        x = x.view(b, s, WINDOW, s, WINDOW, d).transpose(2, 3).reshape(b * s * s, t, d)
        q, k, v = self.qkv(x).view(-1, t, 3, self.n, d // self.n).permute(2, 0, 3, 1, 4)
        mask = self.table[self.index].view(t, t, self.n).permute(2, 0, 1).unsqueeze(0)
        if self.shift:
            mask = (mask + self.mask.unsqueeze(1)).repeat(b, 1, 1, 1)
        x = self.proj(F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).reshape(-1, t, d))
        x = x.view(b, s, s, WINDOW, WINDOW, d).transpose(2, 3).reshape(b, self.side, self.side, d)
        if self.shift:
            x = torch.roll(x, (self.shift, self.shift), (1, 2))
        return x.reshape(b, length, d)

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class Merging(nn.Module):
    def __init__(self, dim, side):
        super().__init__()
        self.side, self.norm, self.reduction = side, nn.LayerNorm(4 * dim), nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x):
        b, _, d = x.shape
        x = x.view(b, self.side, self.side, d)
        x = torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], -1)
        return self.reduction(self.norm(x.view(b, -1, 4 * d)))


class Htsat(nn.Module):
    """What a window of 10 s goes through; what it does not is counted by `unused`."""

    def __init__(self, c):
        super().__init__()
        dim, depths, side = c["embed_dim"], c["depths"], IMAGE // PATCH
        self.bn0 = nn.BatchNorm2d(MELS)
        self.proj, self.patch_norm = nn.Conv2d(1, dim, PATCH, PATCH), nn.LayerNorm(dim)
        blocks = []
        for i, depth in enumerate(depths):
            blocks += [SwinBlock(dim << i, side >> i, c["num_heads"][i], j % 2 == 1) for j in range(depth)]
            if i + 1 < len(depths):
                blocks.append(Merging(dim << i, side >> i))
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(dim << (len(depths) - 1))
        self.last = side >> (len(depths) - 1)

    def forward(self, mel):
        x = self.bn0(mel.unsqueeze(1).transpose(1, 3)).transpose(1, 3)
        frames, n = IMAGE * FOLDS, len(x)
        x = F.interpolate(x, (frames, MELS), mode="bicubic", align_corners=True)
        x = x.transpose(2, 3).reshape(n, 1, MELS, FOLDS, frames // FOLDS).transpose(2, 3).reshape(n, 1, IMAGE, IMAGE)
        x = self.patch_norm(self.proj(x).flatten(2).transpose(1, 2))
        for block in self.blocks:
            x = block(x)
        x = self.norm(x).transpose(1, 2).reshape(n, -1, FOLDS, self.last // FOLDS, self.last)
        return x.permute(0, 1, 3, 2, 4).flatten(2, 4).transpose(1, 2)


def unused(c):
    """Parameters of the published encoder that a window does not meet: STFT, mel matrix, fusion of longer sounds, tagging head."""
    dim, classes = c["embed_dim"], c["class_num"]
    inner, width = dim // 4, dim << (len(c["depths"]) - 1)
    bottleneck = dim * inner + inner + 2 * inner + inner * dim + dim + 2 * dim
    stft, mel = 2 * 513 * 1024, 513 * MELS
    side = (IMAGE // PATCH) >> (len(c["depths"]) - 1)
    tagging = width * classes * (side // FOLDS) * 3 + classes + classes * classes + classes
    return stft + mel + dim * PATCH * 3 * PATCH + dim + 2 * bottleneck + tagging


class AudioLayer(nn.Module):
    def __init__(self, width, c):
        super().__init__()
        self.n = c["n_head"]
        self.q, self.k, self.v, self.fc = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.w1, self.w2 = nn.Linear(width, c["d_inner"]), nn.Linear(c["d_inner"], width)
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)

    def forward(self, x, cos, sin):
        n = cos.shape[1]

        def turn(t):
            t = heads(t, self.n)
            return torch.cat((t[..., :n] * cos + rotate_half(t[..., :n]) * sin, t[..., n:]), -1)

        out = F.scaled_dot_product_attention(turn(self.q(x)), turn(self.k(x)), heads(self.v(x), self.n))
        x = self.norm1(self.fc(joined(out)) + x)
        return self.norm2(self.w2(F.relu(self.w1(x))) + x)


class Cross(nn.Module):
    def __init__(self, c, dim, audio):
        super().__init__()
        self.n, inner = c["heads"], c["heads"] * c["head_dim"]
        self.gate1, self.gate2 = nn.Parameter(torch.full((1,), 0.5)), nn.Parameter(torch.full((1,), 0.5))
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.q, self.kv = nn.Linear(dim, inner, bias=False), nn.Linear(audio, 2 * inner, bias=False)
        self.out = nn.Linear(inner, dim, bias=False)
        self.w1, self.w2 = nn.Linear(dim, c["ff_mult"] * dim, bias=False), nn.Linear(c["ff_mult"] * dim, dim, bias=False)

    def listen(self, media):
        return [heads(t, self.n) for t in self.kv(media).chunk(2, -1)]

    def forward(self, x, kv):
        out = F.scaled_dot_product_attention(heads(self.q(self.norm1(x)), self.n), *kv)
        x = x + self.out(joined(out)) * self.gate1.tanh()
        return x + self.w2(F.gelu(self.w1(self.norm2(x)))) * self.gate2.tanh()


class RmsNorm(nn.Module):
    def __init__(self, dim, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(dim)), eps

    def forward(self, x):
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


class Decoder(nn.Module):
    def __init__(self, c):
        super().__init__()
        d, self.n, self.groups = c["hidden_size"], c["num_attention_heads"], c["num_key_value_heads"]
        size = d // self.n
        self.norm1, self.norm2 = RmsNorm(d, c["rms_norm_eps"]), RmsNorm(d, c["rms_norm_eps"])
        self.q, self.k, self.v = nn.Linear(d, d), nn.Linear(d, self.groups * size), nn.Linear(d, self.groups * size)
        self.o = nn.Linear(d, d, bias=False)
        inner = c["intermediate_size"]
        self.gate, self.up, self.down = nn.Linear(d, inner, bias=False), nn.Linear(d, inner, bias=False), nn.Linear(inner, d, bias=False)

    def forward(self, x, cos, sin, cache):
        def turn(t):
            return (t * cos + rotate_half(t) * sin).to(t.dtype)

        y = self.norm1(x)
        q, k, v = turn(heads(self.q(y), self.n)), turn(heads(self.k(y), self.groups)), heads(self.v(y), self.groups)
        if cache is not None:
            if cache:
                k, v = torch.cat((cache[0], k), 2), torch.cat((cache[1], v), 2)
            cache[:] = [k, v]
        causal = q.shape[2] > 1
        out = F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=self.n != self.groups)
        x = x + self.o(joined(out))
        y = self.norm2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class Flamingo(nn.Module):
    def __init__(self, c):
        super().__init__()
        width = c["htsat"]["embed_dim"] << (len(c["htsat"]["depths"]) - 1)
        self.width, self.lm, a = width, c["lm"], c["audio_transformer"]
        self.htsat = Htsat(c["htsat"])
        self.audio = nn.ModuleList([AudioLayer(width, a) for _ in range(a["n_layers"])])
        self.audio_norm = nn.LayerNorm(width, eps=1e-6)
        self.rotated = max(width // a["n_head"] // 2, 32)
        d, layers = self.lm["hidden_size"], self.lm["num_hidden_layers"]
        self.embed = nn.Parameter(torch.randn(c["vocab"], d) * 0.02)
        every = c["cross_attention"]["every"]
        self.cross = nn.ModuleList([Cross(c["cross_attention"], d, width) if (i + 1) % every == 0 else nn.Identity() for i in range(layers)])
        self.layers = nn.ModuleList([Decoder(self.lm) for _ in range(layers)])
        self.norm = RmsNorm(d, self.lm["rms_norm_eps"])

    def hear(self, mel, items):
        features = self.htsat(mel)
        return features.reshape(items, -1, self.width)

    def listen(self, features):
        length, n = features.shape[1], self.rotated
        steps = torch.arange(0, n, 2, device=features.device).float() / n
        cos, sin = tables(torch.arange(length, device=features.device), torch.exp(-math.log(4096.0) * steps))
        x = self.audio_norm(features * math.sqrt(self.width))
        for layer in self.audio:
            x = layer(x, cos, sin)
        return [c.listen(x) if isinstance(c, Cross) else None for c in self.cross]

    def states(self, ids, heard, caches=None, past=0):
        size = self.lm["hidden_size"] // self.lm["num_attention_heads"]
        steps = torch.arange(0, size, 2, device=ids.device).float() / size
        positions = torch.arange(past, past + ids.shape[1], device=ids.device)
        cos, sin = tables(positions, self.lm["rope_theta"] ** -steps)
        x = F.embedding(ids, self.embed).float()
        for i, layer in enumerate(self.layers):
            if heard[i] is not None:
                x = self.cross[i](x, heard[i])
            x = layer(x, cos, sin, None if caches is None else caches[i])
        return self.norm(x)

    def logits(self, states):
        return F.linear(states, self.embed)


def main(job):
    device = torch.device(job["device"])
    config, on_gpu = job["config"], device.type == "cuda"
    # As af2 has it unless it is told otherwise.
    torch.backends.cuda.matmul.allow_tf32 = False
    if on_gpu:
        torch.cuda.set_device(device)
        torch.backends.cuda.enable_cudnn_sdp(False)
    torch.manual_seed(1)
    with device:
        model = Flamingo(config)
    model.eval()
    parameters = sum(p.numel() for p in model.parameters()) + unused(config["htsat"])
    items, windows, text = job["items"], job["windows"], job["text"]
    trains = {"step"}
    for name, p in model.named_parameters():
        frozen = name.startswith(("layers.", "norm.")) or (name.startswith("htsat.") and not job["clap"])
        p.requires_grad_(job["what"] in trains and not frozen)
        if job["bf16"] and name.startswith("layers.") and p.dim() > 1:
            p.data = p.data.to(torch.bfloat16)
        if job["bf16"] and job["what"] not in trains and name == "embed":
            p.data = p.data.to(torch.bfloat16)

    def noise(*shape):
        return torch.randn(*shape, device=device)

    def clock():
        if on_gpu:
            torch.cuda.synchronize(device)
        return time.perf_counter()

    vocab = min(config["vocab"], 200)
    ids = torch.randint(vocab, (items, text), device=device)
    autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=job["bf16"])
    if job["what"] == "step":
        mel = noise(items * windows, FRAMES, MELS)
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.1, fused=True)
        keep = torch.zeros(len(model.embed), 1, device=device)
        keep[:2] = 1.0
        counted = text - 2 - (text - 1) // 3 if job["counted"] is None else job["counted"]

        def once():
            with autocast:
                with torch.set_grad_enabled(job["clap"]):
                    features = model.hear(mel, items)
                states = model.states(ids, model.listen(features))[:, -counted - 1:-1].flatten(0, 1)
                targets = ids[:, -counted:].flatten()
                loss = 0.0
                for at in range(0, len(targets), 1024):
                    part = slice(at, at + 1024)

                    def cross_entropy(s, t):
                        return F.cross_entropy(model.logits(s).float(), t, reduction="sum")

                    loss = loss + torch.utils.checkpoint.checkpoint(cross_entropy, states[part], targets[part], use_reentrant=False)
            (loss / len(targets)).backward()
            model.embed.grad.mul_(keep)
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            return loss.detach()
    else:
        torch.set_grad_enabled(False)
        mel = noise(windows, FRAMES, MELS)
        with autocast:
            heard = model.listen(model.hear(mel, 1)) if job["what"] != "htsat" else None

        def answer(new):
            caches, past, token = [[] for _ in model.layers], 0, ids[:1]
            for _ in range(new):
                states = model.states(token, heard, caches, past)
                past += token.shape[1]
                logits = model.logits(states[:, -1:])
                # The host decides when to stop: it reads each token.
                token = torch.full((1, 1), logits.argmax().item(), device=device)
            return logits

        def once():
            with autocast:
                return model.hear(mel, 1) if job["what"] == "htsat" else answer(job["new"])

    finite = True
    for _ in range(job["warmup"]):
        once()
    seconds = []
    for _ in range(job["rounds"]):
        begun = clock()
        out = once()
        seconds.append(clock() - begun)
        finite = finite and bool(out.isfinite().all())
    print(json.dumps({"seconds": seconds, "parameters": parameters, "torch": torch.__version__, "finite": finite}))


if __name__ == "__main__":
    import torch.utils.checkpoint

    main(json.loads(sys.argv[1]))
