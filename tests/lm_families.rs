//! Every LM family: against transformers' logits and answers, and from a Hugging Face folder through training, saving,
//! resuming, converting and planning.
#![allow(clippy::unwrap_used)]

mod common;

use af2::checkpoint::{hugging_face, items, names, write_torch, Archive, Node, Parts};
use af2::load::convert::{convert, Choice, Layout};
use af2::load::{self, Options};
use af2::model::lm::{Cache, Config, Decoder, Padding};
use af2::model::{cost, flamingo};
use af2::preflight;
use af2::recipe::Part;
use af2::recipe_file;
use af2::text::{prompt, tokenizer::Tokenizer};
use af2::trace;
use common::{af2, golden, relative};
use std::fs;
use std::path::{Path, PathBuf};
use tch::{no_grad, Device, Kind, Tensor};

const FAMILIES: [&str; 3] = ["qwen3_tied", "llama3_scaled", "llama_untied"];

fn folder(family: &str) -> PathBuf {
    golden("U_lm_families").join(family)
}

fn dump(family: &str) -> PathBuf {
    golden("U_lm_families").join(format!("{family}.safetensors"))
}

fn show(path: &Path) -> String {
    path.display().to_string()
}

/// Greedy tokens after a prompt: the prompt at once, then one by one from the cache.
fn greedy(lm: &Decoder, prompt: &[i64], count: usize) -> Vec<i64> {
    no_grad(|| {
        let (mut cache, mut ids) = (Cache::default(), Tensor::from_slice(prompt).unsqueeze(0));
        let mut new = Vec::new();
        while new.len() < count {
            let states = lm.states(&ids, Padding::Behind, Some(&mut cache), &mut |_| {});
            let last = lm.logits(&states.narrow(1, states.size()[1] - 1, 1));
            ids = last.argmax(-1, false);
            new.push(ids.int64_value(&[0, 0]));
        }
        new
    })
}

#[test]
fn logits_states_and_greedy_answers_are_transformers() {
    for family in FAMILIES {
        let (_, lm, _) = load::language_model(&folder(family), Device::Cpu).unwrap();
        let ours = trace::language_model(&lm, &dump(family)).unwrap();
        let table = trace::compare(&ours, &dump(family), "", None).unwrap();
        assert!(table.len() >= 6);
        for row in table {
            assert!(row.other.is_some(), "{family} {}", row.name);
            println!("{family} {}: {:.2e} {}", row.name, row.relative, row.remark);
            assert!(row.relative <= 1e-4, "{family} {}: {:e}", row.name, row.relative);
        }
        let note = fs::read_to_string(dump(family).with_extension("json")).unwrap();
        let note: serde_json::Value = serde_json::from_str(&note).unwrap();
        let ids = |v: &serde_json::Value| -> Vec<i64> {
            v.as_array()
                .unwrap()
                .iter()
                .map(|i| i.as_i64().unwrap())
                .collect()
        };
        let cases = note["greedy"].as_array().unwrap();
        assert_eq!(cases.len(), 2);
        for case in cases {
            let (prompt, expected) = (ids(&case["prompt"]), ids(&case["new_tokens"]));
            assert_eq!(greedy(&lm, &prompt, expected.len()), expected, "{family}");
        }
    }
}

