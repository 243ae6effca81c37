//! Checkpoints through the public interface: the tiny released folder of the PyTorch reference, names of every
//! layout, and writing that loses nothing. Files that lie are tested beside the readers.
#![allow(clippy::unwrap_used)]

mod common;

use af2::checkpoint::{
    canonical, diff, names, open_released, open_torch, read_bytes, training, write_released,
    write_safetensors, Archive, Format, Parts,
};
use af2::load::convert::{convert, Choice, Layout};
use af2::recipe::Part;
use common::{as_items, golden};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// Sum and last element in double precision.
fn summary(t: &Tensor) -> (f64, f64) {
    let flat = t.to_kind(Kind::Double).reshape(-1);
    (
        flat.sum(Kind::Double).double_value(&[]),
        flat.double_value(&[flat.size()[0] - 1]),
    )
}

/// Values that numpy read from the same files, without libtorch; sums differ by the order of adding.
fn assert_values(archive: &Archive, facts: &[(&str, &[i64], f64, f64)]) {
    for (name, shape, sum, last) in facts {
        let t = archive.get(name).unwrap();
        assert_eq!(t.size(), *shape, "{name}");
        assert_eq!(archive.info(name).unwrap().shape, *shape, "{name}");
        let found = summary(&t);
        assert!(
            (found.0 - sum).abs() <= 1e-9 * sum.abs().max(1.0),
            "{name}: sum {} for {sum}",
            found.0
        );
        assert_eq!(found.1, *last, "{name}: last element");
    }
}

#[test]
fn the_released_folder_opens_under_our_names_with_the_values_of_the_last_layer() {
    let released = open_released(&golden("F_tiny")).unwrap();
    let t = &released.tensors;
    assert_eq!(t.names().count(), 260);
    for name in t.names() {
        assert_eq!(names::rename(name).as_deref(), Some(name));
    }
    let from = |part: &str| {
        t.names()
            .filter(|n| t.info(n).unwrap().file.starts_with(golden(part)))
            .count()
    };
    assert_eq!(
        (
            from("F_tiny/safe_ckpt"),
            from("F_tiny/clap_ckpt"),
            from("F_tiny/llm")
        ),
        (260, 0, 0)
    );
    assert_eq!(t.names().filter(|n| names::at_rest(n)).count(), 0);
    assert!(t.clashes().is_empty(), "{:?}", t.clashes());
    assert_values(
        t,
        &[
            (
                "clap.nvclap.bn0.running_var",
                &[64],
                24973.75033569336,
                512.2861328125,
            ),
            (
                "clap.nvclap.layers.2.blocks.1.attn.relative_position_index",
                &[64, 64],
                458752.0,
                112.0,
            ),
            // The LM's own has 640 rows.
            (
                "lang_encoder.lm_head.weight",
                &[597, 64],
                115.38268218418034,
                -0.0697774887084961,
            ),
            (
                "lang_encoder.model.layers.1.gated_cross_attn_layer_sound.attn.to_kv.weight",
                &[1024, 64],
                7.1005845313411555,
                0.05715598538517952,
            ),
            (
                "audio_transformer_clap.position_enc.inv_freq",
                &[16],
                2.466118950251257,
                0.0004105939588043839,
            ),
        ],
    );
    let index = t.get("clap.nvclap.bn0.num_batches_tracked").unwrap();
    assert_eq!(index.kind(), Kind::Int64);
    let clap = released.clap.unwrap();
    assert_eq!(clap.names().count(), 166);
    assert_values(
        &clap,
        &[
            (
                "text_branch.shared.weight",
                &[120, 32],
                -15.938087216462009,
                0.23852796852588654,
            ),
            (
                "text_projection.0.weight",
                &[24, 32],
                -3.3056757214362733,
                -0.01235701609402895,
            ),
            ("logit_scale_a", &[], 2.6592600345611572, 2.6592600345611572),
        ],
    );
    let missing = t.get("lang_encoder.lm_head.wieght").unwrap_err().to_string();
    assert!(
        missing.contains("F_tiny") && missing.contains("did you mean lang_encoder.lm_head.weight?"),
        "{missing}"
    );
}

