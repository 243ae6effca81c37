//! The client of chat completions against a server that answers from a script: what is asked again, what is not, what it costs,
//! what is kept, and that a key is in none of it.
#![allow(clippy::panic, clippy::unwrap_used)]

#[path = "common/scripted.rs"]
mod scripted;

use af2::llm::{
    Answers, Audio, Backoff, Budget, Client, Endpoint, Failure, Key, Message, Outcome, Part, Pending, Prices,
    Request, Role, Sampling, Schema, Settings, TimeOuts, Why,
};
use scripted::{completion, fails, says, Reply, Seen, Server};
use serde_json::json;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

const KEY: &str = "sk-proj-Sesame/0123456789+abcdef";

fn request(n: usize) -> Request {
    Request {
        model: "judge-2026-01-01".into(),
        messages: vec![
            Message::of(Role::System, "Count."),
            Message::user(format!("number {n}")),
        ],
        sampling: Sampling {
            temperature: Some(0.0),
            max_tokens: Some(16),
            seed: Some(7),
            ..Sampling::default()
        },
        schema: None,
        run: 0,
        about: String::new(),
    }
}

fn requests(n: usize) -> Vec<Request> {
    (0..n).map(request).collect()
}

/// Everything a hundredth as long as it is.
fn quick(server: &Server) -> Settings {
    Settings {
        endpoint: Some(Endpoint::parse(&server.url()).unwrap()),
        times: TimeOuts {
            connect: Duration::from_millis(500),
            first: Duration::from_millis(400),
            total: Duration::from_millis(600),
        },
        backoff: Backoff {
            first: Duration::from_millis(5),
            most: Duration::from_millis(20),
            patience: Duration::from_secs(3),
        },
        tries: 3,
        ..Settings::default()
    }
}

fn key() -> Key {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    std::fs::write(&path, KEY).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    Key::of_file(&path).unwrap()
}

fn all(client: &dyn Answers, requests: &[Request]) -> (Vec<Option<Outcome>>, af2::Result<()>) {
    let mut outcomes = vec![None; requests.len()];
    let result = client.answers(requests, &mut |i, outcome| {
        assert!(outcomes[i].replace(outcome).is_none(), "{i} twice");
        Ok(())
    });
    (outcomes, result)
}

/// What one request comes to.
fn one(settings: Settings) -> af2::Result<Outcome> {
    Client::open(settings).unwrap().ask(&request(0))
}

fn failure(outcome: af2::Result<Outcome>) -> Failure {
    outcome.unwrap().unwrap_err()
}

fn echo(seen: &Seen) -> Reply {
    says(&format!("you said {}", seen.last()))
}

#[test]
fn many_are_asked_at_once_and_each_gets_its_own_answer() {
    let server = Server::new(|seen| Reply::Later(Duration::from_millis(20), Box::new(echo(seen))));
    let client = Client::open(Settings {
        at_once: 16,
        key: Some(key()),
        ..quick(&server)
    })
    .unwrap();
    let begun = Instant::now();
    let (outcomes, result) = all(&client, &requests(64));
    result.unwrap();
    assert!(
        begun.elapsed() < Duration::from_millis(64 * 20 / 2),
        "{:?}",
        begun.elapsed()
    );
    for (i, outcome) in outcomes.into_iter().enumerate() {
        let answer = outcome.unwrap().unwrap();
        assert_eq!(answer.text, format!("you said number {i}"));
        assert_eq!(
            (
                answer.usage.prompt,
                answer.usage.completion,
                answer.usage.estimated
            ),
            (100, 10, false)
        );
        assert_eq!(answer.model.as_deref(), Some("judge-2026-01-01"));
    }
    let seen = server.seen();
    assert_eq!(seen.len(), 64);
    assert!(seen.iter().all(|s| s.path == "/v1/chat/completions"));
    assert!(seen
        .iter()
        .all(|s| s.headers["authorization"] == format!("Bearer {KEY}")));
    assert!(seen[0].headers["user-agent"].starts_with("af2/"));
    let body = seen[0].json();
    assert_eq!(
        body["messages"][0],
        json!({"role": "system", "content": "Count."})
    );
    assert_eq!(
        (&body["temperature"], &body["max_tokens"], &body["seed"]),
        (&json!(0.0), &json!(16), &json!(7))
    );
    assert!(body.get("run").is_none() && body.get("response_format").is_none());
    let spent = client.spent();
    assert_eq!(
        (
            spent.calls,
            spent.retries,
            spent.prompt_tokens,
            spent.completion_tokens
        ),
        (64, 0, 6400, 640)
    );
}