#[test]
fn trace_compares_a_language_model_alone() {
    let d = tempfile::tempdir().unwrap();
    let out = show(&d.path().join("t.safetensors"));
    let (llm, ids) = (show(&folder("llama3_scaled")), show(&dump("llama3_scaled")));
    let base = ["trace", "--llm", &llm, "--ids", &ids, "--device", "cpu"];
    let (code, said, err) = af2(&[&base[..], &["--out", &out, "--compare", &ids]].concat());
    assert_eq!(code, 0, "{said}{err}");
    assert!(
        said.contains("hidden_2") && said.contains("every 8th row"),
        "{said}"
    );
    assert_eq!(
        Archive::open(Path::new(&out))
            .unwrap()
            .info("logits")
            .unwrap()
            .shape,
        [3, 96, 704]
    );
    // Another model's numbers are past the tolerance, or of another shape.
    let other = show(&dump("qwen3_tied"));
    let (code, _, err) = af2(&[&base[..], &["--compare", &other]].concat());
    assert_ne!(code, 0);
    assert!(
        err.contains("past the tolerance") && err.contains("hidden_0"),
        "{err}"
    );
    // So are the same weights with plain rotary positions.
    let plain = d.path().join("plain");
    copy(&folder("llama3_scaled"), &plain);
    let config = fs::read_to_string(plain.join("config.json")).unwrap();
    fs::write(
        plain.join("config.json"),
        config.replace("\"llama3\"", "\"default\""),
    )
    .unwrap();
    let (code, said, err) = af2(&["trace", "--llm", &show(&plain), "--ids", &ids, "--compare", &ids]);
    assert_ne!(code, 0, "{said}");
    assert!(
        err.contains("hidden_1 (") && err.contains("logits (") && !err.contains("hidden_0"),
        "{err}"
    );
    let bad = d.path().join("bad.safetensors");
    let long = (Kind::Int64, Device::Cpu);
    for (tensors, told) in [
        (
            vec![("ids", Tensor::zeros([1, 2], long))],
            "input_ids: expected token ids",
        ),
        (vec![("input_ids", Tensor::zeros([2], long))], "integers (B, T)"),
        (
            vec![("input_ids", Tensor::full([1, 2], 704, long))],
            "ids from 0 to 703",
        ),
        (
            vec![
                ("input_ids", Tensor::zeros([1, 2], long)),
                ("attention_mask", Tensor::ones([1, 3], long)),
            ],
            "attention_mask: expected shape [1, 2]",
        ),
        (
            vec![
                ("input_ids", Tensor::zeros([1, 2], long)),
                ("attention_mask", Tensor::full([1, 2], 2, long)),
            ],
            "attention_mask: expected 0 and 1",
        ),
    ] {
        let named = tensors.into_iter().map(|(n, t)| (n.to_owned(), t)).collect();
        af2::checkpoint::write_safetensors(&bad, &items(named), &[]).unwrap();
        let (code, _, err) = af2(&["trace", "--llm", &llm, "--ids", &show(&bad), "--out", &out]);
        assert_ne!(code, 0);
        assert!(err.contains(told), "{told}: {err}");
    }
    let (code, _, err) = af2(&[&base[..], &["--checkpoint", &llm]].concat());
    assert_eq!(code, 2, "{err}");
}

/// A folder of `pytorch_model.bin`, and one in shards: the same numbers.
#[test]
fn weights_lie_in_one_file_in_shards_or_in_a_pickle() {
    let d = tempfile::tempdir().unwrap();
    for family in FAMILIES {
        let weights = Archive::open(&folder(family)).unwrap();
        let all = af2::checkpoint::items_of(&weights, |n| Some(n.to_owned()));
        let (shards, pickle) = (
            d.path().join(family).join("shards"),
            d.path().join(family).join("pickle"),
        );
        for to in [&shards, &pickle] {
            fs::create_dir_all(to).unwrap();
            hugging_face::copy_files(&folder(family), to).unwrap();
        }
        hugging_face::write_shards(&shards, &all, 100_000).unwrap();
        assert!(shards.join("model.safetensors.index.json").exists());
        let all = af2::checkpoint::items_of(&weights, |n| Some(n.to_owned()));
        write_torch(&pickle.join("pytorch_model.bin"), &Node::tensors(all)).unwrap();
        let logits = |from: &Path| {
            let (_, lm, _) = load::language_model(from, Device::Cpu).unwrap();
            no_grad(|| lm.forward(&Tensor::from_slice(&[5i64, 9, 700, 1]).unsqueeze(0)))
        };
        let one = logits(&folder(family));
        assert_eq!(one, logits(&shards), "{family}");
        assert_eq!(one, logits(&pickle), "{family}");
    }
}

