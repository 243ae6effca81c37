//! Metrics beside the official tools' numbers (`golden/M_metrics`, whose notes name the tools). Where ours differ by design,
//! the test says so and why.
#![allow(clippy::panic, clippy::unwrap_used)]

use af2::metrics::accuracy::Count;
use af2::metrics::bootstrap::{Bootstrap, Interval};
use af2::metrics::classification::{Average, Confusion, Weights};
use af2::metrics::ranking::{self, Tags};
use af2::metrics::retrieval::{AudioToText, Ranks};
use af2::metrics::statistics::clusters::Clusters;
use af2::metrics::statistics::correlation::{kendall, pearson, spearman};
use af2::metrics::statistics::mcnemar::McNemar;
use af2::metrics::statistics::multiplicity::{adjusted, Correction};
use af2::metrics::statistics::proportion::{self, Method};
use af2::metrics::statistics::{randomisation, standard_error};
use ndarray::Array2;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Other orders of the same sums.
const EXACT: f64 = 1e-12;
/// The bound that these metrics are held to.
const BOUND: f64 = 1e-9;

fn golden(name: &str) -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/M_metrics")
        .join(name);
    serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap_or_else(|| panic!("no list: {value}"))
}

fn numbers(value: &Value) -> Vec<f64> {
    list(value).iter().map(number).collect()
}

fn number(value: &Value) -> f64 {
    match value {
        Value::String(s) if s == "nan" => f64::NAN,
        Value::String(s) if s == "inf" => f64::INFINITY,
        other => other.as_f64().unwrap_or_else(|| panic!("no number: {other}")),
    }
}

fn matrix(value: &Value) -> Array2<f64> {
    let rows: Vec<Vec<f64>> = list(value).iter().map(numbers).collect();
    let width = rows[0].len();
    Array2::from_shape_vec((rows.len(), width), rows.concat()).unwrap()
}

#[track_caller]
fn close(case: &str, found: f64, expected: f64, bound: f64) {
    assert!(
        (found - expected).abs() <= bound,
        "{case}: {found} is not {expected}: {:e} off",
        (found - expected).abs()
    );
}

/// NaN there, nothing here: no metric returns NaN.
#[track_caller]
fn close_or_none(case: &str, found: Option<f64>, expected: &Value) {
    match number(expected) {
        e if e.is_nan() => assert_eq!(found, None, "{case}"),
        e => close(case, found.unwrap_or_else(|| panic!("{case}: none")), e, BOUND),
    }
}

#[test]
fn labels_are_scored_as_by_scikit_learn() {
    let all = golden("classification/classification.json");
    let cases = list(&all["single_label"]);
    assert_eq!(cases.len(), 12);
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let texts =
            |key: &str| -> Vec<&str> { list(&case[key]).iter().map(|v| v.as_str().unwrap()).collect() };
        let (labels, truth, answers) = (texts("labels"), texts("y_true"), texts("y_pred"));
        let items = truth.iter().copied().zip(answers.iter().copied().map(Some));
        let found = Confusion::of(&labels, items).unwrap();
        let expected: Vec<Vec<u64>> = serde_json::from_value(case["confusion_matrix"].clone()).unwrap();
        assert_eq!(found.rows().collect::<Vec<_>>(), expected, "{name}");
        let is = |key: &str, value: Option<f64>| close_or_none(&format!("{name}: {key}"), value, &case[key]);
        is("accuracy", found.accuracy());
        is("balanced_accuracy", found.balanced_accuracy());
        for (of, average) in [
            ("macro", Average::Macro),
            ("micro", Average::Micro),
            ("weighted", Average::Weighted),
        ] {
            let scores = found.average(average);
            is(&format!("precision_{of}"), scores.map(|s| s.precision));
            is(&format!("recall_{of}"), scores.map(|s| s.recall));
            is(&format!("f1_{of}"), scores.map(|s| s.f1));
        }
        for (label, expected) in numbers(&case["f1_per_label"]).into_iter().enumerate() {
            close(name, found.of_label(label).f1, expected, BOUND);
        }
        is("kappa_unweighted", found.kappa(Weights::Unweighted));
        is("kappa_linear", found.kappa(Weights::Linear));
        is("kappa_quadratic", found.kappa(Weights::Quadratic));
        is("mcc", found.matthews());
        // The counts that runs have are the same share.
        let count = Count::of(truth.iter().zip(&answers).map(|(t, a)| t == a));
        assert_eq!(count.accuracy(), found.accuracy());
    }
}

