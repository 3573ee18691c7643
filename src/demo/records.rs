//! A sample call-record service with versions, conditions and idempotency keys, as the target of deliveries over `http`
//! (RFC 9110 section 13; `Idempotency-Key` follows the IETF draft of that name).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use axum::Json;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// The receiver's record of one call.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// 1 when registered, plus one for every change. The `ETag` is `"v1"`.
    pub version: u64,
    /// Number of changes that were carried out.
    pub effects: u64,
    pub body: Value,
}

impl Record {
    fn etag(&self) -> String {
        format!("\"v{}\"", self.version)
    }

    pub(super) fn answer(&self) -> Response {
        ([(header::ETAG, self.etag())], Json(self.body.clone())).into_response()
    }
}

/// A request with an idempotency key and its result.
struct Remembered {
    call_id: String,
    asked: Value,
    outcome: Record,
}

#[derive(Default)]
struct HeldRecords {
    records: HashMap<String, Record>,
    by_key: HashMap<String, Remembered>,
}

/// How the receiver treats an `Idempotency-Key`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum IdempotencyKeys {
    /// A repeated request gets its first answer.
    #[default]
    Remembered,
    /// A repeated request is carried out again, as in most services.
    Ignored,
}

/// All records.
#[derive(Default)]
pub(super) struct Records {
    held: Mutex<HeldRecords>,
    pub keys: IdempotencyKeys,
}

#[derive(Clone, Copy)]
pub(super) enum RecordChange {
    Replace,
    Merge,
}

impl Records {
    pub(super) fn register(&self, call_id: &str, body: Value) {
        let record = Record { version: 1, effects: 0, body };
        self.held.lock().unwrap_or_else(PoisonError::into_inner).records.insert(call_id.to_owned(), record);
    }

    pub(super) fn get(&self, call_id: &str) -> Option<Record> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).records.get(call_id).cloned()
    }

    pub(super) fn write(&self, call_id: String, headers: &HeaderMap, asked: Value, change: RecordChange) -> Response {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let key = text("idempotency-key").filter(|_| self.keys == IdempotencyKeys::Remembered).map(str::to_owned);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        // A repeated request gets its first answer, although its condition no longer holds.
        if let Some(known) = key.as_ref().and_then(|key| held.by_key.get(key)) {
            if known.call_id != call_id || known.asked != asked {
                return error(StatusCode::UNPROCESSABLE_ENTITY, "this idempotency key belongs to another request");
            }
            return known.outcome.answer();
        }
        let before = held.records.get(&call_id);
        let holds = match (text("if-match"), before) {
            (None, _) | (Some("*"), Some(_)) => true,
            (Some(tag), Some(record)) => tag == record.etag(),
            (Some(_), None) => false,
        };
        if !holds {
            return error(StatusCode::PRECONDITION_FAILED, "the record has changed");
        }
        let body = match (change, before.map(|record| record.body.clone())) {
            (RecordChange::Merge, Some(Value::Object(mut body))) => {
                body.extend(asked.as_object().cloned().unwrap_or_default());
                Value::Object(body)
            }
            _ => asked.clone(),
        };
        let (version, effects) = before.map_or((1, 1), |record| (record.version + 1, record.effects + 1));
        let record = Record { version, effects, body };
        held.records.insert(call_id.clone(), record.clone());
        if let Some(key) = key {
            held.by_key.insert(key, Remembered { call_id, asked, outcome: record.clone() });
        }
        record.answer()
    }
}

pub(super) fn error(status: StatusCode, text: &str) -> Response {
    (status, Json(json!({ "error": text }))).into_response()
}
