//! The official answer rules against the verdicts of the official tools, and all rules against hostile predictions.
#![allow(clippy::panic, clippy::unwrap_used)]

use af2::eval::rules::mmau_pro::{self, Category};
use af2::eval::rules::{
    air_bench, clotho_aqa, cmm, ltu, musicqa, punkt, retrieval, Instruction, Item, Judged, RuleName, State,
    Tally,
};
use serde_json::Value;
use std::path::PathBuf;

fn golden(name: &str) -> String {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/M_metrics/rules");
    std::fs::read_to_string(folder.join(name)).unwrap()
}

fn json(name: &str) -> Value {
    serde_json::from_str(&golden(name)).unwrap()
}

fn lines(name: &str) -> Vec<Value> {
    let text = golden(name);
    let lines = text.lines().filter(|l| !l.trim().is_empty());
    lines.map(|l| serde_json::from_str(l).unwrap()).collect()
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn strings(value: &Value) -> Vec<String> {
    list(value).iter().map(|v| text(v).to_owned()).collect()
}

fn floats(value: &Value) -> Vec<f64> {
    list(value).iter().map(|v| v.as_f64().unwrap()).collect()
}

/// The rule on a record of the official file, and on the item in it, which must be the same.
fn judged(rule: RuleName, record: &Value, item: &Item) -> Judged {
    let of_record = rule.record(record).unwrap();
    if of_record.state != State::Error {
        assert_eq!(of_record, rule.judge(item), "{record}");
    }
    check_shape(item.prediction, &of_record);
    of_record
}

/// What every verdict keeps to.
fn check_shape(prediction: Option<&str>, judged: &Judged) {
    if let Some(span) = &judged.span {
        assert!(
            prediction.unwrap().get(span.clone()).is_some(),
            "{judged:?} of {prediction:?}"
        );
    }
    let answered = judged.answer.is_some();
    assert!(!judged.correct || answered, "{judged:?}");
    match judged.state {
        State::Answered => assert!(answered, "{judged:?}"),
        State::Unparsed | State::Refused => assert!(!answered, "{judged:?}"),
        _ => {}
    }
    assert_eq!(
        judged.state == State::Error,
        judged.reason.is_some(),
        "{judged:?}"
    );
}

/// All disagreements at once.
fn all_agree(wrong: Vec<String>) {
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

fn close(a: f64, b: f64, relative: f64) -> bool {
    a == b || (a - b).abs() <= relative * b.abs()
}

// MMAU, MMAR ------------------------------------------------------------------------------------------------------

/// Verdicts of a token rule against `match_by_id`, and the counts of its groups.
fn token_rule(
    rule: RuleName,
    records: &[Value],
    expected: &Value,
    key: &str,
    groups: &[(&str, &str)],
) -> usize {
    let matches = expected["match_by_id"].as_object().unwrap();
    let mut wrong = Vec::new();
    let mut all = Vec::new();
    for record in records {
        let choices = strings(&record["choices"]);
        let item = Item {
            choices: &choices,
            answer: text(&record["answer"]),
            prediction: record[key].as_str(),
            ..Item::default()
        };
        let judged = judged(rule, record, &item);
        let found = judged.counted.then(|| Value::from(u8::from(judged.correct)));
        if found.as_ref() != matches.get(text(&record["id"])) {
            wrong.push(format!("{}: {judged:?} of {:?}", record["id"], item.prediction));
        }
        all.push(judged);
    }
    all_agree(wrong);
    for (key, metrics) in groups {
        for (name, counts) in expected[metrics].as_object().unwrap() {
            let own = records.iter().zip(&all).filter(|(r, _)| r[key] == name.as_str());
            let tally = Tally::of(own.map(|(_, judged)| judged));
            assert_eq!(
                floats(counts),
                [tally.correct as f64, tally.counted as f64],
                "{name}"
            );
        }
    }
    let tally = Tally::of(&all);
    assert_eq!(tally.correct, expected["correct"].as_u64().unwrap() as usize);
    assert_eq!(tally.counted, expected["total"].as_u64().unwrap() as usize);
    assert_eq!(tally.left_out, records.len() - matches.len());
    tally.counted
}

#[test]
fn mmau_and_mmar_judge_every_item_as_their_scripts_do() {
    let records = json("mmau_input.json");
    let groups = [
        ("task", "task_metrics"),
        ("difficulty", "diff_metrics"),
        ("sub-category", "subcat_metrics"),
    ];
    let n = token_rule(
        RuleName::Mmau,
        list(&records),
        &json("mmau_expected.json"),
        "model_output",
        &groups,
    );
    assert_eq!(n, 757);
    let groups = [
        ("modality", "modality_metrics"),
        ("category", "category_metrics"),
        ("sub-category", "subcat_metrics"),
    ];
    let n = token_rule(
        RuleName::Mmar,
        &lines("mmar_input.jsonl"),
        &json("mmar_expected.json"),
        "answer_prediction",
        &groups,
    );
    assert_eq!(n, 305);
}

#[test]
fn what_crashes_mmaus_script_is_an_error_of_that_item() {
    for case in list(&json("mmau_error_cases.json")) {
        let judged: Vec<Judged> = list(&case["input"])
            .iter()
            .map(|record| RuleName::Mmau.record(record).unwrap())
            .collect();
        let reasons: Vec<&str> = judged.iter().filter_map(|j| j.reason.as_deref()).collect();
        match (text(&case["name"]), case["error"].as_str()) {
            // The script divides by the number of its items.
            ("no_predictions_at_all", Some(error)) => {
                assert!(error.starts_with("ZeroDivisionError") && reasons.is_empty());
                assert_eq!(Tally::of(&judged).score(), None);
            }
            (name, Some(error)) => assert_eq!(reasons, [error], "{name}"),
            (name, None) => {
                let found: Vec<f64> = judged.iter().map(|j| f64::from(u8::from(j.correct))).collect();
                assert_eq!((found, reasons.len()), (floats(&case["match"]), 0), "{name}");
            }
        }
    }
}

#[test]
fn the_token_rule_names_the_choice_that_it_accepts() {
    let choices = ["A gunshot", "A door slam", "A firework"].map(String::from);
    let judge = |prediction: &str| {
        RuleName::Mmau.judge(&Item {
            choices: &choices,
            answer: "A door slam",
            prediction: Some(prediction),
            ..Item::default()
        })
    };
    let wrong = judge("It is a İ GUNSHOT!");
    assert_eq!(
        (wrong.state, wrong.answer.as_deref(), wrong.correct),
        (State::Answered, Some("A gunshot"), false)
    );
    assert_eq!(&"It is a İ GUNSHOT!"[wrong.span.unwrap()], "a İ GUNSHOT");
    assert_eq!(judge("a door slam, a gunshot").state, State::Unparsed);
    assert_eq!(
        (judge("?!").state, judge("?!").by),
        (State::Unparsed, "mmau.no_tokens")
    );
    assert_eq!(
        (judge(" \u{1c}").state, judge("").state),
        (State::Empty, State::Empty)
    );
}

// MuChoMusic, CMM -------------------------------------------------------------------------------------------------

#[test]
fn muchomusic_extracts_every_answer_as_its_script_does() {
    let (records, expected) = (json("muchomusic_input.json"), json("muchomusic_expected.json"));
    let (indices, correct) = (floats(&expected["extracted_index"]), floats(&expected["correct"]));
    let (mut wrong, mut all) = (Vec::new(), Vec::new());
    for (i, record) in list(&records).iter().enumerate() {
        let choices = strings(&record["answers"]);
        let orders = floats(&record["answer_orders"]);
        let prediction = text(&record["model_output"]);
        let item = Item {
            choices: &choices,
            right: orders.iter().position(|o| *o == 0.0),
            prediction: Some(prediction),
            ..Item::default()
        };
        let judged = judged(RuleName::Muchomusic, record, &item);
        let index =
            af2::eval::rules::muchomusic::extract(prediction, &choices).map_or(-1.0, |(i, _, _)| i as f64);
        if index != indices[i] || f64::from(u8::from(judged.correct)) != correct[i] {
            wrong.push(format!(
                "{i}: {index} {judged:?}, expected {} {}",
                indices[i], correct[i]
            ));
        }
        all.push(judged);
    }
    all_agree(wrong);
    let (tally, overall) = (Tally::of(&all), &expected["scores_unrounded"]["overall"]);
    assert_eq!(tally.counted, 494);
    assert_eq!(tally.score(), overall["accuracy"].as_f64());
    assert_eq!(tally.unread_share(), overall["unanswered_rate"].as_f64());
}

#[test]
fn cmm_judges_every_line_as_its_script_does() {
    let (records, expected) = (lines("cmm_input.jsonl"), json("cmm_expected.json"));
    let mut wrong = Vec::new();
    let mut sums = [0_u32; 4];
    let mut all = Vec::new();
    for (record, own) in records.iter().zip(list(&expected["per_item"])) {
        let (answer, prediction) = (text(&record["answer"]), text(&record["pred"]));
        let item = Item {
            answer,
            prediction: Some(prediction),
            ..Item::default()
        };
        let judged = judged(RuleName::Cmm, record, &item);
        let shares = cmm::shares(answer, prediction);
        let found = [
            shares.counts_in_pa,
            shares.counts_in_hr,
            shares.pa_hit,
            shares.hr_hit,
        ];
        let hit = |key: &str| own[key] == 1;
        let flag = |key: &str| own[key] == true;
        let wanted = [
            flag("counts_in_PA"),
            flag("counts_in_HR"),
            hit("pa_hit"),
            hit("hr_hit"),
        ];
        if judged.correct != hit("correct") || found != wanted {
            wrong.push(format!("{prediction:?} for {answer:?}: {judged:?} {shares:?}"));
        }
        for (sum, flag) in sums.iter_mut().zip(found) {
            *sum += u32::from(flag);
        }
        all.push(judged);
    }
    all_agree(wrong);
    assert_eq!(all.len(), 115);
    assert_eq!(Tally::of(&all).score(), expected["overall_accuracy"].as_f64());
    let share = |hits: u32, n: u32| Some(f64::from(hits) / f64::from(n));
    assert_eq!(share(sums[2], sums[0]), expected["perception_accuracy"].as_f64());
    assert_eq!(
        share(sums[3], sums[1]),
        expected["hallucination_resistance"].as_f64()
    );
}

// AIR-Bench -------------------------------------------------------------------------------------------------------

fn outcome(judged: &Judged) -> &'static str {
    match (judged.counted, judged.by, judged.correct) {
        (false, "air_bench.no_task", _) => "skipped_no_task",
        (false, _, _) => "failed_not_in_denominator",
        (true, _, true) => "correct",
        (true, _, false) => "wrong",
    }
}

#[test]
fn air_bench_foundation_judges_every_line_as_its_script_does() {
    let (records, expected) = (
        lines("airbench_foundation_input.jsonl"),
        json("airbench_foundation_expected.json"),
    );
    let mut wrong = Vec::new();
    for (record, own) in records.iter().zip(list(&expected["per_item"])) {
        let judged = RuleName::AirBenchFoundation.record(record).unwrap();
        check_shape(record["response"].as_str(), &judged);
        if outcome(&judged) != text(own) {
            wrong.push(format!("{}: {judged:?}, expected {own}", record["response"]));
        }
        let choices: Vec<String> = ["choice_a", "choice_b", "choice_c", "choice_d"]
            .iter()
            .filter_map(|key| Some(record.get(key)?.as_str()?.to_owned()))
            .collect();
        let item = Item {
            choices: &choices,
            answer: text(&record["answer_gt"]),
            prediction: record["response"].as_str(),
            ..Item::default()
        };
        if outcome(&judged) != "skipped_no_task" {
            assert_eq!(RuleName::AirBenchFoundation.judge(&item), judged, "{record}");
        }
    }
    all_agree(wrong);
    assert_eq!(records.len(), 267);
    for case in list(&json("airbench_foundation_error_cases.json")) {
        let input = list(&case["input"]);
        let judged: Vec<Judged> = input
            .iter()
            .map(|r| RuleName::AirBenchFoundation.record(r).unwrap())
            .collect();
        let reason = judged[0].reason.as_deref().unwrap_or("");
        match (text(&case["name"]), case["error"].as_str()) {
            // The script looks for the task's counts, and has none.
            ("every_response_of_a_task_fails", _) => assert_eq!(Tally::of(&judged).score(), None),
            (name, Some(error)) => assert!(reason.starts_with(error), "{name}: {reason}"),
            (name, None) => {
                let tally = Tally::of(&judged);
                let counts = case["by_task"].as_object().unwrap().values().next().unwrap();
                assert_eq!(
                    floats(counts),
                    [tally.correct as f64, tally.counted as f64],
                    "{name}"
                );
            }
        }
    }
}

#[test]
fn air_bench_chats_are_summed_as_by_cal_score() {
    let (input, expected) = (
        json("airbench_chat_scores_input.json"),
        json("airbench_chat_scores_expected.json"),
    );
    for (file, swapped) in [("chat_score.json", false), ("chat_score_cir.json", true)] {
        let replies = list(&input)
            .iter()
            .map(|r| (text(&r["task_name"]), text(&r["gpt-score"])));
        let scores = air_bench::chat_scores(replies, swapped).unwrap();
        let own = &expected[file];
        for (group, sums) in air_bench::CHAT_GROUPS.iter().zip(scores.groups) {
            assert_eq!(
                serde_json::to_value(sums).unwrap(),
                own["by_task"][group],
                "{file} {group}"
            );
        }
        assert_eq!((scores.fail_num, scores.total_sum), (40, 65));
        assert_eq!(
            (&own["fail_num"], &own["total_sum"]),
            (&Value::from(40), &Value::from(65))
        );
        assert_eq!(scores.percentage(), own["percentage"].as_f64());
    }
    assert!(air_bench::chat_scores([("other", "1 2")], false).is_err());
}

// ClothoAQA, lmms-eval --------------------------------------------------------------------------------------------

#[test]
fn lmms_evals_parsers_agree_where_they_do_not_draw_lots() {
    let rows = json("lmms_eval_comparison.json");
    for row in list(&rows["clotho_aqa_exact_match"]) {
        let (prediction, reference) = (text(&row["prediction"]), text(&row["reference"]));
        let same = clotho_aqa::exact_match(prediction, reference);
        assert_eq!(
            Some(f64::from(u8::from(same))),
            row["exact_match"].as_f64(),
            "{row}"
        );
    }
    let mut wrong = Vec::new();
    let mut lots = 0;
    for (key, rule, n) in [
        ("mmau", RuleName::LmmsEvalMmau, 391),
        ("mmar", RuleName::LmmsEvalMmar, 286),
        ("muchomusic", RuleName::LmmsEvalMuchomusic, 144),
    ] {
        assert_eq!(list(&rows[key]).len(), n);
        for row in list(&rows[key]) {
            let choices = row.get("choices").map(strings).unwrap_or_default();
            let item = Item {
                choices: &choices,
                answer: text(&row["answer"]),
                prediction: row["pred"].as_str(),
                ..Item::default()
            };
            let judged = rule.judge(&item);
            check_shape(item.prediction, &judged);
            let random = row["random_fallback"] == true;
            lots += u32::from(random);
            let fits = match random {
                true => judged.answer.is_none() && !judged.correct,
                false if judged.state == State::Error => row["correct"].is_null(),
                false => row["correct"].as_f64() == Some(f64::from(u8::from(judged.correct))),
            };
            let parsed = row.get("parsed").filter(|_| !random).and_then(Value::as_str);
            if !fits || parsed.is_some_and(|p| judged.answer.as_deref() != Some(p)) {
                wrong.push(format!("{key} {row}: {judged:?}"));
            }
        }
    }
    all_agree(wrong);
    assert_eq!(lots, 278 + 140 + 99);
}

// LTU -------------------------------------------------------------------------------------------------------------

#[test]
fn ltu_scores_classes_as_its_scripts_do() {
    let golden = json("ltu_closed_ended.json");
    let embeddings = golden["embeddings"].as_object().unwrap();
    let embedded = |text: &str| {
        floats(
            embeddings
                .get(text)
                .unwrap_or_else(|| panic!("{text:?} is not embedded")),
        )
    };
    for run in list(&golden["runs"]) {
        let (script, task) = (text(&run["script"]), text(&run["llm_task"]));
        let name = format!("{script} {task}");
        use ltu::{Mode, Parsing};
        let (mode, parsing) = match (script, task) {
            ("eval_esc.py", "cla") => (Mode::Accu, Parsing::Labels),
            ("eval_esc.py", _) => (Mode::Accu, Parsing::CaptionStripped),
            ("eval_vs.py", "cla") => (Mode::Max, Parsing::Labels),
            ("eval_vs.py", _) => (Mode::Max, Parsing::Caption),
            (_, "cla") => (Mode::Accu, Parsing::TagLabels),
            _ => (Mode::Accu, Parsing::TagCaption),
        };
        let names = strings(&run["label_embedding_text"]);
        let labels: Vec<Vec<f64>> = names.iter().map(|l| embedded(&ltu::label_text(l))).collect();
        let labels: Vec<&[f64]> = labels.iter().map(Vec::as_slice).collect();
        let (mut hits, mut n) = (0, 0);
        for (i, row) in list(&run["eval_file"]).iter().enumerate() {
            let phrases: Vec<Vec<f64>> = ltu::phrases(text(&row["pred"]), parsing)
                .iter()
                .map(|p| embedded(p))
                .collect();
            let phrases: Vec<&[f64]> = phrases.iter().map(Vec::as_slice).collect();
            let mut scores = ltu::scores(&phrases, &labels, mode);
            let best = retrieval::argmax(&scores).unwrap();
            if script != "eval_fsd50k.py" {
                scores = (0..labels.len())
                    .map(|k| f64::from(u8::from(k == best)))
                    .collect();
            }
            let own = floats(&run["expected"]["scores_or_onehot"][i]);
            assert!(
                scores.iter().zip(&own).all(|(a, b)| (a - b).abs() < 1e-14),
                "{name} {i}: {scores:?} {own:?}"
            );
            let truth = ltu::truth(text(&row["ref"]), parsing);
            let truth: Vec<f64> = names
                .iter()
                .map(|l| f64::from(u8::from(truth.contains(&l.as_str()))))
                .collect();
            assert_eq!(truth, floats(&run["expected"]["truth"][i]), "{name} {i}");
            hits += usize::from(retrieval::argmax(&truth) == Some(best));
            n += 1;
        }
        assert_eq!(
            Some(hits as f64 / f64::from(n)),
            run["expected"]["acc"].as_f64(),
            "{name}"
        );
    }
}

#[test]
fn ltu_as_reads_gender_and_age() {
    let golden = json("ltu_as_gender_age.json");
    for row in list(&golden["gender"]) {
        let (answer, prediction) = (text(&row["ref"]), text(&row["pred"]));
        let codes = [ltu::gender(answer), ltu::gender(prediction)].map(f64::from);
        assert_eq!(floats(&row["codes"]), codes, "{row}");
        let judged = RuleName::LtuGender.judge(&Item {
            answer,
            prediction: Some(prediction),
            ..Item::default()
        });
        check_shape(Some(prediction), &judged);
        assert_eq!(row["match"], judged.correct, "{row}");
    }
    for row in list(&golden["age"]) {
        let found = ltu::age(text(&row["ref"]), text(&row["pred"])).unwrap();
        let wanted = row["result"][0].as_f64().zip(row["result"][1].as_f64());
        assert_eq!(found, wanted, "{row}");
    }
    assert!(ltu::age("forty", "30").is_err());
}

// MusicQA ---------------------------------------------------------------------------------------------------------

#[test]
fn musicqa_scores_every_pair_as_its_script_does() {
    let expected = json("musicqa_expected.json");
    let pairs = list(&expected["per_item"]);
    assert_eq!(pairs.len(), 35);
    let mut wrong = Vec::new();
    let mut means = [0.0; 3];
    for pair in pairs {
        let (reference, candidate) = (text(&pair["reference"]), text(&pair["candidate"]));
        assert_eq!(
            musicqa::wordpunct(reference),
            strings(&pair["reference_wordpunct"]),
            "{pair}"
        );
        assert_eq!(
            musicqa::wordpunct(candidate),
            strings(&pair["candidate_wordpunct"]),
            "{pair}"
        );
        let rouge = musicqa::rouge_l(reference, candidate);
        let stems = musicqa::meteor(reference, candidate, musicqa::Matching::Stem);
        let found = [
            ("bleu", musicqa::bleu(reference, candidate, musicqa::BLEU)),
            ("bleu4_only", musicqa::bleu(reference, candidate, musicqa::BLEU4)),
            ("rougeL_recall", rouge.recall),
            ("rougeL_precision", rouge.precision),
            ("rougeL_f", rouge.f),
            ("meteor_without_wordnet", stems),
            (
                "meteor_exact_only",
                musicqa::meteor(reference, candidate, musicqa::Matching::Exact),
            ),
        ];
        for (key, value) in found {
            let own = pair[key].as_f64().unwrap();
            // Near 1e-308 a double has few digits.
            if !close(value, own, 1e-12) && (value - own).abs() > 1e-320 {
                wrong.push(format!(
                    "{key}: {value}, expected {own}: {candidate:?} for {reference:?}"
                ));
            }
        }
        // With WordNet's synonyms it can but rise.
        assert!(stems <= pair["meteor"].as_f64().unwrap() + 1e-12, "{pair}");
        for (mean, (_, value)) in means.iter_mut().zip(&found[..3]) {
            *mean += value / pairs.len() as f64;
        }
    }
    all_agree(wrong);
    for (mean, key) in means.into_iter().zip(["bleu", "bleu4_only", "rougeL_recall"]) {
        assert!(
            close(mean, expected["mean"][key].as_f64().unwrap(), 1e-12),
            "{key}: {mean}"
        );
    }
}

#[test]
fn musicqa_takes_the_predictions_that_are_there() {
    let (items, predictions) = (json("musicqa_EvalMusicQA.json"), json("musicqa_predictions.json"));
    let expected = json("musicqa_expected.json");
    let mut pairs = list(&expected["per_item"]).iter();
    for row in list(&items) {
        let (question, answer) = (
            text(&row["conversation"][0]["value"]),
            &row["conversation"][1]["value"],
        );
        if let Some(said) = predictions[text(&row["audio_name"])].get(question) {
            let pair = pairs.next().unwrap();
            assert_eq!((&pair["reference"], &pair["candidate"]), (answer, said));
        }
    }
    assert!(pairs.next().is_none());
}

// MMAU-Pro --------------------------------------------------------------------------------------------------------

#[test]
fn mmau_pro_checks_every_instruction_as_its_script_does() {
    let golden = json("mmau_pro.json");
    let rows = list(&golden["instruction_following"]);
    assert_eq!(rows.len(), 173);
    let mut wrong = Vec::new();
    for row in rows {
        let response = text(&row["response"]);
        let item = Item {
            question: text(&row["question"]),
            prediction: Some(response),
            instruction: Some(Instruction {
                task: text(&row["task_identifier"]),
                kwargs: &row["kwargs"],
            }),
            ..Item::default()
        };
        let mut record = row.clone();
        record["model_output"] = row["response"].clone();
        let judged = judged(RuleName::MmauProInstructions, &record, &item);
        if row["success"] != judged.correct || judged.state == State::Error {
            wrong.push(format!(
                "{row}: {judged:?}, {} sentences",
                punkt::sentences(response)
            ));
        }
    }
    all_agree(wrong);
    for row in list(&golden["kwargs_edge"]) {
        let instruction = Instruction {
            task: "Title",
            kwargs: &row["kwargs"],
        };
        assert_eq!(mmau_pro::follows("<<a>>", instruction, ""), Ok(true));
    }
    let text = Instruction {
        task: "Number Words (at least)",
        kwargs: &serde_json::json!({"N": "3"}),
    };
    assert!(mmau_pro::follows("a", text, "")
        .unwrap_err()
        .starts_with("TypeError"));
}

#[test]
fn mmau_pros_judge_and_total() {
    let golden = json("mmau_pro.json");
    let mut all = Vec::new();
    for row in list(&golden["judge_parse"]) {
        let scores = mmau_pro::judge_scores(text(&row["text"]));
        assert_eq!(serde_json::to_value(scores).unwrap(), row["scores"], "{row}");
        all.push(scores);
    }
    let metrics = &golden["judge_metrics"];
    let found = mmau_pro::open_ended(&all).unwrap();
    for (prefix, scores) in [("avg", found.mean), ("std", found.deviation)] {
        for (key, value) in serde_json::to_value(scores).unwrap().as_object().unwrap() {
            let own = metrics[format!("{prefix}_{key}")].as_f64().unwrap();
            assert!(
                close(value.as_f64().unwrap(), own, 1e-14),
                "{prefix}_{key}: {value} {own}"
            );
        }
    }
    assert_eq!(
        Some(found.good_response_rate),
        metrics["good_response_rate"].as_f64()
    );
    assert_eq!(
        Some(found.poor_response_rate),
        metrics["poor_response_rate"].as_f64()
    );
    assert_eq!(mmau_pro::open_ended(&[]), None);

    let (mut categories, mut by_name) = (Vec::new(), Vec::new());
    for (name, own) in golden["weighted"]["input"].as_object().unwrap() {
        let share = |value: &Value| value.as_f64().unwrap();
        let category = match text(&own["type"]) {
            "openended" => Category::Open(share(&own["metrics"]["avg_overall"])),
            "aif" => Category::Instructions(share(&own["success_rate"])),
            "closed" => Category::Closed(share(&own["metrics"]["accuracy"])),
            // Of another type the script makes nothing.
            _ => continue,
        };
        categories.push((own["count"].as_u64().unwrap() as usize, category));
        by_name.push((name.clone(), Value::from(category.score())));
    }
    let total = mmau_pro::weighted_total(&categories);
    assert!(
        close(total, golden["weighted"]["overall"].as_f64().unwrap(), 1e-14),
        "{total}"
    );
    assert_eq!(Value::from_iter(by_name), golden["weighted"]["by_category"]);
}

// All rules -------------------------------------------------------------------------------------------------------

/// Items of every shape, with a prediction: options with articles, marks and other scripts, none, an instruction.
fn with_items(prediction: &str, mut each: impl FnMut(RuleName, &Item)) {
    let sets: [&[&str]; 5] = [
        &["A gunshot", "A door slam", "a firework", "the man"],
        &["(A) rain", "(B) bass guitar", "(C) guitar"],
        &["yes", "no"],
        &["...", "日本語", "İ", "Not happy"],
        &[],
    ];
    for choices in sets {
        let choices: Vec<String> = choices.iter().map(|c| c.to_string()).collect();
        let answer = choices.last().map_or("3", String::as_str);
        let kwargs =
            serde_json::json!({"N": 2, "keyword": "a", "section_splitter": "*", "keywords": "rain, a"});
        for rule in RuleName::ALL {
            let item = Item {
                question: "What is heard?",
                choices: &choices,
                answer,
                prediction: Some(prediction),
                instruction: Some(Instruction {
                    task: "Keyword Frequency",
                    kwargs: &kwargs,
                }),
                ..Item::default()
            };
            each(rule, &item);
        }
    }
}

const INSTRUCTIONS: [&str; 27] = [
    "Include Keywords",
    "Keyword Frequency",
    "Forbidden Words",
    "Number Paragraphs",
    "Number Words (at least)",
    "Number Words (at most)",
    "Number Words (range)",
    "Number Sentences (at least)",
    "Number Sentences (at most)",
    "Number Sentences (range)",
    "Postscript",
    "Number Placeholder",
    "Number Bullets",
    "Title",
    "Minimum Number Highlighted Section",
    "Multiple Sections",
    "Repeat Prompt",
    "Two Responses",
    "All Uppercase",
    "All Lowercase",
    "All-capital Words (at least)",
    "All-capital Words (at most)",
    "All-capital Words (range)",
    "Start Checker",
    "End Checker",
    "Quotation",
    "No Commas",
];

#[test]
fn hostile_predictions_are_judged_like_any_other() {
    use rand::{seq::SliceRandom, Rng};
    use rand_chacha::{rand_core::SeedableRng, ChaCha8Rng};
    let pieces = [
        "a",
        "A",
        "B",
        "(b)",
        "rain",
        "guitar",
        "bass",
        "yes",
        "no",
        "not",
        "I cannot",
        "the answer is",
        "answer:",
        "\\boxed{",
        "}",
        "<answer>",
        "</answer>",
        "<think>",
        "</think>",
        "<script>",
        "The correct answer is:",
        " ",
        " ",
        " ",
        "\n",
        ".",
        ",",
        ":",
        "'",
        "’",
        "*",
        "**",
        "***",
        "******",
        "`",
        "_",
        "[",
        "]",
        "<<",
        ">>",
        "\"",
        "…",
        "...",
        ". . .",
        "--",
        "Dr.",
        "p.m.",
        "U.S.",
        "5.",
        "4",
        "-3",
        "20-30",
        "1e999",
        "٣",
        "½",
        "日本",
        "हिन्दी",
        "é",
        "e\u{301}",
        "\u{301}",
        "İ",
        "ß",
        "ǅ",
        "ﬁ",
        "（Ｂ）",
        "ｶﾞ",
        "\u{1100}\u{1161}",
        "👍",
        "👨\u{200d}👩",
        "\u{1f171}",
        "\0",
        "\u{1b}[31m",
        "\u{1c}",
        "\u{85}",
        "\u{a0}",
        "\u{200b}",
        "\u{202e}",
        "\u{2028}",
        "\u{feff}",
        "\u{fffd}",
        "\u{10ffff}",
        "°",
        "C#",
        "4/4",
        "3.5",
    ];
    let mut rng = ChaCha8Rng::seed_from_u64(15);
    let mut answered = 0;
    for round in 0..3_000 {
        let mut prediction = String::new();
        for _ in 0..rng.gen_range(0..16) {
            match rng.gen_bool(0.9) {
                true => prediction += pieces.choose(&mut rng).unwrap(),
                false => prediction.extend(char::from_u32(rng.gen_range(0..0x11_0000))),
            }
        }
        with_items(&prediction, |rule, item| {
            let judged = rule.judge(item);
            check_shape(item.prediction, &judged);
            answered += usize::from(judged.answer.is_some());
            if prediction.trim().is_empty() && judged.state != State::Error {
                assert_eq!(judged.state, State::Empty, "{rule} {prediction:?}");
            }
            // Truncation changes the state and no verdict.
            let cut = rule.judge(&Item {
                truncated: true,
                ..*item
            });
            let told = matches!(judged.state, State::Error | State::Empty) || cut.state == State::Truncated;
            assert!(
                told && (cut.correct, &cut.answer) == (judged.correct, &judged.answer),
                "{cut:?}"
            );
        });
        let task = INSTRUCTIONS[round % INSTRUCTIONS.len()];
        let first: String = prediction.chars().take(1).collect();
        let kwargs = serde_json::json!({"N": 1, "keyword": &prediction, "section_splitter": first});
        let follows = mmau_pro::follows(
            &prediction,
            Instruction {
                task,
                kwargs: &kwargs,
            },
            &prediction,
        );
        assert!(follows.is_ok(), "{task} {prediction:?}");
        let _ = (
            mmau_pro::judge_scores(&prediction),
            ltu::age("x 42.", &prediction),
        );
        let value = musicqa::meteor(&prediction, "a rain", musicqa::Matching::Stem);
        assert!((0.0..=1.0).contains(&value), "{value} {prediction:?}");
    }
    assert!(answered > 20_000, "{answered}");
}

/// In more than linear time this test does not end.
#[test]
fn long_predictions_take_linear_time() {
    const SIZE: usize = 1 << 17;
    for piece in [
        "a ",
        "rain ",
        "A",
        "B. ",
        "(",
        "*",
        "* ",
        "**a",
        "\n",
        "\n ",
        " ",
        ". ",
        ".",
        "! ",
        "!",
        "...",
        "-",
        "no ",
        "yes ",
        "not rain ",
        "answer is ",
        "answer: rain ",
        "the answer is not ",
        "İ",
        "e\u{301}",
        "\u{301}",
        "ﾞ",
        "\u{1161}",
        "[",
        "<<",
        "<",
        ">",
        "'",
        "i.e. ",
        "J. ",
        "5. ",
        "1",
        "1-",
        "_",
        "日",
        "👍",
        "</think>",
        "CORRECTNESS: ",
        "CORRECTNESS:4",
        "bass guitar ",
        "a.)",
        "\u{1c}",
    ] {
        let prediction = piece.repeat(SIZE / piece.len());
        with_items(&prediction, |rule, item| {
            check_shape(item.prediction, &rule.judge(item))
        });
        for task in INSTRUCTIONS {
            let kwargs =
                serde_json::json!({"N": 1, "keyword": piece, "keywords": "a", "section_splitter": piece});
            let follows = mmau_pro::follows(
                &prediction,
                Instruction {
                    task,
                    kwargs: &kwargs,
                },
                piece,
            );
            assert!(follows.is_ok(), "{task}");
        }
        let _ = (
            mmau_pro::judge_scores(&prediction),
            ltu::age("x 42.", &prediction),
            ltu::gender(&prediction),
        );
        let _ = musicqa::bleu("a piano piece", &prediction, musicqa::BLEU);
        let _ = musicqa::rouge_l("a piano piece", &prediction);
        let _ = musicqa::meteor("a piano piece", &prediction, musicqa::Matching::Stem);
    }
    let megabyte = 1 << 20;
    for prediction in [
        "rain ".repeat(megabyte / 5),
        "A".repeat(megabyte),
        "token ".repeat(10_000),
    ] {
        with_items(&prediction, |rule, item| {
            check_shape(item.prediction, &rule.judge(item))
        });
    }
    let random: String = (0..megabyte as u32 / 4)
        .filter_map(|i| char::from_u32(i.wrapping_mul(2_654_435_761) % 0x11_0000))
        .collect();
    with_items(&random, |rule, item| {
        check_shape(item.prediction, &rule.judge(item))
    });
}

#[test]
fn fair_rules_read_what_official_ones_miss() {
    let choices = ["A gunshot", "A door slam", "A firework", "The man"].map(String::from);
    let judge = |rule: RuleName, prediction: &str| {
        rule.judge(&Item {
            choices: &choices,
            answer: "A door slam",
            prediction: Some(prediction),
            ..Item::default()
        })
    };
    for (prediction, span, by) in [
        ("(b) a door slam", "a door slam", "choice.text"),
        ("B", "B", "choice.letter"),
        ("The answer is: **b**.", "b", "choice.letter"),
        (" a DOOR slam! ", "a DOOR slam!", "choice.whole"),
        ("（Ｂ）", "Ｂ", "choice.letter"),
        (
            "Not a gunshot, so the answer is a door\u{ad} slam.",
            "a door\u{ad} slam",
            "choice.declared",
        ),
        (
            "A gunshot? Rather B.\nFinal answer: \\boxed{B}",
            "B",
            "choice.declared",
        ),
        (
            "<think>a gunshot or the man</think> It is a door slam",
            "a door slam",
            "choice.text",
        ),
    ] {
        let found = judge(RuleName::Choice, prediction);
        assert!(found.correct, "{prediction:?}: {found:?}");
        assert_eq!(
            (&prediction[found.span.unwrap()], found.by),
            (span, by),
            "{prediction:?}"
        );
    }
    for (prediction, state) in [
        ("a gunshot or a door slam", State::Unparsed),
        ("not a door slam", State::Unparsed),
        ("The answer is A. The answer is B.", State::Unparsed),
        ("I don't think the answer is B", State::Unparsed),
        ("<think>a door slam", State::Unparsed),
        ("a loud noise", State::Unparsed),
        ("I'm sorry, but I cannot hear a door slam.", State::Refused),
        ("", State::Empty),
    ] {
        let found = judge(RuleName::Choice, prediction);
        assert_eq!((found.state, found.answer), (state, None), "{prediction:?}");
    }
    // Official rules know no refusal.
    assert_eq!(
        judge(RuleName::Mmau, "I'm sorry, but I cannot.").state,
        State::Unparsed
    );
    let letter = judge(RuleName::OptionLetter, "option b");
    assert_eq!(
        (letter.correct, letter.answer.as_deref()),
        (true, Some("A door slam"))
    );
    assert_eq!(
        judge(RuleName::OptionLetter, "a door slam").state,
        State::Unparsed
    );
}

#[test]
fn duplicates_and_options_without_words_can_be_answered() {
    let choices = ["thirteen", "...", "Thirteen.", "?!"].map(String::from);
    let judge = |prediction: &str, answer: &str| {
        RuleName::Choice.judge(&Item {
            choices: &choices,
            answer,
            prediction: Some(prediction),
            ..Item::default()
        })
    };
    assert!(judge("C", "thirteen").correct && judge("thirteen", "Thirteen.").correct);
    assert!(judge("...", "...").correct && judge("b", "...").correct && !judge("?!", "...").correct);
    assert_eq!(judge("!!", "...").state, State::Unparsed);
    assert!(judge("a", "nineteen")
        .reason
        .unwrap()
        .contains("none of the choices"));
}

#[test]
fn yes_and_no_are_told_from_determiners() {
    let judge = |prediction: &str| {
        RuleName::YesNo.judge(&Item {
            answer: "no",
            prediction: Some(prediction),
            ..Item::default()
        })
    };
    for (prediction, answer) in [
        ("No, there is no dog.", Some("no")),
        ("no", Some("no")),
        ("The answer is no because it is quiet", Some("no")),
        ("Yes, there is no doubt.", Some("yes")),
        ("**YES**", Some("yes")),
        ("I hear no dog", None),
        ("yes and no", None),
        ("not yes", None),
        ("Yes. No.", None),
        ("I know", None),
        ("I cannot tell", None),
    ] {
        let found = judge(prediction);
        assert_eq!(found.answer.as_deref(), answer, "{prediction:?}");
        assert_eq!(found.correct, answer == Some("no"), "{prediction:?}");
        check_shape(Some(prediction), &found);
    }
    assert_eq!(judge("I cannot tell").state, State::Refused);
}

#[test]
fn whole_texts_are_compared_three_ways() {
    let judge = |rule: RuleName, prediction: &str| {
        let item = Item {
            answer: "It's a dog, then rain",
            prediction: Some(prediction),
            ..Item::default()
        };
        rule.judge(&item).correct
    };
    let rules = [RuleName::Verbatim, RuleName::Exact, RuleName::Normalised];
    for (prediction, correct) in [
        ("It's a dog, then rain", [true, true, true]),
        ("it's a dog,  then rain.", [false, true, true]),
        ("it’s: dog then the RAIN!", [false, false, true]),
        ("it's a dog", [false, false, false]),
    ] {
        assert_eq!(rules.map(|rule| judge(rule, prediction)), correct, "{prediction}");
    }
}

#[test]
fn rules_have_stable_names_and_an_unknown_one_is_told_the_nearest() {
    for rule in RuleName::ALL {
        assert_eq!(rule.name().parse(), Ok(rule));
        let written = serde_json::to_string(&rule).unwrap();
        assert_eq!(written, format!("\"{rule}\""));
        assert_eq!(serde_json::from_str::<RuleName>(&written).unwrap(), rule);
        assert!(!rule.says().is_empty());
        assert!(rule.beside().is_none_or(RuleName::is_fair) && !(rule.is_fair() && rule.beside().is_some()));
    }
    let error = serde_json::from_str::<RuleName>("\"muchomusik\"")
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("expected one of verbatim, exact") && error.contains("did you mean \"muchomusic\"?"),
        "{error}"
    );
    let states = serde_json::to_value([State::Answered, State::Error]).unwrap();
    assert_eq!(states, serde_json::json!(["answered", "error"]));
    assert_eq!(RuleName::Number.record(&Value::Null), None);
}
