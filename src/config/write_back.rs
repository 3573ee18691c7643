//! `[source.http]`: a write-back request described by templates. It is tried on a sample call when the configuration
//! is read, so that a template nobody could fill in is found before a call waits for it.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::{self, Write};

use minijinja::value::Serde;
use minijinja::{Environment, ErrorKind, Output, State, UndefinedBehavior, Value as Inserted};
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use crate::domain::{Classify, Fault, Side};

/// A write-back request for users who own the call record's service. Everything but the method is a template over
/// the document of a call (its members are listed in this file).
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpWriteBack {
    #[serde(default = "default_method")]
    pub method: String,
    /// Every value inserted is percent-encoded: it stays inside its step of the path, or its part of the query.
    pub url: String,
    #[serde(default)]
    pub headers: BTreeMap<String, SecretString>,
    /// Gives JSON unless a content-type among the headers says otherwise; the whole document when absent.
    pub body: Option<String>,
    /// Ask with GET first and send `If-Match` with the `ETag` it answers.
    #[serde(default)]
    pub if_match: bool,
}

fn default_method() -> String {
    "PATCH".to_owned()
}

/// What templates may use.
const MEMBERS: [&str; 9] = [
    "call",
    "outcome",
    "transcript",
    "transcript_version",
    "quality_metrics",
    "flags",
    "artifacts",
    "retain_until",
    "idempotency_key",
];
/// The receiver's record as read, which bodies may use too.
const REMOTE: &str = "remote";

/// Why the request cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The table is at fault.
    #[error("source.http.{field}: {reason}")]
    Table { field: String, reason: String },
    /// A value of the call has no place there.
    #[error("source.http.{field}: {reason}")]
    Call { field: String, reason: String },
}

impl Classify for RequestError {
    fn fault(&self) -> Fault {
        Fault::Permanent
    }

    fn side(&self) -> Side {
        match self {
            Self::Table { .. } => Side::Configuration,
            Self::Call { .. } => Side::Source,
        }
    }
}

impl RequestError {
    fn table(field: &str, reason: impl fmt::Display) -> Self {
        Self::Table { field: field.to_owned(), reason: reason.to_string() }
    }

    fn call(field: &str, reason: impl fmt::Display) -> Self {
        Self::Call { field: field.to_owned(), reason: reason.to_string() }
    }

    /// The key in a file's `index`-th source, and the reason.
    pub(super) fn in_source(&self, index: usize) -> String {
        let (Self::Table { field, reason } | Self::Call { field, reason }) = self;
        format!("source[{index}].http.{field}: {reason}")
    }
}

/// A body as it is sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Body {
    pub text: String,
    /// What it says, where it is JSON.
    pub json: Option<Value>,
}

impl HttpWriteBack {
    /// Tries everything on a sample call.
    ///
    /// # Errors
    /// [`RequestError::Table`] with the field that nothing could be made of.
    pub fn check(&self) -> Result<(), RequestError> {
        self.method()?;
        let (plain, for_urls) = (plain(UndefinedBehavior::Chainable), for_urls(UndefinedBehavior::Chainable));
        compiles(&for_urls, "url", &self.url, &MEMBERS)?;
        self.url_by(&for_urls, &sample())?;
        for (name, template) in &self.headers {
            compiles(&plain, &header_field(name), template.expose_secret(), &MEMBERS)?;
        }
        self.headers_by(&plain, &sample()).map_err(|err| match err {
            RequestError::Call { field, reason } => RequestError::Table { field, reason },
            table @ RequestError::Table { .. } => table,
        })?;
        if let Some(template) = &self.body {
            compiles(&plain, "body", template, &[&MEMBERS[..], &[REMOTE]].concat())?;
        }
        Ok(())
    }

    /// The method.
    ///
    /// # Errors
    /// [`RequestError::Table`] when there is none of this name.
    pub fn method(&self) -> Result<Method, RequestError> {
        let wrong = |reason: String| RequestError::table("method", reason);
        if self.method.bytes().any(|byte| byte.is_ascii_lowercase()) {
            return Err(wrong(format!("`{}`: methods are written in capitals", self.method)));
        }
        Method::from_bytes(self.method.as_bytes()).map_err(|_| wrong(format!("`{}` is no HTTP method", self.method)))
    }

    /// Where the record of this call is.
    ///
    /// # Errors
    /// [`RequestError`].
    pub fn url(&self, document: &Value) -> Result<Url, RequestError> {
        self.url_by(&for_urls(UndefinedBehavior::Strict), document)
    }

    fn url_by(&self, environment: &Environment<'_>, document: &Value) -> Result<Url, RequestError> {
        let text = render(environment, "url", &self.url, document)?;
        let url =
            Url::parse(&text).map_err(|err| RequestError::table("url", format!("makes no absolute URL: {err}")))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(RequestError::table("url", "must be http or https"));
        }
        Ok(url)
    }

    /// The headers, those of the table marked as secrets.
    ///
    /// # Errors
    /// [`RequestError`]; it never repeats a value.
    pub fn headers(&self, document: &Value) -> Result<HeaderMap, RequestError> {
        self.headers_by(&plain(UndefinedBehavior::Strict), document)
    }

    fn headers_by(&self, environment: &Environment<'_>, document: &Value) -> Result<HeaderMap, RequestError> {
        let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        for (name, template) in &self.headers {
            let field = header_field(name);
            let text = render(environment, &field, template.expose_secret(), document)?;
            let name = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| RequestError::table(&field, "this is no name of a header"))?;
            let mut value = HeaderValue::from_str(&text)
                .map_err(|_| RequestError::call(&field, "its value has a line break or another control character"))?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        Ok(headers)
    }

    /// The body, over the receiver's record as read (null where it was not).
    ///
    /// # Errors
    /// [`RequestError`], also where the headers promise JSON and it is none.
    pub fn body(&self, document: &Value, remote: &Value, headers: &HeaderMap) -> Result<Body, RequestError> {
        let Some(template) = &self.body else {
            return Ok(Body { text: document.to_string(), json: Some(document.clone()) });
        };
        let mut context = document.clone();
        context[REMOTE] = remote.clone();
        let text = render(&plain(UndefinedBehavior::Strict), "body", template, &context)?;
        let parsed = serde_json::from_str(&text);
        match parsed {
            Ok(json) => Ok(Body { text, json: Some(json) }),
            // Nothing at all was asked for.
            Err(_) if template.trim().is_empty() || !promises_json(headers) => Ok(Body { text, json: None }),
            Err(err) => {
                let (line, column) = (err.line(), err.column());
                let reason = format!(
                    "what it gives is not JSON (line {line}, column {column}); insert texts with `| tojson`, or name \
                     another content-type in source.http.headers"
                );
                Err(RequestError::table("body", reason))
            }
        }
    }
}