#[test]
fn what_may_pass_is_asked_again() {
    // A status, a server that hangs up, that breaks off in its answer, that is silent, that sends no JSON, or no answer.
    let bad: [fn() -> Reply; 11] = [
        || fails(500, "oops"),
        || fails(503, "later"),
        || fails(529, "overloaded"),
        || fails(408, "slow"),
        || fails(409, "conflict"),
        || Reply::Drops,
        || Reply::Breaks,
        || Reply::Later(Duration::from_millis(700), Box::new(fails(500, "late"))),
        || Reply::Drips(Duration::from_millis(50), completion("slow").to_string()),
        || Reply::Says(200, vec![], "<html>a proxy's page</html>".into()),
        || Reply::Says(200, vec![], "{\"choices\": []}".into()),
    ];
    for (i, bad) in bad.into_iter().enumerate() {
        let server = Server::new(move |seen| if seen.number < 2 { bad() } else { echo(seen) });
        let client = Client::open(quick(&server)).unwrap();
        let answer = client
            .ask(&request(0))
            .unwrap()
            .unwrap_or_else(|e| panic!("{i}: {e}"));
        assert_eq!(answer.text, "you said number 0");
        assert_eq!(server.calls(), 3, "{i}");
        assert_eq!((client.spent().calls, client.spent().retries), (3, 2), "{i}");
        // As often as it may, and no more.
        let server = Server::new(move |_| bad());
        let failure = failure(one(quick(&server)));
        let expected = if i >= 9 { Why::Malformed } else { Why::NotAnswered };
        assert_eq!((failure.why, server.calls()), (expected, 3), "{i}: {failure}");
        assert!(failure.message.ends_with("(3 tries)"), "{failure}");
    }
}

#[test]
fn nobody_there_is_tried_and_costs_nothing() {
    let address = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let server = Server::new(echo);
    let endpoint = Endpoint::parse(&format!("http://{address}/v1")).unwrap();
    let client = Client::open(Settings {
        endpoint: Some(endpoint),
        ..quick(&server)
    })
    .unwrap();
    let failure = failure(client.ask(&request(0)));
    assert_eq!(failure.why, Why::NotAnswered);
    assert_eq!(client.spent().calls, 0);
}

