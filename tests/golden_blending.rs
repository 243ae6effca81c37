//! The order of training items against the reference's own lists.
#![allow(clippy::unwrap_used)]

mod common;

use af2::data::blend::{Blend, Set};
use af2::data::manifest::Manifest;
use af2::data::numpy::DefaultRng;
use common::{af2, golden};
use serde_json::Value;

fn blending() -> Value {
    serde_json::from_str(&std::fs::read_to_string(golden("G_blending/blending.json")).unwrap()).unwrap()
}

fn open(config: &Value) -> Blend {
    let sets = config["dataset_blending_config"].as_object().unwrap();
    let set = |(name, set): (&String, &Value)| Set {
        name: name.clone(),
        manifest: Manifest::open(&golden(&format!("G_blending/manifests/{name}.json"))).unwrap(),
        weight: set["weight"].as_f64().unwrap(),
    };
    Blend {
        sets: sets.iter().map(set).collect(),
        global_weight: config["dataset_blending_global_weight"].as_f64().unwrap(),
    }
}

fn strings(list: &Value) -> Vec<String> {
    serde_json::from_value(list.clone()).unwrap()
}

#[test]
fn numpys_permutations() {
    let all = blending();
    let cases = all["permutations"].as_object().unwrap();
    assert!(cases.len() >= 5);
    for (case, expected) in cases {
        let (seed, n) = case.split_once('/').unwrap();
        let mut list: Vec<u64> = (0..n.parse().unwrap()).collect();
        DefaultRng::new(seed.parse().unwrap()).shuffle(&mut list);
        assert_eq!(
            list,
            serde_json::from_value::<Vec<u64>>(expected.clone()).unwrap(),
            "{case}"
        );
    }
}

#[test]
fn every_golden_epoch_item_for_item() {
    let all = blending();
    let mut epochs = 0;
    for (name, config) in all["configs"].as_object().unwrap() {
        let blend = open(config);
        for (epoch, expected) in config["epochs"].as_object().unwrap() {
            let picks = blend.epoch(epoch.parse().unwrap());
            let lines: Vec<String> = picks
                .iter()
                .map(|p| blend.line(*p, &blend.item(*p).unwrap()))
                .collect();
            assert_eq!(lines, strings(expected), "{name}, epoch {epoch}");
            epochs += 1;
        }
    }
    assert_eq!(epochs, 17);
}

#[test]
fn the_verb_prints_the_references_own_yaml() {
    let all = blending();
    let folder = tempfile::tempdir().unwrap();
    let yaml = folder.path().join("pretrain.yaml");
    for (name, config) in all["configs"].as_object().unwrap() {
        // Weights as text, as the published files have them.
        let mut text = format!(
            "train_config: {{num_epochs: 200}}\ndata_config:\n  dataset_file_root: {}\n  data_root: /data\n  \
             dataset_blending_global_weight: \"{}\"\n  dataset_blending_config:\n",
            golden("G_blending/manifests").display(),
            config["dataset_blending_global_weight"]
        );
        for (set, s) in config["dataset_blending_config"].as_object().unwrap() {
            text += &format!("    {set}:\n      weight: \"{}\"\n", s["weight"]);
        }
        std::fs::write(&yaml, text).unwrap();
        let file = yaml.to_str().unwrap();
        for (epoch, expected) in config["epochs"].as_object().unwrap() {
            let (code, out, err) = af2(&["data", "blend", file, "--epoch", epoch]);
            assert_eq!(code, 0, "{err}");
            assert_eq!(
                out.lines().collect::<Vec<_>>(),
                strings(expected),
                "{name}, epoch {epoch}"
            );
        }
        let (_, out, _) = af2(&["data", "blend", file, "--json"]);
        let json: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(
            json["items"].as_array().unwrap().len(),
            config["epochs"]["0"].as_array().unwrap().len()
        );
        // Two ranks together see the epoch.
        let rank = |r: &str| af2(&["data", "blend", file, "--epoch", "1", "--rank", r, "--world", "2"]).1;
        let mut both: Vec<String> = [rank("0"), rank("1")]
            .iter()
            .flat_map(|o| o.lines().map(str::to_owned).collect::<Vec<_>>())
            .collect();
        let mut expected = strings(&config["epochs"]["1"]);
        both.sort();
        both.dedup();
        expected.sort();
        expected.dedup();
        assert_eq!(both, expected);
    }
    let (code, _, err) = af2(&[
        "data",
        "blend",
        yaml.to_str().unwrap(),
        "--rank",
        "2",
        "--world",
        "2",
    ]);
    assert!(
        code == 2 && err.contains("ranks of --world 2 are 0 to 1"),
        "{err}"
    );
    std::fs::write(
        &yaml,
        "data_config: {dataset_blending_config: {a/train: {weight: much}}}",
    )
    .unwrap();
    let (code, _, err) = af2(&["data", "blend", yaml.to_str().unwrap()]);
    assert!(
        code == 4 && err.contains("dataset_blending_config.a/train.weight: expected a number"),
        "{err}"
    );
}

#[test]
fn keys_are_shuffled_in_the_files_order_and_a_subset_is_the_seeds() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("train.json");
    let item = |i: usize| format!("\"{i}\": {{\"name\": \"{i}\", \"prompt\": \"p\", \"output\": \"o\"}}");
    let write = |order: &[usize]| {
        let data: Vec<String> = order.iter().map(|i| item(*i)).collect();
        let text = format!(
            "{{\"split\": \"train\", \"split_path\": \"\", \"flamingo_task\": \"t\", \"total_num\": {}, \"data\": {{{}}}}}",
            order.len(),
            data.join(", ")
        );
        std::fs::write(&path, text).unwrap();
        Blend {
            sets: vec![Set {
                name: "a/train".into(),
                manifest: Manifest::open(&path).unwrap(),
                weight: 1.0,
            }],
            global_weight: 1.0,
        }
    };
    let keys = |b: &Blend| {
        b.epoch(0)
            .iter()
            .map(|p| b.item(*p).unwrap().key)
            .collect::<Vec<_>>()
    };
    // By hand: keys of the file c = [2, 0, 1], shuffled to s; the item under key c[i] becomes that of key s[i].
    let order = [2usize, 0, 1, 4, 3];
    let mut shuffled = order;
    DefaultRng::new("a/train".chars().map(|c| c as u64).sum()).shuffle(&mut shuffled);
    let mut expected = vec![String::new(); 5];
    order
        .iter()
        .zip(shuffled)
        .for_each(|(to, from)| expected[*to] = from.to_string());
    assert_eq!(keys(&write(&order)), expected);

    let all: Vec<usize> = (0..30).collect();
    let half = |seed| {
        let mut b = write(&all);
        b.keep(0.5, seed);
        let mut k = keys(&b);
        k.sort();
        k
    };
    assert_eq!(
        (half(0).len(), half(0) == half(0), half(0) == half(1)),
        (15, true, false)
    );
}
