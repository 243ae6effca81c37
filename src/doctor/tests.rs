use super::*;

fn report(states: &[(State, i32)]) -> Report {
    let line = |(state, code): &(State, i32)| {
        let mut line = Line::new("cuda", *state, "");
        line.code = *code;
        line
    };
    Report {
        lines: states.iter().map(line).collect(),
        ..Report::default()
    }
}

#[test]
fn the_exit_code_is_that_of_the_first_broken_line() {
    use State::{Broken, Ok, Slow};
    for (states, code, strict) in [
        (&[(Ok, 0), (Ok, 0)][..], 0, 0),
        (&[(Ok, 0), (Slow, 0)], 0, SLOW),
        (&[(Slow, 0), (Broken, FILES), (Broken, DEVICE)], FILES, FILES),
        (&[(Broken, DEVICE), (Broken, FILES)], DEVICE, DEVICE),
        (&[], 0, 0),
    ] {
        let report = report(states);
        assert_eq!((report.exit_code(false), report.exit_code(true)), (code, strict));
    }
}

#[test]
fn what_hangs_or_falls_is_a_broken_line_of_each_name() {
    let mut shown = Vec::new();
    let mut show = |line: &Line| shown.push(line.title());
    let mut all = All {
        report: Report::default(),
        shown: &mut show,
    };
    let limit = Duration::from_millis(50);
    let (keep, hangs) = mpsc::channel::<()>();
    let found = all.within(limit, Some("cuda:0"), &["bf16", "device"], DEVICE, move || {
        let _ = hangs.recv();
        (1, Vec::new())
    });
    assert_eq!(found, None);
    assert!(all.report.hangs);
    all.report.hangs = false;
    // A look that fails is no end, and nothing hangs in it.
    let found: Option<()> = all.within(Duration::from_secs(60), None, &["locks"], FILES, || {
        std::panic::resume_unwind(Box::new("failed"))
    });
    assert_eq!(found, None);
    assert!(!all.report.hangs);
    let found = all.within(Duration::from_secs(60), None, &["locks"], FILES, || {
        (7, vec![Line::ok("room", "much")])
    });
    assert_eq!(found, Some(7));
    let report = all.report;
    drop(keep);
    assert_eq!(shown, ["cuda:0: bf16", "cuda:0: device", "locks", "room"]);
    assert_eq!(report.exit_code(false), DEVICE);
    assert!(
        report.lines[0].found.contains("no answer in 0.05 s"),
        "{}",
        report.lines[0].found
    );
}

#[test]
fn json_has_checks_and_devices_by_their_names() {
    let mut report = Report::default();
    report.lines.push(Line::ok("cuda", "none").value("devices", 0));
    let mut of_device = Line::slow("bf16", "far", "look");
    of_device.device = Some("cuda:0".into());
    report.lines.push(of_device);
    let json = report.json(true);
    assert_eq!(json["format"], FORMAT);
    assert_eq!(
        (&json["state"], &json["exit_code"]),
        (&json!("slow"), &json!(SLOW))
    );
    assert_eq!(
        json["checks"]["cuda"],
        json!({"state": "ok", "found": "none", "advice": null, "values": {"devices": 0}})
    );
    assert_eq!(json["devices"]["cuda:0"]["bf16"]["advice"], "look");
}
