//! API keys. A key is shown once, when it is made. The store holds its SHA-256. A key has 256 random bits, which cannot
//! be brute-forced, so that no slow hash is needed.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use sqlx::FromRow;

use super::{Store, StoreError, from_ms, on_pool, to_ms};
use crate::domain::ParseError;

/// A permission of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    CallsRead,
    RecordingsRead,
    TranscriptsRead,
    CallsWrite,
    CallsHangup,
    CallsDelete,
    HoldsWrite,
    Erase,
    Admin,
}

const SCOPES: [(Scope, &str); 9] = [
    (Scope::CallsRead, "calls:read"),
    (Scope::RecordingsRead, "recordings:read"),
    (Scope::TranscriptsRead, "transcripts:read"),
    (Scope::CallsWrite, "calls:write"),
    (Scope::CallsHangup, "calls:hangup"),
    (Scope::CallsDelete, "calls:delete"),
    (Scope::HoldsWrite, "holds:write"),
    (Scope::Erase, "erase"),
    (Scope::Admin, "admin"),
];

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SCOPES.iter().find(|(scope, _)| scope == self).map_or("", |(_, word)| word))
    }
}

impl FromStr for Scope {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        SCOPES.iter().find(|(_, word)| *word == text).map(|(scope, _)| *scope).ok_or(ParseError::new(
            "scope",
            "is none of calls:read, recordings:read, transcripts:read, calls:write, calls:hangup, calls:delete, holds:write, erase, admin",
        ))
    }
}

/// A stored key.
#[derive(Debug, Clone)]
pub struct ApiKey {
    pub id: String,
    pub name: String,
    pub scopes: Vec<Scope>,
    /// The platform's organisation id to which the key is limited. `None` allows every organisation.
    pub org_id: Option<String>,
    pub created_at: Timestamp,
    pub revoked_at: Option<Timestamp>,
}

impl ApiKey {
    /// Whether the key has this permission. `admin` includes all.
    #[must_use]
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope) || self.scopes.contains(&Scope::Admin)
    }
}

#[derive(Debug, FromRow)]
struct KeyRow {
    id: String,
    name: String,
    scopes: String,
    org_id: Option<String>,
    created_at: i64,
    revoked_at: Option<i64>,
}

fn hash(key: &str) -> String {
    hex::encode(Sha256::digest(key.as_bytes()))
}

impl Store {
    /// Stores the hash of a new key and returns the key's id.
    pub async fn add_key(
        &self,
        name: &str,
        secret: &str,
        scopes: &[Scope],
        org_id: Option<&str>,
        now: Timestamp,
    ) -> Result<String, StoreError> {
        let id = uuid::Uuid::now_v7().to_string();
        let scopes = scopes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        on_pool!(&self.db, |pool| sqlx::query(
            "INSERT INTO api_key (id, name, hash, scopes, org_id, created_at) VALUES ($1, $2, $3, $4, $5, $6)"
        )
        .bind(&id)
        .bind(name)
        .bind(hash(secret))
        .bind(scopes)
        .bind(org_id)
        .bind(to_ms(now))
        .execute(pool)
        .await
        .map(drop)?);
        Ok(id)
    }

    /// The key with this secret, unless revoked. The lookup compares hashes, so that its timing reveals nothing about
    /// the secret.
    pub async fn key_by_secret(&self, secret: &str) -> Result<Option<ApiKey>, StoreError> {
        let row: Option<KeyRow> = on_pool!(&self.db, |pool| sqlx::query_as(
            "SELECT id, name, scopes, org_id, created_at, revoked_at FROM api_key \
             WHERE hash = $1 AND revoked_at IS NULL"
        )
        .bind(hash(secret))
        .fetch_optional(pool)
        .await?);
        Ok(row.map(KeyRow::read))
    }

    /// All keys, including revoked ones.
    pub async fn keys(&self) -> Result<Vec<ApiKey>, StoreError> {
        let rows: Vec<KeyRow> = on_pool!(&self.db, |pool| sqlx::query_as(
            "SELECT id, name, scopes, org_id, created_at, revoked_at FROM api_key ORDER BY id"
        )
        .fetch_all(pool)
        .await?);
        Ok(rows.into_iter().map(KeyRow::read).collect())
    }

    /// Revokes keys by id or name. Returns their number.
    pub async fn revoke_key(&self, id_or_name: &str, now: Timestamp) -> Result<u64, StoreError> {
        Ok(on_pool!(&self.db, |pool| sqlx::query(
            "UPDATE api_key SET revoked_at = $2 WHERE (id = $1 OR name = $1) AND revoked_at IS NULL"
        )
        .bind(id_or_name)
        .bind(to_ms(now))
        .execute(pool)
        .await?
        .rows_affected()))
    }
}

impl KeyRow {
    fn read(self) -> ApiKey {
        ApiKey {
            id: self.id,
            name: self.name,
            scopes: self.scopes.split(' ').filter_map(|word| word.parse().ok()).collect(),
            org_id: self.org_id,
            created_at: from_ms(self.created_at),
            revoked_at: self.revoked_at.map(from_ms),
        }
    }
}
