"""Python's side of tests/interop.rs: makes files with PyTorch, and judges ours with PyTorch's own loaders.

python judge.py CHECK FOLDER      exits with 0 when the check holds
"""

import collections
import json
import pathlib
import sys

import numpy as np
import torch
from safetensors.torch import load_file, save_file


def save_expected(path, tensors):
    """Each tensor by itself: contiguous, nothing shared."""
    save_file({k: v.detach().contiguous().clone() for k, v in tensors.items()}, path)


def same(found, expected, name):
    assert found.dtype == expected.dtype, f"{name}: {found.dtype}, not {expected.dtype}"
    assert found.shape == expected.shape, f"{name}: {tuple(found.shape)}, not {tuple(expected.shape)}"
    assert torch.equal(found.cpu(), expected.cpu()), f"{name}: other values"


def make_torch_files(folder):
    """Files of torch.save in both formats, and what is in them."""
    torch.manual_seed(0)
    base = torch.randn(4, 6)
    tied = torch.nn.Parameter(torch.randn(5, 3))
    layer = torch.nn.Sequential(
        torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Conv2d(1, 2, 3, bias=False)
    )
    dtypes = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32,
              torch.int16, torch.int8, torch.uint8]
    optimizer = torch.optim.AdamW(layer.parameters(), lr=1e-3)
    layer[0](torch.ones(2, 3)).sum().backward()
    optimizer.step()
    cases = {
        "state_dict": layer.state_dict(),
        "wrapped": {"module._fsdp_wrapped_module." + k: v for k, v in layer.state_dict().items()},
        "dtypes": {str(d).removeprefix("torch."): (torch.randn(7) * 9).to(d) for d in dtypes}
        | {"bool": torch.tensor([True, False, True]), "scalar": torch.tensor(2.5), "empty": torch.zeros(0, 3)},
        "views": {"t": base.t(), "row": base[2], "step": base[:, ::2], "shared": base.view(-1)[5:9],
                  "expanded": torch.ones(3, 1).expand(3, 4), "whole": base},
        "tied": collections.OrderedDict([("embed", tied), ("head", tied)]),
        "nested": {"a": {"b": [torch.ones(2), {"c": torch.zeros(1)}]}, "n": 3, "s": "text", "none": None,
                   "f": 0.5, "list": [1, 2.5, True], "big": 1 << 40},
    }
    for name, value in cases.items():
        flat = {}

        def walk(x, path):
            if isinstance(x, dict):
                for k, v in x.items():
                    walk(v, path + [str(k)])
            elif isinstance(x, (list, tuple)):
                for i, v in enumerate(x):
                    walk(v, path + [str(i)])
            elif isinstance(x, torch.Tensor):
                flat[".".join(path)] = x

        walk(value, [])
        save_expected(folder / f"{name}.safetensors", flat)
        torch.save(value, folder / f"{name}.zip.pt")
        torch.save(value, folder / f"{name}.legacy.pt", _use_new_zipfile_serialization=False)
    torch.serialization.set_crc32_options(False)
    torch.save(cases["state_dict"], folder / "no_checksums.pt")
    torch.serialization.set_crc32_options(True)
    save_expected(folder / "no_checksums.safetensors", cases["state_dict"])
    # As LAION-CLAP's files: pickle protocol 4, numpy scalars and an array beside the tensors.
    laion = {"epoch": 45, "name": "x", "best": np.float64(0.25), "steps": np.int64(7), "f": np.float32(0.5),
             "flag": np.bool_(True), "array": np.arange(3), "state_dict": layer.state_dict()}
    for protocol in (2, 4):
        torch.save(laion, folder / f"laion_{protocol}.pt", pickle_protocol=protocol)
    whole = {"epoch": 3, "model_state_dict": layer.state_dict(), "optimizer_state_dict": optimizer.state_dict(),
             "lr_scheduler_state_dict": torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: 1.0).state_dict()}
    torch.save(whole, folder / "training.pt")
    torch.save(whole, folder / "training_legacy.pt", _use_new_zipfile_serialization=False)


class Tree(torch.nn.Module):
    """A module with given names: parameters and buffers in the order in which they are listed."""

    def __init__(self):
        super().__init__()

    def place(self, name):
        at = self
        *path, leaf = name.split(".")
        for part in path:
            if part not in at._modules:
                at.add_module(part, Tree())
            at = at._modules[part]
        return at, leaf


def build(layout):
    root, tied = Tree(), []
    for entry in layout:
        at, leaf = root.place(entry["name"])
        t = torch.zeros(entry["shape"], dtype=getattr(torch, entry["dtype"]))
        if entry["tied_to"]:
            tied.append(entry)
        elif entry["buffer"]:
            at.register_buffer(leaf, t)
        else:
            at.register_parameter(leaf, torch.nn.Parameter(t, requires_grad=entry["trains"]))
    for entry in tied:
        at, leaf = root.place(entry["name"])
        other, other_leaf = root.place(entry["tied_to"])
        at.register_parameter(leaf, getattr(other, other_leaf))
    return root


