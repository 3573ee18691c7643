use super::*;
use crate::domain::{Classify, Fault, Side};

fn table(text: &str) -> HttpDelivery {
    toml::from_str(text).unwrap()
}

fn of_call(id: &str) -> Value {
    let mut document = sample();
    document["call"]["id"] = json!(id);
    document
}

#[test]
fn a_value_never_leaves_its_part_of_the_url() {
    let http = table("url = 'https://crm.test/calls/{{ call.id }}/note?by={{ outcome }}'");
    let url = |id: &str| http.url(&of_call(id)).unwrap().to_string();
    assert_eq!(url("../admin/wipe?all=1"), "https://crm.test/calls/..%2Fadmin%2Fwipe%3Fall%3D1/note?by=done");
    assert_eq!(url("a#b@c\\d:é%2e"), "https://crm.test/calls/a%23b%40c%5Cd%3A%C3%A9%252e/note?by=done");
    assert_eq!(url("conv-1.2_3~"), "https://crm.test/calls/conv-1.2_3~/note?by=done");
    let safe = table("url = 'https://crm.test/{{ call.id | safe }}/{{ (\"x/\" ~ call.id) }}'");
    assert_eq!(safe.url(&of_call("a/b")).unwrap().path(), "/a%2Fb/x%2Fa%2Fb");
}

#[test]
fn a_step_up_is_refused_and_named() {
    let http = table("url = 'https://crm.test/calls/{{ call.id }}'");
    for id in [".", ".."] {
        let err = http.url(&of_call(id)).unwrap_err();
        assert_eq!((err.fault(), err.side()), (Fault::Permanent, Side::Source));
        let text = err.to_string();
        assert!(text.contains("source.http.url") && text.contains("call.id"), "{text}");
    }
    let mut without = sample();
    without["call"]["org_id"] = Value::Null;
    let by_org = table("url = 'https://crm.test/{{ call.org_id }}/calls'");
    assert!(by_org.url(&without).unwrap_err().to_string().contains("does not have"));
}

#[test]
fn a_header_has_one_line() {
    let http = table("url = 'https://crm.test/'\n[headers]\nx-call = 'call {{ call.id }}'\nauthorization = 'k'");
    let headers = http.headers(&of_call("a b")).unwrap();
    assert_eq!(headers["x-call"], "call a b");
    assert!(headers["authorization"].is_sensitive());
    let err = http.headers(&of_call("a\r\nx-admin: 1")).unwrap_err();
    assert_eq!((err.fault(), err.side()), (Fault::Permanent, Side::Source));
    assert!(err.to_string().contains("source.http.headers.x-call"), "{err}");
    assert!(!err.to_string().contains("admin"), "{err}");
}

#[test]
fn a_body_that_promises_json_is_json() {
    let body = |text: &str| {
        let http = table(&format!("url = 'https://crm.test/'\n{text}"));
        http.body(&sample(), &json!({ "n": 1 }), &http.headers(&sample()).unwrap())
    };
    let good = body("body = '{\"t\": {{ transcript | tojson }}, \"n\": {{ remote.n + 1 }}}'").unwrap();
    assert_eq!(good.json, Some(json!({ "t": "[Agent]: Hello", "n": 2 })));
    assert_eq!(body("").unwrap().json, Some(sample()));
    let bare = body("body = '{\"t\": {{ transcript }}}'").unwrap_err();
    assert_eq!(bare.side(), Side::Configuration);
    assert!(bare.to_string().contains("not JSON") && !bare.to_string().contains("Hello"), "{bare}");
    let text = body("body = 'it was {{ outcome }}'\n[headers]\nContent-Type = 'text/plain'").unwrap();
    assert_eq!(text, RequestBody { text: "it was done".to_owned(), json: None });
    assert!(body("body = 'x'\n[headers]\ncontent-type = 'application/merge-patch+json; charset=utf-8'").is_err());
    assert_eq!(body("body = ''").unwrap().text, "");
    let undefined = body("body = '{{ quality_metrics.mos.mos_cqe | tojson }}'").unwrap_err();
    assert_eq!(undefined.side(), Side::Configuration);
}

