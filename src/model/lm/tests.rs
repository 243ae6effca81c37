//! What is read of a `config.json`, what is refused, and by which key.

use super::*;
use serde_json::Map;

/// A Qwen2 configuration with changes.
fn read_with(changes: &str) -> Result<Config> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    let mut all: Map<String, Value> = serde_json::from_str(
        r#"{"model_type": "qwen2", "vocab_size": 640, "hidden_size": 64, "intermediate_size": 128,
            "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-6,
            "rope_theta": 1e6, "hidden_act": "silu", "use_sliding_window": false, "rope_scaling": null}"#,
    )
    .unwrap();
    all.extend(serde_json::from_str::<Map<String, Value>>(changes).unwrap());
    std::fs::write(&path, Value::from(all).to_string()).unwrap();
    Config::read(folder.path())
}

#[test]
fn a_value_that_would_compute_something_else_is_refused_by_its_key() {
    for (key, values) in [
        (
            "vocab_size",
            &["0", "-1", "2e30", "\"640\"", "null", "640.5", "1e6"][..],
        ),
        ("hidden_size", &["0", "-64", "66", "4611686018427387904"]),
        ("intermediate_size", &["0", "[128]"]),
        (
            "num_hidden_layers",
            &["0", "-4", "18446744073709551615", "1048576", "true"],
        ),
        ("num_attention_heads", &["0", "-4", "3"]),
        ("num_key_value_heads", &["0", "-2", "99999999999"]),
        ("max_position_embeddings", &["0", "-1", "\"many\""]),
        ("rms_norm_eps", &["-1", "0", "2", "\"1e-6\"", "1e-400"]),
        ("rope_theta", &["0", "-1", "1e300", "[]"]),
        ("tie_word_embeddings", &["1", "\"true\""]),
        (
            "model_type",
            &["\"mistral\"", "\"qwen2_moe\"", "\"qwen3_moe\"", "2"],
        ),
        ("hidden_act", &["\"gelu\"", "1"]),
        ("use_sliding_window", &["1", "true", "\"false\""]),
        (
            "rope_scaling",
            &[
                "5",
                "\"linear\"",
                "{}",
                r#"{"factor": 4.0}"#,
                r#"{"type": "yarn", "factor": 4.0}"#,
                r#"{"rope_type": "dynamic"}"#,
                r#"{"rope_type": 1}"#,
                r#"{"type": "default", "mrope_section": [16, 24, 24]}"#,
            ],
        ),
        (
            "rope_parameters",
            &[
                "1",
                r#"{"rope_type": "llama3"}"#,
                r#"{"rope_theta": "x"}"#,
                r#"{"partial_rotary_factor": 0.5}"#,
            ],
        ),
        (
            "layer_types",
            &["[\"full_attention\", \"sliding_attention\"]", "1"],
        ),
        ("attention_dropout", &["0.1", "\"0\""]),
        ("partial_rotary_factor", &["0.5"]),
        ("attention_bias", &["false", "0"]),
        ("mlp_bias", &["true"]),
        ("qk_norm", &["true"]),
        ("quantization_config", &[r#"{"quant_method": "gptq"}"#]),
        ("head_dim", &["32", "\"16\""]),
        ("sliding_window", &["-1", "\"4096\""]),
        ("eos_token_id", &["\"</s>\"", "[1, \"2\"]", "0.5"]),
        ("torch_dtype", &["16"]),
    ] {
        for value in values {
            let e = read_with(&format!("{{\"{key}\": {value}}}"));
            let e = e.expect_err(&format!("{key}: {value}"));
            assert_eq!(e.exit_code(), 7);
            let told = e.to_string();
            assert!(told.contains(key), "{key}: {value}: {told}");
            assert!(told.contains("expected"), "{told}");
        }
    }
}

#[test]
fn everything_wrong_is_told_at_once() {
    let e = read_with(r#"{"rope_scaling": 5, "hidden_act": "relu", "use_sliding_window": true}"#);
    let told = e.unwrap_err().to_string();
    for key in ["rope_scaling", "hidden_act", "use_sliding_window"] {
        assert!(told.contains(key), "{told}");
    }
}

#[test]
fn what_published_folders_say_is_taken() {
    let plain = read_with("{}").unwrap();
    for same in [
        r#"{"rope_scaling": {"type": "default"}, "sliding_window": 131072, "max_window_layers": 28, "use_mrope": false}"#,
        r#"{"rope_parameters": {"rope_theta": 1000000.0, "rope_type": "default"}, "rope_theta": null}"#,
        r#"{"layer_types": ["full_attention", "full_attention"], "dtype": "bfloat16", "eos_token_id": [591, 590]}"#,
        r#"{"head_dim": 16, "attention_dropout": 0.0, "attention_bias": true, "pad_token_id": null, "x": {"y": 1}}"#,
    ] {
        assert_eq!(read_with(same).unwrap(), plain, "{same}");
    }
    let all_heads = read_with(r#"{"num_key_value_heads": null}"#).unwrap();
    assert_eq!(all_heads.decoder().num_key_value_heads, 4);
}

/// A configuration of another family with changes; null takes a key away.
fn of(family: &str, changes: &str) -> Result<Config> {
    let folder = tempfile::tempdir().unwrap();
    let (kind, class, _) = FAMILIES.into_iter().find(|(kind, ..)| *kind == family).unwrap();
    let mut all: Map<String, Value> = serde_json::from_str(
        r#"{"vocab_size": 640, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 24, "rope_theta": 1e6}"#,
    )
    .unwrap();
    all.insert("model_type".into(), kind.into());
    all.insert("architectures".into(), vec![class].into());
    all.extend(serde_json::from_str::<Map<String, Value>>(changes).unwrap());
    std::fs::write(folder.path().join("config.json"), Value::from(all).to_string()).unwrap();
    Config::read(folder.path())
}

#[test]
fn a_family_that_is_not_read_is_told_those_that_are() {
    for changes in [
        r#"{"model_type": "mistral"}"#,
        r#"{"model_type": null, "architectures": ["MistralForCausalLM"]}"#,
        r#"{"model_type": null, "architectures": null}"#,
    ] {
        let told = of("llama", changes).unwrap_err().to_string();
        for family in [
            "qwen2 (Qwen2ForCausalLM)",
            "qwen3 (Qwen3ForCausalLM)",
            "llama (LlamaForCausalLM)",
        ] {
            assert!(told.contains(family), "{told}");
        }
    }
    let told = of("llama", r#"{"architectures": ["Qwen2ForCausalLM"]}"#)
        .unwrap_err()
        .to_string();
    assert!(
        told.contains("architectures: expected [LlamaForCausalLM]"),
        "{told}"
    );
    // transformers 5 opens a folder by its class alone, too.
    let by_class = of("qwen3", r#"{"model_type": null}"#).unwrap();
    assert!(matches!(by_class, Config::Qwen3(_)));
}

#[test]
fn what_a_family_computes_is_what_its_file_says() {
    let qwen3 = of("qwen3", "{}").unwrap().decoder();
    assert!(qwen3.qk_norm && !qwen3.qkv_bias && !qwen3.o_bias);
    assert_eq!(qwen3.head_dim, 24);
    let biased = of("qwen3", r#"{"attention_bias": true}"#).unwrap().decoder();
    assert!(biased.qkv_bias && biased.o_bias && !biased.mlp_bias);
    let llama = of("llama", r#"{"head_dim": null, "num_key_value_heads": null}"#)
        .unwrap()
        .decoder();
    assert_eq!(
        (llama.head_dim, llama.num_key_value_heads, llama.qk_norm),
        (16, 4, false)
    );
    let biased = of("llama", r#"{"attention_bias": true, "mlp_bias": true}"#)
        .unwrap()
        .decoder();
    assert!(biased.qkv_bias && biased.o_bias && biased.mlp_bias);
}

const LLAMA3: &str = r#"{"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64}"#;

#[test]
fn both_ways_of_writing_rotary_positions_are_one() {
    let old = of("llama", &format!(r#"{{"rope_scaling": {LLAMA3}}}"#)).unwrap();
    let new = LLAMA3.replace("{", r#"{"rope_theta": 1e6, "#);
    assert_eq!(
        of(
            "llama",
            &format!(r#"{{"rope_theta": null, "rope_parameters": {new}}}"#)
        )
        .unwrap(),
        old
    );
    assert_eq!(
        of(
            "llama",
            &format!(r#"{{"rope_scaling": {LLAMA3}, "rope_parameters": {new}}}"#)
        )
        .unwrap(),
        old
    );
    let scaling = old.decoder().rotary.scaling.unwrap();
    assert_eq!(
        (scaling.factor, scaling.original_max_position_embeddings),
        (8.0, 64)
    );
    // What is left out is what transformers takes.
    let short = LLAMA3.replace(",\n    \"original_max_position_embeddings\": 64", "");
    let config = of(
        "llama",
        &format!(r#"{{"rope_scaling": {short}, "max_position_embeddings": 512}}"#),
    )
    .unwrap();
    assert_eq!(
        config
            .decoder()
            .rotary
            .scaling
            .unwrap()
            .original_max_position_embeddings,
        512
    );
}

#[test]
fn rotary_positions_that_disagree_or_are_not_computed_are_refused() {
    let other = LLAMA3.replace("8.0", "32.0");
    for (family, changes, key) in [
        (
            "llama",
            format!(r#"{{"rope_scaling": {LLAMA3}, "rope_parameters": {other}}}"#),
            "rope_parameters",
        ),
        (
            "llama",
            format!(r#"{{"rope_scaling": {LLAMA3}, "rope_parameters": {{"rope_type": "default"}}}}"#),
            "rope_parameters",
        ),
        (
            "llama",
            r#"{"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}"#.to_owned(),
            "rope_parameters.rope_theta",
        ),
        (
            "qwen2",
            r#"{"head_dim": 16, "rope_parameters": {"rope_theta": 5e5}}"#.to_owned(),
            "rope_parameters.rope_theta",
        ),
        (
            "llama",
            r#"{"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}"#.to_owned(),
            "rope_scaling",
        ),
        (
            "llama",
            r#"{"rope_scaling": {"type": "linear", "factor": 4.0}}"#.to_owned(),
            "rope_scaling",
        ),
        (
            "llama",
            r#"{"rope_parameters": {"full_attention": {"rope_theta": 1e6}}}"#.to_owned(),
            "rope_parameters",
        ),
        (
            "qwen3",
            format!(r#"{{"rope_scaling": {LLAMA3}}}"#),
            "rope_scaling",
        ),
        (
            "llama",
            format!(r#"{{"rope_scaling": {}}}"#, LLAMA3.replace("8.0", "0")),
            "rope_scaling.factor",
        ),
        (
            "llama",
            format!(r#"{{"rope_scaling": {}}}"#, LLAMA3.replace("4.0", "1.0")),
            "rope_scaling.high_freq_factor",
        ),
        (
            "llama",
            format!(r#"{{"rope_scaling": {}}}"#, LLAMA3.replace(" 64", " 1e300")),
            "rope_scaling.original_max_position_embeddings",
        ),
        (
            "llama",
            format!(r#"{{"rope_scaling": {LLAMA3}, "original_max_position_embeddings": 32}}"#),
            "original_max_position_embeddings",
        ),
    ] {
        let e = of(family, &changes).expect_err(&changes);
        assert_eq!(e.exit_code(), 7);
        assert!(
            e.to_string().contains(&format!("{key}: expected")),
            "{changes}: {e}"
        );
    }
}

#[test]
fn sizes_that_cannot_be_are_refused_in_every_family() {
    for family in ["qwen3", "llama"] {
        for (changes, key) in [
            (r#"{"head_dim": 23}"#, "head_dim"),
            (r#"{"head_dim": 0}"#, "head_dim"),
            (r#"{"head_dim": -24}"#, "head_dim"),
            (r#"{"head_dim": 9223372036854775807}"#, "head_dim"),
            (
                r#"{"head_dim": 4096, "num_attention_heads": 4096}"#,
                "num_attention_heads × head_dim",
            ),
            (r#"{"num_key_value_heads": 3}"#, "num_attention_heads"),
            (r#"{"num_key_value_heads": 0}"#, "num_key_value_heads"),
            (r#"{"hidden_size": 1e9}"#, "hidden_size"),
            (r#"{"hidden_size": 1000000000}"#, "hidden_size"),
            (r#"{"num_hidden_layers": -1}"#, "num_hidden_layers"),
            (r#"{"num_hidden_layers": null}"#, "num_hidden_layers"),
            (r#"{"attention_bias": 1}"#, "attention_bias"),
        ] {
            let told = of(family, changes).expect_err(changes).to_string();
            assert!(
                told.contains(&format!("{key}: expected")),
                "{family} {changes}: {told}"
            );
        }
    }
    assert!(of("llama", r#"{"head_dim": null, "hidden_size": 66}"#).is_err());
    assert!(of("qwen3", r#"{"head_dim": null}"#).is_err());
    assert!(of("qwen3", r#"{"mlp_bias": true}"#).is_err());
}