#[test]
fn the_labels_given_decide_the_distances_of_kappa() {
    let all = golden("classification/classification.json");
    let kappas = |case: &Value, labels: &[&str]| {
        let grades = |key: &str| -> Vec<String> { list(&case[key]).iter().map(|v| v.to_string()).collect() };
        let (truth, answers) = (grades("y_true"), grades("y_pred"));
        let items = truth
            .iter()
            .map(String::as_str)
            .zip(answers.iter().map(|a| Some(a.as_str())));
        let found = Confusion::of(labels, items).unwrap();
        [Weights::Unweighted, Weights::Linear, Weights::Quadratic].map(|w| found.kappa(w))
    };
    let grades = ["1", "2", "3", "4", "5"];
    for case in list(&all["ordinal"]) {
        let found = kappas(case, &grades);
        close_or_none("unweighted", found[0], &case["kappa_unweighted"]);
        close_or_none("linear", found[1], &case["kappa_linear"]);
        close_or_none("quadratic", found[2], &case["kappa_quadratic_labels_1_to_5"]);
    }
    let gap = &all["ordinal_gap"];
    close_or_none(
        "given",
        kappas(gap, &grades)[2],
        &gap["kappa_quadratic_labels_1_to_5"],
    );
    // What scikit-learn does without labels has to be asked for.
    close_or_none(
        "occurring",
        kappas(gap, &["1", "2", "5"])[2],
        &gap["kappa_quadratic"],
    );
    assert_ne!(gap["kappa_quadratic"], gap["kappa_quadratic_labels_1_to_5"]);
}

#[test]
fn rankings_are_scored_as_by_scikit_learn() {
    let all = golden("classification/average_precision.json");
    let cases = list(&all["binary"]);
    assert_eq!(cases.len(), 19);
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let truth: Vec<bool> = numbers(&case["y_true"]).iter().map(|t| *t == 1.0).collect();
        let scores = numbers(&case["y_score"]);
        let found = ranking::average_precision(&scores, &truth).unwrap();
        // By design: without positives there is no precision to average; scikit-learn warns and says 0.
        assert_eq!(found.is_none(), !truth.contains(&true), "{name}");
        close(
            name,
            found.unwrap_or(0.0),
            number(&case["average_precision"]),
            BOUND,
        );
        close_or_none(name, ranking::roc_auc(&scores, &truth).unwrap(), &case["roc_auc"]);
    }
}

#[test]
fn tags_are_scored_as_by_scikit_learn() {
    let all = golden("classification/average_precision.json");
    let cases = list(&all["multilabel"]);
    assert_eq!(cases.len(), 2);
    for case in cases {
        let tags = Tags::new(matrix(&case["y_score"]), &matrix(&case["y_true"])).unwrap();
        let positives: Vec<usize> = serde_json::from_value(case["positives_per_class"].clone()).unwrap();
        assert_eq!(tags.positives(), positives);
        let found = tags.average_precision();
        for (class, expected) in numbers(&case["ap_per_class"]).into_iter().enumerate() {
            assert_eq!(found.classes[class].is_none(), positives[class] == 0);
            close("class", found.classes[class].unwrap_or(0.0), expected, BOUND);
        }
        // The class that is nowhere counts 0 in the mean, as in scikit-learn, and is reported.
        assert_eq!(found.absent, 1);
        let is = |key: &str, value: Option<f64>| close_or_none(key, value, &case[key]);
        is("macro_sklearn", Some(found.mean));
        is("mean_over_classes_with_positives", found.mean_present);
        is("micro", found.micro);
        is("weighted", found.weighted);
        is("samples", Some(found.samples));
        let ranking = tags.label_ranking();
        let mean = ranking.iter().sum::<f64>() / ranking.len() as f64;
        is("label_ranking_average_precision", Some(mean));
        let (f1, expected) = (tags.f1(0.5), &case["f1_at_0_5"]);
        for (key, value) in [
            ("macro", f1.mean),
            ("micro", f1.micro),
            ("weighted", f1.weighted),
            ("samples", f1.samples),
        ] {
            close_or_none(key, Some(value), &expected[key]);
        }
    }
}

