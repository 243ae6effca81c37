//! What goes to a server over TLS, and through a proxy: only to one whose certificate is of a root that is trusted.
#![allow(clippy::panic, clippy::unwrap_used)]

#[path = "common/scripted.rs"]
mod scripted;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::json;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

const KEY: &str = "sk-of-the-tests-0123456789";

fn pem(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls").join(name)
}

/// A judge who gives every answer 4 of 10, over TLS; its port, and how many questions have come.
fn judge() -> (u16, Arc<AtomicUsize>) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = vec![CertificateDer::from_pem_file(pem("localhost.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(pem("key.pem")).unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, count) = (
        listener.local_addr().unwrap().port(),
        Arc::new(AtomicUsize::new(0)),
    );
    let seen = count.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (config, seen) = (config.clone(), seen.clone());
            std::thread::spawn(move || {
                let connection = ServerConnection::new(config).unwrap();
                let mut stream = BufReader::new(StreamOwned::new(connection, stream));
                while let Some(request) = scripted::request(&mut stream) {
                    assert_eq!(request.headers["authorization"], format!("Bearer {KEY}"));
                    seen.fetch_add(1, SeqCst);
                    let body = scripted::completion("{\"score\": 4}").to_string();
                    let head = format!(
                        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                        body.len()
                    );
                    let to = stream.get_mut();
                    if to.write_all((head + &body).as_bytes()).is_err() || to.flush().is_err() {
                        break;
                    }
                }
            });
        }
    });
    (port, count)
}

/// A proxy that connects; its port, and all that it was told in the clear.
fn proxy() -> (u16, Arc<Mutex<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, told) = (
        listener.local_addr().unwrap().port(),
        Arc::new(Mutex::new(String::new())),
    );
    let all = told.clone();
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let all = all.clone();
            std::thread::spawn(move || {
                let mut reader = BufReader::new(client.try_clone().unwrap());
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).is_ok_and(|n| n > 0) {}
                all.lock().unwrap().push_str(&head);
                let place = head.strip_prefix("CONNECT ").unwrap().split(' ').next().unwrap();
                let server = TcpStream::connect(place).unwrap();
                let mut client = client;
                client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").unwrap();
                let (mut from, mut to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                let back = std::thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(Shutdown::Both);
                });
                let mut server = server;
                let _ = std::io::copy(&mut reader, &mut server);
                let _ = server.shutdown(Shutdown::Both);
                back.join().unwrap();
            });
        }
    });
    (port, told)
}

/// `af2 judge run` of two answers; its exit code and what it has said.
fn judged(folder: &Path, out: &str, url: &str, environment: &[(&str, &str)]) -> (i32, String) {
    let lines: String = (0..2)
        .map(|i| {
            let line = json!({"id": format!("q{i}"), "audio_path": format!("{i}.wav"), "question": "what is it?",
                "answer": "a bell", "category": "General", "prediction": format!("a bell of kind {i}")});
            format!("{line}\n")
        })
        .collect();
    fs::write(folder.join("predictions.jsonl"), lines).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_af2"));
    command
        .args(["judge", "run", "--benchmark", "long-audio-bench"])
        .args(["--predictions", "predictions.jsonl", "--out", out])
        .args(["--endpoint", url, "--wait", "0.005"])
        .current_dir(folder);
    for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
        command.env_remove(name).env_remove(name.to_uppercase());
    }
    command.env_remove("SSL_CERT_FILE").env("AF2_API_KEY", KEY);
    let out = command.envs(environment.iter().copied()).output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    (out.status.code().unwrap(), said)
}

#[test]
fn only_a_server_that_is_trusted_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let (port, calls) = judge();
    let root = pem("localhost.pem");
    let trusts = ("SSL_CERT_FILE", root.to_str().unwrap());
    let url = format!("https://localhost:{port}/v1");

    // Of no root that is known: told once, with what to do; no question has left.
    let (code, said) = judged(folder.path(), "stranger", &url, &[]);
    assert_eq!(code, 15, "{said}");
    assert!(said.contains("TLS") && said.contains("SSL_CERT_FILE"), "{said}");
    assert!(!said.contains("tries"), "{said}");
    // Of another name than the one that was asked for.
    let elsewhere = format!("https://127.0.0.1:{port}/v1");
    let (code, said) = judged(folder.path(), "elsewhere", &elsewhere, &[trusts]);
    assert!(code == 15 && said.contains("TLS"), "{code}: {said}");
    assert_eq!(calls.load(SeqCst), 0);

    let (code, said) = judged(folder.path(), "trusted", &url, &[trusts]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("40.00"), "{said}");
    assert_eq!(calls.load(SeqCst), 2);
}

#[test]
fn a_proxy_sees_where_to_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (port, calls) = judge();
    let (through, told) = proxy();
    let root = pem("localhost.pem");
    let trusts = ("SSL_CERT_FILE", root.to_str().unwrap());
    let by = format!("http://127.0.0.1:{through}");
    let url = format!("https://localhost:{port}/v1");
    let (code, said) = judged(folder.path(), "through", &url, &[trusts, ("HTTPS_PROXY", &by)]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("40.00") && calls.load(SeqCst) == 2, "{said}");
    let told = told.lock().unwrap().clone();
    assert!(told.contains(&format!("CONNECT localhost:{port} ")), "{told}");
    assert!(!told.contains(KEY) && !told.contains("bell"), "{told}");
    // A host that needs none.
    let past = [trusts, ("HTTPS_PROXY", &by), ("NO_PROXY", "localhost")];
    let (code, said) = judged(folder.path(), "past", &url, &past);
    assert_eq!(code, 0, "{said}");
    // A proxy that is not there.
    let none = [trusts, ("HTTPS_PROXY", "http://127.0.0.1:9")];
    let (code, said) = judged(folder.path(), "none", &url, &none);
    assert_eq!(code, 15, "{said}");
}