#[test]
fn torch_save_and_safetensors_give_the_same_audio_encoder() {
    let clap = golden("F_tiny/clap_ckpt/epoch_16.pt");
    let clap = canonical(Archive::open(&clap).unwrap(), &clap).unwrap();
    let safe = Archive::open(&golden("F_tiny/safe_ckpt")).unwrap();
    let both: Vec<&str> = clap.names().filter(|n| safe.info(n).is_some()).collect();
    assert_eq!(both.len(), 126);
    for name in both {
        assert!(clap.get(name).unwrap() == safe.get(name).unwrap(), "{name}");
    }
}

#[test]
fn the_references_second_copies_give_way_to_the_tensors_themselves() {
    let extra = golden("F_tiny/safe_ckpt/extra_duplicates_layer0.safetensors");
    let safe = Archive::open(&golden("F_tiny/safe_ckpt")).unwrap();
    let extra = Archive::open(&extra).unwrap();
    assert_eq!(extra.names().count(), 15);
    // Duplicates first: the order of names must not decide.
    let both = canonical(extra.clone().overlay(safe.clone()), Path::new("both")).unwrap();
    assert_eq!(both.names().count(), 260);
    assert_eq!(both.clashes().len(), 15);
    for clash in both.clashes() {
        assert!(clash.alike, "{clash:?}");
        assert_eq!(clash.kept, clash.name);
        assert!(both.info(&clash.name).unwrap().file == safe.info(&clash.name).unwrap().file);
        assert!(
            extra.get(&clash.dropped).unwrap() == safe.get(&clash.kept).unwrap(),
            "{clash:?}"
        );
    }
    // Alone they take the tensors' place.
    let alone = canonical(extra, Path::new("alone")).unwrap();
    assert!(alone.names().all(|n| safe.info(n).is_some()));
}

#[test]
fn every_layout_of_the_reference_falls_on_one_set_of_names() {
    for size in ["0.5B", "1.5B", "3B", "7B"] {
        let text = fs::read_to_string(golden(&format!("B_layouts/af2_{size}_keys.json"))).unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let keys = json
            .get("state_dict")
            .or(json.get("state_dict_without_clap"))
            .unwrap()
            .as_object()
            .unwrap();
        let second =
            |k: &str| k.contains(".old_decoder_blocks.") || k.contains(".gated_cross_attn_layers_sound.");
        let own: BTreeSet<String> = keys
            .keys()
            .filter(|k| !second(k))
            .filter_map(|k| names::rename(k))
            .collect();
        let all: BTreeSet<String> = keys.keys().filter_map(|k| names::rename(k)).collect();
        assert!(keys.len() > own.len(), "{size} lists no duplicate");
        assert_eq!(
            own.len(),
            keys.keys().filter(|k| !second(k)).count(),
            "{size}: two tensors, one name"
        );
        assert_eq!(all, own, "{size}: a duplicate without its tensor");
        // What the duplicate means is a tensor of its own shape.
        for (key, shape) in keys.iter().filter(|(k, _)| second(k)) {
            assert_eq!(
                keys.get(&names::rename(key).unwrap()),
                Some(shape),
                "{size}: {key}"
            );
        }
    }
}