#[test]
fn retrieval_is_scored_as_by_both_official_tools() {
    let all = golden("classification/retrieval.json");
    assert_eq!(list(&all).len(), 2);
    for case in list(&all) {
        let (audio, text) = (
            matrix(&case["audio_embeddings"]),
            matrix(&case["text_embeddings"]),
        );
        let found = Ranks::of(&audio, &text, 5).unwrap();
        assert_eq!(found.clips() as u64, case["n_clips"].as_u64().unwrap());
        assert_eq!(found.tied(), [0, 0]);
        let ranks: Vec<u32> = serde_json::from_value(case["text_to_audio_ranks"].clone()).unwrap();
        assert_eq!(found.text_to_audio(), ranks);
        let ranks = &case["audio_to_text_ranks_in_caption_order"];
        let ranks: Vec<Vec<u32>> = serde_json::from_value(ranks.clone()).unwrap();
        assert_eq!(found.audio_to_text().collect::<Vec<_>>(), ranks);

        let to_audio = found.text_to_audio_scores();
        let sorted = found.audio_to_text_scores(AudioToText::Sorted);
        let laion = found.audio_to_text_scores(AudioToText::LaionClap);
        let (definition, official) = (
            &case["sorted_definition"],
            &case["laion_evaluate_clotho_audiocaps"],
        );
        for expected in [definition, official] {
            for (k, share) in &to_audio.recall[..3] {
                close_or_none("R@k", Some(*share), &expected[format!("text_to_audio_R@{k}")]);
            }
            for (k, share) in &sorted.recall[..3] {
                close_or_none("R@k", Some(*share), &expected[format!("audio_to_text_R@{k}")]);
            }
            close_or_none("mAP@10", Some(to_audio.map_10), &expected["text_to_audio_mAP@10"]);
        }
        assert_eq!(laion.recall, sorted.recall);
        close_or_none(
            "median",
            Some(to_audio.median_rank),
            &official["text_to_audio_median_rank"],
        );
        close_or_none(
            "mean",
            Some(to_audio.mean_rank),
            &official["text_to_audio_mean_rank"],
        );
        // By design two numbers: the definition, and LAION-CLAP's, whose ranks are not sorted. They are the same in no case here.
        close_or_none("sorted", Some(sorted.map_10), &definition["audio_to_text_mAP@10"]);
        close_or_none("unsorted", Some(laion.map_10), &official["audio_to_text_mAP@10"]);
        assert!(laion.map_10 > sorted.map_10 + 0.1);
        // By which LAION-CLAP chooses its checkpoint.
        let chosen = (to_audio.map_10 + laion.map_10) / 2.0;
        close_or_none("selection", Some(chosen), &case["laion_selection_performance"]);

        for (scores, key) in [(&sorted, "a2t"), (&to_audio, "t2a")] {
            let expected = numbers(&case["xinhaomei_tools_utils"][key]);
            for ((_, share), expected) in scores.recall.iter().zip(&expected) {
                close(key, 100.0 * share, *expected, BOUND);
            }
            close(key, scores.median_rank, expected[4], EXACT);
            close(key, scores.mean_rank, expected[5], BOUND);
        }

        // One caption a clip: its first.
        let first: Vec<usize> = (0..audio.nrows()).map(|i| 5 * i).collect();
        let text = text.select(ndarray::Axis(0), &first);
        let found = Ranks::of(&audio, &text, 1).unwrap();
        let expected = &case["laion_get_metrics_first_caption_only"];
        for (from, scores) in [
            ("text_to_audio", found.text_to_audio_scores()),
            ("audio_to_text", found.audio_to_text_scores(AudioToText::Sorted)),
        ] {
            let is = |of: &str, value| close_or_none(of, Some(value), &expected[format!("{from}_{of}")]);
            for (k, share) in &scores.recall[..3] {
                is(&format!("R@{k}"), *share);
            }
            is("mAP@10", scores.map_10);
            is("median_rank", scores.median_rank);
            is("mean_rank", scores.mean_rank);
        }
        assert_eq!(
            found.audio_to_text_scores(AudioToText::Sorted),
            found.audio_to_text_scores(AudioToText::LaionClap)
        );
    }
}

