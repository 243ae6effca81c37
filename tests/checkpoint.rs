//! Checkpoints through the public interface: the tiny released folder of the PyTorch reference, names of every
//! layout, and writing that loses nothing. Files that lie are tested beside the readers.

mod common;

use af2::checkpoint::{names, open_released, write_released, write_safetensors, Archive};
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
    let clap = names::canonical(Archive::open(&clap).unwrap(), &clap).unwrap();
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
    assert_eq!(extra.names().count(), 23);
    // Duplicates first: the order of names must not decide.
    let both = names::canonical(extra.clone().overlay(safe.clone()), Path::new("both")).unwrap();
    assert_eq!(both.names().count(), 260);
    assert_eq!(both.clashes().len(), 23);
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
    let alone = names::canonical(extra, Path::new("alone")).unwrap();
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
        write_safetensors(&clap.join(format!("{name}.safetensors")), &as_items(&tensors), &[]).unwrap();
    }
    refused("2 of them");
    fs::remove_file(d.path().join("safe_ckpt/chunk_0.safetensors")).unwrap();
    fs::remove_dir_all(&clap).unwrap();
    refused("chunk_0");
}