fn sample() -> Vec<(String, Tensor)> {
    let float = (Kind::Float, Device::Cpu);
    let random = |kind| Tensor::randn([3, 5], float).to_kind(kind);
    vec![
        // Odd sizes of narrow dtypes before wide ones: each must be aligned all the same.
        ("bool".into(), random(Kind::Float).gt(0.0).narrow(0, 0, 1)),
        ("u8".into(), Tensor::arange(7, (Kind::Uint8, Device::Cpu))),
        ("i8".into(), Tensor::arange(3, (Kind::Int8, Device::Cpu)) - 2),
        ("i16".into(), Tensor::arange(3, (Kind::Int16, Device::Cpu))),
        ("i32".into(), Tensor::arange(3, (Kind::Int, Device::Cpu))),
        ("i64".into(), Tensor::arange(3, (Kind::Int64, Device::Cpu))),
        ("half".into(), random(Kind::Half)),
        ("bf16".into(), random(Kind::BFloat16)),
        ("a.weight".into(), random(Kind::Float)),
        ("double".into(), random(Kind::Double)),
        ("scalar".into(), Tensor::from(2.5f32)),
        ("none".into(), Tensor::zeros([0, 4], float)),
        ("strided".into(), Tensor::arange(6, float).view([2, 3]).tr()),
        ("grown \"ü\"".into(), random(Kind::Float).set_requires_grad(true)),
    ]
}

fn assert_same(archive: &Archive, tensors: &[(String, Tensor)]) {
    assert_eq!(archive.names().count(), tensors.len());
    for (name, t) in tensors {
        let back = archive.get(name).unwrap();
        assert_eq!((back.kind(), back.size()), (t.kind(), t.size()), "{name}");
        assert!(back == *t, "{name}");
    }
}

fn chunks(folder: &Path) -> BTreeSet<String> {
    let name = |f: fs::DirEntry| f.file_name().into_string().unwrap();
    fs::read_dir(folder).unwrap().map(|f| name(f.unwrap())).collect()
}

#[test]
fn what_is_written_comes_back_bit_for_bit_in_chunks_and_whole() {
    let d = tempfile::tempdir().unwrap();
    let tensors = sample();
    let file = d.path().join("x.safetensors");
    write_safetensors(&file, &as_items(&tensors), &[("format", "pt")]).unwrap();
    assert_same(&Archive::open(&file).unwrap(), &tensors);
    let header = fs::read(&file).unwrap();
    let data = 8 + u64::from_le_bytes(header[..8].try_into().unwrap()) as usize;
    assert_eq!(data % 64, 0);
    let json: serde_json::Value = serde_json::from_slice(&header[8..data]).unwrap();
    for (name, t) in &tensors {
        let from = json[name]["data_offsets"][0].as_u64().unwrap() as usize;
        assert_eq!(from % t.kind().elt_size_in_bytes(), 0, "{name} is not aligned");
    }
    for (i, chunk_bytes) in [1, 100, 1 << 20].into_iter().enumerate() {
        let folder = d.path().join(format!("{i}"));
        write_released(&folder, &as_items(&tensors), chunk_bytes).unwrap();
        assert_same(&Archive::open(&folder).unwrap(), &tensors);
    }
    let map: serde_json::Value =
        serde_json::from_slice(&fs::read(d.path().join("2/metadata.json")).unwrap()).unwrap();
    assert_eq!(map["chunk_0"].as_array().unwrap().len(), tensors.len());
    let twice = [tensors[0].0.clone(), tensors[0].0.clone()].map(|n| (n, tensors[0].1.copy()));
    assert!(write_safetensors(&file, &as_items(&twice), &[])
        .unwrap_err()
        .to_string()
        .contains("twice"));
    assert!(write_released(&d.path().join("3"), &as_items(&twice), 1)
        .unwrap_err()
        .to_string()
        .contains("twice"));
}

#[test]
fn a_tensor_larger_than_the_copying_buffer_comes_back() {
    let d = tempfile::tempdir().unwrap();
    let file = d.path().join("x.safetensors");
    let big = [(
        "w".to_string(),
        Tensor::arange(17_000_000, (Kind::Int, Device::Cpu)),
    )];
    write_safetensors(&file, &as_items(&big), &[]).unwrap();
    assert_same(&Archive::open(&file).unwrap(), &big);
}