#[test]
fn mcnemars_tests_are_those_of_statsmodels_where_there_is_something_to_test() {
    let all = golden("statistics/mcnemar.json");
    let cases = list(&all["tables"]);
    assert_eq!(cases.len(), 11);
    let mut without = 0;
    for case in cases {
        let count = |key: &str| case[key].as_u64().unwrap();
        let test = McNemar {
            only_first: count("b"),
            only_second: count("c"),
        };
        let name = case["table"].to_string();
        close(&name, test.exact(), number(&case["exact"]["pvalue"]), EXACT);
        close(&name, test.exact(), number(&case["exact_by_formula"]), EXACT);
        let (plain, corrected) = (test.chi_squared(), test.chi_squared_corrected());
        if test.discordant() == 0 {
            // By design p = 1 and no statistic: statsmodels has NaN, and 0 for the corrected test.
            without += 1;
            assert!(number(&case["chi2_uncorrected"]["pvalue"]).is_nan());
            assert_eq!(number(&case["chi2_corrected"]["pvalue"]), 0.0);
            assert_eq!((plain.statistic, plain.p), (None, 1.0));
            assert_eq!((corrected.statistic, corrected.p), (None, 1.0));
            assert_eq!(test.mid_p(), 1.0);
            continue;
        }
        for (found, key) in [(plain, "chi2_uncorrected"), (corrected, "chi2_corrected")] {
            close(
                &name,
                found.statistic.unwrap(),
                number(&case[key]["statistic"]),
                EXACT,
            );
            close(&name, found.p, number(&case[key]["pvalue"]), EXACT);
        }
        close(&name, test.mid_p(), number(&case["mid_p"]), EXACT);
    }
    assert_eq!(without, 2);
    for case in list(&all["from_vectors"]) {
        let verdicts = |key: &str| numbers(&case[key]).into_iter().map(|v| v == 1.0);
        let test = McNemar::of(verdicts("a").zip(verdicts("b")));
        let table = matrix(&case["table_a_by_b"]);
        assert_eq!(
            [test.only_first as f64, test.only_second as f64],
            [table[[0, 1]], table[[1, 0]]]
        );
        close("exact", test.exact(), number(&case["exact_pvalue"]), EXACT);
        let corrected = test.chi_squared_corrected().p;
        close("corrected", corrected, number(&case["chi2_corrected"]), EXACT);
    }
}

#[test]
fn randomisation_counts_every_choice_of_signs() {
    let all = golden("statistics/paired_permutation.json");
    assert_eq!(list(&all).len(), 8);
    for case in list(&all) {
        let (x, y) = (numbers(&case["x"]), numbers(&case["y"]));
        let found = randomisation::paired(&x, &y, 10, 1).unwrap();
        assert!(found.exact);
        let name = case["x"].to_string();
        let is = |value: f64, key: &str| close(&format!("{name}: {key}"), value, number(&case[key]), EXACT);
        is(found.difference, "statistic_mean_difference");
        is(found.p, "p_enumerated_abs");
        is(found.p_greater, "p_enumerated_greater");
        is(found.p_less, "p_enumerated_less");
        // scipy refuses a single pair.
        if x.len() > 1 {
            is(found.p, "p_scipy_two-sided");
            is(found.p_greater, "p_scipy_greater");
            is(found.p_less, "p_scipy_less");
        }
    }
}

#[test]
fn intervals_of_a_share_are_those_of_statsmodels() {
    let all = golden("statistics/proportion_intervals.json");
    assert_eq!(list(&all).len(), 10);
    for case in list(&all) {
        let (right, n) = (case["successes"].as_u64().unwrap(), case["n"].as_u64().unwrap());
        for (key, method) in [
            ("wilson", Method::Wilson),
            ("normal", Method::Normal),
            ("agresti_coull", Method::AgrestiCoull),
            ("beta", Method::ClopperPearson),
            ("jeffreys", Method::Jeffreys),
        ] {
            for level in [0.95, 0.99] {
                let found = proportion::interval(method, right, n, level).unwrap();
                let expected = numbers(&case[format!("{key}_{level}")]);
                let name = format!("{key} {right}/{n} {level}");
                close(&name, found.low, expected[0], EXACT);
                close(&name, found.high, expected[1], EXACT);
            }
        }
        let verdicts: Vec<f64> = (0..n).map(|i| f64::from(u8::from(i < right))).collect();
        match &case["lm_eval_mean_stderr"] {
            Value::Null => assert_eq!(standard_error(&verdicts), None),
            expected => close(
                "stderr",
                standard_error(&verdicts).unwrap(),
                number(expected),
                EXACT,
            ),
        }
    }
}