def check_training(folder):
    """torch.load, load_state_dict, AdamW and LambdaLR on checkpoint_0.pt; then one step with known gradients."""
    path = folder / "checkpoint_0.pt"
    expected = load_file(folder / "model.safetensors")
    layout = json.loads((folder / "layout.json").read_text())
    for mmap in (False, True):
        whole = torch.load(path, weights_only=True, mmap=mmap)
        state = {k.removeprefix("module."): v for k, v in whole["model_state_dict"].items()}
        model = build(layout)
        missing, unexpected = model.load_state_dict(state, strict=False)
        assert not unexpected, unexpected
        trainable = {n for n, p in model.named_parameters() if p.requires_grad}
        assert trainable and not trainable & set(missing), sorted(trainable & set(missing))[:5]
        for name, value in state.items():
            same(value, expected[name], name)
        # As the reference's trainer makes them.
        decayed, others = [], []
        for name, p in model.named_parameters():
            if p.requires_grad:
                (decayed if "gated_cross_attn" in name else others).append(p)
        optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}], lr=1e-3
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: min(1.0, i / 3))
        optimizer.load_state_dict(whole["optimizer_state_dict"])
        schedule.load_state_dict(whole["lr_scheduler_state_dict"])
        assert schedule.last_epoch == 2 and whole["epoch"] == 0
        assert abs(optimizer.param_groups[0]["lr"] - 2e-3 / 3) < 1e-12
        for n, p in model.named_parameters():
            if p.requires_grad:
                p.grad = torch.full_like(p, 0.01)
        optimizer.step()
        schedule.step()
    save_expected(folder / "after_step.safetensors",
                  {n: p for n, p in model.named_parameters() if p.requires_grad})


def check_released(folder):
    """safetensors' own reader on a released folder."""
    expected = load_file(folder / "model.safetensors")
    chunks = json.loads((folder / "released/safe_ckpt/metadata.json").read_text())
    found = {}
    for chunk in chunks:
        found.update(load_file(folder / f"released/safe_ckpt/{chunk}.safetensors"))
    assert found.keys() == expected.keys(), found.keys() ^ expected.keys()
    for name, value in expected.items():
        same(found[name], value, name)


def check_lm(folder):
    """transformers opens the exported LM; its logits and its token ids beside ours."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    ours = load_file(folder / "logits.safetensors")
    for name in ("hf", "hf_sharded"):
        model, report = AutoModelForCausalLM.from_pretrained(folder / name, output_loading_info=True)
        assert type(model).__name__ == (folder / "class.txt").read_text()
        assert not any(report[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
        with torch.no_grad():
            logits = model.eval()(ours["ids"]).logits
        off = ((logits - ours["logits"]).abs().max() / logits.abs().max()).item()
        assert off <= 1e-4, f"{name}: logits differ by {off:.2e}"
        print(f"{name}: logits differ by {off:.2e}")
        tokenizer = AutoTokenizer.from_pretrained(folder / name)
        text = (folder / "text.txt").read_text()
        assert tokenizer(text)["input_ids"] == ours["text_ids"].tolist()
        assert len(tokenizer) == model.config.vocab_size


def make_lm(folder):
    """A Qwen2 folder as transformers writes it now, in safetensors and as pytorch_model.bin."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(1)
    for tie in (True, False):
        config = Qwen2Config(vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=3,
                             num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=tie,
                             rope_parameters={"rope_type": "default", "rope_theta": 31000.0})
        model = Qwen2ForCausalLM(config).eval()
        ids = torch.randint(0, 97, (2, 17))
        name = "tied" if tie else "untied"
        with torch.no_grad():
            save_expected(folder / f"{name}.safetensors", {"ids": ids, "logits": model(ids).logits})
        model.save_pretrained(folder / name, max_shard_size="20KB")
        bin_folder = folder / f"{name}_bin"
        bin_folder.mkdir()
        config.save_pretrained(bin_folder)
        state = model.state_dict()
        half = len(state) // 2
        files = {"pytorch_model-00001-of-00002.bin": list(state)[:half],
                 "pytorch_model-00002-of-00002.bin": list(state)[half:]}
        for file, keys in files.items():
            torch.save({k: state[k] for k in keys}, bin_folder / file)
        index = {"metadata": {}, "weight_map": {k: f for f, keys in files.items() for k in keys}}
        (bin_folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def check_large(folder):
    """A file past 4 GiB needs the zip format's 64-bit fields."""
    for mmap in (True, False):
        whole = torch.load(folder / "large.pt", weights_only=True, mmap=mmap)["model_state_dict"]
        large = whole["large"]
        assert large.numel() == 1_080_000_000 and large[0] == 1 and large[-1] == 2, large
        assert torch.equal(whole["behind"], torch.arange(5.0))


if __name__ == "__main__":
    torch.set_num_threads(2)
    globals()[sys.argv[1]](pathlib.Path(sys.argv[2]))
