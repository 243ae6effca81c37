"""The peer of benches/eval.rs: the same work in Python.

python eval.py TASK    TASK is JSON: {part, …}; prints a line of JSON.

items       a plain loop over a prediction file: MMAU's token rule and the one option that a text names, with counts by task, difficulty,
            sub-category and category
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


# What the fair rule of `src/eval/rules/choice.rs` says, as far as the answers of the bench go.
MARKS = str.maketrans({"*": None, "`": None, "_": " "})
QUOTES = " \n\t\"'`"
NAME = re.compile(r"(?:[^\W_]|[#+]|(?<=\d)[.,:/](?=\d))+")
CUES = {"answer", "option", "choice", "letter", "choose", "pick", "select", "correct"}
FILLERS = {"is", "was", "be", "the", "most", "likely", "probably", "must", "would", "should", "one", "it"}
MUSIC = {"major", "minor", "maj", "min", "sharp", "flat", "natural", "chord", "note", "key", "string", "scale"}
DENIALS = {"not", "no", "never", "neither", "nor", "cannot", "without", "except", "excluding", "isnt", "dont"}
REFUSALS = (
    "i cannot", "i can not", "i can't", "i could not", "i couldn't", "i am unable", "i'm unable", "i am not able", "i'm not able",
    "i do not have", "i don't have", "i'm sorry, but", "i am sorry, but", "i'm sorry, i can", "i am sorry, i can",
    "i'm sorry. i can", "i apologize", "i apologise", "sorry, but", "sorry, i can", "unfortunately, i", "as an ai",
    "as a language model", "as a text-based",
)


def canonical(text):
    return " ".join(text.translate(MARKS).lower().split()).rstrip(QUOTES + ".,;:!?").lstrip(QUOTES)


def bare(text):
    first, _, rest = text.partition(" ")
    return rest if rest and first in ("a", "an", "the") else text


def meant(text, words, i):
    """Whether the letter that is word `i` stands for an option."""
    start, end, word = words[i]
    before, after = text[start - 1 : start], text[end : end + 1]
    begins = i == 0 or "\n" in text[words[i - 1][1] : start]
    if before + after in ("()", "[]", "{}") or (begins and after and after in ").:]"):
        return True
    last = i + 1 == len(words)
    if last or text[end : words[i + 1][0]].strip(" "):
        return begins and last or text[start].isupper()
    if word in "ai" or words[i + 1][2] in MUSIC:
        return False
    for _, _, cue in reversed(words[max(0, i - 5) : i]):
        if cue in CUES:
            return True
        if cue not in FILLERS:
            return False
    return False


def one(names):
    """The option of all names; none where there are several."""
    options = {option for _, _, option in names}
    return options.pop() if len(options) == 1 else None


def choice(prediction, choices):
    """The place of the one option that is named, by text or letter."""
    said = prediction.rpartition("</think>")[2]
    wholes, whole = [canonical(text) for text in choices], canonical(said)
    if whole in wholes:
        return wholes.index(whole)
    bares = [bare(text) for text in wholes]
    if bares.count(bare(whole)) == 1:
        return bares.index(bare(whole))
    refused = said.lstrip(QUOTES).lower().startswith(REFUSALS)
    text = said.translate(MARKS)
    words = [(m.start(), m.end(), m.group().lower()) for m in NAME.finditer(text)]
    spelt = [word for _, _, word in words]
    names = []
    for option, own in enumerate(bares):
        run = NAME.findall(own)
        for at in range(len(spelt) - len(run) + 1):
            if run and spelt[at : at + len(run)] == run:
                article = at > 0 and wholes[option] == f"{spelt[at - 1]} {own}"
                names.append((at - article, at + len(run), option))
    names = [n for n in names if not any(o[0] <= n[0] and n[1] <= o[1] and o[:2] != n[:2] for o in names)]
    taken = {i for start, end, _ in names for i in range(start, end)}
    for i, word in enumerate(spelt):
        place = ord(word) - ord("a") if len(word) == 1 else -1
        if 0 <= place < len(choices) and i not in taken and meant(text, words, i):
            names.append((i, i + 1, place))
    if any(not DENIALS.isdisjoint(spelt[max(0, start - 4) : start]) for start, _, _ in names):
        return None
    named = one(names)
    if named is not None and not refused:
        return named
    for i, word in enumerate(spelt):
        if word in ("answer", "choice", "option", "response", "solution"):
            end = next((j for j in range(i + 1, len(words)) if re.search(r"[.!?;\n]", text[words[j - 1][1] : words[j][0]])), len(words))
            declared = one([name for name in names if i < name[0] < end])
            if declared is not None:
                return declared
    return None


def items(task):
    begin = time.perf_counter()
    with open(task["file"], encoding="utf-8") as file:
        records = json.load(file)
    loaded = time.perf_counter()
    counts = {key: collections.defaultdict(lambda: [0, 0]) for key in ("task", "difficulty", "sub-category", "category")}
    correct = fair = total = 0
    for record in records:
        if "model_output" not in record:
            continue
        said, answer, choices = record["model_output"], record["answer"], record["choices"]
        hit = right(said, answer, choices)
        read = choice(said, choices)
        correct += hit
        fair += read is not None and choices[read] == answer
        total += 1
        for key, of in counts.items():
            count = of[record[key]]
            count[0] += hit
            count[1] += 1
    shares = {key: {value: a / n for value, (a, n) in of.items()} for key, of in counts.items()}
    assert shares and total
    return {"load": loaded - begin, "score": time.perf_counter() - loaded, "correct": correct, "fair": fair}


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