/// The two statistics of the enumerated cases: as sums a cluster, and what is made of their totals.
fn two_statistics(clusters: &[Vec<f64>]) -> [(&'static str, Clusters); 2] {
    let items = |(c, values): (usize, &Vec<f64>)| values.iter().map(|v| (c, *v)).collect::<Vec<_>>();
    let pooled = Clusters::of(clusters.iter().enumerate().flat_map(items)).unwrap();
    let mean = |values: &Vec<f64>| [values.iter().sum::<f64>() / values.len() as f64, 1.0];
    let means = Clusters::of_sums(2, clusters.iter().flat_map(mean).collect()).unwrap();
    [("pooled", pooled), ("mean_of_cluster_means", means)]
}

#[test]
fn every_resample_of_clusters_is_the_enumerated_one() {
    let all = golden("statistics/cluster_bootstrap.json");
    let cases = list(&all["enumerated"]);
    assert_eq!(cases.len(), 3);
    for case in cases {
        let clusters: Vec<Vec<f64>> = list(&case["clusters"]).iter().map(numbers).collect();
        let k = clusters.len();
        for (name, sums) in two_statistics(&clusters) {
            let ratio = |drawn: &mut dyn Iterator<Item = usize>| {
                let totals = sums.totals(drawn).unwrap();
                totals[0] / totals[1]
            };
            let point = ratio(&mut (0..k));
            close(name, point, number(&case[format!("point_{name}")]), EXACT);
            let digits = |resample: usize| (0..k).map(move |d| resample / k.pow(d as u32) % k);
            let mut values: Vec<f64> = (0..k.pow(k as u32)).map(|r| ratio(&mut digits(r))).collect();
            values.sort_unstable_by(f64::total_cmp);
            let expected = &case[name];
            assert_eq!(values.len() as u64, case["n_resamples"].as_u64().unwrap());
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            close(name, mean, number(&expected["bootstrap_mean"]), EXACT);
            let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
            let sd = (squares / values.len() as f64).sqrt();
            close(name, sd, number(&expected["bootstrap_sd_population"]), EXACT);

            // As many resamples of each value, which is written to 12 digits.
            let distribution: Vec<(f64, usize)> = list(&expected["distribution"])
                .iter()
                .map(|p| (number(&p[0]), p[1].as_u64().unwrap() as usize))
                .collect();
            let repeated: Vec<f64> = distribution
                .iter()
                .flat_map(|(value, n)| std::iter::repeat_n(*value, *n))
                .collect();
            assert_eq!(repeated.len(), values.len());
            for (found, expected) in values.iter().zip(&repeated) {
                close(name, *found, *expected, 1e-12);
            }

            // And the bootstrap draws each value as often, within five standard errors.
            let settings = Bootstrap {
                level: 0.95,
                resamples: 200_000,
                seed: 11,
            };
            let drawn = settings.resampled(&sums, |s| s[0] / s[1]).unwrap();
            let total = drawn.len() as f64;
            for (value, n) in distribution {
                let p = n as f64 / values.len() as f64;
                let seen = drawn.iter().filter(|v| (**v - value).abs() < 1e-9).count() as f64 / total;
                close(name, seen, p, 5.0 * (p * (1.0 - p) / total).sqrt());
            }
            // Percentiles of all resamples.
            for (level, low, high) in [(0.95, "2.5", "97.5"), (0.9, "5", "95"), (0.5, "25", "75")] {
                let settings = Bootstrap { level, ..settings };
                let found = settings.middle(&values).unwrap();
                let percentiles = &expected["percentiles_linear"];
                close(name, found.low, number(&percentiles[low]), EXACT);
                close(name, found.high, number(&percentiles[high]), EXACT);
            }
        }
    }
}

#[test]
fn the_clustered_interval_is_within_the_monte_carlo_error() {
    let all = golden("statistics/cluster_bootstrap.json");
    for case in list(&all["monte_carlo"]) {
        let clusters: Vec<Vec<f64>> = list(&case["clusters"]).iter().map(numbers).collect();
        let [(_, sums), _] = two_statistics(&clusters);
        let settings = Bootstrap {
            level: 0.95,
            resamples: 200_000,
            seed: 1,
        };
        let Interval { low, high } = settings.clustered_mean(&sums).unwrap();
        let (expected, error) = (
            numbers(&case["interval_95_percentile"]),
            numbers(&case["monte_carlo_se"]),
        );
        // As many resamples here as there, so that the difference has √2 of the error.
        close("low", low, expected[0], 5.0 * 2f64.sqrt() * error[0]);
        close("high", high, expected[1], 5.0 * 2f64.sqrt() * error[1]);
        let drawn = settings.resampled(&sums, |s| s[0] / s[1]).unwrap();
        let sd = standard_error(&drawn).unwrap() * (drawn.len() as f64).sqrt();
        // A standard deviation of m draws is known to 1/√(2m).
        let bound = 5.0 * sd / (drawn.len() as f64).sqrt();
        close("sd", sd, number(&case["bootstrap_sd"]), bound);
    }
}

#[test]
fn agreement_and_adjusted_p_values_are_those_of_scipy_and_statsmodels() {
    let all = golden("statistics/agreement_and_multiplicity.json");
    for case in list(&all["correlation_of_judge_scores"]) {
        let (x, y) = (numbers(&case["x"]), numbers(&case["y"]));
        close(
            "pearson",
            pearson(&x, &y).unwrap(),
            number(&case["pearson"]),
            EXACT,
        );
        close(
            "spearman",
            spearman(&x, &y).unwrap(),
            number(&case["spearman"]),
            EXACT,
        );
        close(
            "kendall",
            kendall(&x, &y).unwrap(),
            number(&case["kendall_tau_b"]),
            EXACT,
        );
    }
    for case in list(&all["multiple_testing"]) {
        let p = numbers(&case["p"]);
        for (key, correction) in [
            ("holm", Correction::Holm),
            ("bh", Correction::BenjaminiHochberg),
            ("bonferroni", Correction::Bonferroni),
        ] {
            let found = adjusted(correction, &p).unwrap();
            for (found, expected) in found.iter().zip(numbers(&case[key])) {
                close(key, *found, expected, EXACT);
            }
        }
    }
}

/// Runs the program in a folder: exit code, standard output, standard error.
fn af2(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_af2"))
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (out.status.code().unwrap(), text(out.stdout), text(out.stderr))
}

fn golden_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/M_metrics/classification")
}

