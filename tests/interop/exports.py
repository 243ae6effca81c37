"""Those for whom `af2 export` writes: each opens what it is given, and its numbers are those of results.json.

The folder holds runs/NAME/results.json; logs/NAME.json and .eval of inspect; all of them in eee, hf, lm and many (inspect's).

python exports.py CHECK FOLDER      exits with 0 when the check holds
"""

import hashlib
import json
import pathlib
import sys

import yaml

MODEL = "our-lab/tiny"


def results(folder):
    """By run."""
    files = sorted((folder / "runs").glob("*/results.json"))
    assert len(files) > 3, files
    return {file.parent.name: json.loads(file.read_text()) for file in files}


def check_inspect(folder):
    """The real library reads both forms alike and computes the same from the samples."""
    from inspect_ai.log import (list_eval_logs, read_eval_log, read_eval_log_sample, read_eval_log_sample_summaries,
                                write_eval_log)
    from inspect_ai.scorer import SampleScore, accuracy, stderr

    for name, expected in results(folder).items():
        logs = {}
        for form in ("json", "eval"):
            path = str(folder / "logs" / f"{name}.{form}")
            log = logs[form] = read_eval_log(path)
            header = read_eval_log(path, header_only=True)
            assert header.samples is None and header.eval == log.eval and header.results == log.results
            assert (log.version, log.status, log.eval.model) == (2, "success", MODEL)
            score = log.results.scores[0]
            assert score.scorer == expected["rule"] and score.scored_samples == expected["n"]
            assert score.metrics[expected["metric"]].value == expected["score"]
            assert log.metadata["af2"]["interval"]["low"] == expected["interval"]["low"]
            if expected["other"]:
                assert log.results.scores[1].metrics[expected["metric"]].value == expected["other"]["score"]
            assert len(log.samples) == len(expected["items"])
            counted = [i for i in expected["items"] if i["counted"]]
            values = [s.scores[expected["rule"]] for s in log.samples if s.scores]
            assert len(values) == len(counted) == len(log.reductions[0].samples)
            if expected["metric"] == "accuracy":
                scores = [SampleScore(score=value) for value in values]
                assert abs(accuracy()(scores) - expected["score"]) < 1e-15
                assert abs(stderr()(scores) - score.metrics["stderr"].value) < 1e-15
            by_id = {}
            for sample in log.samples:
                by_id.setdefault(sample.id, []).append(sample)
            for item in expected["items"]:
                sample = by_id[item["id"]].pop(0)
                verdict = (sample.scores or {}).get(expected["rule"])
                assert (verdict is not None) == item["counted"]
                if verdict:
                    assert (verdict.value, verdict.answer) == ("C" if item["correct"] else "I", item["answer"])
                    assert verdict.metadata["state"] == item["state"]
            assert len(read_eval_log_sample_summaries(path)) == len(log.samples)
            first = log.samples[0]
            assert read_eval_log_sample(path, id=first.id, epoch=first.epoch).output == first.output
            # As it writes it itself.
            again = folder / f"again.{form}"
            write_eval_log(log, str(again))
            assert read_eval_log(str(again)).samples == log.samples
        assert logs["json"].samples == sorted_as(logs["eval"].samples, logs["json"].samples)
        assert logs["json"].reductions == logs["eval"].reductions
    assert len(list_eval_logs(str(folder / "many"))) == len(results(folder))


def sorted_as(samples, order):
    """One form keeps the file's order, the other goes by ids."""
    by_key = {(s.id, s.epoch): s for s in samples}
    assert len(by_key) == len(samples)
    return [by_key[s.id, s.epoch] for s in order]


def check_lm_eval(folder):
    """Its table, its names of files, its hashes; and what Every Eval Ever's converter makes of it."""
    from every_eval_ever.converters.lm_eval.adapter import LMEvalAdapter
    from every_eval_ever.converters.lm_eval.instance_level_adapter import LMEvalInstanceLevelAdapter
    from lm_eval.result_schema import EvalResults, SampleResult
    from lm_eval.utils import (get_file_task_name, get_results_filenames, get_sample_results_filenames, hash_string,
                               make_table, sanitize_model_name)

    home = folder / "lm" / sanitize_model_name(MODEL)
    files = [str(file) for file in home.iterdir()]
    runs, samples = sorted(get_results_filenames(files)), get_sample_results_filenames(files)
    expected = list(results(folder).values())
    assert len(samples) == len(expected) and len(runs) + len(samples) == len(files)
    seen = 0
    for run in map(pathlib.Path, runs):
        log = json.loads(run.read_text())
        assert set(log) <= set(EvalResults.__annotations__), set(log) - set(EvalResults.__annotations__)
        assert log["model_name_sanitized"] == home.name
        table = make_table(log)
        converted = LMEvalAdapter().transform_from_file(run, {})
        assert len(converted) == len(log["results"])
        for task, values in log["results"].items():
            kind = log["configs"][task]["metadata"]["kind"]
            own = next(e for e in expected if (e["benchmark"], e["kind"]) == (task, kind) and e["name"] == values["alias"])
            metric = own["metric"]
            assert values[f"{metric},none"] == own["score"]
            assert f"{own['score']:.4f}" in table and "↑" in table, table
            theirs = next(c for c in converted if c.evaluation_id.startswith(task + "/"))
            result = next(r for r in theirs.evaluation_results if r.metric_config.metric_name == metric)
            assert result.score_details.score == own["score"] and theirs.model_info.id == MODEL
            assert result.score_details.uncertainty.num_samples == own["n"]
            date = run.name.removeprefix("results_").removesuffix(".json")
            file = home / f"samples_{task}_{date}.jsonl"
            assert get_file_task_name(file.name) == task and str(file) in samples
            lines = [json.loads(line) for line in file.read_text().splitlines()]
            assert len(lines) == len(own["items"])
            hashes = ""
            for line, item in zip(lines, own["items"]):
                assert SampleResult.__required_keys__ <= set(line)
                known = set(SampleResult.__annotations__) | set(line["metrics"])
                assert set(line) == known, set(line) ^ known
                assert line["doc"]["af2"]["state"] == item["state"]
                assert line.get(metric) == (float(item["correct"]) if item["counted"] else None)
                doc = {key: value for key, value in line["doc"].items() if key != "af2"}
                assert line["doc_hash"] == hash_string(json.dumps(doc, indent=2, ensure_ascii=False))
                assert line["prompt_hash"] == hash_string(line["arguments"]["gen_args_0"]["arg_0"])
                assert line["target_hash"] == hash_string(line["target"])
                hashes += line["doc_hash"] + line["prompt_hash"] + line["target_hash"]
            assert log["task_hashes"][task] == hash_string(hashes)
            rows = LMEvalInstanceLevelAdapter().transform_samples(file, "id", MODEL, task)
            assert len(rows) == len(lines)
            said = [(line["resps"][0] or [""])[0] for line in lines]
            assert [row.output.raw[0] for row in rows] == said
            seen += 1
    assert seen == len(expected)


