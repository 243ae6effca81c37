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