#[test]
fn what_nobody_could_fill_in_is_found_when_it_is_read() {
    let every = "url = 'https://crm.test/{{ call.id }}/{{ call.uid }}/{{ artifacts[0].name }}?mos={{ quality_metrics.mos.mos_cqe }}'\n\
         method = 'PATCH'\nif_match = true\nbody = '''{% for a in artifacts %}{{ a.name }}{% endfor %}{{ remote.x }}\
         {{ call.source }}{{ call.org_id }}{{ call.direction }}{{ call.duration_ms }}{{ call.ended_at }}{{ outcome }}\
         {{ transcript_version }}{{ flags }}{{ retain_until }}{{ idempotency_key }}{{ range(3) }}'''\n\
         [headers]\nx = '{{ call.id }}'";
    table(every).check().unwrap();
    for (text, named, reason) in [
        ("url = 'https://h/{{ call.id'", "source[1].http.url", "syntax"),
        ("url = 'https://h/{{ call.idd }}'", "source[1].http.url", "`call.idd`"),
        ("url = 'https://h/{{ remote.id }}'", "source[1].http.url", "`remote.id`"),
        ("url = 'https://h/{{ call.id | urlencoded }}'", "source[1].http.url", "urlencoded"),
        ("url = '/calls/{{ call.id }}'", "source[1].http.url", "absolute"),
        ("url = '{{ call.id }}'", "source[1].http.url", "absolute"),
        ("url = 'ftp://h/x'", "source[1].http.url", "http or https"),
        ("url = 'https://h/x'\nmethod = 'PUT IT'", "source[1].http.method", "`PUT IT`"),
        ("url = 'https://h/x'\nmethod = 'put'", "source[1].http.method", "capitals"),
        ("url = 'https://h/x'\nbody = '{{'", "source[1].http.body", "syntax"),
        ("url = 'https://h/x'\nbody = '{{ transcrpt }}'", "source[1].http.body", "`transcrpt`"),
        ("url = 'https://h/x'\n[headers]\n'a b' = 'c'", "source[1].http.headers.a b", "name"),
        ("url = 'https://h/x'\n[headers]\na = \"b\\nc\"", "source[1].http.headers.a", "line break"),
        ("url = 'https://h/x'\n[headers]\na = '{{ s3cret'", "source[1].http.headers.a", "syntax"),
    ] {
        let said = table(text).check().unwrap_err().in_source(1);
        assert!(said.starts_with(&format!("{named}: ")) && said.contains(reason), "{text}: {said}");
        assert!(!said.contains("s3cret"), "{said}");
    }
}

#[test]
fn a_failure_inside_an_answer_of_success_is_named_by_an_expression() {
    let fails = |expression: &str, status: u16, answer: Value| {
        let http = table(&format!("url = 'https://crm.test/'\nfailed_if = '{expression}'"));
        http.check().unwrap();
        http.fails(status, &answer).unwrap()
    };
    let not_ok = "answer.ok == false";
    assert!(fails(not_ok, 200, json!({ "ok": false })));
    assert!(!fails(not_ok, 200, json!({ "ok": true })));
    // An answer without the member, or one that is not JSON, reports no failure.
    assert!(!fails(not_ok, 200, json!({})) && !fails(not_ok, 204, Value::Null) && !fails(not_ok, 200, json!([1])));
    assert!(fails("answer.errors", 200, json!({ "errors": ["no such field"] })));
    assert!(!fails("answer.errors", 200, json!({ "errors": [] })));
    assert!(fails("status == 202", 202, Value::Null) && !fails("status == 202", 200, Value::Null));
    assert!(fails("not answer", 200, Value::Null));
    assert!(fails("answer.result.code not in [0, 7]", 200, json!({ "result": { "code": 9 } })));
    assert!(!fails("answer.result.code not in [0, 7]", 200, json!({ "result": { "code": 7 } })));
    assert!(!table("url = 'https://crm.test/'").fails(200, &json!({ "ok": false })).unwrap());
}

#[test]
fn a_failure_that_nobody_could_work_out_is_found_when_it_is_read() {
    for (expression, reason) in [
        ("answer.ok ==", "syntax"),
        ("anwser.ok == false", "`anwser`"),
        ("call.id == 1", "`call`"),
        ("true", "neither"),
        ("1 == 2", "neither"),
        ("answer | nofilter", "filter"),
        ("answer.items() | length > status.x()", "worked out"),
    ] {
        let said = table(&format!("url = 'https://h/x'\nfailed_if = '{expression}'")).check().unwrap_err().in_source(0);
        assert!(said.starts_with("source[0].http.failed_if: ") && said.contains(reason), "{expression}: {said}");
    }
    // The error appears only with this answer. It blames the setting and shows nothing of the answer.
    let http = table("url = 'https://h/x'\nfailed_if = 'answer.n is defined and answer.n + 1 > 2'");
    http.check().unwrap();
    assert!(http.fails(200, &json!({ "n": 2 })).unwrap());
    let err = http.fails(200, &json!({ "n": { "s3cret": 1 } })).unwrap_err();
    assert_eq!((err.fault(), err.side()), (Fault::Permanent, Side::Configuration));
    assert!(!err.to_string().contains("s3cret"), "{err}");
}