const RETRIEVAL: [&str; 6] = [
    "score",
    "retrieval",
    "--audio",
    "retrieval_audio.npy",
    "--text",
    "retrieval_text.npy",
];
const TAGGING: [&str; 6] = [
    "score",
    "tagging",
    "--scores",
    "tags_scores.npy",
    "--truth",
    "tags_truth.npy",
];

#[test]
fn af2_score_retrieval_prints_the_official_numbers() {
    let folder = golden_folder();
    let (code, out, err) = af2(&folder, &[&RETRIEVAL[..], &["--json"]].concat());
    assert_eq!((code, err.as_str()), (0, ""));
    let found: Value = serde_json::from_str(&out).unwrap();
    let case = &golden("classification/retrieval.json")[0];
    let (definition, official) = (
        &case["sorted_definition"],
        &case["laion_evaluate_clotho_audiocaps"],
    );
    let corpus = &found["corpus"];
    for way in ["text_to_audio", "audio_to_text"] {
        for measure in ["R@1", "R@5", "R@10", "mAP@10"] {
            let key = format!("{way}_{measure}");
            close(&key, number(&corpus[&key]), number(&definition[&key]), BOUND);
        }
    }
    for key in ["text_to_audio_median_rank", "text_to_audio_mean_rank"] {
        close(key, number(&corpus[key]), number(&official[key]), BOUND);
    }
    let key = "audio_to_text_mAP@10";
    close(
        key,
        number(&corpus[format!("{key}_laion_clap")]),
        number(&official[key]),
        BOUND,
    );
    let expected = numbers(&case["xinhaomei_tools_utils"]["a2t"]);
    close(
        "median",
        number(&corpus["audio_to_text_median_rank"]),
        expected[4],
        EXACT,
    );
    close(
        "mean",
        number(&corpus["audio_to_text_mean_rank"]),
        expected[5],
        BOUND,
    );

    let items = list(&found["items"]);
    let ranks: Vec<Value> = items.iter().map(|i| i["audio_to_text_ranks"].clone()).collect();
    assert_eq!(Value::from(ranks), case["audio_to_text_ranks_in_caption_order"]);
    let ranks: Vec<Value> = items
        .iter()
        .flat_map(|i| list(&i["text_to_audio_ranks"]).clone())
        .collect();
    assert_eq!(Value::from(ranks), case["text_to_audio_ranks"]);

    // Every number has its interval, which holds it.
    let intervals = found["intervals"].as_object().unwrap();
    assert_eq!(intervals.len(), corpus.as_object().unwrap().len());
    for (key, value) in corpus.as_object().unwrap() {
        let ends = numbers(&intervals[key]);
        let value = number(value);
        assert!(ends[0] <= value && value <= ends[1], "{key}: {ends:?} {value}");
    }
    let (code, table, _) = af2(&folder, &RETRIEVAL);
    assert_eq!(code, 0);
    for shown in ["71.7 [", "69.7 [", "101.2 [", "60", "12"] {
        assert!(table.contains(shown), "{shown}:\n{table}");
    }
    let one = [&RETRIEVAL[..], &["--captions-per-clip", "1"]].concat();
    let (code, _, err) = af2(&folder, &one);
    assert_eq!(code, 6);
    assert!(err.contains("captions per clip: 5 would fit"), "{err}");
}

