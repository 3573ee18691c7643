//! `[source.http]`: a write-back request described by templates. It is tried on a sample call when the configuration
//! is read, so that a template nobody could fill in is found before a call waits for it.

mod template;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior};
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use self::template::{compiles, for_urls, plain, render, sample};

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
    /// A failure inside an answer of success: an expression over `status` and `answer`, the parsed JSON of the answer (null
    /// where it is none). True: the delivery has failed and is tried again.
    pub failed_if: Option<String>,
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
/// What `failed_if` may use.
const ANSWER: [&str; 2] = ["status", "answer"];

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
        self.check_failed_if()
    }

    /// Tries `failed_if` on answers as receivers give them.
    fn check_failed_if(&self) -> Result<(), RequestError> {
        let Some(expression) = &self.failed_if else { return Ok(()) };
        let wrong = |reason: String| RequestError::table("failed_if", reason);
        let environment = plain(UndefinedBehavior::Chainable);
        let compiled = environment.compile_expression(expression).map_err(|err| wrong(err.to_string()))?;
        let used = compiled.undeclared_variables(false);
        let known = |name: &str| ANSWER.contains(&name) || environment.globals().any(|(global, _)| global == name);
        let mut unknown: Vec<&String> = used.iter().filter(|name| !known(name)).collect();
        unknown.sort();
        if let Some(name) = unknown.first() {
            return Err(wrong(format!("there is no `{name}`; there are {}", ANSWER.join(", "))));
        }
        if !ANSWER.iter().any(|name| used.contains(*name)) {
            return Err(wrong(
                "it looks at neither `status` nor `answer`: every answer would mean the same".to_owned(),
            ));
        }
        for answer in [json!({}), Value::Null] {
            self.fails(200, &answer)?;
        }
        Ok(())
    }

    /// Whether an answer of success tells of a failure. `answer` is null where it is no JSON.
    ///
    /// # Errors
    /// [`RequestError::Table`] when `failed_if` cannot be worked out for this answer; it never repeats a value.
    pub fn fails(&self, status: u16, answer: &Value) -> Result<bool, RequestError> {
        let Some(expression) = &self.failed_if else { return Ok(false) };
        let environment = plain(UndefinedBehavior::Chainable);
        let told = |err: minijinja::Error| {
            RequestError::table("failed_if", format!("cannot be worked out for this answer: {}", err.kind()))
        };
        let compiled = environment.compile_expression(expression).map_err(told)?;
        let value = compiled.eval(Serde(json!({ "status": status, "answer": answer }))).map_err(told)?;
        Ok(value.is_true())
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