#[test]
fn the_old_checkpoint_stays_whole_until_the_new_one_is() {
    let d = tempfile::tempdir().unwrap();
    let folder = d.path().join("safe_ckpt");
    let (old, new) = (sample(), sample());
    write_released(&folder, &as_items(&old), 60).unwrap();
    let before = chunks(&folder);
    fs::write(folder.join("notes.safetensors"), "not ours").unwrap();
    // The last tensor cannot be written: by then, other chunks are.
    let mut broken: Vec<_> = new.iter().map(|(n, t)| (n.clone(), t.copy())).collect();
    broken.push((
        "complex".into(),
        Tensor::zeros([2], (Kind::ComplexFloat, Device::Cpu)),
    ));
    let e = write_released(&folder, &as_items(&broken), 60).unwrap_err();
    assert!(e.to_string().contains("complex"), "{e}");
    assert!(
        chunks(&folder).len() > before.len() + 1,
        "nothing was written before it failed"
    );
    assert_same(&Archive::open(&folder).unwrap(), &old);
    for tensors in [&new, &old] {
        write_released(&folder, &as_items(tensors), 60).unwrap();
        assert_same(&Archive::open(&folder).unwrap(), tensors);
        let mut now = chunks(&folder);
        assert!(now.remove("notes.safetensors"));
        assert_eq!(now.len(), before.len(), "{now:?}");
    }
    assert_eq!(chunks(&folder).intersection(&before).count(), before.len());
}

#[test]
fn a_folder_without_its_parts_is_refused_by_what_it_lacks() {
    let d = tempfile::tempdir().unwrap();
    let refused = |said: &str| {
        let e = open_released(d.path()).unwrap_err();
        assert_eq!(e.exit_code(), 7);
        assert!(e.to_string().contains(said), "{e}");
    };
    refused("safe_ckpt/");
    let tensors = [(
        "lang_encoder.lm_head.weight".to_string(),
        Tensor::zeros([2, 2], (Kind::Float, Device::Cpu)),
    )];
    write_released(&d.path().join("safe_ckpt"), &as_items(&tensors), 1).unwrap();
    refused("llm/");
    fs::create_dir(d.path().join("llm")).unwrap();
    // Configuration and tokenizer alone are enough, and files that are no weights do not disturb.
    fs::write(d.path().join("llm/training_args.bin"), "").unwrap();
    let released = open_released(d.path()).unwrap();
    assert_eq!(
        released.tensors.names().collect::<Vec<_>>(),
        ["lang_encoder.lm_head.weight"]
    );
    assert!(released.clap.is_none());
    let clap = d.path().join("clap_ckpt");
    for name in ["a", "b"] {
        write_safetensors(
            &clap.join(format!("{name}.safetensors")),
            &as_items(&tensors),
            &[],
        )
        .unwrap();
    }
    refused("2 of them");
    fs::remove_file(d.path().join("safe_ckpt/chunk_0.safetensors")).unwrap();
    fs::remove_dir_all(&clap).unwrap();
    refused("chunk_0");
}

/// The reference's own file, its large storages zeroed: every name, dtype and plain value is the reference's.
fn reference_checkpoint() -> std::path::PathBuf {
    golden("F_tiny/train_ckpt/checkpoint_0_zeroed.pt")
}