#[test]
fn af2_score_tagging_prints_scikit_learns_numbers() {
    let folder = golden_folder();
    let (code, out, err) = af2(&folder, &[&TAGGING[..], &["--json"]].concat());
    assert_eq!((code, err.as_str()), (0, ""));
    let found: Value = serde_json::from_str(&out).unwrap();
    let case = &golden("classification/average_precision.json")["multilabel"][0];
    let corpus = &found["corpus"];
    for (key, expected) in [
        ("mAP", &case["macro_sklearn"]),
        ("mAP_present", &case["mean_over_classes_with_positives"]),
        ("mAP_weighted", &case["weighted"]),
        ("mAP_micro", &case["micro"]),
        ("mAP_samples", &case["samples"]),
        (
            "label_ranking_average_precision",
            &case["label_ranking_average_precision"],
        ),
        ("f1_macro", &case["f1_at_0_5"]["macro"]),
        ("f1_micro", &case["f1_at_0_5"]["micro"]),
        ("f1_weighted", &case["f1_at_0_5"]["weighted"]),
        ("f1_samples", &case["f1_at_0_5"]["samples"]),
    ] {
        close(key, number(&corpus[key]), number(expected), BOUND);
    }
    assert_eq!((&found["n"], &found["absent_classes"]), (&30.into(), &1.into()));
    let classes = list(&found["classes"]);
    for (class, positives) in list(&case["positives_per_class"]).iter().enumerate() {
        assert_eq!(&classes[class]["positives"], positives);
    }
    // Of a class that is nowhere.
    assert!(classes[1]["average_precision"].is_null() && classes[1]["roc_auc"].is_null());
    for (key, ends) in found["intervals"].as_object().unwrap() {
        let (ends, value) = (numbers(ends), number(&corpus[key]));
        assert!(ends[0] < value && value < ends[1], "{key}: {ends:?} {value}");
    }
    assert_eq!(list(&found["items"]).len(), 30);
    // Nothing is found from 2 on.
    let (_, out, _) = af2(&folder, &[&TAGGING[..], &["--threshold", "2", "--json"]].concat());
    let found: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(number(&found["corpus"]["f1_micro"]), 0.0);
    assert_eq!(found["corpus"]["mAP"], corpus["mAP"]);
    let (code, table, _) = af2(&folder, &TAGGING);
    assert_eq!(code, 0);
    assert!(table.contains("51.2 ["), "{table}");
}

/// A matrix of float64 as numpy writes it.
fn npy(rows: &[Vec<f64>]) -> Vec<u8> {
    let header = format!(
        "{{'descr': '<f8', 'fortran_order': False, 'shape': ({}, {}), }}\n",
        rows.len(),
        rows[0].len()
    );
    let mut all = b"\x93NUMPY\x01\x00".to_vec();
    all.extend((header.len() as u16).to_le_bytes());
    all.extend(header.as_bytes());
    all.extend(rows.iter().flatten().flat_map(|v| v.to_le_bytes()));
    all
}

