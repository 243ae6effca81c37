"""The peer of benches/eval.rs: the same work in Python.

python eval.py TASK    TASK is JSON: {part, …}; prints a line of JSON.

items       MMAU's token rule as a plain loop over a prediction file, with its counts by task, difficulty and sub-category
captions    pycocoevalcap: its PTB tokenizer, which is a Java program, BLEU, ROUGE-L, CIDEr-D
bootstrap   a resample as lm-evaluation-harness draws it, by its own function
list        `lm-eval ls tasks`
"""

import collections
import json
import pathlib
import random
import re
import shutil
import statistics
import subprocess
import sys
import time

WORD = re.compile(r"\b\w+\b")


def tokens(text):
    return set(WORD.findall(text.lower()))


def right(prediction, answer, choices):
    """The answer's tokens are there, and none that only a wrong choice has."""
    said, gold = tokens(prediction), tokens(answer)
    if not said or not gold <= said:
        return False
    foreign = set()
    for choice in choices:
        own = tokens(choice)
        if own != gold:
            foreign |= own - gold
    return said.isdisjoint(foreign)


def items(task):
    begin = time.perf_counter()
    with open(task["file"], encoding="utf-8") as file:
        records = json.load(file)
    loaded = time.perf_counter()
    counts = {key: collections.defaultdict(lambda: [0, 0]) for key in ("task", "difficulty", "sub-category")}
    correct = total = 0
    for record in records:
        if "model_output" not in record:
            continue
        hit = right(record["model_output"], record["answer"], record["choices"])
        correct += hit
        total += 1
        for key, of in counts.items():
            count = of[record[key]]
            count[0] += hit
            count[1] += 1
    shares = {key: {value: a / n for value, (a, n) in of.items()} for key, of in counts.items()}
    assert shares and total
    return {"load": loaded - begin, "score": time.perf_counter() - loaded, "correct": correct}


def captions(task):
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    said, truth = {}, {}
    with open(task["file"], encoding="utf-8") as file:
        for line in file:
            record = json.loads(line)
            said[record["id"]] = [{"caption": record["prediction"]}]
            truth[record["id"]] = [{"caption": text} for text in record["references"]]
    answer = {}
    if shutil.which("java"):
        begin = time.perf_counter()
        tokenizer = PTBTokenizer()
        said, truth = tokenizer.tokenize(said), tokenizer.tokenize(truth)
        answer["tokenizer"] = time.perf_counter() - begin
    else:
        answer["why"] = "there is no java here"
        said, truth = ({key: [c["caption"] for c in all] for key, all in of.items()} for of in (said, truth))
    begin = time.perf_counter()
    Bleu(4).compute_score(truth, said, verbose=0)
    Rouge().compute_score(truth, said)
    cider, _ = Cider().compute_score(truth, said)
    answer["scorers"] = time.perf_counter() - begin
    if "tokenizer" in answer:
        answer["CIDEr"] = float(cider)
    return answer


def bootstrap(task):
    import importlib.metadata

    from lm_eval.api import metrics

    rng = random.Random(1)
    values = [float(rng.random() < 0.6) for _ in range(task["n"])]
    resamples = 200
    begin = time.perf_counter()
    metrics._bootstrap_internal(metrics.mean, resamples)((0, values))
    seconds = (time.perf_counter() - begin) / resamples
    return {"seconds": seconds, "by": f"lm_eval {importlib.metadata.version('lm_eval')}, api.metrics._bootstrap_internal"}


def list_tasks(_):
    command = pathlib.Path(sys.executable).with_name("lm-eval")
    if not command.exists():
        return {"why": "it is not installed"}
    seconds = []
    for _ in range(2):
        begin = time.perf_counter()
        subprocess.run([command, "ls", "tasks"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - begin)
    # The first one may still have to compile its modules.
    return {"seconds": min(seconds)}


PARTS = {"items": items, "captions": captions, "bootstrap": bootstrap, "list": list_tasks}

if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    # What the libraries print belongs to nobody.
    out, sys.stdout = sys.stdout, sys.stderr
    print(json.dumps(PARTS[asked["part"]](asked)), file=out)
