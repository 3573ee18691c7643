//! `[source.http]`: a delivery request described by templates. It is rendered for a sample call when the configuration
//! is read. So an unusable template is reported before a call depends on it.

mod error;
mod template;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior};
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

pub use self::error::RequestError;
use self::template::{compiles, for_urls, plain, render, sample};

/// A delivery request for operators with their own record service. Everything except the method is a template over the
/// document of a call. This file lists the members of the document.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpDelivery {
    #[serde(default = "default_method")]
    pub method: String,
    /// Every inserted value is percent-encoded, so it cannot leave its path segment or query parameter.
    pub url: String,
    #[serde(default)]
    pub headers: BTreeMap<String, SecretString>,
    /// The body. It must be JSON unless a header names another content type. Absent: the whole document.
    pub body: Option<String>,
    /// Send a GET first, and send its `ETag` as `If-Match`.
    #[serde(default)]
    pub if_match: bool,
    /// Detects a failure inside a 2xx answer: an expression over `status` and `answer`, the parsed JSON of the answer
    /// (null where it is not JSON). True: the delivery has failed and is retried.
    pub failed_if: Option<String>,
}

fn default_method() -> String {
    "PATCH".to_owned()
}

/// Members that templates may use.
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
/// The receiver's current record. Only bodies may use it.
const REMOTE: &str = "remote";
/// Members that `failed_if` may use.
const ANSWER: [&str; 2] = ["status", "answer"];

/// A body to send.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestBody {
    pub text: String,
    /// The parsed body, where it is JSON.
    pub json: Option<Value>,
}

impl HttpDelivery {
    /// Renders all templates for a sample call.
    ///
    /// # Errors
    /// [`RequestError::Table`] with the invalid field.
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

    /// Evaluates `failed_if` on typical answers.
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

    /// True when a 2xx answer reports a failure. `answer` is null where it is not JSON.
    ///
    /// # Errors
    /// [`RequestError::Table`] when `failed_if` cannot be evaluated for this answer. The message never contains a
    /// value.
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

    /// The HTTP method.
    ///
    /// # Errors
    /// [`RequestError::Table`] when the method does not exist.
    pub fn method(&self) -> Result<Method, RequestError> {
        let wrong = |reason: String| RequestError::table("method", reason);
        if self.method.bytes().any(|byte| byte.is_ascii_lowercase()) {
            return Err(wrong(format!("`{}`: methods are written in capitals", self.method)));
        }
        Method::from_bytes(self.method.as_bytes()).map_err(|_| wrong(format!("`{}` is no HTTP method", self.method)))
    }

    /// The URL of this call's record.
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

    /// The headers. The values of the table are marked as sensitive.
    ///
    /// # Errors
    /// [`RequestError`]. The message never contains a value.
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

    /// The body. `remote` is the receiver's record (null where it was not read).
    ///
    /// # Errors
    /// [`RequestError`], also where the headers declare JSON and the body is not JSON.
    pub fn body(&self, document: &Value, remote: &Value, headers: &HeaderMap) -> Result<RequestBody, RequestError> {
        let Some(template) = &self.body else {
            return Ok(RequestBody { text: document.to_string(), json: Some(document.clone()) });
        };
        let mut context = document.clone();
        context[REMOTE] = remote.clone();
        let text = render(&plain(UndefinedBehavior::Strict), "body", template, &context)?;
        let parsed = serde_json::from_str(&text);
        match parsed {
            Ok(json) => Ok(RequestBody { text, json: Some(json) }),
            // An empty template means an empty body.
            Err(_) if template.trim().is_empty() || !promises_json(headers) => Ok(RequestBody { text, json: None }),
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

/// `application/json`, `application/merge-patch+json` and similar types (RFC 6839 section 3.1).
fn promises_json(headers: &HeaderMap) -> bool {
    let named = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = named.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.ends_with("/json") || essence.ends_with("+json")
}

fn header_field(name: &str) -> String {
    format!("headers.{name}")
}