def check_hugging_face(folder):
    """huggingface_hub reads the card's index and the entry for the leaderboard."""
    from huggingface_hub import ModelCard, parse_eval_result_entries
    from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results

    card = ModelCard.load(folder / "hf" / "README.md")
    found = card.data.eval_results
    assert card.data.model_name == MODEL
    expected = []
    for run in results(folder).values():
        expected.append((run["benchmark"], run["metric"], run["score"]))
        if run["other"]:
            expected.append((run["benchmark"], run["metric"], run["other"]["score"]))
    assert sorted((r.dataset_type, r.metric_type, r.metric_value) for r in found) == sorted(expected)
    assert all(r.task_type == "audio-text-to-text" for r in found)
    index = eval_results_to_model_index(MODEL, found)
    again = model_index_to_eval_results(index)[1]
    assert all(r in again for r in found)
    # Whatever reads the metadata as YAML 1.1 finds the same.
    text = (folder / "hf" / "README.md").read_text().split("---\n")[1]
    (model,) = yaml.safe_load(text)["model-index"]
    args = [m["args"] for r in model["results"] for m in r["metrics"] if "categories" in m["args"]]
    assert [a["categories"] for a in args] == [r["categories"] for r in results(folder).values()]

    for file in (folder / "hf_one" / ".eval_results").iterdir():
        (entry,) = parse_eval_result_entries(yaml.safe_load(file.read_text()))
        run = results(folder)["mmau"]
        assert (entry.dataset_id, entry.task_id, entry.value) == ("lab/mmau", "test-mini", run["score"])
        assert isinstance(entry.date, str) and run["data"]["sha256"] in entry.notes


def check_every_eval_ever(folder):
    """The published schemas, and the validator of its datastore: neither an error nor a warning."""
    import every_eval_ever
    from every_eval_ever.validator.validate import main
    from jsonschema import Draft7Validator

    schemas = pathlib.Path(every_eval_ever.__file__).parent / "schemas"
    schema = {name: Draft7Validator(json.loads((schemas / f"{name}.schema.json").read_text()))
              for name in ("eval", "instance_level_eval")}
    files = sorted((folder / "eee").rglob("*.json*"))
    runs = [folder / "runs" / name / "results.json" for name in results(folder)]
    by_hash = {hashlib.sha256(run.read_bytes()).hexdigest(): json.loads(run.read_text()) for run in runs}
    assert len(files) == 2 * len(by_hash)
    assert main([str(file) for file in files]) == 0
    for file in files:
        if file.suffix != ".json":
            continue
        whole = json.loads(file.read_text())
        schema["eval"].validate(whole)
        own = by_hash[whole["source_metadata"]["additional_details"]["results_sha256"]]
        main_result = whole["evaluation_results"][0]
        assert main_result["score_details"]["score"] == own["score"]
        companion = file.with_name(file.stem + "_samples.jsonl")
        detailed = whole["detailed_evaluation_results"]
        assert detailed["checksum"] == hashlib.sha256(companion.read_bytes()).hexdigest()
        rows = [json.loads(line) for line in companion.read_text().splitlines()]
        for row, item in zip(rows, own["items"], strict=True):
            schema["instance_level_eval"].validate(row)
            assert (row["sample_id"], row["evaluation"]["is_correct"]) == (item["id"], item["correct"])
            sample = (row["input"]["raw"] + row["input"]["reference"][0]).encode()
            assert row["sample_hash"] == hashlib.sha256(sample).hexdigest()
        counted = [r["evaluation"]["score"] for r in rows if "evaluation_result_id" in r]
        assert {r.get("evaluation_result_id") for r in rows} <= {main_result["evaluation_result_id"], None}
        if own["metric"] == "accuracy":
            assert abs(sum(counted) / len(counted) - own["score"]) < 1e-15


if __name__ == "__main__":
    globals()[sys.argv[1]](pathlib.Path(sys.argv[2]))