#[test]
fn what_will_not_pass_is_not() {
    for status in [400, 413, 415, 422] {
        let server = Server::new(move |_| fails(status, "not this one"));
        let failure = failure(one(quick(&server)));
        assert_eq!((failure.why, server.calls()), (Why::Refused(status), 1));
        assert_eq!(failure.message, format!("{status}: not this one"));
    }
    // What no other request would pass either ends all.
    for (status, hint) in [
        (401, "no key was given"),
        (403, "no key"),
        (404, "/v1"),
        (402, ""),
        (405, ""),
    ] {
        let server = Server::new(move |_| fails(status, "nobody"));
        let client = Client::open(Settings {
            at_once: 2,
            ..quick(&server)
        })
        .unwrap();
        let (_, result) = all(&client, &requests(20));
        let e = result.unwrap_err();
        assert_eq!(e.exit_code(), 15);
        assert!(
            e.to_string().contains(&format!("{status}: nobody")) && e.to_string().contains(hint),
            "{e}"
        );
        assert!(server.calls() <= 2, "{}", server.calls());
    }
    let server = Server::new(|_| {
        let body = json!({"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}});
        Reply::Says(429, vec![], body.to_string())
    });
    let e = one(quick(&server)).unwrap_err();
    assert!(
        server.calls() == 1 && e.to_string().contains("no money left"),
        "{e}"
    );
}

#[test]
fn a_server_that_asks_to_wait_is_left_alone_by_all() {
    let server = Server::new(|seen| match seen.number {
        0 => Reply::Says(429, vec![("retry-after", "1".into())], "{}".into()),
        _ => echo(seen),
    });
    let client = Client::open(Settings {
        at_once: 1,
        ..quick(&server)
    })
    .unwrap();
    let (outcomes, result) = all(&client, &requests(3));
    result.unwrap();
    assert!(outcomes.iter().all(|o| o.as_ref().unwrap().is_ok()));
    let seen = server.seen();
    assert!(seen[1].at - seen[0].at >= Duration::from_secs(1));
    // A date; one that is too far away is not waited for.
    let later =
        |seconds: u64| httpdate::fmt_http_date(std::time::SystemTime::now() + Duration::from_secs(seconds));
    let server = Server::new(move |seen| match seen.number {
        0 => Reply::Says(503, vec![("Retry-After", later(2))], "{}".into()),
        _ => echo(seen),
    });
    one(quick(&server)).unwrap().unwrap();
    let seen = server.seen();
    let waited = seen[1].at - seen[0].at;
    assert!(
        waited >= Duration::from_millis(900) && waited < Duration::from_secs(4),
        "{waited:?}"
    );
    let server = Server::new(move |_| Reply::Says(429, vec![("retry-after", "3600".into())], "{}".into()));
    let failure = failure(one(quick(&server)));
    assert!(
        server.calls() == 1 && failure.message.contains("asks to wait for 3600 s"),
        "{failure}"
    );
}

#[test]
fn a_slow_stream_is_cut_off_in_time() {
    let server = Server::new(|_| Reply::Drips(Duration::from_millis(20), "x".repeat(100_000)));
    let begun = Instant::now();
    let failure = failure(one(Settings {
        tries: 1,
        ..quick(&server)
    }));
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert!(failure.message.contains("in time"), "{failure}");
}

#[test]
fn an_answer_is_bounded() {
    // One that says how long it is, and one that does not.
    let said = || Reply::Says(200, vec![], "x".repeat(11 << 20));
    for reply in [said as fn() -> Reply, || Reply::Floods(30 << 20)] {
        let server = Server::new(move |_| reply());
        let times = TimeOuts {
            total: Duration::from_secs(20),
            ..quick(&server).times
        };
        let failure = failure(one(Settings {
            times,
            ..quick(&server)
        }));
        assert_eq!((failure.why, server.calls()), (Why::TooLarge, 1), "{failure}");
        assert!(failure.message.contains("10485760 bytes"));
    }
}

#[test]
fn a_redirect_elsewhere_is_refused_and_carries_no_key() {
    let other = Server::new(echo);
    let to = format!("http://{}/v1/chat/completions", other.address);
    for status in [301, 302, 303, 307, 308] {
        let to = to.clone();
        let server = Server::new(move |_| Reply::Says(status, vec![("location", to.clone())], String::new()));
        let e = one(Settings {
            key: Some(key()),
            ..quick(&server)
        })
        .unwrap_err();
        assert_eq!(e.exit_code(), 15);
        assert!(
            e.to_string().contains(&other.address) && e.to_string().contains("not followed"),
            "{e}"
        );
    }
    assert_eq!(other.calls(), 0);
    // Within the server it is.
    let server = Server::new(|seen| match seen.path.as_str() {
        "/v2" => echo(seen),
        _ => Reply::Says(307, vec![("location", "/v2".into())], String::new()),
    });
    assert_eq!(one(quick(&server)).unwrap().unwrap().text, "you said number 0");
    let server = Server::new(|_| Reply::Says(308, vec![("location", "/v1/again".into())], String::new()));
    let e = one(quick(&server)).unwrap_err().to_string();
    assert!(
        e.contains("redirects more than 3 times") && server.calls() == 4,
        "{e}"
    );
}

#[test]
fn a_server_without_schemas_is_asked_without_and_only_once_for_all() {
    let script = |seen: &Seen| {
        let body = seen.json();
        if body.get("response_format").is_some() {
            return fails(400, "Unknown field: response_format");
        }
        if body.get("max_tokens").is_some() {
            return fails(
                400,
                "'max_tokens' is not supported, use 'max_completion_tokens' instead",
            );
        }
        echo(seen)
    };
    let server = Server::new(script);
    let folder = tempfile::tempdir().unwrap();
    let store = || Some(folder.path().join("answers"));
    let client = Client::open(Settings {
        at_once: 1,
        store: store(),
        ..quick(&server)
    })
    .unwrap();
    let schema = Schema {
        name: "mark".into(),
        schema: json!({"type": "object"}),
    };
    let mut asked = requests(4);
    asked.iter_mut().for_each(|r| r.schema = Some(schema.clone()));
    assert!(client.takes_schema());
    let (outcomes, result) = all(&client, &asked);
    result.unwrap();
    assert!(outcomes.iter().all(|o| o.as_ref().unwrap().is_ok()));
    assert_eq!(server.calls(), 4 + 2);
    assert!(!client.takes_schema());
    let lines = std::fs::read_to_string(folder.path().join("answers/answers-0000.jsonl")).unwrap();
    assert!(
        lines
            .lines()
            .all(|l| l.contains(r#""dialect":{"schema":false,"completion_tokens":true}"#)),
        "{lines}"
    );
    // Under its own name all the same: a server with schemas would be asked the same question.
    let offline = Client::open(Settings {
        offline: true,
        store: store(),
        ..Settings::default()
    })
    .unwrap();
    all(&offline, &asked).1.unwrap();
    // Another refusal is one.
    let server = Server::new(|_| fails(400, "this question is not allowed"));
    let client = Client::open(quick(&server)).unwrap();
    assert_eq!(client.ask(&asked[0]).unwrap().unwrap_err().why, Why::Refused(400));
}

#[test]
fn a_budget_ends_cleanly_and_nothing_is_paid_twice() {
    let server = Server::new(echo);
    let folder = tempfile::tempdir().unwrap();
    let store = || Some(folder.path().join("answers"));
    // A server that counts more tokens than were thought costs more than the budget, by what is on its way.
    let with = |at_once: usize, budget: Budget| {
        let prices = Some(Prices {
            prompt: 10.0,
            completion: 100.0,
        });
        Client::open(Settings {
            at_once,
            store: store(),
            budget,
            prices,
            ..quick(&server)
        })
        .unwrap()
    };
    let first = with(
        4,
        Budget {
            calls: Some(10),
            ..Budget::default()
        },
    );
    let estimate = first.estimate(&requests(40));
    assert_eq!(
        (estimate.calls, estimate.stored, estimate.completion_tokens),
        (40, 0, 40 * 16)
    );
    let (outcomes, result) = all(&first, &requests(40));
    let e = result.unwrap_err();
    assert_eq!(e.exit_code(), 16);
    assert!(
        e.to_string()
            .starts_with("the budget of 10 calls is spent: 10 of 40 requests are answered and kept in "),
        "{e}"
    );
    assert_eq!(outcomes.iter().flatten().count(), 10);
    assert_eq!((server.calls(), first.spent().calls), (10, 10));
    // 100 and 10 tokens each are 0.002.
    assert!((first.spent().money.unwrap() - 0.02).abs() < 1e-9);
    let second = with(
        1,
        Budget {
            money: Some(0.0201),
            ..Budget::default()
        },
    );
    assert_eq!(
        (
            second.estimate(&requests(40)).calls,
            second.estimate(&requests(40)).stored
        ),
        (30, 10)
    );
    let e = all(&second, &requests(40)).1.unwrap_err();
    let message = "the budget of 0.0201 of money is spent: 20 of 40 requests are answered";
    assert!(e.to_string().starts_with(message), "{e}");
    assert_eq!(server.calls(), 20);
    let third = with(
        1,
        Budget {
            tokens: Some(1101),
            ..Budget::default()
        },
    );
    let e = all(&third, &requests(40)).1.unwrap_err();
    assert!(
        e.to_string()
            .starts_with("the budget of 1101 tokens is spent: 30 of 40"),
        "{e}"
    );
    let last = with(4, Budget::default());
    let (outcomes, result) = all(&last, &requests(40));
    result.unwrap();
    assert!(outcomes.iter().all(|o| o.as_ref().unwrap().is_ok()));
    assert_eq!((last.spent().calls, last.spent().stored), (10, 30));
    let mut asked: HashMap<String, usize> = HashMap::new();
    server
        .seen()
        .iter()
        .for_each(|s| *asked.entry(s.last()).or_default() += 1);
    assert!(asked.len() == 40 && asked.values().all(|n| *n == 1), "{asked:?}");
    assert!(Client::open(Settings {
        budget: Budget {
            money: Some(1.0),
            ..Budget::default()
        },
        ..quick(&server)
    })
    .is_err());
}

#[test]
fn without_a_server_stored_answers_come_again_and_missing_ones_are_named() {
    let server = Server::new(echo);
    let folder = tempfile::tempdir().unwrap();
    let store = || Some(folder.path().join("answers"));
    let client = Client::open(Settings {
        store: store(),
        ..quick(&server)
    })
    .unwrap();
    let asked = [requests(5), requests(2)].concat();
    let (first, result) = all(&client, &asked);
    result.unwrap();
    assert_eq!(server.calls(), 5);
    drop(server);
    let offline = || {
        Client::open(Settings {
            store: store(),
            offline: true,
            ..Settings::default()
        })
        .unwrap()
    };
    let texts = |all: &[Option<Outcome>]| -> Vec<String> {
        all.iter()
            .map(|o| o.as_ref().unwrap().as_ref().unwrap().text.clone())
            .collect()
    };
    let (again, result) = all(&offline(), &asked);
    result.unwrap();
    assert_eq!(texts(&first), texts(&again));
    assert!(again.iter().all(|o| o.as_ref().unwrap().as_ref().unwrap().stored));
    let (outcomes, result) = all(&offline(), &requests(7));
    let e = result.unwrap_err();
    assert_eq!((outcomes.iter().flatten().count(), e.exit_code()), (0, 6));
    let text = e.to_string();
    assert!(
        text.contains("none to 2 of 7 requests: ") && text.contains(&request(5).hash()),
        "{text}"
    );
    assert!(text.contains("number 6") && text.contains("--offline"), "{text}");
    // Another model, another sampling, another run is another question.
    let other = Request { run: 1, ..request(0) };
    assert!(all(&offline(), &[other]).1.is_err());
    assert!(Client::open(Settings::default())
        .err()
        .unwrap()
        .to_string()
        .contains("--endpoint"));
}

#[test]
fn too_many_failures_in_a_row_end_all() {
    let server = Server::new(|_| fails(500, "down"));
    let settings = Settings {
        at_once: 3,
        failures_in_a_row: 5,
        ..quick(&server)
    };
    let e = all(&Client::open(settings).unwrap(), &requests(100))
        .1
        .unwrap_err();
    assert_eq!(e.exit_code(), 15);
    assert!(
        e.to_string()
            .contains("5 requests in a row have no answer; the last: 500: down"),
        "{e}"
    );
    assert!(server.calls() <= 3 * 8, "{}", server.calls());
}

#[test]
fn calls_keep_the_pace_that_they_are_given() {
    let server = Server::new(echo);
    // 100 ms apart.
    let settings = Settings {
        at_once: 8,
        calls_a_minute: Some(600),
        ..quick(&server)
    };
    let begun = Instant::now();
    all(&Client::open(settings).unwrap(), &requests(6)).1.unwrap();
    assert!(
        begun.elapsed() >= Duration::from_millis(500),
        "{:?}",
        begun.elapsed()
    );
    // About 40 tokens each, of which 16 in the answer: 600 in a second.
    let settings = Settings {
        at_once: 8,
        tokens_a_minute: Some(6000),
        ..quick(&server)
    };
    let begun = Instant::now();
    all(&Client::open(settings).unwrap(), &requests(3)).1.unwrap();
    assert!(
        begun.elapsed() >= Duration::from_millis(400),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn a_callers_error_ends_all() {
    let server = Server::new(echo);
    let client = Client::open(Settings {
        at_once: 2,
        ..quick(&server)
    })
    .unwrap();
    let handed = Mutex::new(0);
    let result = client.answers(&requests(50), &mut |_, _| {
        *handed.lock().unwrap() += 1;
        Err(af2::Error::Mismatch("enough".into()))
    });
    assert_eq!(result.unwrap_err().to_string(), "enough");
    assert_eq!(*handed.lock().unwrap(), 1);
    assert!(server.calls() < 50);
}

#[test]
fn sounds_are_sent() {
    let server = Server::new(|seen| {
        let parts = &seen.json()["messages"][0]["content"];
        says(parts[1]["input_audio"]["data"].as_str().unwrap())
    });
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("answers");
    let client = Client::open(Settings {
        store: Some(store.clone()),
        ..quick(&server)
    })
    .unwrap();
    let sound = Audio::of_bytes(*b"RIFF....WAVE", "wav");
    let message = Message {
        role: Role::User,
        parts: vec![Part::Text("what is it?".into()), Part::Audio(sound)],
    };
    let request = Request {
        messages: vec![message],
        ..request(0)
    };
    assert_eq!(client.ask(&request).unwrap().unwrap().text, "UklGRi4uLi5XQVZF");
    let kept = std::fs::read_to_string(store.join("answers-0000.jsonl")).unwrap();
    let (asked, _) = kept.split_once("\"answer\"").unwrap();
    assert!(
        asked.contains("\"sha256\"") && !asked.contains("UklGRi"),
        "{asked}"
    );
}

#[test]
fn a_providers_batch_goes_out_and_comes_in() {
    let folder = tempfile::tempdir().unwrap();
    let (out, back, store) = (
        folder.path().join("out.jsonl"),
        folder.path().join("in.jsonl"),
        folder.path().join("answers"),
    );
    let settings = || Settings {
        store: Some(store.clone()),
        offline: true,
        ..Settings::default()
    };
    let client = Client::open(settings()).unwrap();
    let pending = Pending::new(&client);
    let (outcomes, result) = all(&pending, &requests(4));
    result.unwrap();
    assert!(outcomes
        .iter()
        .all(|o| o.as_ref().unwrap().as_ref().unwrap_err().why == Why::Pending));
    pending.write(&out).unwrap();
    let lines: Vec<serde_json::Value> = std::fs::read_to_string(&out)
        .unwrap()
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(lines.len(), 4);
    assert_eq!(lines[2]["custom_id"], request(2).hash());
    assert_eq!(
        (&lines[2]["method"], &lines[2]["url"]),
        (&json!("POST"), &json!("/v1/chat/completions"))
    );
    assert_eq!(lines[2]["body"]["messages"][1]["content"], "number 2");
    // In another order, one failed, one of somebody else.
    let answer = |n: usize, status: u16| {
        let body = completion(&format!("batch {n}"));
        json!({"id": "b", "custom_id": request(n).hash(), "response": {"status_code": status, "body": body}, "error": null})
    };
    let mut text = String::new();
    for line in [answer(3, 200), answer(1, 500), answer(0, 200), answer(9, 200)] {
        text += &format!("{line}\n");
    }
    text += &format!(
        "{}\n",
        json!({"custom_id": request(2).hash(), "response": null, "error": {"message": "expired"}})
    );
    std::fs::write(&back, text).unwrap();
    let read = pending.read(&back).unwrap();
    assert_eq!((read.taken, read.known, read.failed, read.others), (2, 0, 2, 1));
    // Another process knows them.
    let client = Client::open(settings()).unwrap();
    let pending = Pending::new(&client);
    let (outcomes, _) = all(&pending, &requests(4));
    let there: Vec<bool> = outcomes.iter().map(|o| o.as_ref().unwrap().is_ok()).collect();
    assert_eq!((there, pending.len()), (vec![true, false, false, true], 2));
    assert_eq!(pending.read(&back).unwrap().known, 2);
    for (broken, says) in [("{", "as JSON"), ("{\"id\": 1}", "custom_id")] {
        std::fs::write(&back, broken).unwrap();
        let e = pending.read(&back).unwrap_err().to_string();
        assert!(e.contains("in.jsonl: line 1: ") && e.contains(says), "{e}");
    }
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else {
            all.push(std::fs::read(&path).unwrap());
        }
    }
    all
}

#[test]
fn a_key_is_in_no_file_and_no_error() {
    let folder = tempfile::tempdir().unwrap();
    let told = |e: &str| {
        assert!(!e.contains(KEY) && !e.contains("Sesame"), "{e}");
        assert!(e.contains("[key]"), "{e}");
    };
    // A server that repeats it: in an answer, in errors of every kind, in where it leads to, masked.
    let repeats = |seen: &Seen| seen.headers["authorization"].clone();
    for kind in 0..8 {
        let server = Server::new(move |seen| {
            let key = repeats(seen);
            match kind {
                0 => says(&format!("your header was {key}")),
                1 => fails(401, &format!("Incorrect API key provided: {key}")),
                2 => fails(400, &format!("bad request from {key}")),
                3 => fails(500, &format!("oops, {key}")),
                4 => Reply::Says(
                    302,
                    vec![("location", format!("http://evil.example/?{key}"))],
                    String::new(),
                ),
                5 => Reply::Says(200, vec![], format!("{{\"error\": {{\"message\": \"{key}\"}}}}")),
                6 => fails(401, "Incorrect API key provided: sk-proj-****cdef."),
                _ => Reply::Says(
                    200,
                    vec![],
                    json!({key.clone(): 1, "choices": [{"message": {"content": key}}]}).to_string(),
                ),
            }
        });
        let store = Some(folder.path().join(format!("answers-{kind}")));
        let client = Client::open(Settings {
            key: Some(key()),
            store,
            ..quick(&server)
        })
        .unwrap();
        match client.ask(&request(0)) {
            Ok(Ok(answer)) => told(&answer.text),
            Ok(Err(failure)) => told(&failure.message),
            Err(e) => told(&e.to_string()),
        }
        assert!(server.seen()[0].headers["authorization"].contains(KEY));
    }
    let written = files(folder.path());
    assert_eq!(written.len(), 2);
    for bytes in written {
        let text = String::from_utf8(bytes).unwrap();
        assert!(!text.contains("Sesame") && text.contains("[key]"), "{text}");
    }
    assert!(!format!(
        "{:?}",
        Settings {
            key: Some(key()),
            ..Settings::default()
        }
    )
    .contains("Sesame"));
}