#[test]
fn arrays_that_cannot_be_scored_are_named_by_file_and_place() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.join(name), bytes).unwrap();
    let (x, y) = (vec![1.0, 2.0], vec![-1.0, 0.5]);
    write("audio.npy", &npy(&[x.clone(), y.clone()]));
    write("text.npy", &npy(&[x.clone(), y.clone(), x.clone(), y.clone()]));
    write("nan.npy", &npy(&[x.clone(), vec![f64::NAN, 1.0]]));
    write("zero.npy", &npy(&[vec![0.0, 0.0], x.clone()]));
    write("wide.npy", &npy(&[vec![1.0; 3], vec![1.0; 3]]));
    write("ones.npy", &npy(&[vec![1.0, 0.0], vec![0.0, 1.0]]));
    write("half.npy", &npy(&[vec![1.0, 0.0], vec![0.5, 1.0]]));
    write("short.npy", &npy(&[x, y])[..90]);
    write(
        "objects.npy",
        b"\x93NUMPY\x01\x00\x3b\x00{'descr': '|O', 'fortran_order': False, 'shape': (1, 1), }\n.",
    );
    write("archive.npz", b"PK\x03\x04and so on");
    let refused = |arguments: &[&str], code: i32, says: &[&str]| {
        let (found, out, err) = af2(folder, &[&["score"], arguments].concat());
        assert_eq!((found, out.as_str()), (code, ""), "{err}");
        for says in says {
            assert!(err.contains(says), "{says}: {err}");
        }
        assert!(!err.contains("panicked"), "{err}");
    };
    let retrieval = |audio: &str, text: &str, k: &str, code: i32, says: &[&str]| {
        let arguments = [
            "retrieval",
            "--audio",
            audio,
            "--text",
            text,
            "--captions-per-clip",
            k,
        ];
        refused(&arguments, code, says);
    };
    let fits = ["score", "retrieval", "--audio", "audio.npy", "--text", "text.npy"];
    let (code, out, err) = af2(
        folder,
        &[&fits[..], &["--captions-per-clip", "2", "--json"]].concat(),
    );
    assert_eq!(code, 0, "{err}");
    // Captions of both clips are alike: each clip's first stands before the other's.
    assert!(err.contains("note: ") && err.contains("equally near"), "{err}");
    assert!(serde_json::from_str::<Value>(&out).is_ok());
    retrieval(
        "audio.npy",
        "text.npy",
        "5",
        6,
        &["text.npy: shape: expected (10, 2)", "found (4, 2)", "2 would fit"],
    );
    retrieval("audio.npy", "wide.npy", "1", 6, &["wide.npy: shape", "(2, 3)"]);
    retrieval(
        "audio.npy",
        "nan.npy",
        "1",
        6,
        &["nan.npy: row 1, column 0", "NaN"],
    );
    retrieval(
        "zero.npy",
        "audio.npy",
        "1",
        6,
        &["zero.npy: row 0", "zeros alone", "hint"],
    );
    retrieval(
        "audio.npy",
        "objects.npy",
        "1",
        6,
        &["objects.npy: descr", "could run code"],
    );
    retrieval("archive.npz", "text.npy", "1", 6, &["archive.npz", ".npz"]);
    retrieval("short.npy", "text.npy", "1", 6, &["short.npy: size", "cut short"]);
    retrieval("gone.npy", "text.npy", "1", 3, &["gone.npy"]);
    retrieval(".", "text.npy", "1", 3, &["a folder"]);
    retrieval("audio.npy", "text.npy", "0", 2, &["captions-per-clip"]);
    let tagging = |scores: &str, truth: &str, says: &[&str]| {
        refused(&["tagging", "--scores", scores, "--truth", truth], 6, says);
    };
    tagging(
        "audio.npy",
        "half.npy",
        &["half.npy: row 1, column 0: expected 0 or 1, found 0.5"],
    );
    tagging("nan.npy", "ones.npy", &["nan.npy: row 1, column 0"]);
    tagging(
        "audio.npy",
        "wide.npy",
        &["wide.npy: shape: expected (2, 2)", "found (2, 3)"],
    );
    let bad = [
        "tagging",
        "--scores",
        "audio.npy",
        "--truth",
        "ones.npy",
        "--threshold",
        "nan",
    ];
    refused(&bad, 2, &["--threshold"]);
}