#[test]
fn the_references_training_checkpoint_opens_with_its_optimizer() {
    let file = open_torch(&reference_checkpoint()).unwrap();
    assert_eq!(file.tensors.names().count(), 377);
    let training = training::read(&file).unwrap();
    assert_eq!((training.epoch, training.steps, &training.stage), (0, 2, &None));
    let [decayed, others] = &training.groups[..] else {
        panic!("{} groups", training.groups.len());
    };
    let decay = |g: &training::Group| g.settings["weight_decay"].as_float();
    assert_eq!((decay(decayed), decayed.params.len()), (Some(0.1), 44));
    assert_eq!((decay(others), others.params.len()), (Some(0.0), 39));
    assert_eq!((others.lr, others.initial_lr), (0.0006666666666666666, 0.001));
    assert_eq!(training.state.len(), 83);
    assert!(training.state.values().all(|m| m.steps == 2));
    let model = canonical(file.model().unwrap(), Path::new("m")).unwrap();
    assert_eq!(model.names().count(), 128);
    let ours = open_released(&golden("F_tiny")).unwrap().tensors;
    for name in model.names() {
        let (a, b) = (model.info(name).unwrap(), ours.info(name).unwrap());
        assert_eq!((&a.shape, a.kind), (&b.shape, b.kind), "{name}");
        assert!(
            names::saved_by_trainer(name, false, true) || Part::of(name) != Part::Clap,
            "{name}"
        );
    }
}

/// Both archives hold the same names, and each tensor's bits.
fn assert_equal(a: &Archive, b: &Archive) {
    let d = diff(a, b).unwrap();
    assert!(d.within(0.0) && d.kinds.is_empty(), "{d:?}");
    assert!(d.equal > 0);
}

#[test]
fn round_trips_between_all_layouts_keep_every_bit() {
    let d = tempfile::tempdir().unwrap();
    let at = |name: &str| d.path().join(name);
    let parts = |path: &Path, base: Option<&Path>| Parts {
        base: base.map(Path::to_path_buf),
        ..path.into()
    };
    let choice = |full| Choice {
        full,
        train: vec![Part::AudioTransformer, Part::CrossAttention, Part::Embeddings],
    };
    let tiny = golden("F_tiny");
    let tensors = open_released(&tiny).unwrap().tensors;

    // released → released
    convert(
        &parts(&tiny, None),
        &at("released"),
        Layout::Released,
        &choice(false),
    )
    .unwrap();
    assert_equal(&tensors, &open_released(&at("released")).unwrap().tensors);

    // released → reference, full → released
    let full = at("checkpoint_7.pt");
    let done = convert(&parts(&tiny, None), &full, Layout::Reference, &choice(true)).unwrap();
    assert_eq!(done.tensors, 260);
    assert_equal(
        &tensors,
        &canonical(Archive::open(&full).unwrap(), &full).unwrap(),
    );
    convert(
        &parts(&full, Some(&tiny)),
        &at("back"),
        Layout::Released,
        &choice(false),
    )
    .unwrap();
    assert_equal(&tensors, &open_released(&at("back")).unwrap().tensors);

    // released → reference, what its trainer saves: the names that the reference's own file has
    let some = at("checkpoint_8.pt");
    let done = convert(&parts(&tiny, None), &some, Layout::Reference, &choice(false)).unwrap();
    assert_eq!((done.tensors, done.left_out.len()), (128, 2));
    let theirs = Archive::open(&reference_checkpoint()).unwrap();
    let ours = Archive::open(&some).unwrap();
    let sorted = |a: &Archive| a.names().map(str::to_owned).collect::<BTreeSet<_>>();
    assert_eq!(sorted(&ours), sorted(&theirs));

    // the reference's file → reference: the optimizer's state and every plain value too
    let again = at("checkpoint_0.pt");
    convert(
        &parts(&reference_checkpoint(), None),
        &again,
        Layout::Reference,
        &choice(false),
    )
    .unwrap();
    let (first, second) = (
        open_torch(&reference_checkpoint()).unwrap(),
        open_torch(&again).unwrap(),
    );
    assert_equal(&first.tensors, &second.tensors);
    assert_eq!(first.plain, second.plain);

    // released → Hugging Face → the LM under our names
    convert(&parts(&tiny, None), &at("hf"), Layout::Hf, &choice(false)).unwrap();
    let lm = canonical(Archive::open(&at("hf")).unwrap(), &at("hf")).unwrap();
    let own = |n: &str| {
        let lm = n.starts_with("lang_encoder.") && !n.contains("gated_cross_attn") && n != names::HEAD;
        lm.then(|| n.to_owned())
    };
    assert_equal(&tensors.clone().rename(own), &lm);
    let config: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(at("hf").join("config.json")).unwrap()).unwrap();
    assert_eq!(config["vocab_size"], 597);

    // A part that is missing is named, not left out.
    let mut alone = parts(&golden("F_tiny/safe_ckpt/chunk_0.safetensors"), None);
    alone.llm = Some(at("hf-config"));
    fs::create_dir(at("hf-config")).unwrap();
    for file in ["config.json", "tokenizer.json"] {
        fs::copy(at("hf").join(file), at("hf-config").join(file)).unwrap();
    }
    let e = convert(&alone, &at("none"), Layout::Hf, &choice(false))
        .unwrap_err()
        .to_string();
    assert!(e.contains("model.layers.0") && e.contains("--llm"), "{e}");
}