/// `application/json`, `application/merge-patch+json` and the like (RFC 6839 section 3.1).
fn promises_json(headers: &HeaderMap) -> bool {
    let named = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = named.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.ends_with("/json") || essence.ends_with("+json")
}

fn header_field(name: &str) -> String {
    format!("headers.{name}")
}

fn plain(undefined: UndefinedBehavior) -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(undefined);
    environment
}

fn for_urls(undefined: UndefinedBehavior) -> Environment<'static> {
    let mut environment = plain(undefined);
    environment.set_formatter(into_url);
    environment
}

/// A value that must not stand in a URL.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Unfit(&'static str);

/// Percent-encodes everything but unreserved characters (RFC 3986 section 2.3). A lone `.` or `..` would still be
/// taken for a step up (section 5.2.4), so it is refused.
fn into_url(out: &mut Output<'_>, _: &mut State<'_, '_>, value: &Inserted) -> Result<(), minijinja::Error> {
    let unfit = |why| Err(minijinja::Error::new(ErrorKind::InvalidOperation, why).with_source(Unfit(why)));
    // Only the sample may lack something: strict templates do not get this far.
    if value.is_undefined() {
        return Ok(out.write_str("sample")?);
    }
    if value.is_none() {
        return unfit("a value that this call does not have is inserted");
    }
    let text = value.to_string();
    match text.as_str() {
        "." => return unfit("`.` is inserted, which would name another record"),
        ".." => return unfit("`..` is inserted, which would name another record"),
        _ => {}
    }
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.write_char(char::from(byte))?;
        } else {
            write!(out, "%{byte:02X}")?;
        }
    }
    Ok(())
}

fn render(
    environment: &Environment<'_>,
    field: &str,
    template: &str,
    document: &Value,
) -> Result<String, RequestError> {
    environment.render_str(template, Serde(document)).map_err(|err| {
        let unfit = err.source().and_then(|source| source.downcast_ref::<Unfit>());
        match unfit {
            Some(unfit) => RequestError::call(field, format!("{unfit}{}", climbing(document))),
            None => RequestError::table(field, format!("cannot be filled in: {}", told(field, &err))),
        }
    })
}

/// Which member of the call's document is a step up, where one is.
fn climbing(document: &Value) -> String {
    let at = |value: &Value| matches!(value.as_str(), Some("." | ".."));
    let mut call = document["call"].as_object().into_iter().flatten();
    call.find(|(_, value)| at(value)).map(|(key, _)| format!(" (call.{key})")).unwrap_or_default()
}

/// What is wrong with a template, without anything of a header's, which may be a key.
fn told(field: &str, err: &minijinja::Error) -> String {
    if field.starts_with("headers.") { err.kind().to_string() } else { err.to_string() }
}

/// Whether it is a template, and uses only what there is.
fn compiles(environment: &Environment<'_>, field: &str, template: &str, members: &[&str]) -> Result<(), RequestError> {
    let compiled = environment.template_from_str(template);
    let compiled = compiled.map_err(|err| RequestError::table(field, told(field, &err)))?;
    let call = sample()["call"].as_object().cloned().unwrap_or_default();
    let known = |name: &str| {
        let mut steps = name.split('.');
        match (steps.next(), steps.next()) {
            (Some("call"), Some(member)) => call.contains_key(member),
            (Some(member), _) => members.contains(&member) || environment.globals().any(|(name, _)| name == member),
            (None, _) => false,
        }
    };
    let mut unknown: Vec<String> =
        compiled.undeclared_variables(true).into_iter().filter(|name| !known(name)).collect();
    unknown.sort();
    match unknown.first() {
        Some(name) => {
            Err(RequestError::table(field, format!("there is no `{name}`; there are {}", members.join(", "))))
        }
        None => Ok(()),
    }
}

/// A call as templates see it.
fn sample() -> Value {
    json!({
        "call": {
            "id": "call_sample", "uid": "01890000-0000-7000-8000-000000000000", "source": "sample", "org_id": "org",
            "direction": "inbound", "duration_ms": 60_000, "ended_at": "2026-01-01T00:00:00Z",
        },
        "outcome": "done",
        "transcript": "[Agent]: Hello",
        "transcript_version": 1,
        "quality_metrics": {},
        "flags": [],
        "artifacts": [],
        "retain_until": "2026-04-01T00:00:00Z",
        "idempotency_key": "01890000-0000-7000-8000-000000000001",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> HttpWriteBack {
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
        assert_eq!(text, Body { text: "it was done".to_owned(), json: None });
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
}