/// A bias that the configuration does not speak of is another model.
#[test]
fn a_tensor_that_the_family_has_not_is_told() {
    let d = tempfile::tempdir().unwrap();
    hugging_face::copy_files(&folder("llama_untied"), d.path()).unwrap();
    let mut all = Vec::new();
    let weights = Archive::open(&folder("llama_untied")).unwrap();
    for name in weights.names() {
        all.push((name.to_owned(), weights.get(name).unwrap()));
    }
    let bias = Tensor::zeros([48], (Kind::Float, Device::Cpu));
    all.push(("model.layers.1.self_attn.q_proj.bias".into(), bias));
    af2::checkpoint::write_safetensors(&d.path().join("model.safetensors"), &items(all), &[]).unwrap();
    let e = load::language_model(d.path(), Device::Cpu).err().unwrap();
    assert!(
        e.to_string()
            .contains("layers.1.decoder_layer.self_attn.q_proj.bias"),
        "{e}"
    );
}

/// A recipe over the family's folder and the tiny audio encoder, on the golden clips.
fn recipe(root: &Path, llm: &Path, train: &str, parts: &str) -> PathBuf {
    let (clips, clap) = (golden(""), golden("F_tiny/clap_ckpt/epoch_16.pt"));
    let text = format!(
        "name: families\nseed: 7\ndevice: cpu\noutput: {root}/run\n\
         model:\n  lm: {llm}\n  clap: {clap}\n  audio_transformer: {{n_head: 2, n_layers: 1, d_inner: 64}}\n  \
         cross_attention: {{every: 1, heads: 2, head_dim: 16, ff_mult: 1}}\n  max_windows: 3\n\
         data: {{root: {clips}, max_tokens: 64, sets: {{a: F_tiny/manifests/tiny-AQA/train.json}}}}\n\
         train: {{log_every: 1, {train}}}\n\
         stages:\n  - name: one\n    train: [{parts}]\n    windows: 3\n    sets: {{a: 1}}\n    \
         save: {{every: 2, keep_last: 3}}\n    \
         optim: {{steps: 4, batch_size: 2, learning_rate: 1.0e-3, warmup: 1}}\n",
        root = root.display(),
        llm = llm.display(),
        clap = clap.display(),
        clips = clips.display(),
    );
    let path = root.join("recipe.yaml");
    fs::write(&path, text).unwrap();
    path
}

/// Every file of a folder, links as what they are.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        let to = to.join(file.file_name());
        match file.file_type().unwrap().is_dir() {
            true => copy(&file.path(), &to),
            false => drop(fs::copy(file.path(), to).unwrap()),
        }
    }
}

/// The weights of a run's stage.
fn weights(run: &Path) -> Vec<(String, Tensor)> {
    let loaded = load::open(&run.join("checkpoints/one"), &Options::new(Device::Cpu)).unwrap();
    loaded.params.tensors()
}

/// With the LM frozen and trained, in float32 and in bf16 with checkpointing; a run that lost its second half goes on to the
/// same bits. The families beside each other.
#[test]
fn every_family_trains_resumes_and_answers() {
    std::thread::scope(|scope| {
        for family in FAMILIES {
            scope.spawn(move || trains_resumes_and_answers(family));
        }
    });
}