#[test]
fn what_the_trainer_saves_are_the_references_names_at_every_size() {
    for (size, trained) in [("0.5B", false), ("3B", false), ("3B", true), ("7B", false)] {
        let text = fs::read_to_string(golden(&format!("B_layouts/af2_{size}_keys.json"))).unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let Some(keeps) = json.get("filter_state_dict_to_trainable_keeps") else {
            continue;
        };
        let keeps = &keeps[if trained {
            "sft(clap finetune)"
        } else {
            "pretrain(clap frozen)"
        }];
        let Some(keeps) = keeps.as_array() else {
            continue;
        };
        let keeps: BTreeSet<String> = keeps.iter().map(|k| k.as_str().unwrap().to_owned()).collect();
        let keys = json["state_dict"].as_object().unwrap();
        let tied = size != "7B";
        let mut trains = vec![Part::AudioTransformer, Part::CrossAttention, Part::Embeddings];
        trains.extend(trained.then_some(Part::Clap));
        let second =
            |k: &str| k.contains("old_decoder_blocks") || k.contains("gated_cross_attn_layers_sound");
        let ours: BTreeSet<String> = keys
            .keys()
            .filter(|k| !second(k))
            .filter(|k| {
                let name = names::rename(k).unwrap();
                names::saved_by_trainer(&name, trains.contains(&Part::of(&name)), tied)
            })
            .cloned()
            .collect();
        let differ: Vec<_> = ours.symmetric_difference(&keeps).collect();
        assert!(differ.is_empty(), "{size}, CLAP trained: {trained}: {differ:?}");
        assert!(!keeps.is_empty());
    }
}

#[test]
fn what_fuzzing_left_is_read_or_refused_and_so_are_its_neighbours() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    let refused = [
        "call.pt",
        "broken.safetensors",
        "overlap.safetensors",
        "twice.safetensors",
    ];
    let mut seen = 0;
    for (folder, format) in [
        ("torch", Format::Torch),
        ("safetensors", Format::Safetensors),
        ("index", Format::Index),
    ] {
        for file in fs::read_dir(seeds.join(folder)).unwrap() {
            let path = file.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            let result = read_bytes(format, &path, &bytes);
            let name = path.file_name().unwrap().to_str().unwrap();
            if format == Format::Index || refused.contains(&name) || name.starts_with("found-") {
                // Indices name files that are not there; what fuzzing found may be read or not.
                assert!(result.is_err() || name.starts_with("found-"), "{name}");
            } else {
                result.unwrap_or_else(|e| panic!("{name}: {e}"));
            }
            // Each byte changed, and the file cut there: an answer, whatever it is.
            for at in 0..bytes.len() {
                let mut changed = bytes.clone();
                changed[at] = changed[at].wrapping_add(0x55);
                let _ = read_bytes(format, &path, &changed);
                let _ = read_bytes(format, &path, &bytes[..at]);
            }
            seen += 1;
        }
    }
    assert!(seen >= 20, "{seen} seeds");
}