fn trains_resumes_and_answers(family: &str) {
    let hears = "audio_transformer, cross_attention, embeddings";
    let all = "audio_transformer, cross_attention, embeddings, lm";
    let fast = "precision: amp_bf16, activation_checkpointing: true";
    let held = "precision: amp_bf16, frozen: bf16";
    for (train, parts) in [("loss_chunk: 8", hears), (fast, all), (held, hears)] {
        let d = tempfile::tempdir().unwrap();
        let recipe = show(&recipe(d.path(), &folder(family), train, parts));
        let (whole, cut) = (d.path().join("whole"), d.path().join("cut"));
        let run = |out: &Path, more: &[&str]| {
            let out = format!("output={}", out.display());
            let (code, said, err) = af2(&[&["train", &recipe, &out, "--threads", "1"], more].concat());
            assert_eq!(code, 0, "{family}, {train}: {said}{err}");
            format!("{said}{err}")
        };
        run(&whole, &[]);
        copy(&whole, &cut);
        let stage = cut.join("checkpoints/one");
        for gone in ["done.json", "checkpoint_1.pt"] {
            fs::remove_file(stage.join(gone)).unwrap();
        }
        fs::remove_dir_all(stage.join("safe_ckpt")).unwrap();
        let said = run(&cut, &["--resume", "auto"]);
        assert!(said.contains("resume: one from "), "{said}");
        let (whole, cut) = (weights(&whole), weights(&cut));
        assert_eq!(whole, cut, "{family}, {train}");
        // What trains has moved, and nothing else.
        let before = Archive::open(&folder(family)).unwrap();
        let (ours, theirs) = (
            "lang_encoder.model.layers.1.decoder_layer.self_attn.q_proj.weight",
            "model.layers.1.self_attn.q_proj.weight",
        );
        let now = &whole.iter().find(|(n, _)| n == ours).unwrap().1;
        let off = relative(now, &before.get(theirs).unwrap());
        assert_eq!(off > 1e-4, parts == all, "{family}, {train}: {off:e}");
        if parts == all {
            let checkpoint = show(&d.path().join("whole/checkpoints/one"));
            let wav = d.path().join("a.wav");
            common::wav(&wav, 16_000);
            let question = ["--prompt", "what is it?", "--audio", &show(&wav)].map(str::to_owned);
            let question: Vec<&str> = question.iter().map(String::as_str).collect();
            let (code, said, err) = af2(&[
                &["generate", "--checkpoint", &checkpoint, "--device", "cpu"],
                &question[..],
            ]
            .concat());
            assert_eq!(code, 0, "{family}: {said}{err}");
        }
    }
}

#[test]
fn a_plan_counts_a_familys_parameters_to_the_last() {
    for family in FAMILIES {
        let d = tempfile::tempdir().unwrap();
        let path = recipe(d.path(), &folder(family), "", "cross_attention");
        let recipe = recipe_file::load(&path, &[]).unwrap();
        let loaded = load::start(&preflight::start(&recipe), Device::Cpu).unwrap();
        let (config, _): (flamingo::Config, String) = af2::plan::config(&recipe).unwrap();
        assert_eq!(config, loaded.model.config);
        let counted = cost::parameters(&config).unwrap();
        assert_eq!(counted.total(), loaded.params.count() as f64, "{family}");
        // Of the LM's own file all but the rows that the tokenizer does not use.
        let file = Archive::open(&folder(family)).unwrap();
        let elements = |n: &str| file.info(n).unwrap().shape.iter().product::<i64>();
        let sizes = config.lm.decoder();
        let unused = (sizes.vocab_size - config.vocab) * sizes.hidden_size;
        let tables = if sizes.tie_word_embeddings { 1 } else { 2 };
        let own: i64 = file.names().map(elements).sum();
        assert_eq!(
            counted.lm + counted.embeddings,
            (own - tables * unused) as f64,
            "{family}"
        );
        // Two operations a weight and token, beside attention and norms.
        let one = sizes.layer_operations(1.0) * sizes.num_hidden_layers as f64;
        let head = if sizes.tie_word_embeddings {
            0
        } else {
            config.vocab * sizes.hidden_size
        };
        assert!(
            (one / (2.0 * (counted.lm - head as f64)) - 1.0).abs() < 0.02,
            "{family}: {one}"
        );
        let (code, said, err) = af2(&["plan", &show(&path)]);
        assert!(code == 0, "{said}{err}");
    }
}

#[test]
fn a_model_is_saved_opened_and_exported_as_the_family_that_it_is() {
    for family in FAMILIES {
        let d = tempfile::tempdir().unwrap();
        let path = recipe(d.path(), &folder(family), "", "cross_attention");
        let recipe = recipe_file::load(&path, &[]).unwrap();
        let loaded = load::start(&preflight::start(&recipe), Device::Cpu).unwrap();
        let released = d.path().join("released");
        load::save(&released, &loaded).unwrap();
        let opened = load::open(&released, &Options::new(Device::Cpu)).unwrap();
        assert_eq!(opened.model.config, loaded.model.config);
        for (name, tensor) in loaded.params.tensors() {
            assert_eq!(Some(&tensor), opened.params.get(&name), "{family} {name}");
        }
        let parts: Parts = released.as_path().into();
        let choice = Choice {
            full: true,
            train: vec![Part::Lm],
        };
        let (hf, reference) = (d.path().join("hf"), d.path().join("checkpoint_0.pt"));
        convert(&parts, &hf, Layout::Hf, &choice).unwrap();
        convert(&parts, &reference, Layout::Reference, &choice).unwrap();
        // The same LM, of the same family, with as many rows as the tokenizer has tokens.
        let (config, lm, _) = load::language_model(&hf, Device::Cpu).unwrap();
        match (family, &config) {
            ("qwen3_tied", Config::Qwen3(_)) | ("llama3_scaled" | "llama_untied", Config::Llama(_)) => {}
            (_, other) => panic!("{family}: {other:?}"),
        }
        assert_eq!(config.decoder().vocab_size, loaded.tokenizer.len() as i64);
        let (_, before, _) = load::language_model(&folder(family), Device::Cpu).unwrap();
        let ids = Tensor::from_slice(&[5i64, 9, 590, 1]).unsqueeze(0);
        let (now, then) = no_grad(|| (lm.forward(&ids), before.forward(&ids)));
        let then = then.narrow(2, 0, config.decoder().vocab_size);
        assert!(relative(&now, &then) < 1e-6, "{family}");
        let theirs = Archive::open(&folder(family)).unwrap();
        let written = Archive::open(&hf).unwrap();
        let mut names: Vec<_> = [&theirs, &written]
            .map(|a| a.names().map(str::to_owned).collect::<Vec<_>>())
            .into();
        names.iter_mut().for_each(|n| n.sort());
        assert_eq!(names[0], names[1], "{family}");
        let from_training = Parts {
            base: Some(released.clone()),
            ..Parts::from(reference.as_path())
        };
        let again = load::open_parts(&from_training, &Options::new(Device::Cpu)).unwrap();
        let head_norm = "lang_encoder.model.layers.1.decoder_layer.self_attn.q_norm.weight";
        assert_eq!(again.params.contains(head_norm), family == "qwen3_tied");
        assert!(again.params.get(names::EMBEDDING) == opened.params.get(names::EMBEDDING));
    }
}

/// Llama 3's way: an end of text of its own, and a template that puts `<|begin_of_text|>` before everything. Ours puts
/// nothing there: prompts are the same over all families.
#[test]
fn a_llama_tokenizer_ends_with_its_own_token_and_begins_with_none() {
    let d = tempfile::tempdir().unwrap();
    let renamed = |file: &str| {
        let text = fs::read_to_string(folder("llama_untied").join(file)).unwrap();
        text.replace("<|endoftext|>", "<|eot_id|>")
            .replace("<|im_start|>", "<|begin_of_text|>")
            .replace("<|im_end|>", "<|end_of_text|>")
            .replace("Qwen2Tokenizer", "PreTrainedTokenizerFast")
    };
    let mut tokenizer: serde_json::Value = serde_json::from_str(&renamed("tokenizer.json")).unwrap();
    let bos = "<|begin_of_text|>";
    let id = tokenizer["added_tokens"]
        .as_array()
        .unwrap()
        .iter()
        .find(|t| t["content"] == bos)
        .unwrap()["id"]
        .clone();
    tokenizer["post_processor"] = serde_json::json!({
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {bos: {"id": bos, "ids": [id], "tokens": [bos]}},
    });
    fs::write(d.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let config = renamed("tokenizer_config.json")
        .replace("\"bos_token\": null", "\"bos_token\": \"<|begin_of_text|>\"");
    fs::write(d.path().join("tokenizer_config.json"), config).unwrap();
    fs::write(
        d.path().join("generation_config.json"),
        r#"{"eos_token_id": [592, 590]}"#,
    )
    .unwrap();
    let t = Tokenizer::open(d.path()).unwrap();
    assert_eq!((t.end_of_text.as_str(), t.eos), ("<|eot_id|>", 590));
    assert!(t.notes.is_empty(), "{:?}", t.notes);
    // 593 tokens of the folder, four of ours: none of Qwen's.
    assert_eq!(t.len(), 597);
    let ids = t.encode(&prompt::example(&t, "what is it?", "a dog")).unwrap();
    assert_eq!((ids[0], ids[ids.len() - 1]), (t.audio, t.eos));
}
